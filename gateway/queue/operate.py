"""What operators do to the queue, recipient by recipient, each with an event that says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from gateway.errors import QueueError
from gateway.mail.protection import Disposition, Requirement
from gateway.queue.announce import HeldNow, tell_held
from gateway.queue.notices import NoticeEntry, read_header
from gateway.queue.outcomes import change_state
from gateway.queue.queue import Queue
from gateway.queue.records import message_from_row, recipient_from_row
from gateway.queue.states import State, StateEvent
from gateway.store.schema import messages, recipients

__all__ = ["cancel", "hold", "hold_all", "release", "retry"]

#: How long a hold of an operator lasts unless told otherwise: as long as mail is tried at all.
_FOREVER = 365 * 86400.0


def _fresh(transaction: Any, message: str, n: int) -> Any:
    row = transaction.connection.execute(
        select(recipients).where(recipients.c.message == message, recipients.c.n == n).with_for_update()
    ).first()
    if row is None:
        raise QueueError(f"there is no recipient {message}.{n}")
    return row


def _holdable(transaction: Any, message: str, n: int) -> Any:
    row = _fresh(transaction, message, n)
    if row.state == State.DELIVERING:
        raise QueueError(f"{message}.{n} is being delivered right now; try again in a moment")
    return row


async def retry(queue: Queue, message: str, n: int, *, operator: str) -> State:
    """Make a waiting recipient due now. Raises :class:`QueueError`."""

    def job(transaction: Any) -> State:
        row = _fresh(transaction, message, n)
        values = {"next_attempt": transaction.now}
        return change_state(transaction, row, StateEvent.RETRY, values=values, facts={"operator": operator})

    return await _run(queue, job)


async def hold(queue: Queue, message: str, n: int, *, operator: str, reason: str, seconds: float | None) -> State:
    """Keep a waiting recipient until a person releases it: :func:`hold_all` for one. Raises :class:`QueueError`."""
    result = (await hold_all(queue, message, [n], operator=operator, reason=reason, seconds=seconds))[n]
    if isinstance(result, QueueError):
        raise result
    return result


async def hold_all(
    queue: Queue, message: str, ns: Sequence[int], *, operator: str, reason: str, seconds: float | None
) -> dict[int, State | QueueError]:
    """Keep recipients of one message until a person releases them; sender and reviewers are told, once for all.

    Not one that is being delivered: a worker's outcome would be lost, and the message might go twice.
    """
    header = await read_header(queue.store, message)
    settings = queue.settings()

    def job(transaction: Any) -> dict[int, State | QueueError]:
        until = transaction.now + (_FOREVER if seconds is None else seconds)
        values = {"hold_reason": reason, "hold_until": until}
        facts = {"operator": operator, "reason": reason}
        done: dict[int, State | QueueError] = {}
        held: list[HeldNow] = []
        for n in ns:
            try:
                row = _holdable(transaction, message, n)
                done[n] = change_state(transaction, row, StateEvent.HOLD, values=values, facts=facts)
            except QueueError as error:
                done[n] = error
            else:
                held.append(HeldNow(recipient_from_row(row), reason, (), until))
        if held:
            found = transaction.connection.execute(select(messages).where(messages.c.id == message)).one()
            about, _ = message_from_row(found, tuple(entry.recipient for entry in held))
            if not found.system:
                whole = found.live == len(held)
                tell_held(transaction, queue.store, settings, about, held, header, whole=whole, by=operator)
        return done

    done: dict[int, State | QueueError] = await queue.store.write(job)
    queue.wake.set()
    return done


async def release(queue: Queue, message: str, n: int, *, operator: str, reason: str) -> State:
    """Approve a held recipient: the rules that hold it are named in the approval and do not hold it again.

    The approval is for this content, whose digest stands in the event: accepted bytes never change. Another rule, or
    one that holds by a policy of tomorrow, holds it again.
    Raises :class:`QueueError` also where no method is left: approving cannot make one.
    """

    def job(transaction: Any) -> State:
        row = _fresh(transaction, message, n)
        requirement = Requirement.from_json(json.loads(row.requirement))
        if not requirement.methods:
            raise QueueError(
                f"{message}.{n} has no protection method left that all its rules allow; "
                "it cannot be released. Mend the rules and decide it anew (redecide --allow-weaker), or cancel it"
            )
        approvals = sorted({*json.loads(row.approvals), *requirement.hold_rules})
        released = _without_hold(requirement)
        values = {
            "approvals": json.dumps(approvals),
            "requirement": json.dumps(released.as_json()),
            "next_attempt": transaction.now,
            "expires": max(row.expires, transaction.now + 3600.0),
            "hold_reason": None,
            "hold_until": None,
            "losses": 0,
        }
        content = select(messages.c.digest).where(messages.c.id == message)
        facts = {
            "operator": operator,
            "reason": reason,
            "approves": list(requirement.hold_rules),
            "content": transaction.connection.execute(content).scalar_one(),
        }
        return change_state(transaction, row, StateEvent.RELEASE, values=values, facts=facts)

    return await _run(queue, job)


def _without_hold(requirement: Requirement) -> Requirement:
    return replace(requirement, disposition=Disposition.DELIVER, reason="", hold_rules=(), hold_expires=None)


async def cancel(queue: Queue, message: str, n: int, *, operator: str, reason: str) -> State:
    """Take a waiting recipient out for good; its sender is told. Raises :class:`QueueError`."""
    row = await queue.store.read(
        lambda connection: connection.execute(
            select(recipients).where(recipients.c.message == message, recipients.c.n == n)
        ).first()
    )
    if row is None:
        raise QueueError(f"there is no recipient {message}.{n}")
    if row.state in (State.NOTICING, State.DEPOSITED):
        raise QueueError(f"{message}.{n} lies in the portal; take it back with `gateway portal recall {message}.{n}`")
    words = "An administrator of the mail gateway cancelled the delivery."
    entry = NoticeEntry(recipient_from_row(row), "5.7.1", f"{words} {reason}".strip())
    facts = {"operator": operator, "reason": reason}
    return await queue.end_by_operator_or_time(message, n, StateEvent.CANCEL, entry, facts)


async def _run(queue: Queue, job: Any) -> State:
    state: State = await queue.store.write(job)
    queue.wake.set()
    return state
