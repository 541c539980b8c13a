"""Any range of a message with edits equals the slice of the message as it was sent."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mail.edits.patches import Patch, patched
from gateway.portal.reading.patched import patched_read
from tests.portal.reading_world import reader

DATA = bytes(range(100))


@st.composite
def edits(draw: st.DrawFn) -> list[Patch]:
    places = sorted(draw(st.lists(st.integers(0, 100), max_size=8)))
    pairs = list(zip(places[::2], places[1::2], strict=False))
    return [Patch(start, end, draw(st.binary(max_size=12))) for start, end in pairs]


@settings(max_examples=300)
@given(edits(), st.integers(0, 200), st.integers(0, 200))
async def test_any_range_equals_the_slice(patches: list[Patch], one: int, other: int) -> None:
    whole = patched(DATA, patches)
    start, end = sorted((min(one, len(whole)), min(other, len(whole))))
    read = patched_read(reader(DATA, 7), patches)
    assert b"".join([piece async for piece in read(start, end)]) == whole[start:end]


async def test_without_edits_it_is_the_same_reader() -> None:
    read = reader(DATA)
    assert patched_read(read, []) is read
