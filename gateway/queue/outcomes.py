"""Writing how an attempt ended: state, evidence, counters, notices and shredding in one transaction.

An outcome counts only where the claim is still ours; another worker's claim is never overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, and_, bindparam, func, update

from gateway.errors import QueueError
from gateway.jsontext import to_json
from gateway.queue.accept import insert_message
from gateway.queue.records import NewMessage, Outcome
from gateway.queue.states import IN_QUEUE, LIVE, State, StateEvent, advance
from gateway.store.prepared import Prepared
from gateway.store.schema import messages, recipients
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = ["LeaseLost", "Recorded", "change_state", "finish_message", "record_outcomes"]


def _kept(column: Column[Any], name: str) -> Any:
    """The new value where one is given, else what stands there."""
    return func.coalesce(bindparam(name), column)


#: Ends an attempt - only of a claim that is still ours.
_END_ATTEMPT = Prepared(
    update(recipients)
    .where(
        recipients.c.message == bindparam("m"),
        recipients.c.n == bindparam("r"),
        recipients.c.state == str(State.DELIVERING),
        recipients.c.claimed_by == bindparam("owner"),
    )
    .values(
        state=bindparam("to"),
        since=bindparam("now"),
        claimed_by=bindparam("nobody"),
        attempts=recipients.c.attempts + bindparam("tries"),
        next_attempt=_kept(recipients.c.next_attempt, "next"),
        last_error=_kept(recipients.c.last_error, "error"),
        method=_kept(recipients.c.method, "by"),
        decision=_kept(recipients.c.decision, "decided"),
        unsure_since=_kept(recipients.c.unsure_since, "unsure"),
        delay_notified=_kept(recipients.c.delay_notified, "told"),
        requirement=_kept(recipients.c.requirement, "required"),
        hold_reason=_kept(recipients.c.hold_reason, "why_held"),
        hold_until=_kept(recipients.c.hold_until, "held_until"),
    )
)
#: Counts down, as long as others of the message are live.
_COUNT_ENDED = Prepared(
    update(messages)
    .where(messages.c.id == bindparam("m"), messages.c.live > bindparam("ended"))
    .values(live=messages.c.live - bindparam("ended"))
)


class LeaseLost(QueueError):
    """The claim belongs to somebody else by now: nothing was written."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a transaction of outcomes did: the state of each recipient, and whether the body was deleted."""

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
    states: dict[int, State] = {}
    for outcome in outcomes:
        states[outcome.n] = _apply(transaction, store.incarnation.id, message_id, outcome, can_tell=can_tell)
        if outcome.also is not None:
            outcome.also(transaction)
    for notice in notices:
        insert_message(transaction, store, notice, expire=notice_expire)
    ended = sum(1 for state in states.values() if state not in IN_QUEUE)
    return Recorded(states, finish_message(transaction, store, message_id, ended))


def _apply(transaction: Transaction, owner: str, message_id: str, outcome: Outcome, *, can_tell: bool) -> State:
    now = transaction.now
    after = advance(State.DELIVERING, outcome.event, can_tell=can_tell).state
    given_back = outcome.event is StateEvent.UNCLAIM
    held = after is State.HELD
    values = {
        "m": message_id,
        "r": outcome.n,
        "owner": owner,
        "to": str(after),
        "now": now,
        "nobody": None,
        "next": now if given_back else outcome.next_attempt,
        "tries": -1 if given_back else 0,
        "error": outcome.error or None,
        "by": outcome.method,
        "decided": None if outcome.decision is None else to_json(outcome.decision),
        "unsure": outcome.unsure_since,
        "told": outcome.delay_notified,
        "required": None if outcome.requirement is None else outcome.requirement.as_text(),
        "why_held": outcome.hold_reason if held else None,
        "held_until": outcome.hold_until if held else None,
    }
    if transaction.run(_END_ATTEMPT, values).rowcount != 1:
        raise LeaseLost(f"recipient {outcome.n} of {message_id} is claimed by somebody else now")
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
    """Count recipients that left the queue; with the last one the key goes, and the body unless the portal needs it."""
    if not ended:
        return False
    if transaction.run(_COUNT_ENDED, {"m": message_id, "ended": ended}).rowcount:
        return False
    return store.delete_body(transaction, message_id)
