"""A chain over events holds as they were written, and in no other way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.chain import Record, canonical, first_link, happenings, kinds_of, link, verify

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.lists(
    st.tuples(
        st.text("abc_", min_size=1, max_size=10),
        st.none() | st.integers(1, 1000),
        st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    ),
    min_size=1,
    max_size=3,
)
Facts = tuple[float, str | None, list[tuple[str, int | None, dict[str, object]]]]
FACTS = st.tuples(st.floats(min_value=0, max_value=4e9), st.none() | st.text("0a-", max_size=10), EVENTS)


def chain(stream: str, facts: list[Facts]) -> list[Record]:
    previous, found = first_link(stream), []
    for seq, (time, message, events) in enumerate(facts, 1):
        kinds, text = kinds_of(events), canonical(events)
        previous = link(previous, stream, seq, time, message, kinds, text)
        found.append(Record(stream, seq, time, message, kinds, text, previous))
    return found


@given(st.lists(FACTS, max_size=8), st.text(max_size=8))
def test_a_chain_holds_as_it_was_written(facts: list[Facts], stream: str) -> None:
    assert verify(stream, chain(stream, facts)) == (len(facts), "")


@given(st.lists(FACTS, min_size=2, max_size=6), st.data())
def test_any_change_is_found_at_its_place(facts: list[Facts], data: st.DataObject) -> None:
    good = chain("s", facts)
    place = data.draw(st.integers(0, len(good) - 1))
    event = good[place]
    changed = data.draw(
        st.sampled_from(
            [
                replace(event, time=event.time + 1),
                replace(event, message="other" if event.message is None else None),
                replace(event, kinds=event.kinds + "x"),
                replace(event, data=event.data + " "),
                replace(event, hash=bytes(32)),
            ]
        )
    )
    count, fault = verify("s", [*good[:place], changed, *good[place + 1 :]])
    assert count == place
    assert f"record {place + 1} of stream s was changed" in fault


@given(st.lists(FACTS, min_size=2, max_size=6), st.data())
def test_removed_inserted_and_reordered_events_are_found(facts: list[Facts], data: st.DataObject) -> None:
    good = chain("s", facts)
    place = data.draw(st.integers(0, len(good) - 2))
    removed = [*good[:place], *good[place + 1 :]]
    assert verify("s", removed)[1] == f"record {place + 1} of stream s is missing"
    assert verify("s", [*good[: place + 1], good[place], *good[place + 1 :]])[1]
    swapped = [*good]
    swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    assert verify("s", swapped)[1]
    renumbered = [replace(event, seq=seq) for seq, event in enumerate(removed, 1)]
    if place < len(removed):
        assert verify("s", renumbered)[1]


def test_an_event_of_another_stream_has_no_place() -> None:
    (event,) = chain("a", [(1.0, None, [("k", None, {})])])
    assert verify("a", [event]) == (1, "")
    assert verify("b", [event])[1]
    assert verify("b", [replace(event, stream="b")])[1]


def test_cut_at_the_end_shows_in_the_count_alone() -> None:
    """So the number of events, and the last hash, are kept beside the stream and linked by the next one."""
    good = chain("s", [(1.0, None, [("k", None, {})])] * 3)
    assert verify("s", good[:2]) == (2, "")


@given(EVENTS)
def test_what_happened_is_read_back_as_it_was_written(events: list[tuple[str, int | None, dict[str, object]]]) -> None:
    found = happenings(canonical(events))
    assert [(each.kind, each.n, each.data) for each in found] == events
    assert all(f" {each.kind} " in kinds_of(events) for each in found)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_the_text_of_data_is_one_whatever_the_order(data: dict[str, object]) -> None:
    text = canonical([("k", None, data)])
    assert canonical([("k", None, dict(reversed(data.items())))]) == text


@pytest.mark.parametrize("odd", ["\ud800", 1 << 70, {"deep": ["\udfff", -(1 << 65)]}])
def test_evidence_is_kept_whatever_text_or_number_is_in_it(odd: object) -> None:
    assert happenings(canonical([("k", 1, {"odd": odd})]))[0].data == {"odd": odd}


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical([("k", None, {"a": object()})])


def test_fields_cannot_be_moved_into_one_another() -> None:
    one = link(bytes(32), "s", 1, 1.0, "ab", "c", "[]")
    other = link(bytes(32), "s", 1, 1.0, "a", "bc", "[]")
    assert one != other
    assert link(bytes(32), "s", 1, 1.0, None, "k", "[]") != link(bytes(32), "s", 1, 1.0, "", "k", "[]")
