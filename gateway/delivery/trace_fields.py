"""What we put in front of a message when it leaves.

X-Gateway-Id, the loop mark, and our Received field on top of the accepted bytes.

Everything below our own Received is byte for byte what was accepted. No field shows an envelope recipient: one
transaction may carry several that must not learn of each other (RFC 5321 section 7.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime

from gateway.mail.address import Address
from gateway.mail.envelope import Message
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
    helo = clean_text(envelope.helo, 255).replace("(", "").replace(")", "") or "unknown"
    if not helo.isascii():
        helo = helo.encode("ascii", "replace").decode("ascii")
    address = envelope.client_address
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    protocol = envelope.protocol or "ESMTP"
    lines = [f"Received: from {helo} ({literal})"]
    if envelope.tls is not None:
        lines.append(f"\t(using {envelope.tls.version} with cipher {envelope.tls.cipher})")
    lines.append(f"\tby {hostname} with {protocol} id {message.id};")
    lines.append(f"\t{format_datetime(datetime.fromtimestamp(int(message.received), UTC))}")
    return ("\r\n".join(lines) + "\r\n").encode("ascii", "replace")
