"""Sign-in codes: six digits by mail, ten minutes, five tries, bound to the browser that asked.

A reference pair stands on the page and in the mail, so that nobody types a code that somebody else has asked for. Each
browser has its own codes: people who share a mailbox do not disturb each other. What is kept of a code is a keyed
digest. What a code is worth follows from how its mail travelled (``aftermath``).
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from gateway.config.model import Settings
from gateway.mail.address import Address
from gateway.mail.protection import Assurance
from gateway.portal.counts import Limit, count, is_reached
from gateway.portal.depositor import outward
from gateway.portal.letters import Face, Stamp, build_code
from gateway.portal.names import Names
from gateway.queue.accept import insert_message
from gateway.queue.system_mail import new_id
from gateway.store.schema import portal_codes
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = ["LIFE", "TRIES", "CodeAsked", "CodeTaken", "ask", "decline", "forget_over", "normal_code", "take", "waiting"]

#: Seconds that a code can be used.
LIFE: Final = 600.0
#: Wrong entries after which a code is void.
TRIES: Final = 5

_QUARTER, _DAY = 900.0, 86400.0
#: Codes mailed to one address, asked for from one network, for one message.
_MAILED = (Limit("code mailed", 5, _QUARTER), Limit("code mailed", 20, _DAY))
_ASKED = Limit("code asked", 20, _QUARTER)
_FOR_MESSAGE = Limit("code for message", 10, _QUARTER)
#: Wrong entries from one network, and for one address from anywhere.
_WRONG_NETWORK = Limit("code wrong network", 30, _QUARTER)
_WRONG_ADDRESS = Limit("code wrong address", 50, _DAY)

_LETTERS, _DIGITS = "ABCDEFGHJKMNPQRSTUVWXYZ", "23456789"


@dataclass(frozen=True, slots=True)
class CodeAsked:
    """A code is on its way - or the limits were reached, and none is: the page looks the same but for that word."""

    reference: str
    limited: bool = False


@dataclass(frozen=True, slots=True)
class CodeTaken:
    """A code was right: whose it was, what it is worth, and the deposit whose page asked for it."""

    key: str
    address: str
    level: Assurance
    deposit: tuple[str, int] | None


def normal_code(text: str) -> str:
    """Six digits as they were typed or pasted; "" where it cannot be a code."""
    digits = re.sub(r"[\s-]", "", text)
    return digits if re.fullmatch(r"[0-9]{6}", digits) else ""


def ask(  # noqa: PLR0917  who asks, and for what
    transaction: Transaction,
    store: Store,
    settings: Settings,
    names: Names,
    face: Face,
    to: Address,
    browser: bytes,
    network: str,
    deposit: tuple[str, int] | None,
) -> CodeAsked:
    """Make a code for this browser and mail it."""
    reference = _reference()
    limits = [*((limit, to.key) for limit in _MAILED), (_ASKED, network)]
    if deposit is not None:
        limits.append((_FOR_MESSAGE, f"{deposit[0]}.{deposit[1]}"))
    now = transaction.now
    if is_reached(transaction.connection, now, *limits):
        return CodeAsked(reference, limited=True)
    count(transaction, *limits)
    code = f"{secrets.randbelow(1_000_000):06d}"
    number = secrets.token_hex(16)
    stamp = Stamp(new_id(now), settings.hostname, now)
    mail = build_code(face, to, code, reference, int(LIFE // 60), stamp)
    parent = None if deposit is None else deposit[0]
    verp = "" if deposit is None else names.verp(*deposit)
    new = outward(store, settings, stamp, to, mail, about="code", parent=parent, verp=verp)
    insert_message(transaction, store, new, expire=LIFE)
    transaction.connection.execute(
        insert(portal_codes).values(
            id=number,
            key=to.key,
            address=str(to),
            browser=browser,
            message=None if deposit is None else deposit[0],
            n=None if deposit is None else deposit[1],
            reference=reference,
            code=names.keyed("code", number, code),
            made=now,
            expires=now + LIFE,
            tries=0,
            mail=stamp.id,
        )
    )
    if deposit is not None:
        transaction.event("code_asked", {"network": network}, message=deposit[0], n=deposit[1])
    return CodeAsked(reference)


def decline(network: str, to_key: str, transaction: Transaction) -> CodeAsked:
    """The same answer where nothing lies for an address: counted alike, and nothing is mailed."""
    limits = [*((limit, to_key) for limit in _MAILED), (_ASKED, network)]
    limited = is_reached(transaction.connection, transaction.now, *limits)
    if not limited:
        count(transaction, *limits)
    return CodeAsked(_reference(), limited=limited)


def take(transaction: Transaction, names: Names, browser: bytes, code: str, network: str) -> CodeTaken | bool:
    """Use a code that was typed in this browser. False: it is wrong, or over; True: too many wrong ones from there."""
    now, connection = transaction.now, transaction.connection
    if is_reached(connection, now, (_WRONG_NETWORK, network)):
        return True
    rows = connection.execute(
        select(portal_codes)
        .where(portal_codes.c.browser == browser, portal_codes.c.expires > now, portal_codes.c.tries < TRIES)
        .order_by(portal_codes.c.made.desc())
        .with_for_update()
    ).all()
    rows = [row for row in rows if not is_reached(connection, now, (_WRONG_ADDRESS, row.key))]
    for row in rows:
        if code and hmac.compare_digest(row.code, names.keyed("code", row.id, code)):
            connection.execute(delete(portal_codes).where(portal_codes.c.id == row.id))
            level = Assurance.NONE if row.assurance is None else Assurance.parse(row.assurance)
            return CodeTaken(row.key, row.address, level, None if row.message is None else (row.message, row.n))
    count(transaction, (_WRONG_NETWORK, network), *((_WRONG_ADDRESS, key) for key in {row.key for row in rows}))
    for row in rows:
        connection.execute(
            update(portal_codes).where(portal_codes.c.id == row.id).values(tries=portal_codes.c.tries + 1)
        )
    return False


def waiting(connection: Connection, browser: bytes, now: float) -> str:
    """The reference of the newest code that this browser can enter; "" where it has none."""
    row = connection.execute(
        select(portal_codes.c.reference)
        .where(portal_codes.c.browser == browser, portal_codes.c.expires > now, portal_codes.c.tries < TRIES)
        .order_by(portal_codes.c.made.desc())
        .limit(1)
    ).first()
    return "" if row is None else str(row.reference)


def forget_over(transaction: Transaction, most: int) -> int:
    """Delete codes whose time is over; how many, at most so many."""
    over = (
        select(portal_codes.c.id)
        .where(portal_codes.c.expires <= transaction.now)
        .order_by(portal_codes.c.expires)
        .limit(most)
    )
    return transaction.connection.execute(delete(portal_codes).where(portal_codes.c.id.in_(over))).rowcount


def _reference() -> str:
    """Two pairs of a letter and a digit, such as K7-Q2."""
    pairs = [secrets.choice(_LETTERS) + secrets.choice(_DIGITS) for _ in range(2)]
    return "-".join(pairs)
