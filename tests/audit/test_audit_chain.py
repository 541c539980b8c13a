"""A chain over events holds as they were written, and in no other way."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.chain import Event, canonical, first_link, link, verify

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FACTS = st.tuples(
    st.floats(min_value=0, max_value=4e9),
    st.none() | st.text(max_size=10),
    st.none() | st.integers(1, 1000),
    st.text(max_size=10),
    st.dictionaries(st.text(max_size=5), JSON, max_size=3),
)


def chain(stream: str, facts: list[tuple[float, str | None, int | None, str, dict[str, object]]]) -> list[Event]:
    previous, found = first_link(stream), []
    for seq, (time, message, n, kind, data) in enumerate(facts, 1):
        text = canonical(data)
        previous = link(previous, stream, seq, time, message, n, kind, text)
        found.append(Event(stream, seq, time, message, n, kind, text, previous))
    return found


@given(st.lists(FACTS, max_size=8), st.text(max_size=8))
def test_a_chain_holds_as_it_was_written(
    facts: list[tuple[float, str | None, int | None, str, dict[str, object]]], stream: str
) -> None:
    assert verify(stream, chain(stream, facts)) == (len(facts), "")


@given(st.lists(FACTS, min_size=2, max_size=6), st.data())
def test_any_change_is_found_at_its_place(
    facts: list[tuple[float, str | None, int | None, str, dict[str, object]]], data: st.DataObject
) -> None:
    good = chain("s", facts)
    place = data.draw(st.integers(0, len(good) - 1))
    event = good[place]
    changed = data.draw(
        st.sampled_from(
            [
                replace(event, time=event.time + 1),
                replace(event, message="other" if event.message is None else None),
                replace(event, n=7 if event.n is None else None),
                replace(event, kind=event.kind + "x"),
                replace(event, data=event.data + " "),
                replace(event, hash=bytes(32)),
            ]
        )
    )
    count, fault = verify("s", [*good[:place], changed, *good[place + 1 :]])
    assert count == place
    assert f"event {place + 1} of stream s was changed" in fault


@given(st.lists(FACTS, min_size=2, max_size=6), st.data())
def test_removed_inserted_and_reordered_events_are_found(
    facts: list[tuple[float, str | None, int | None, str, dict[str, object]]], data: st.DataObject
) -> None:
    good = chain("s", facts)
    place = data.draw(st.integers(0, len(good) - 2))
    removed = [*good[:place], *good[place + 1 :]]
    assert verify("s", removed)[1] == f"event {place + 1} of stream s is missing"
    assert verify("s", [*good[: place + 1], good[place], *good[place + 1 :]])[1]
    swapped = [*good]
    swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    assert verify("s", swapped)[1]
    renumbered = [replace(event, seq=seq) for seq, event in enumerate(removed, 1)]
    if place < len(removed):
        assert verify("s", renumbered)[1]


def test_an_event_of_another_stream_has_no_place() -> None:
    (event,) = chain("a", [(1.0, None, None, "k", {})])
    assert verify("a", [event]) == (1, "")
    assert verify("b", [event])[1]
    assert verify("b", [replace(event, stream="b")])[1]


def test_cut_at_the_end_shows_in_the_count_alone() -> None:
    """So the number of events, and the last hash, are kept beside the stream and linked by the next one."""
    good = chain("s", [(1.0, None, None, "k", {})] * 3)
    assert verify("s", good[:2]) == (2, "")


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_the_text_of_data_is_one_whatever_the_order(data: dict[str, object]) -> None:
    text = canonical(data)
    assert text.isascii()
    assert json.loads(text) == data
    assert canonical(dict(reversed(data.items()))) == text


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"a": float("inf")})


def test_fields_cannot_be_moved_into_one_another() -> None:
    one = link(bytes(32), "s", 1, 1.0, "ab", None, "c", "{}")
    other = link(bytes(32), "s", 1, 1.0, "a", None, "bc", "{}")
    assert one != other
    assert link(bytes(32), "s", 1, 1.0, None, None, "k", "{}") != link(bytes(32), "s", 1, 1.0, "null", None, "k", "{}")
