"""Sealed bytes open to what was sealed, or not at all."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import StoreCorrupt
from gateway.store.sealing import CHUNK, MAGIC, Opener, Sealer, sealed_size

KEY = bytes(range(32))
ID = "019b76da-a800-7000-8000-000000000000"
FRAME = CHUNK + 16
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5]


def sealed(plain: bytes, cuts: list[int] | None = None) -> bytes:
    sealer = Sealer(KEY, ID)
    out = b"".join(sealer.update(piece) for piece in split(plain, cuts or []))
    return out + sealer.finish()


def opened(data: bytes, cuts: list[int] | None = None, *, key: bytes = KEY, message: str = ID) -> bytes:
    opener = Opener(key, message)
    out = b"".join(plain for piece in split(data, cuts or []) for plain in opener.update(piece))
    return out + opener.finish()


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def pattern(size: int) -> bytes:
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_comes_back(size: int) -> None:
    data = sealed(pattern(size))
    assert opened(data) == pattern(size)
    assert len(data) == sealed_size(size)
    assert pattern(size)[:16] not in data or size < 16


@settings(max_examples=60)
@given(
    st.sampled_from(SIZES),
    st.lists(st.integers(0, 4 * FRAME), max_size=6),
    st.lists(st.integers(0, 4 * FRAME), max_size=6),
)
def test_how_it_was_cut_on_either_side_does_not_matter(size: int, before: list[int], after: list[int]) -> None:
    assert sealed(pattern(size), before) == sealed(pattern(size))
    assert opened(sealed(pattern(size)), after) == pattern(size)


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=4))
def test_any_bytes_come_back(plain: bytes, cuts: list[int]) -> None:
    assert opened(sealed(plain, cuts), cuts) == plain


@pytest.mark.parametrize("size", SIZES)
def test_cut_short_at_any_border_is_corrupt(size: int) -> None:
    data = sealed(pattern(size))
    borders = {0, 1, len(MAGIC), len(data) - 1, len(data) - 16, len(data) - 17}
    borders |= {len(MAGIC) + FRAME * number + off for number in range(4) for off in (-1, 0, 1)}
    for border in sorted(border for border in borders if 0 <= border < len(data)):
        with pytest.raises(StoreCorrupt):
            opened(data[:border])


@settings(max_examples=80)
@given(st.sampled_from([0, 1, CHUNK, CHUNK + 1]), st.data())
def test_a_changed_bit_is_corrupt(size: int, data: st.DataObject) -> None:
    good = bytearray(sealed(pattern(size)))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StoreCorrupt):
        opened(bytes(good))


def test_swapped_repeated_and_dropped_chunks_are_corrupt() -> None:
    data = sealed(pattern(3 * CHUNK + 5))
    head, rest = data[: len(MAGIC)], data[len(MAGIC) :]
    a, b, c, last = (rest[number * FRAME : (number + 1) * FRAME] for number in range(4))
    for order in ([b, a, c, last], [a, a, b, c, last], [a, c, last], [a, b, c], [last], [a, b, c, last, last]):
        with pytest.raises(StoreCorrupt):
            opened(head + b"".join(order))


@pytest.mark.parametrize("size", [0, 1, CHUNK + 1])
def test_another_key_or_another_message_opens_nothing(size: int) -> None:
    data = sealed(pattern(size))
    with pytest.raises(StoreCorrupt):
        opened(data, key=bytes(32))
    with pytest.raises(StoreCorrupt):
        opened(data, message=ID.replace("0", "1"))


def test_bytes_behind_the_end_are_corrupt() -> None:
    with pytest.raises(StoreCorrupt):
        opened(sealed(b"short") + b"x")


def test_no_byte_is_given_out_before_it_was_authenticated() -> None:
    data = bytearray(sealed(pattern(2 * CHUNK)))
    data[len(MAGIC) + FRAME + 3] ^= 1  # in the second chunk
    opener = Opener(KEY, ID)
    given_out = b"".join(opener.update(bytes(data)))
    assert given_out == pattern(2 * CHUNK)[:CHUNK]
    with pytest.raises(StoreCorrupt):
        opener.finish()
