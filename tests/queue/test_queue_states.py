"""The table alone changes states: everything is either in it or refused, and nothing live is stuck."""

from __future__ import annotations

import pytest

from gateway.errors import QueueError
from gateway.queue.states import IN_QUEUE, LIVE, TABLE, TERMINAL, Notice, State, StateEvent, advance
from gateway.store.schema import HELD, READY, WAITING
from gateway.store.store import COUNTED_STATES

#: What was recalled is at its end, unless it is given again before its content has gone.
TAKEN_BACK = (State.RECALLED, StateEvent.RESTORE)
PAIRS = [(state, event) for state in State for event in StateEvent]


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=[f"{s}-{e}" for s, e in PAIRS])
def test_each_state_and_event_is_in_the_table_or_refused(state: State, event: StateEvent) -> None:
    known = TABLE.get((state, event))
    if known is None:
        with pytest.raises(QueueError, match=f"{state} cannot {event}"):
            advance(state, event)
        return
    assert state in LIVE or (state, event) == TAKEN_BACK
    assert advance(state, event) == known
    silent = advance(state, event, can_tell=False)
    if known.notice is Notice.FAILURE:
        assert known.state in TERMINAL
        assert silent.state is (State.CANCELLED if event is StateEvent.CANCEL else State.DROPPED)
    else:
        assert silent == known


def test_states_are_live_or_terminal_and_only_a_recall_is_taken_back() -> None:
    assert set(State) == LIVE | TERMINAL
    assert not LIVE & TERMINAL
    assert {entry for entry in TABLE if entry[0] in TERMINAL} == {TAKEN_BACK}


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


def test_every_state_can_be_reached_and_only_the_portal_is_outside_the_queue() -> None:
    assert reachable(State.QUEUED) == set(State) - {State.DROPPED}
    assert {State.NOTICING, State.DEPOSITED} == LIVE - IN_QUEUE


def test_the_store_knows_the_same_live_states() -> None:
    assert set(COUNTED_STATES) == set(LIVE)
    for text, event in ((READY, StateEvent.CLAIM), (WAITING, StateEvent.DUE), (HELD, StateEvent.RELEASE)):
        assert [State(name) for name in str(text).split("'")[1::2]] == [
            state for (state, known) in TABLE if known is event
        ]
