"""Letters of our own: plain text to people, beside the reports that machines read (``dsn``).

They carry no content and no subject of anybody's mail. Lines end where a reader's window does; what is meant to be
copied - ids, commands - stands on lines of its own and is never broken.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from gateway.mail.address import Address
from gateway.mail.edits.encoded_words import fold_field
from gateway.mail.reply import clean_text

__all__ = ["Block", "Letter", "build_letter", "facts", "moment", "words"]

_WIDTH = 72
_LABEL = 11

Block = tuple[str, ...]
"""Lines that stand together."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter. ``subject`` without our name, which goes before it; ``now`` in seconds since the epoch."""

    id: str
    to: tuple[Address, ...]
    subject: str
    blocks: tuple[Block, ...]
    postmaster: Address
    hostname: str
    now: float


def words(text: str, *, limit: int = 2000) -> Block:
    """A paragraph, broken into lines. Text of strangers is cleaned."""
    return tuple(textwrap.wrap(clean_text(text, limit), _WIDTH, break_long_words=False, break_on_hyphens=False))


def facts(entries: dict[str, str]) -> Block:
    """Names and what they are, one below the other; what is empty is left out."""
    lines: list[str] = []
    for name, value in entries.items():
        if value:
            lines += textwrap.wrap(
                clean_text(value, 1000),
                _WIDTH + 8,
                initial_indent=f"  {name + ':':<{_LABEL}}",
                subsequent_indent=" " * (_LABEL + 2),
                break_long_words=False,
                break_on_hyphens=False,
            )
    return tuple(lines)


def moment(seconds: float) -> str:
    """A point in time as people write it, UTC, to the minute."""
    return f"{datetime.fromtimestamp(seconds, UTC):%d %b %Y, %H:%M} UTC"


def build_letter(letter: Letter) -> bytes:
    """The whole message, CRLF line ends, ready to be sealed and sent from the null sender.

    ``Auto-Submitted`` (RFC 3834) and Exchange's own field keep automatic replies away.
    """
    subject = fold_field("Subject", f"[{letter.hostname}] {clean_text(letter.subject, 200)}")
    text = "\r\n\r\n".join("\r\n".join(block) for block in letter.blocks if block) + "\r\n"
    header = [
        f"From: Mail gateway <{letter.postmaster}>",
        "To: " + ",\r\n ".join(f"<{address}>" for address in letter.to),
        subject.decode("ascii").removesuffix("\r\n"),
        f"Date: {format_datetime(datetime.fromtimestamp(int(letter.now), UTC))}",
        f"Message-ID: <{letter.id}@{letter.hostname}>",
        "Auto-Submitted: auto-generated",
        "X-Auto-Response-Suppress: All",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Transfer-Encoding: {'7bit' if text.isascii() else '8bit'}",
    ]
    return ("\r\n".join(header) + "\r\n\r\n" + text).encode()
