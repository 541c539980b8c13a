"""Whose turn it is among what is due: connectors and their senders take turns, and so do the domains of each.

An *origin* is a connector with a sender; a *lane* is what is due of one origin to one domain. A bulk job, however long,
is one origin: whoever else has something due waits for one of its turns, not for its end.

Nothing here keeps a copy of the backlog, counts it or walks through it. The index over what is due is ordered by
origin, domain and time, so the next origin is one seek from where the last turn was, its next domain another, and the
recipients of a lane stand behind each other. What is busy is stepped over by a seek: a domain or an origin that has
its share (``shares``) in delivery costs one step, whatever waits for it. So a look costs as much as there are lanes to
fill; it is bounded by :data:`MAX_SEEKS`, and the next look goes on where this one ended.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Connection, bindparam, select

from gateway.mail.envelope import Envelope
from gateway.queue.shares import Shares
from gateway.store.prepared import Prepared
from gateway.store.schema import READY, WAITING, recipients

__all__ = ["MAX_SEEKS", "Look", "Place", "Turn", "look_for_turns", "origin_of"]

#: Index seeks of one look: a few milliseconds.
MAX_SEEKS = 1000
#: Origins whose last domain is remembered; one that was forgotten begins with its first domain again.
_MAX_REMEMBERED = 1024
_BEFORE_ALL = -1

_NEXT_ORIGIN = Prepared(
    select(recipients.c.origin)
    .where(READY, recipients.c.origin > bindparam("after"))
    .order_by(recipients.c.origin)
    .limit(1)
)
_NEXT_DOMAIN = Prepared(
    select(recipients.c.domain)
    .where(READY, recipients.c.origin == bindparam("whose"), recipients.c.domain > bindparam("after"))
    .order_by(recipients.c.domain)
    .limit(1)
)
_LENGTH = Prepared(
    select(recipients.c.n)
    .where(READY, recipients.c.origin == bindparam("whose"), recipients.c.domain == bindparam("there"))
    .limit(bindparam("most"))
)
_FIRST_WAITING = Prepared(select(recipients.c.next_attempt).where(WAITING).order_by(recipients.c.next_attempt).limit(1))


def origin_of(envelope: Envelope) -> int:
    """Who takes turns with this message: a number for its connector and sender, not negative.

    Mail from the null sender takes turns by its recipient: bounces of one sender's mail must not delay another's.
    Two that share a number by chance share their turns, which does no harm.
    """
    sender = envelope.sender
    whose = f"<>{envelope.recipients[0].address.key}" if sender is None else sender.key
    digest = hashlib.blake2b(f"{envelope.connector}\0{whose}".encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return int.from_bytes(digest, "big")


@dataclass(frozen=True, slots=True)
class Turn:
    """At most so many recipients of one lane."""

    origin: int
    domain: str
    recipients: int


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found: turns to take, what was passed by because it has its share, when the next one falls due.

    ``whole``: everything that is due was looked at, or the room is full; otherwise the next look goes on from here.
    """

    turns: tuple[Turn, ...]
    passed_domains: frozenset[str]
    passed_origins: frozenset[int]
    whole: bool
    first_waiting: float | None


class Place:
    """Where the last turn was: belongs to one process. ``origin`` had it, and of each origin a domain."""

    __slots__ = ("_domains", "origin")

    def __init__(self, origin: int = _BEFORE_ALL) -> None:
        self.origin = origin
        self._domains: OrderedDict[int, str] = OrderedDict()

    def domain(self, origin: int) -> str:
        """The domain of this origin's last turn, "" where that is not known."""
        return self._domains.get(origin, "")

    def remember(self, origin: int, domain: str) -> None:
        """This domain had a turn of this origin."""
        self._domains[origin] = domain
        self._domains.move_to_end(origin)
        if len(self._domains) > _MAX_REMEMBERED:
            self._domains.popitem(last=False)


class _Seeker:
    """The index over what is due, a seek at a time."""

    def __init__(self, connection: Connection) -> None:
        self._dialect = connection.dialect
        self._cursor: Any = connection.connection.cursor()
        self.left = MAX_SEEKS

    def close(self) -> None:
        self._cursor.close()

    def _all(self, statement: Prepared, values: Mapping[str, Any]) -> list[Any]:
        self.left -= 1
        return list(statement.run(self._cursor, self._dialect, values).fetchall())

    def origins(self, after: int) -> Iterator[int]:
        """Every origin that has something due, once, beginning behind ``after``."""
        position, wrapped = after, False
        while self.left > 0:
            found = self._all(_NEXT_ORIGIN, {"after": position})
            if found:
                position = int(found[0][0])
                if wrapped and position > after:
                    return
                yield position
            elif wrapped or after == _BEFORE_ALL:
                return
            else:
                position, wrapped = _BEFORE_ALL, True

    def domains(self, origin: int, after: str) -> Iterator[str]:
        """Every domain that this origin has something due for, once, beginning behind ``after``."""
        position, wrapped = after, False
        while self.left > 0:
            found = self._all(_NEXT_DOMAIN, {"whose": origin, "after": position})
            if found:
                position = str(found[0][0])
                if wrapped and position > after:
                    return
                yield position
            elif wrapped or not after:
                return
            else:
                position, wrapped = "", True

    def length(self, origin: int, domain: str, most: int) -> int:
        """How many recipients are due in this lane, counted to ``most``."""
        return len(self._all(_LENGTH, {"whose": origin, "there": domain, "most": most}))

    def first_waiting(self) -> float | None:
        """When the next one falls due, of what waits for its time."""
        found = self._all(_FIRST_WAITING, {})
        return float(found[0][0]) if found else None


def look_for_turns(connection: Connection, most: int, shares: Shares, place: Place) -> Look:
    """At most so many recipients of what is due, in turn, within everybody's share; ``place`` moves on.

    First each origin is offered an even part; what is left goes to those that have more.
    """
    seeker = _Seeker(connection)
    try:
        return _Filling(seeker, most, shares.copy(), place).fill()
    finally:
        seeker.close()


class _Filling:
    """One look: what was taken so far."""

    def __init__(self, seeker: _Seeker, most: int, shares: Shares, place: Place) -> None:
        self._seeker = seeker
        self._shares = shares
        self._place = place
        self._most = self._left = most
        self._lanes: dict[tuple[int, str], int] = {}
        self._passed_domains: set[str] = set()
        self._passed_origins: set[int] = set()

    def fill(self) -> Look:
        seeker, place = self._seeker, self._place
        waiting = seeker.first_waiting()
        found: dict[int, str] = {}
        for origin in seeker.origins(place.origin):  # one for each
            place.origin = origin
            if self._shares.left_for(origin) <= 0:
                self._passed_origins.add(origin)
            elif self._take(origin, 1):
                found[origin] = place.domain(origin)
            if self._left <= 0:
                break
        whole = seeker.left > 0
        part = max(self._most // max(len(found), 1), 1)
        for most in (part - 1, self._most):
            for origin, domain in found.items():
                self._take(origin, most, domain)  # more of where it began: they may be of one message
        turns = tuple(Turn(origin, domain, number) for (origin, domain), number in self._lanes.items())
        return Look(turns, frozenset(self._passed_domains), frozenset(self._passed_origins), whole, waiting)

    def _take(self, origin: int, most: int, first: str | None = None) -> int:
        """At most so many of this origin, its domains in turn, ``first`` before them; how many it were."""
        wanted = min(most, self._left, self._shares.left_for(origin))
        if wanted <= 0:
            return 0
        before = self._left
        behind = self._seeker.domains(origin, self._place.domain(origin))
        for domain in behind if first is None else chain((first,), behind):
            free = self._shares.left_at(origin, domain)
            if free <= 0:
                self._passed_domains.add(domain)
                continue
            number = self._lengthen(origin, domain, min(wanted, free))
            wanted -= number
            if wanted <= 0:
                break
        return before - self._left

    def _lengthen(self, origin: int, domain: str, most: int) -> int:
        """At most so many more of this lane; how many there were."""
        taken = self._lanes.get((origin, domain), 0)
        number = self._seeker.length(origin, domain, taken + most) - taken
        if number > 0:
            self._lanes[origin, domain] = taken + number
            self._shares.take(origin, domain, number)
            self._left -= number
            self._place.remember(origin, domain)
        return number
