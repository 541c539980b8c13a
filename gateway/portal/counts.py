"""How often something was asked for or tried, in windows of time, in rows that survive restarts.

Keys are digests: the table names no address and no network.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from gateway.store.schema import portal_counts
from gateway.store.writer import Transaction

__all__ = ["Limit", "count", "forget_over", "is_reached"]


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``number`` in ``window`` seconds, of one ``kind``, for each subject."""

    kind: str
    number: int
    window: float

    def key(self, subject: str) -> bytes:
        """The row of one subject: an address, a network, a deposit."""
        return hashlib.sha256(f"{self.kind}\0{self.window}\0{subject}".encode("utf-8", "surrogatepass")).digest()


def is_reached(connection: Connection, now: float, *wanted: tuple[Limit, str]) -> bool:
    """Whether one of these limits leaves nothing."""
    for limit, subject in wanted:
        row = connection.execute(select(portal_counts).where(portal_counts.c.key == limit.key(subject))).first()
        if row is not None and row.ends > now and row.number >= limit.number:
            return True
    return False


def count(transaction: Transaction, *wanted: tuple[Limit, str]) -> None:
    """One more of each; a window begins with the first."""
    connection, now = transaction.connection, transaction.now
    for limit, subject in wanted:
        key = limit.key(subject)
        row = connection.execute(select(portal_counts).where(portal_counts.c.key == key).with_for_update()).first()
        if row is None:
            connection.execute(insert(portal_counts).values(key=key, number=1, ends=now + limit.window))
        elif row.ends <= now:
            _set(connection, key, number=1, ends=now + limit.window)
        else:
            _set(connection, key, number=row.number + 1, ends=row.ends)


def _set(connection: Connection, key: bytes, *, number: int, ends: float) -> None:
    connection.execute(update(portal_counts).where(portal_counts.c.key == key).values(number=number, ends=ends))


def forget_over(transaction: Transaction, most: int) -> int:
    """Delete counts whose window is over; how many, at most so many."""
    over = (
        select(portal_counts.c.key)
        .where(portal_counts.c.ends <= transaction.now)
        .order_by(portal_counts.c.ends)
        .limit(most)
    )
    return transaction.connection.execute(delete(portal_counts).where(portal_counts.c.key.in_(over))).rowcount
