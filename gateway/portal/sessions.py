"""Who reads: sessions of the portal. A row each, found by the digest of a cookie; idle and absolute limits.

A session carries the level that its sign-in attained: what the session was that carried the code. Where a message asks
for more, its access phrase is asked for, and noted here once it was right.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from gateway.jsontext import from_json, to_json
from gateway.mail.protection import Assurance
from gateway.portal.codes import CodeTaken
from gateway.portal.deposits import Deposit
from gateway.store.schema import portal_sessions
from gateway.store.writer import Transaction

__all__ = ["ABSOLUTE", "IDLE", "Session", "begin", "end", "forget_over", "load", "note_phrase", "touch"]

#: Seconds without a request after which a session is over, and seconds after which it is over in any case.
IDLE: Final = 1200.0
ABSOLUTE: Final = 43200.0
#: A session is written at most this often: reading costs no commit.
_TOUCH: Final = 60.0


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it was read. ``told``: deposits whose access phrase was entered. Times in epoch seconds."""

    id: bytes
    key: str
    address: str
    level: Assurance
    told: frozenset[str]
    made: float
    seen: float
    ends: float

    def may_read(self, deposit: Deposit) -> bool:
        """Whether this sign-in is enough for it: its own address, and a level or a phrase."""
        return deposit.key == self.key and (self.level >= deposit.needs or deposit.id in self.told)

    def left(self, now: float) -> float:
        """Seconds until it is over where nothing more is asked."""
        return max(min(self.seen + IDLE, self.ends) - now, 0.0)


def begin(transaction: Transaction, taken: CodeTaken, before: str | None) -> str:
    """A session for who entered a code; the value of its cookie. The one that this browser had ends (``before``).

    What was told in it by phone counts on where it was the same reader's.
    """
    now, connection = transaction.now, transaction.connection
    told: frozenset[str] = frozenset()
    if before is not None:
        old = load(connection, before, now)
        if old is not None and old.key == taken.key:
            told = old.told
        end(transaction, before)
    cookie = secrets.token_urlsafe(32)
    connection.execute(
        insert(portal_sessions).values(
            id=_digest(cookie),
            key=taken.key,
            address=taken.address,
            level=str(taken.level),
            told=to_json(sorted(told)),
            made=now,
            seen=now,
            ends=now + ABSOLUTE,
        )
    )
    transaction.event(
        "portal_sign_in", {"level": str(taken.level)}, message=taken.deposit[0] if taken.deposit else None
    )
    return cookie


def load(connection: Connection, cookie: str, now: float) -> Session | None:
    """The session of a cookie; None where there is none, or it is over."""
    row = connection.execute(select(portal_sessions).where(portal_sessions.c.id == _digest(cookie))).first()
    if row is None or now >= row.ends or now >= row.seen + IDLE:
        return None
    return _session(row)


def _session(row: Any) -> Session:
    return Session(
        id=bytes(row.id),
        key=row.key,
        address=row.address,
        level=Assurance.parse(row.level),
        told=frozenset(from_json(row.told)),
        made=row.made,
        seen=row.seen,
        ends=row.ends,
    )


def is_stale(session: Session, now: float) -> bool:
    """Whether it is time to write that it was used."""
    return now - session.seen >= _TOUCH


def touch(transaction: Transaction, session: Session) -> None:
    """It was used."""
    transaction.connection.execute(
        update(portal_sessions).where(portal_sessions.c.id == session.id).values(seen=transaction.now)
    )


def note_phrase(transaction: Transaction, session: Session, deposit: Deposit) -> None:
    """Its reader knows the access phrase of this deposit."""
    told = to_json(sorted({*session.told, deposit.id}))
    transaction.connection.execute(update(portal_sessions).where(portal_sessions.c.id == session.id).values(told=told))


def end(transaction: Transaction, cookie: str) -> None:
    """Sign out."""
    transaction.connection.execute(delete(portal_sessions).where(portal_sessions.c.id == _digest(cookie)))


def forget_over(transaction: Transaction, most: int) -> int:
    """Delete sessions that are over; how many, at most so many."""
    over = (
        select(portal_sessions.c.id)
        .where(portal_sessions.c.ends <= transaction.now)
        .order_by(portal_sessions.c.ends)
        .limit(most)
    )
    return transaction.connection.execute(delete(portal_sessions).where(portal_sessions.c.id.in_(over))).rowcount


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(b"portal session\0" + cookie.encode("utf-8", "replace")).digest()
