"""Writing how an attempt ended: state, evidence, counters, notices and shredding in one transaction.

An outcome counts only where the claim is still ours; another worker's claim is never overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, select, update

from gateway.errors import QueueError
from gateway.queue.accept import insert_message
from gateway.queue.records import NewMessage, Outcome
from gateway.queue.states import LIVE, State, StateEvent, advance
from gateway.store.schema import messages, recipients
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = ["LeaseLost", "Recorded", "change_state", "finish_message", "record_outcomes"]


class LeaseLost(QueueError):
    """The claim belongs to somebody else by now: nothing was written."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a transaction of outcomes did: the state of each recipient, and whether the body was shredded."""

    states: dict[int, State]
    deleted: bool


def record_outcomes(
    transaction: Transaction,
    store: Store,
    message_id: str,
    outcomes: Sequence[Outcome],
    *,
    can_tell: bool,
    notices: Sequence[NewMessage] = (),
    notice_expire: float = 432000.0,
) -> Recorded:
    """Apply the outcomes of one claim. Raises :class:`LeaseLost`, with nothing written."""
    connection = transaction.connection
    owner = store.incarnation.id
    mine = set(
        connection.scalars(
            select(recipients.c.n).where(
                recipients.c.message == message_id,
                recipients.c.state == str(State.DELIVERING),
                recipients.c.claimed_by == owner,
            )
        )
    )
    lost = [outcome.n for outcome in outcomes if outcome.n not in mine]
    if lost:
        raise LeaseLost(f"recipients {lost} of {message_id} are claimed by somebody else now")
    states: dict[int, State] = {}
    for outcome in outcomes:
        states[outcome.n] = _apply(transaction, message_id, outcome, can_tell=can_tell)
    for notice in notices:
        insert_message(transaction, store, notice, expire=notice_expire)
    ended = sum(1 for state in states.values() if state not in LIVE)
    return Recorded(states, finish_message(transaction, store, message_id, ended))


def _apply(transaction: Transaction, message_id: str, outcome: Outcome, *, can_tell: bool) -> State:
    now = transaction.now
    after = advance(State.DELIVERING, outcome.event, can_tell=can_tell).state
    values: dict[str, Any] = {"state": str(after), "since": now, "claimed_by": None}
    if outcome.next_attempt is not None:
        values["next_attempt"] = outcome.next_attempt
    if outcome.event is StateEvent.UNCLAIM:
        values["next_attempt"] = now
        values["attempts"] = recipients.c.attempts - 1
    optional = {
        "last_error": outcome.error or None,
        "method": outcome.method,
        "decision": None if outcome.decision is None else json.dumps(outcome.decision),
        "unsure_since": outcome.unsure_since,
        "delay_notified": outcome.delay_notified,
        "requirement": None if outcome.requirement is None else json.dumps(outcome.requirement.as_json()),
    }
    values.update({key: value for key, value in optional.items() if value is not None})
    if after is State.HELD:
        values.update(hold_reason=outcome.hold_reason, hold_until=outcome.hold_until)
    transaction.connection.execute(
        update(recipients).where(and_(recipients.c.message == message_id, recipients.c.n == outcome.n)).values(**values)
    )
    transaction.count(f"recipients.{State.DELIVERING}", -1)
    if after in LIVE:
        transaction.count(f"recipients.{after}", 1)
    for attempt in outcome.attempts:
        transaction.event("attempt", attempt.as_json(), message=message_id, n=outcome.n)
    transaction.event(str(after), _facts(outcome, live=after in LIVE), message=message_id, n=outcome.n)
    return after


def _facts(outcome: Outcome, *, live: bool) -> dict[str, Any]:
    """What the event of a state change says beside the state."""
    facts: dict[str, Any] = {
        "event": str(outcome.event),
        "error": outcome.error,
        "method": outcome.method,
        "passed_over": None if outcome.decision is None else outcome.decision.get("passed_over"),
        "next_attempt": outcome.next_attempt if live else None,
        "reason": outcome.hold_reason,
        "possible_duplicate": outcome.possible_duplicate,
    }
    if outcome.requirement is not None:
        requirement = outcome.requirement.as_json()
        facts.update({key: requirement[key] for key in ("policy", "methods", "tls")})
    return {key: value for key, value in facts.items() if value}


def change_state(
    transaction: Transaction,
    row: Any,
    event: StateEvent,
    *,
    can_tell: bool = True,
    values: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
) -> State:
    """Move one recipient (its row) by an event other than the end of an attempt. Raises ``QueueError``."""
    before = State(row.state)
    after = advance(before, event, can_tell=can_tell).state
    transaction.connection.execute(
        update(recipients)
        .where(and_(recipients.c.message == row.message, recipients.c.n == row.n))
        .values(state=str(after), since=transaction.now, claimed_by=None, **(values or {}))
    )
    if after is not before:
        if before in LIVE:
            transaction.count(f"recipients.{before}", -1)
        if after in LIVE:
            transaction.count(f"recipients.{after}", 1)
    transaction.event(str(after), {"event": str(event), **(facts or {})}, message=row.message, n=row.n)
    return after


def finish_message(transaction: Transaction, store: Store, message_id: str, ended: int) -> bool:
    """Count recipients that became terminal; with the last one the wrapped key and the body go."""
    if not ended:
        return False
    connection = transaction.connection
    connection.execute(update(messages).where(messages.c.id == message_id).values(live=messages.c.live - ended))
    live = connection.execute(select(messages.c.live).where(messages.c.id == message_id)).scalar_one()
    if live > 0:
        return False
    store.delete_body(transaction, message_id)
    return True
