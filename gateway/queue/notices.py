"""DSNs as messages of our own: when one is due, to whom, under which protection (RFC 3461, RFC 3464).

System mail stands outside policy: no content, the null sender, at the return route's assurance; without a return
route by MX and at least encrypted, never in clear. A DSN about a DSN is never made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.config.model import Settings
from gateway.errors import StoreCorrupt
from gateway.mail.dsn import Action, Report, ReportedRecipient, build_report
from gateway.mail.envelope import Envelope, Kind, Message, Notify, Recipient
from gateway.mail.headers import split_message
from gateway.mail.ids import uuid7
from gateway.mail.protection import Assurance, Method, Requirement
from gateway.queue.records import NewMessage, NewRecipient, silent_kinds
from gateway.store.store import Store

__all__ = ["NoticeEntry", "is_wanted", "make_notice", "return_requirement"]

#: How much of the sealed body is looked at for the fields that a notice quotes.
_HEADER_LIMIT = 256 * 1024


@dataclass(frozen=True, slots=True)
class NoticeEntry:
    """What is to be said about one recipient; ``status`` is an enhanced code."""

    recipient: Recipient
    status: str
    explanation: str
    diagnostic: str = ""
    remote: str = ""


def is_wanted(recipient: Recipient, action: Action) -> bool:
    """Whether the sender wants to hear this (RFC 3461 section 4.1; without NOTIFY: failures and delays)."""
    asked = recipient.notify
    if action is Action.RELAYED:
        return Notify.SUCCESS in asked
    if not asked:
        return True
    return (Notify.FAILURE if action is Action.FAILED else Notify.DELAY) in asked


def return_requirement(settings: Settings, connector: str) -> Requirement:
    """The protection of mail back to a connector's senders."""
    route = next((known.return_route for known in settings.connectors if known.name == connector), None)
    if route is not None and route.tls is Assurance.NONE:
        return Requirement(methods=frozenset({Method.PLAIN}), tls=Assurance.NONE, digest="system")
    level = Assurance.ENCRYPTED if route is None else route.tls
    return Requirement(methods=frozenset({Method.TLS}), tls=level, digest="system")


async def make_notice(
    store: Store,
    settings: Settings,
    clock: Clock,
    message: Message,
    action: Action,
    entries: Sequence[NoticeEntry],
    *,
    retry_until: float | None = None,
    header: bytes | None = None,
) -> NewMessage | None:
    """The notice for these recipients, sealed and ready to go into the transaction that makes it due.

    None where there is nobody to tell, or nobody wants to hear it. ``header`` is the original's header block; without
    it the sealed body is read. Raises :class:`StoreError`.
    """
    sender = message.envelope.sender
    wanted = [entry for entry in entries if is_wanted(entry.recipient, action)]
    if sender is None or message.kind in silent_kinds or not wanted:
        return None
    if header is None:
        header = await _read_header(store, message.id)
    now = clock.time()
    notice_id = uuid7(now, os.urandom(10))
    report = Report(
        id=notice_id,
        action=action,
        to=sender,
        postmaster=settings.postmaster,
        hostname=settings.hostname,
        message=message.id,
        arrived=message.received,
        now=now,
        recipients=tuple(
            ReportedRecipient(
                entry.recipient.address,
                entry.status,
                entry.explanation,
                entry.diagnostic,
                entry.remote,
                entry.recipient.orcpt,
            )
            for entry in wanted
        ),
        envid=message.envelope.envid,
        retry_until=retry_until,
    )
    data = build_report(report, header)
    spool = store.spool(notice_id)
    await spool.write(data)
    body = await spool.finish()
    envelope = Envelope(
        sender=None,
        recipients=(Recipient(sender, frozenset({Notify.NEVER})),),
        connector=message.envelope.connector,
        client_address="",
        helo=settings.hostname,
        smtputf8=not sender.is_ascii,
        protocol="",
    )
    return NewMessage(
        message=Message(notice_id, now, envelope, len(data), hashlib.sha256(data).hexdigest(), Kind.DSN),
        body=body,
        recipients=(NewRecipient(envelope.recipients[0], return_requirement(settings, envelope.connector)),),
        eight_bit=not data.isascii(),
        system=True,
        parent=message.id,
        facts={"action": str(action)},
    )


async def _read_header(store: Store, message_id: str) -> bytes:
    """The header block out of the sealed body; empty where the body is damaged - the sender is told all the same."""
    data = b""
    try:
        async with aclosing(store.body(message_id)) as pieces:
            async for piece in pieces:
                data += piece
                block, rest = split_message(data)
                if rest or len(data) > _HEADER_LIMIT:
                    return block if rest else b""
    except StoreCorrupt:
        return b""
    return split_message(data)[0]
