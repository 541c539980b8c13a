"""The table alone changes states: everything is either in it or refused, and nothing live is stuck."""

from __future__ import annotations

import pytest

from gateway.errors import QueueError
from gateway.queue.states import LIVE, TABLE, TERMINAL, Notice, State, StateEvent, advance
from gateway.store.schema import HELD, READY, WAITING
from gateway.store.store import COUNTED_STATES

PAIRS = [(state, event) for state in State for event in StateEvent]


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=[f"{s}-{e}" for s, e in PAIRS])
def test_each_state_and_event_is_in_the_table_or_refused(state: State, event: StateEvent) -> None:
    known = TABLE.get((state, event))
    if known is None:
        with pytest.raises(QueueError, match=f"{state} cannot {event}"):
            advance(state, event)
        return
    assert state in LIVE
    assert advance(state, event) == known
    silent = advance(state, event, can_tell=False)
    if known.notice is Notice.FAILURE:
        assert known.state in TERMINAL
        assert silent.state is (State.CANCELLED if event is StateEvent.CANCEL else State.DROPPED)
    else:
        assert silent == known


def test_states_are_live_or_terminal_and_nothing_leaves_a_terminal_one() -> None:
    assert set(State) == LIVE | TERMINAL
    assert not LIVE & TERMINAL
    assert not {state for state, _ in TABLE} & TERMINAL


def reachable(state: State) -> set[State]:
    found, edge = {state}, {state}
    while edge:
        edge = {after.state for (before, _), after in TABLE.items() if before in edge} - found
        found |= edge
    return found


@pytest.mark.parametrize("state", sorted(reachable(State.QUEUED) & LIVE))
def test_every_live_state_can_end(state: State) -> None:
    assert reachable(state) & TERMINAL
    assert State.BOUNCED in reachable(state)
    assert any(source is state for source, _ in TABLE)


def test_states_of_the_portal_cannot_be_reached_before_there_is_one() -> None:
    assert LIVE - reachable(State.QUEUED) == {State.NOTICING, State.DEPOSITED}


def test_the_store_knows_the_same_live_states() -> None:
    assert set(COUNTED_STATES) == set(LIVE)
    for text, event in ((READY, StateEvent.CLAIM), (WAITING, StateEvent.DUE), (HELD, StateEvent.RELEASE)):
        assert [State(name) for name in str(text).split("'")[1::2]] == [
            state for (state, known) in TABLE if known is event
        ]
