"""What we put in front of a message when it leaves.

X-Gateway-Id, the loop mark, and our Received field on top of the accepted bytes.

Everything below our own Received is byte for byte what was accepted. No field shows an envelope recipient: one
transaction may carry several that must not learn of each other (RFC 5321 section 7.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from gateway.mail.address import Address
from gateway.mail.envelope import Message, ReceivedTls
from gateway.mail.loopmark import make_mark
from gateway.mail.reply import clean_text

__all__ = ["trace_fields"]


def trace_fields(message: Message, hostname: str, loop_key: bytes, recipients: Iterable[Address]) -> bytes:
    """The bytes to send before the accepted ones (RFC 5321 section 4.4)."""
    mark = make_mark(loop_key, message.id, recipients)
    return f"X-Gateway-Id: {message.id}\r\n".encode() + mark + _received(message, hostname)


def _received(message: Message, hostname: str) -> bytes:
    envelope = message.envelope
    if not envelope.client_address:
        return b""  # mail of our own was received from nobody
    origin = _origin(envelope.helo, envelope.client_address, envelope.tls)
    protocol = envelope.protocol or "ESMTP"
    text = f"{origin}\tby {hostname} with {protocol} id {message.id};\r\n\t{_date(int(message.received))}\r\n"
    return text.encode("ascii", "replace")


@lru_cache(maxsize=1024)
def _origin(helo: str, address: str, tls: ReceivedTls | None) -> str:
    """What the messages of one client share."""
    name = clean_text(helo, 255).replace("(", "").replace(")", "") or "unknown"
    if not name.isascii():
        name = name.encode("ascii", "replace").decode("ascii")
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    line = f"Received: from {name} ({literal})\r\n"
    return line if tls is None else f"{line}\t(using {tls.version} with cipher {tls.cipher})\r\n"


@lru_cache(maxsize=64)
def _date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))
