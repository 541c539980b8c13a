"""Claim before connect: one transaction counts the attempt, moves the next one forward and takes the lease.

So a crash never hammers a site, and never forgets a try. What is not delivered when a worker ends in order is given
back untouched.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from gateway.queue.records import Claim, claimed_from_row, message_from_row, recipient_from_row
from gateway.queue.retry import RetrySchedule
from gateway.queue.states import State, StateEvent, advance
from gateway.store.schema import DUE, messages, recipients
from gateway.store.writer import Transaction

__all__ = ["claim_due", "next_due"]

_CLAIM = (
    update(recipients)
    .where(recipients.c.message == bindparam("m"), recipients.c.n == bindparam("r"))
    .values(
        state=str(State.DELIVERING),
        since=bindparam("now"),
        attempts=recipients.c.attempts + 1,
        next_attempt=bindparam("when"),
        claimed_by=bindparam("owner"),
    )
)


def claim_due(
    transaction: Transaction,
    owner: str,
    schedule: RetrySchedule,
    chance: random.Random,
    *,
    limit: int,
    busy_domains: Collection[str] = (),
) -> tuple[Claim, ...]:
    """Claim at most ``limit`` due recipients, oldest due first, none at a domain that is busy.

    The work grows with what is due, never with what waits (a partial index on the due time).
    """
    connection, now = transaction.connection, transaction.now
    due = (
        select(recipients.c.message, recipients.c.n, recipients.c.state, recipients.c.attempts, recipients.c.expires)
        .where(DUE, recipients.c.next_attempt <= now)
        .order_by(recipients.c.next_attempt)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if busy_domains:
        due = due.where(recipients.c.domain.not_in(sorted(busy_domains)))
    rows = connection.execute(due).all()
    if not rows:
        return ()
    parameters = []
    for row in rows:
        after = advance(State(row.state), StateEvent.CLAIM).state
        transaction.count(f"recipients.{row.state}", -1)
        transaction.count(f"recipients.{after}", 1)
        attempt = row.attempts + 1
        transaction.event("claimed", {"attempt": attempt}, message=row.message, n=row.n)
        when = schedule.next_attempt(now, attempt, chance.random(), expires=row.expires)
        parameters.append({"m": row.message, "r": row.n, "now": now, "when": when, "owner": owner})
    connection.execute(_CLAIM, parameters)
    return _load(transaction, {(row.message, row.n) for row in rows})


def _load(transaction: Transaction, keys: set[tuple[str, int]]) -> tuple[Claim, ...]:
    """The claims of these recipients, grouped by message, domain and requirement."""
    connection = transaction.connection
    ids = sorted({message for message, _ in keys})
    message_rows: dict[str, Any] = {
        row.id: row for row in connection.execute(select(messages).where(messages.c.id.in_(ids)))
    }
    rows = [
        row
        for row in connection.execute(
            select(recipients)
            .where(recipients.c.message.in_(ids), recipients.c.state == str(State.DELIVERING))
            .order_by(recipients.c.message, recipients.c.domain, recipients.c.requirement, recipients.c.n)
        )
        if (row.message, row.n) in keys
    ]
    claims = []
    for (message_id, _, _), group in groupby(rows, key=lambda row: (row.message, row.domain, row.requirement)):
        members = list(group)
        message, eight_bit = message_from_row(
            message_rows[message_id], tuple(recipient_from_row(member) for member in members)
        )
        row = message_rows[message_id]
        claims.append(
            Claim(
                message,
                tuple(claimed_from_row(member) for member in members),
                eight_bit,
                row.observed,
                row.system,
                row.parent,
            )
        )
    return tuple(claims)


def next_due(connection: Connection, busy_domains: Collection[str] = ()) -> float | None:
    """When the next recipient falls due (epoch seconds); None where nothing waits."""
    query = select(func.min(recipients.c.next_attempt)).where(DUE)
    if busy_domains:
        query = query.where(recipients.c.domain.not_in(sorted(busy_domains)))
    result: float | None = connection.execute(query).scalar()
    return result
