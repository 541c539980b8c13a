"""Deciding waiting mail anew because an operator asks for it, by the policy of now.

Without ``allow_weaker`` it is what the next attempt would do by itself: the new requirement joins the old one, so that
it can only come out stricter - but at once, and for held mail, too. With it the new requirement takes the place of the
old one, whatever that asked for: the one way in which protection is ever loosened, message by message, with the
operator's name and reason in the event, beside what was required before and after.

Who holds what: a hold of policy ends where policy, with ``allow_weaker``, holds it no longer. A hold of an operator, or
of a fault of ours, is for a person to release. No method left: it is held, and cannot be released.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select, update

from gateway.delivery.waiting_facts import facts_now
from gateway.errors import QueueError
from gateway.jsontext import from_json
from gateway.mail.envelope import Message
from gateway.mail.protection import Disposition, Requirement
from gateway.policy import Policy, evaluate
from gateway.queue.announce import HeldNow, holding_rules, tell_held
from gateway.queue.notices import NoticeEntry, read_header
from gateway.queue.outcomes import change_state
from gateway.queue.queue import Queue, schedule_of
from gateway.queue.records import message_from_row, recipient_from_row
from gateway.queue.states import State, StateEvent
from gateway.scanning import Scanners
from gateway.store.schema import messages, recipients
from gateway.store.writer import Transaction

__all__ = ["Operator", "Redecided", "redecide"]

#: States in which a recipient waits; one that is being delivered is in a worker's hands.
_WAITING = frozenset({State.QUEUED, State.DEFERRED, State.HELD})
#: Seconds that mail which an operator let go has at least to be tried.
_LEAST_TIME = 3600.0


@dataclass(frozen=True, slots=True)
class Operator:
    """Who decides, why, and whether what comes out may be weaker than what was required."""

    name: str
    reason: str = ""
    allow_weaker: bool = False


@dataclass(frozen=True, slots=True)
class Redecided:
    """What came of one recipient: its state, and the requirement before and after."""

    state: State
    before: Requirement
    after: Requirement

    @property
    def changed(self) -> bool:
        """Whether anything but the policy's digest is different."""
        return replace(self.before, digest="") != replace(self.after, digest="")


async def redecide(
    queue: Queue, policy: Policy, scanners: Scanners, message_id: str, ns: Sequence[int], operator: Operator
) -> dict[int, Redecided | QueueError]:
    """Decide recipients ``ns`` of this message anew; those of which it cannot be done with the reason why.

    Raises :class:`QueueError` where that is the whole message, ``ScanBusy``, :class:`~gateway.errors.StoreError`.
    """
    row, rows = await queue.store.read(lambda connection: _load(connection, message_id))
    done: dict[int, Redecided | QueueError] = {}
    able = {}
    for n in ns:
        try:
            able[n] = _able(message_id, n, rows.get(n))
        except QueueError as error:
            done[n] = error
    if not able:
        return done
    message, _ = message_from_row(row, tuple(recipient_from_row(each) for each in able.values()))
    decided = await _decide(queue, policy, scanners, message, able, operator)
    rejected = {n: after for n, after in decided.items() if after.disposition is Disposition.REJECT}
    kept = {n: after for n, after in decided.items() if n not in rejected}
    if kept:
        done |= await _keep(queue, message, able, kept, operator)
    for n, after in rejected.items():
        done[n] = await _reject(queue, message_id, able[n], after, operator)
    return done


def _load(connection: Connection, message_id: str) -> tuple[Any, dict[int, Any]]:
    row = connection.execute(select(messages).where(messages.c.id == message_id)).first()
    if row is None:
        raise QueueError(f"there is no message {message_id}")
    if row.system:
        raise QueueError(f"{message_id} is mail of our own, which stands outside policy")
    if row.observed:
        raise QueueError(f"{message_id} came by a connector in stage observe: policy was not applied to it")
    found = connection.execute(select(recipients).where(recipients.c.message == message_id))
    return row, {each.n: each for each in found}


def _able(message_id: str, n: int, row: Any) -> Any:
    if row is None:
        raise QueueError(f"there is no recipient {message_id}.{n}")
    if row.state == State.DELIVERING:
        raise QueueError(f"{message_id}.{n} is being delivered right now; try again in a moment")
    if row.state not in _WAITING:
        raise QueueError(f"{message_id}.{n} is {row.state}: there is nothing left to decide")
    return row


async def _decide(
    queue: Queue, policy: Policy, scanners: Scanners, message: Message, rows: dict[int, Any], operator: Operator
) -> dict[int, Requirement]:
    """What each needs by the policy of now."""

    def body() -> AsyncIterator[bytes]:
        return queue.store.body(message.id)

    common = await facts_now(
        message,
        policy,
        body,
        scanners,
        now=queue.clock.time(),
        header_limit=queue.settings().limits.header_size,
    )
    decided = {}
    for n, row in rows.items():
        approvals = frozenset(from_json(row.approvals))
        now = evaluate(policy, replace(common, recipient=recipient_from_row(row).address, approvals=approvals))
        decided[n] = now if operator.allow_weaker else _requirement(row).join(now)
    return decided


def _requirement(row: Any) -> Requirement:
    return Requirement.from_json(from_json(row.requirement))


async def _keep(
    queue: Queue, message: Message, rows: dict[int, Any], decided: dict[int, Requirement], operator: Operator
) -> dict[int, Redecided | QueueError]:
    """Write what is to be delivered or held, in one transaction; who is held from now on is told of."""
    header = await read_header(queue.store, message.id)
    settings = queue.settings()
    longest = schedule_of(settings).expire

    def job(transaction: Transaction) -> dict[int, Redecided | QueueError]:
        done: dict[int, Redecided | QueueError] = {}
        held: list[HeldNow] = []
        for n, after in decided.items():
            try:
                fresh = _fresh(transaction, rows[n])
            except QueueError as error:
                done[n] = error
                continue
            before = _requirement(fresh)
            _record(transaction, fresh, before, after, operator)
            until = transaction.now + (after.hold_expires or longest)
            state = _move(transaction, fresh, before, after, until, operator)
            if state is State.HELD and fresh.state != State.HELD:
                held.append(HeldNow(recipient_from_row(fresh), after.reason, holding_rules(after), until))
            done[n] = Redecided(state, before, after)
        if held:
            tell_held(transaction, queue.store, settings, message, held, header, whole=False)
        return done

    done = await queue.store.write(job)
    queue.wake.set()
    return done


def _fresh(transaction: Transaction, known: Any) -> Any:
    """The row as it is now, if it is still as it was judged. Raises :class:`QueueError`."""
    query = select(recipients).where(recipients.c.message == known.message, recipients.c.n == known.n)
    row = transaction.connection.execute(query.with_for_update()).one()
    if (row.state, row.requirement, row.approvals) != (known.state, known.requirement, known.approvals):
        raise QueueError(f"{known.message}.{known.n} was changed meanwhile; try again")
    return row


def _record(transaction: Transaction, row: Any, before: Requirement, after: Requirement, operator: Operator) -> None:
    transaction.connection.execute(
        update(recipients)
        .where(recipients.c.message == row.message, recipients.c.n == row.n)
        .values(requirement=after.as_text(), decision=None)
    )
    transaction.event("redecided", _facts(before, after, operator), message=row.message, n=row.n)


def _facts(before: Requirement, after: Requirement, operator: Operator) -> dict[str, Any]:
    facts: dict[str, Any] = {"operator": operator.name, "reason": operator.reason}
    return {
        **{name: value for name, value in facts.items() if value},
        "allow_weaker": operator.allow_weaker,
        "before": before.as_evidence(),
        "after": after.as_evidence(),
    }


def _move(
    transaction: Transaction, row: Any, before: Requirement, after: Requirement, until: float, operator: Operator
) -> State:
    """The state that follows. A hold that policy has not begun is not for policy to end."""
    by_policy = before.disposition is Disposition.HOLD and row.hold_reason == before.reason
    holds = after.disposition is Disposition.HOLD
    facts = {"operator": operator.name, "reason": operator.reason or "decided anew"}
    if row.state != State.HELD and holds:
        values: dict[str, Any] = {"hold_reason": after.reason, "hold_until": until}
        facts = {"operator": operator.name, "reason": after.reason}
        return change_state(transaction, row, StateEvent.HOLD, values=values, facts=facts)
    if row.state == State.HELD and by_policy and not holds:
        values = {
            "hold_reason": None,
            "hold_until": None,
            "losses": 0,
            "next_attempt": transaction.now,
            "expires": max(row.expires, transaction.now + _LEAST_TIME),
        }
        return change_state(transaction, row, StateEvent.RELEASE, values=values, facts=facts)
    if row.state == State.HELD and by_policy and before.reason != after.reason:
        transaction.connection.execute(
            update(recipients)
            .where(recipients.c.message == row.message, recipients.c.n == row.n)
            .values(hold_reason=after.reason)
        )
    return State(row.state)


async def _reject(
    queue: Queue, message_id: str, row: Any, after: Requirement, operator: Operator
) -> Redecided | QueueError:
    """What policy rejects by now ends here; its sender is told in the same transaction."""
    before = _requirement(row)
    text = after.reason or "not allowed by policy"
    entry = NoticeEntry(recipient_from_row(row), "5.7.1", text)
    facts = _facts(before, after, operator)
    try:
        state = await queue.end_by_operator_or_time(message_id, row.n, StateEvent.REJECT, entry, facts)
    except QueueError as error:
        return error
    return Redecided(state, before, after)
