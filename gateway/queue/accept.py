"""The accept transaction: message, body, recipients, first claims and events - all of it, or nothing.

Only when it is durable may ``250`` be said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from gateway.errors import Refusal
from gateway.queue.records import Claim, ClaimedRecipient, Idempotency, NewMessage, NewRecipient, envelope_json
from gateway.queue.states import LIVE, State
from gateway.queue.turns import origin_of
from gateway.store.prepared import Prepared
from gateway.store.schema import idempotency, messages, recipients, signature_uses
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = ["AlreadyAccepted", "insert_message"]

#: Envelopes that one DKIM signature may bring in within a day (interfaces: the ``dkim`` factor).
MAX_SIGNATURE_USES = 100
_DAY = 86400.0

_INSERT_MESSAGE = Prepared(insert(messages))
_INSERT_RECIPIENT = Prepared(insert(recipients))


class AlreadyAccepted(Exception):
    """Not an error: a client repeats itself and is told the first id.

    The idempotency key was used for the same content within 24 hours; ``message`` is the first id.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def insert_message(
    transaction: Transaction,
    store: Store,
    new: NewMessage,
    *,
    expire: float,
    claim_until: Callable[[float], float] | None = None,
) -> tuple[Claim, ...]:
    """Write the message; with ``claim_until`` its queued recipients begin as claimed by this incarnation.

    Those at one domain with one requirement share a claim: what one of them needs must not be asked of a session for
    another.

    ``claim_until`` gives the next attempt that a claim moves forward to. Raises :class:`Refusal` for a replayed
    signature or a misused idempotency key, :class:`AlreadyAccepted` for a repeated submission.
    """
    if new.idempotency is not None:
        _check_idempotency(transaction, new.idempotency, new.message.id)
    if new.signature is not None:
        _count_signature(transaction, new.signature)
    message = new.message
    now = transaction.now
    live = sum(1 for recipient in new.recipients if recipient.state in LIVE)
    transaction.run(
        _INSERT_MESSAGE,
        {
            "id": message.id,
            "received": message.received,
            "connector": message.envelope.connector,
            "client": message.envelope.client_address,
            "sender": None if message.envelope.sender is None else str(message.envelope.sender),
            "size": message.size,
            "digest": message.digest,
            "kind": str(message.kind),
            "observed": new.observed,
            "system": new.system,
            "parent": new.parent,
            "envelope": envelope_json(new),
            "live": live,
            **(store.wrapped_key(new.body) if live else {"ring_key": None, "data_key": None}),
        },
    )
    if live:
        store.insert_body(transaction, new.body)
    elif new.body.blob is not None:
        name = new.body.blob
        transaction.after_commit(lambda: store.files.remove(name))
    origin = origin_of(message.envelope)
    rows = [
        _recipient_row(new, n, recipient, origin, now, expire, store.incarnation.id, claim_until)
        for n, recipient in enumerate(new.recipients, 1)
    ]
    transaction.run_many(_INSERT_RECIPIENT, rows)
    for row in rows:
        if row["state"] in LIVE:
            transaction.count(f"recipients.{row['state']}", 1)
    _write_events(transaction, new, rows)
    if claim_until is None:
        return ()
    return _claims(new, rows)


def _recipient_row(  # noqa: PLR0917  the columns of a row
    new: NewMessage,
    n: int,
    recipient: NewRecipient,
    origin: int,
    now: float,
    expire: float,
    incarnation: str,
    claim_until: Callable[[float], float] | None,
) -> dict[str, Any]:
    claimed = claim_until is not None and recipient.state is State.QUEUED
    address = recipient.recipient.address
    held = recipient.state is State.HELD
    return {
        "message": new.message.id,
        "n": n,
        "address": str(address),
        "key": address.key,
        "domain": address.domain,
        "origin": origin,
        "notify": ",".join(sorted(recipient.recipient.notify)),
        "orcpt": recipient.recipient.orcpt,
        "state": str(State.DELIVERING if claimed else recipient.state),
        "since": now,
        "attempts": 1 if claimed else 0,
        "next_attempt": claim_until(now) if claimed and claim_until is not None else now,
        "expires": new.message.received + expire,
        "claimed_by": incarnation if claimed else None,
        "losses": 0,
        "unsure_since": None,
        "delay_notified": False,
        "requirement": recipient.requirement.as_text(),
        "decision": None,
        "method": None,
        "last_error": recipient.error or None,
        "hold_reason": recipient.requirement.reason if held else None,
        "hold_until": recipient.hold_until if held else None,
        "approvals": "[]",
    }


def _write_events(transaction: Transaction, new: NewMessage, rows: list[dict[str, Any]]) -> None:
    message = new.message
    transaction.event(
        "accepted",
        {
            "connector": message.envelope.connector,
            "client": message.envelope.client_address,
            "size": message.size,
            "digest": message.digest,
            "kind": str(message.kind),
            "recipients": len(rows),
            **({"parent": new.parent} if new.parent else {}),
            **new.facts,
        },
        message=message.id,
    )
    for row, recipient in zip(rows, new.recipients, strict=True):
        data: dict[str, Any] = {"requirement": recipient.requirement.as_evidence(), "state": row["state"]}
        if recipient.error:
            data["error"] = recipient.error
        transaction.event("decided", data, message=message.id, n=row["n"])
        if row["claimed_by"]:
            transaction.event("claimed", {"attempt": 1}, message=message.id, n=row["n"])


def _claims(new: NewMessage, rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    groups: dict[tuple[str, str], list[ClaimedRecipient]] = {}
    for row, recipient in zip(rows, new.recipients, strict=True):
        if row["claimed_by"]:
            groups.setdefault((row["domain"], row["requirement"]), []).append(
                ClaimedRecipient(
                    n=row["n"],
                    recipient=recipient.recipient,
                    requirement=recipient.requirement,
                    attempts=1,
                    expires=row["expires"],
                    unsure_since=None,
                    delay_notified=False,
                    approvals=frozenset(),
                )
            )
    message = new.message
    if len(rows) != len(message.envelope.recipients):
        message = replace(
            message, envelope=replace(message.envelope, recipients=tuple(r.recipient for r in new.recipients))
        )
    return tuple(
        Claim(
            message,
            tuple(group),
            new.eight_bit,
            new.observed,
            new.system,
            new.parent,
            rows[0]["origin"],
            new.body.plain,
        )
        for group in groups.values()
    )


def _count_signature(transaction: Transaction, digest: bytes) -> None:
    connection, now = transaction.connection, transaction.now
    connection.execute(delete(signature_uses).where(signature_uses.c.first < now - _DAY))
    uses = connection.execute(
        select(signature_uses.c.uses).where(signature_uses.c.digest == digest).with_for_update()
    ).scalar()
    if uses is None:
        connection.execute(insert(signature_uses).values(digest=digest, first=now, uses=1))
        return
    if uses >= MAX_SIGNATURE_USES:
        raise Refusal(
            451, "4.7.1", "This DKIM signature was seen too often, please try again later", reason="dkim_replay"
        )
    connection.execute(
        update(signature_uses).where(signature_uses.c.digest == bindparam("known")).values(uses=uses + 1),
        {"known": digest},
    )


def _check_idempotency(transaction: Transaction, key: Idempotency, message_id: str) -> None:
    connection, now = transaction.connection, transaction.now
    connection.execute(delete(idempotency).where(idempotency.c.created < now - _DAY))
    row = connection.execute(select(idempotency).where(idempotency.c.scope == key.scope)).first()
    if row is None:
        connection.execute(
            insert(idempotency).values(scope=key.scope, content=key.content, message=message_id, created=now)
        )
    elif row.content == key.content:
        raise AlreadyAccepted(row.message)
    else:
        raise Refusal(550, "5.6.0", "This idempotency key was used for another message", reason="idempotency_conflict")
