"""Telling people once an hour: the first of its kind by itself, what comes after it counted, and told together.

A row in ``tellings`` stands for an hour in which somebody was told; while it stands, what would be told again is
counted in ``untold``, in the transaction in which it happens. When the hour is over (:func:`due`) whoever looks first
tells how many came, and another hour begins; where none came the row goes. So nothing is told that did not happen,
nothing that happened goes untold, over all processes and restarts - and nobody gets five hundred letters.

Each process counts in a row of its own, and reads the telling's row under a lock that others share: on PostgreSQL no
commit waits for another's. Who sums up takes the rows only when nobody has them, else at its next look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Row, delete, insert, select, text, update

from gateway.config.model import Settings
from gateway.jsontext import from_json, to_json
from gateway.mail.announcements import Rest, Seen
from gateway.queue.accept import insert_message
from gateway.queue.records import NewMessage
from gateway.store.prepared import Prepared
from gateway.store.schema import tellings, untold
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = ["HOUR", "About", "due", "sum_up", "tell"]

#: Seconds in which one thing is told once.
HOUR = 3600.0
#: Tellings that one look finds.
_BATCH = 20
#: Of what came after, so many are named in the summary.
_SAMPLE = 10

_TELL = Prepared(
    text("INSERT INTO tellings (key, told, about) VALUES (:key, :told, :about) ON CONFLICT (key) DO NOTHING")
)


@dataclass(frozen=True, slots=True)
class About:
    """What is told, and to whom: what has all of these in common is told once an hour.

    ``kind`` is that of an alarm; ``problem`` and ``since`` are only kept for the summary. ``connector``: whose way back
    the letters take, None where that goes by their addresses.
    """

    topic: str
    to: tuple[str, ...] = ()
    connector: str | None = None
    sender: str = ""
    reason: str = ""
    rules: tuple[str, ...] = ()
    kind: str = ""
    problem: str = ""
    since: float = 0.0

    @property
    def key(self) -> str:
        """The row's key."""
        parts = (self.topic, *self.to, "", self.connector or "", self.sender, self.reason, *self.rules, "", self.kind)
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    def as_text(self) -> str:
        """For the row."""
        return to_json(asdict(self))

    @classmethod
    def from_text(cls, stored: str) -> About:
        """The inverse of :meth:`as_text`."""
        data = from_json(stored)
        return cls(**{**data, "to": tuple(data["to"]), "rules": tuple(data["rules"])})


def tell(
    transaction: Transaction,
    store: Store,
    settings: Settings,
    about: About,
    seen: Seen,
    build: Callable[[], Iterable[NewMessage]],
    *,
    times: int = 1,
) -> int:
    """Tell now what ``build`` makes, or count it; how many messages of ours were written."""
    values = {"key": about.key, "told": transaction.now, "about": about.as_text()}
    known = select(tellings.c.told).where(tellings.c.key == about.key).with_for_update(read=True)
    if transaction.connection.execute(known).first() is None and transaction.run(_TELL, values).rowcount == 1:
        return _insert(transaction, store, settings, build())
    _count(transaction, store, about.key, seen, times)
    if seen.message:
        transaction.event("told_together", {"about": about.topic}, message=seen.message)
    return 0


def _insert(transaction: Transaction, store: Store, settings: Settings, made: Iterable[NewMessage]) -> int:
    number = 0
    for number, notice in enumerate(made, 1):  # noqa: B007  how many there were
        insert_message(transaction, store, notice, expire=settings.delivery.retry.expire)
    return number


def _count(transaction: Transaction, store: Store, key: str, seen: Seen, times: int) -> None:
    connection, writer = transaction.connection, store.incarnation.id
    mine = (untold.c.key == key) & (untold.c.writer == writer)
    row = connection.execute(select(untold).where(mine)).first()
    one = [seen.time, seen.message, seen.recipients]
    if row is None:
        values = {"key": key, "writer": writer, "number": times, "first": seen.time, "last": seen.time}
        connection.execute(insert(untold).values(**values, sample=to_json([one])))
        return
    sample = from_json(row.sample)
    if len(sample) < _SAMPLE:
        sample.append(one)
    connection.execute(
        update(untold).where(mine).values(number=row.number + times, last=seen.time, sample=to_json(sample))
    )


def due(connection: Connection, now: float) -> list[str]:
    """Keys of tellings whose hour is over, oldest first, a batch at most."""
    query = select(tellings.c.key).where(tellings.c.told <= now - HOUR).order_by(tellings.c.told).limit(_BATCH)
    return list(connection.scalars(query))


def sum_up(
    transaction: Transaction,
    store: Store,
    settings: Settings,
    key: str,
    build: Callable[[About, Rest, float], Iterable[NewMessage]],
) -> int:
    """End the hour of one telling: tell what came in it, or forget it; how many messages of ours were written.

    ``build`` gets what it is about, what came, and when the hour began. Where another process has it, nothing is done.
    """
    connection = transaction.connection
    query = select(tellings).where(tellings.c.key == key, tellings.c.told <= transaction.now - HOUR)
    row = connection.execute(query.with_for_update(skip_locked=True)).first()
    if row is None:
        return 0
    about = About.from_text(row.about)
    counts = connection.execute(select(untold).where(untold.c.key == key).order_by(untold.c.first)).all()
    if not counts:
        connection.execute(delete(tellings).where(tellings.c.key == key))
        return 0
    connection.execute(delete(untold).where(untold.c.key == key))
    connection.execute(update(tellings).where(tellings.c.key == key).values(told=transaction.now))
    return _insert(transaction, store, settings, build(about, _together(counts), row.told))


def _together(rows: Iterable[Row[tuple[object, ...]]]) -> Rest:
    every = list(rows)
    some = sorted((Seen(*one) for row in every for one in from_json(row.sample)), key=lambda seen: seen.time)
    return Rest(
        number=sum(row.number for row in every),
        first=min(row.first for row in every),
        last=max(row.last for row in every),
        some=tuple(seen for seen in some[:_SAMPLE] if seen.message),
    )
