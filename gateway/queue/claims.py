"""Claim before connect: one transaction counts the attempt, moves the next one forward and takes the lease.

So a crash never hammers a site, and never forgets a try. What is not delivered when a worker ends in order is given
back untouched. Who is claimed for is decided by a look before (``turns``); here it is made durable, for as many of
them as are still there.
"""

from __future__ import annotations

import math
import random
from collections import namedtuple
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, bindparam, select, tuple_, update

from gateway.queue.records import Claim, claimed_from_row, message_from_row, recipient_from_row
from gateway.queue.retry import RetrySchedule
from gateway.queue.states import State, StateEvent, advance
from gateway.queue.turns import Turn
from gateway.store.prepared import Prepared
from gateway.store.schema import READY, WAITING, messages, recipients
from gateway.store.writer import Transaction

__all__ = ["DUE_BATCH", "bring_forward", "claim_turns", "last_waiting", "make_due"]

#: Recipients whose time has come that one transaction makes due: some ten milliseconds of the writer.
DUE_BATCH = 500

_Row = namedtuple("_Row", [column.name for column in recipients.c])  # type: ignore[misc]  # noqa: PYI024  columns of now

_LANE = Prepared(
    select(recipients)
    .where(READY, recipients.c.origin == bindparam("whose"), recipients.c.domain == bindparam("there"))
    .order_by(recipients.c.next_attempt)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_CLAIM = Prepared(
    update(recipients)
    .where(recipients.c.message == bindparam("m"), recipients.c.n == bindparam("r"))
    .values(
        state=str(State.DELIVERING),
        since=bindparam("now"),
        attempts=bindparam("tries"),
        next_attempt=bindparam("when"),
        claimed_by=bindparam("owner"),
    )
)
_FALLEN_DUE = (
    select(recipients.c.message, recipients.c.n)
    .where(WAITING, recipients.c.next_attempt <= bindparam("now"))
    .order_by(recipients.c.next_attempt)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_MAKE_DUE = Prepared(
    update(recipients)
    .where(tuple_(recipients.c.message, recipients.c.n).in_(_FALLEN_DUE))
    .values(state=bindparam("to"), since=bindparam("now"))
)
_LAST_WAITING = select(recipients.c.next_attempt).where(WAITING).order_by(recipients.c.next_attempt.desc()).limit(1)
_TOO_LATE = (
    select(recipients.c.message, recipients.c.n)
    .where(WAITING, recipients.c.next_attempt > bindparam("latest"))
    .order_by(recipients.c.next_attempt.desc())
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_BRING_FORWARD = Prepared(
    update(recipients)
    .where(tuple_(recipients.c.message, recipients.c.n).in_(_TOO_LATE))
    .values(next_attempt=bindparam("when"))
)


def make_due(transaction: Transaction) -> int:
    """What waited for its time, and whose time has come, now waits for its turn; how many, at most a batch."""
    after = advance(State.DEFERRED, StateEvent.DUE).state
    values = {"to": str(after), "now": transaction.now, "most": DUE_BATCH}
    number = int(transaction.run(_MAKE_DUE, values).rowcount)
    transaction.count(f"recipients.{State.DEFERRED}", -number)
    transaction.count(f"recipients.{after}", number)
    return number


def last_waiting(connection: Connection) -> float | None:
    """When the last of what waits falls due (epoch seconds); None where nothing waits."""
    last: float | None = connection.execute(_LAST_WAITING).scalar()
    return last


def bring_forward(transaction: Transaction, *, latest: float, wait: float) -> int:
    """What waits for a time later than ``latest`` waits ``wait`` seconds from now; how many, at most a batch."""
    values = {"latest": latest, "when": transaction.now + wait, "most": DUE_BATCH}
    return int(transaction.run(_BRING_FORWARD, values).rowcount)


def claim_turns(
    transaction: Transaction,
    owner: str,
    schedule: RetrySchedule,
    chance: random.Random,
    turns: Sequence[Turn],
    *,
    ageless: bool = False,
) -> tuple[Claim, ...]:
    """Claim what these turns are for, the oldest of each lane first, as far as nobody else was faster.

    ``ageless``: the clock is in doubt, so that nothing is at the end of its time.
    """
    now = transaction.now
    after = advance(State.QUEUED, StateEvent.CLAIM).state
    rows: list[Any] = []
    for turn in turns:
        lane = {"whose": turn.origin, "there": turn.domain, "most": turn.recipients}
        rows += map(_Row._make, transaction.run(_LANE, lane).fetchall())
    if not rows:
        return ()
    parameters = []
    claimed = []
    for row in rows:
        attempt = row.attempts + 1
        transaction.event("claimed", {"attempt": attempt}, message=row.message, n=row.n)
        expires = math.inf if ageless else row.expires
        when = schedule.next_attempt(now, attempt, chance.random(), expires=expires)
        parameters.append({"m": row.message, "r": row.n, "now": now, "tries": attempt, "when": when, "owner": owner})
        claimed.append(row._replace(attempts=attempt))
    transaction.run_many(_CLAIM, parameters)
    transaction.count(f"recipients.{State.QUEUED}", -len(rows))
    transaction.count(f"recipients.{after}", len(rows))
    return _claims(transaction, claimed)


def _claims(transaction: Transaction, rows: Sequence[Any]) -> tuple[Claim, ...]:
    """The claims of these recipients, grouped by message, domain and requirement."""
    ids = sorted({row.message for row in rows})
    message_rows: dict[str, Any] = {
        row.id: row for row in transaction.connection.execute(select(messages).where(messages.c.id.in_(ids)))
    }
    ordered = sorted(rows, key=lambda row: (row.message, row.domain, row.requirement, row.n))
    claims = []
    for (message_id, _, _), group in groupby(ordered, key=lambda row: (row.message, row.domain, row.requirement)):
        members = list(group)
        row = message_rows[message_id]
        message, eight_bit = message_from_row(row, tuple(recipient_from_row(member) for member in members))
        claims.append(
            Claim(
                message,
                tuple(claimed_from_row(member) for member in members),
                eight_bit,
                row.observed,
                row.system,
                row.parent,
                members[0].origin,
            )
        )
    return tuple(claims)
