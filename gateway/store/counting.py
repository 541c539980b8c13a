"""Counters: one row a name and writer, summed when they are read.

On PostgreSQL several gateways count at once. Were it one row a name, each commit would hold that row until its sync is
through, and the gateways would commit one after the other, at the pace of one disk. So each counts in rows of its own,
which nobody else waits for. What a gateway has counted that is gone is taken over by whoever sees it; where the owner
lives after all, its next count makes a new row, and the sum stays right: no lease has to be certain for this.

SQLite has one writer at a time anyway: everybody counts under the name "".
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, func, or_, select, text

from gateway.store.prepared import Prepared
from gateway.store.schema import counters, incarnations

__all__ = ["ADD", "adopt", "counted", "has_abandoned"]

#: Seconds without a sign of life after which a gateway's counts are taken over.
_ABANDONED = 3600.0

#: ``counter``, ``writer``, ``delta``: the same words in both databases.
ADD = Prepared(
    text(
        "INSERT INTO counters (name, writer, value) VALUES (:counter, :writer, :delta) "
        "ON CONFLICT (name, writer) DO UPDATE SET value = counters.value + excluded.value"
    )
)


def counted(connection: Connection, names: Collection[str] = ()) -> dict[str, int]:
    """The counters, those with these names or all of them."""
    query = select(counters.c.name, func.sum(counters.c.value)).group_by(counters.c.name)
    if names:
        query = query.where(counters.c.name.in_(sorted(names)))
    return {name: int(value) for name, value in connection.execute(query)}


def _gone(now: float) -> object:
    return select(incarnations.c.id).where(
        or_(incarnations.c.ended.is_not(None), incarnations.c.heartbeat < now - _ABANDONED)
    )


def has_abandoned(connection: Connection, now: float) -> bool:
    """Whether there are counts of gateways that are gone."""
    query = select(counters.c.name).where(counters.c.writer.in_(_gone(now))).limit(1)  # type: ignore[arg-type]  # a select
    return connection.execute(query).first() is not None


def adopt(connection: Connection, now: float) -> dict[str, int]:
    """Take out the rows of gateways that are gone: what the caller must count in their stead, in this transaction."""
    query = delete(counters).where(counters.c.writer.in_(_gone(now)))  # type: ignore[arg-type]  # a select
    found: dict[str, int] = {}
    for name, value in connection.execute(query.returning(counters.c.name, counters.c.value)):
        found[name] = found.get(name, 0) + int(value)
    return found
