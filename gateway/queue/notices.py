"""DSNs as messages of our own: when one is due, to whom, under which protection (RFC 3461, RFC 3464).

System mail stands outside policy: no content, the null sender, at the return route's assurance; without a return
route by MX and at least encrypted, never in clear. A DSN about a DSN is never made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from gateway.clock import Clock
from gateway.config.model import Settings
from gateway.errors import StoreCorrupt
from gateway.mail.dsn import Action, Report, ReportedRecipient, build_report
from gateway.mail.envelope import Message, Notify, Recipient
from gateway.mail.headers import split_message
from gateway.queue.records import NewMessage, silent_kinds
from gateway.queue.system_mail import new_id, system_message
from gateway.store.bodies import SealedBody
from gateway.store.store import Store

__all__ = ["NoticeEntry", "is_wanted", "make_notice", "read_header", "report_now"]

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
        header = await read_header(store, message.id)
    now = clock.time()
    notice_id = new_id(now)
    report = _report(settings, notice_id, now, message, action, wanted, retry_until)
    data = build_report(report, header)
    spool = store.spool(notice_id)
    await spool.write(data)
    return _as_message(settings, await spool.finish(), report, message, eight_bit=not data.isascii())


def report_now(  # noqa: PLR0917  as make_notice
    store: Store,
    settings: Settings,
    now: float,
    message: Message,
    action: Action,
    entries: Sequence[NoticeEntry],
    header: bytes,
    *,
    until: float | None = None,
    held: bool = False,
) -> NewMessage:
    """A notice for these recipients within a transaction: small, and for a sender that is to be told."""
    notice_id = new_id(now)
    report = replace(_report(settings, notice_id, now, message, action, entries, until), held=held)
    data = build_report(report, header)
    return _as_message(settings, store.sealed(notice_id, data), report, message, eight_bit=not data.isascii())


def _report(  # noqa: PLR0917  the parts of a report
    settings: Settings,
    notice_id: str,
    now: float,
    message: Message,
    action: Action,
    entries: Sequence[NoticeEntry],
    retry_until: float | None,
) -> Report:
    sender = message.envelope.sender
    assert sender is not None, "there is nobody to tell"
    return Report(
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
            for entry in entries
        ),
        envid=message.envelope.envid,
        retry_until=retry_until,
    )


def _as_message(settings: Settings, body: SealedBody, report: Report, about: Message, *, eight_bit: bool) -> NewMessage:
    return system_message(
        settings,
        body,
        report.now,
        (report.to,),
        about.envelope.connector,
        eight_bit=eight_bit,
        parent=about.id,
        facts={"action": "held" if report.held else str(report.action)},
    )


async def read_header(store: Store, message_id: str, deposit: int | None = None) -> bytes:
    """The header block out of the sealed body; empty where the body is damaged - the sender is told all the same.

    ``deposit``: by the key of that recipient in the portal (see ``Store.body``).
    """
    data = b""
    try:
        async with aclosing(store.body(message_id, deposit)) as pieces:
            async for piece in pieces:
                data += piece
                block, rest = split_message(data)
                if rest or len(data) > _HEADER_LIMIT:
                    return block if rest else b""
    except StoreCorrupt:
        return b""
    return split_message(data)[0]
