"""The text of delivery status notifications: multipart/report (RFC 6522) with RFC 3464 fields, RFC 6533 where needed.

They carry no content and no subject of the original: Message-ID, Date, From and To only, so that a notice which went
astray tells nothing. Text of strangers is cleaned before it comes in here and folded here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum

from gateway.mail.address import Address
from gateway.mail.headers import Field, HeaderError, fields
from gateway.mail.reply import clean_text

__all__ = ["Action", "Report", "ReportedRecipient", "build_report", "quoted_fields"]

_QUOTED = ("message-id", "date", "from", "to")
_MAX_QUOTED = 4096


class Action(StrEnum):
    """RFC 3464 section 2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """What is said about one recipient. ``status`` is an enhanced code, ``diagnostic`` text of the peer or ours.

    ``remote`` is the host that answered, "" where none did; ``orcpt`` as in the envelope.
    """

    address: Address
    status: str
    explanation: str
    diagnostic: str = ""
    remote: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """One notification. Times in seconds since the epoch; ``retry_until`` for delayed mail.

    ``held``: delayed because a person has to look at it first; ``retry_until`` is when that time is over.
    """

    id: str
    action: Action
    to: Address
    postmaster: Address
    hostname: str
    message: str
    arrived: float
    now: float
    recipients: tuple[ReportedRecipient, ...]
    envid: str = ""
    retry_until: float | None = None
    held: bool = False


_SUBJECTS = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.RELAYED: "Your message was passed on",
}

_OPENINGS = {
    Action.FAILED: "The message that you sent could not be delivered to:",
    Action.DELAYED: (
        "The message that you sent has not been delivered yet. You do not need to send it again; "
        "delivery will be tried further. Still waiting:"
    ),
    Action.RELAYED: (
        "The message that you sent was handed to the next mail system, which does not confirm delivery itself:"
    ),
}

_HELD_SUBJECT = "Your message waits for review"
_HELD_OPENING = (
    "The message that you sent has not been delivered yet: somebody in your organisation has to look at it first. "
    "You do not need to do anything, nor to send it again. It is on its way to:"
)
_HELD_ENDING = (
    "Once it is approved it is delivered, and you hear nothing more. If it is not approved in time it comes back to "
    "you with another notice."
)


def quoted_fields(block: bytes) -> bytes:
    """The few fields of the original that a notice may show, as they stand; nothing where the block is broken."""
    try:
        found: Iterable[Field] = list(fields(block))
    except HeaderError:
        return b""
    kept = b"".join(field.raw for name in _QUOTED for field in found if field.name == name)
    return kept if len(kept) <= _MAX_QUOTED else b""


def build_report(report: Report, original_header: bytes) -> bytes:
    """The whole message, CRLF line ends, ready to be sealed and sent from the null sender."""
    international = any(
        not (recipient.address.is_ascii and recipient.orcpt.isascii()) for recipient in report.recipients
    )
    quoted = quoted_fields(original_header)
    international = international or not quoted.isascii() or not report.to.is_ascii
    boundary = f"=_{report.id}"
    status_type = "message/global-delivery-status" if international else "message/delivery-status"
    header_type = "message/global-headers" if international else "text/rfc822-headers"
    encoding = "8bit" if international else "7bit"
    header = [
        f"From: Mail delivery system <{report.postmaster}>",
        f"To: <{report.to}>",
        f"Subject: {_HELD_SUBJECT if report.held else _SUBJECTS[report.action]}",
        f"Date: {_date(report.now)}",
        f"Message-ID: <{report.id}@{report.hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
    ]
    parts = [
        _part("text/plain; charset=utf-8", "8bit", "Notification", _words(report)),
        _part(status_type, encoding, "Delivery report", _status(report, international=international)),
    ]
    text = "\r\n".join(header) + "\r\n\r\n" + "".join(f"--{boundary}\r\n{part}" for part in parts)
    last = f"--{boundary}\r\nContent-Type: {header_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return (text + last).encode() + quoted + f"\r\n--{boundary}--\r\n".encode()


def _part(content_type: str, encoding: str, description: str, body: str) -> str:
    return (
        f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n"
        f"Content-Description: {description}\r\n\r\n{body}\r\n"
    )


def _words(report: Report) -> str:
    opening = _HELD_OPENING if report.held else _OPENINGS[report.action]
    paragraphs = [f"This is the mail gateway at {report.hostname}.", _paragraph(opening)]
    for recipient in report.recipients:
        lines = [f"    <{recipient.address}>", *_indented(recipient.explanation)]
        if recipient.diagnostic:
            source = f"The system {recipient.remote} said: " if recipient.remote else "Details: "
            lines += _indented(source + recipient.diagnostic)
        paragraphs.append("\r\n".join(lines))
    if report.held:
        paragraphs.append(_paragraph(_HELD_ENDING))
    elif report.retry_until is not None:
        paragraphs.append(f"Delivery is tried until {_date(report.retry_until)}.")
    paragraphs.append(f"Questions: <{report.postmaster}>; please name the message id\r\n{report.message}.")
    return "\r\n\r\n".join(paragraphs) + "\r\n"


def _paragraph(text: str) -> str:
    return "\r\n".join(textwrap.wrap(text, 76))


def _indented(text: str) -> list[str]:
    return textwrap.wrap(clean_text(text, 2000), 74, initial_indent="    ", subsequent_indent="    ")


def _status(report: Report, *, international: bool) -> str:
    """RFC 3464 section 2: fields about the message, then about each recipient."""

    def printable(text: str, limit: int) -> str:
        """Cut to octets: a line of a message has 998 (RFC 5322 section 2.1.1)."""
        encoded = clean_text(text, limit).encode("utf-8" if international else "ascii", "replace")
        return encoded[:limit].decode("utf-8", "ignore")

    blocks = [[f"Reporting-MTA: dns; {report.hostname}", f"Arrival-Date: {_date(report.arrived)}"]]
    if report.envid:
        blocks[0].insert(0, f"Original-Envelope-Id: {printable(report.envid, 100)}")
    kind = "utf-8" if international else "rfc822"
    for recipient in report.recipients:
        block = []
        if recipient.orcpt:
            original_type, _, original = recipient.orcpt.partition(";")
            block.append(f"Original-Recipient: {printable(original_type, 40)}; {printable(original, 500)}")
        block += [
            f"Final-Recipient: {kind}; {recipient.address}",
            f"Action: {report.action}",
            f"Status: {recipient.status}",
        ]
        if recipient.remote:
            block.append(f"Remote-MTA: dns; {printable(recipient.remote, 255)}")
        if recipient.diagnostic:
            source = "smtp" if recipient.remote else "x-gateway"
            block.append(_folded(f"Diagnostic-Code: {source}; {printable(recipient.diagnostic, 900)}"))
        block.append(f"Last-Attempt-Date: {_date(report.now)}")
        if report.retry_until is not None:
            block.append(f"Will-Retry-Until: {_date(report.retry_until)}")
        blocks.append(block)
    return "\r\n\r\n".join("\r\n".join(block) for block in blocks) + "\r\n"


def _folded(line: str) -> str:
    wrapped: Sequence[str] = textwrap.wrap(line, 76, subsequent_indent="    ", break_on_hyphens=False)
    return "\r\n".join(wrapped)


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC))
