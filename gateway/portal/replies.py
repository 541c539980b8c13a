"""An answer from the portal to the sender, as ordinary mail over the way back that the connector names.

From is an address of ours, with the recipient's name in words: a mail from our host that claimed to be from their
domain would fail their own DMARC. Reply-To is the recipient, so that the next answer takes the usual way - through
this gateway, under its policy. In-Reply-To and References thread it (RFC 5322 section 3.6.4).

The text is written here; attachments are sealed into the spool as they arrive, encoded on the way: nothing of them is
held as a whole, and nothing touches the disk in clear.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from gateway.mail.address import Address
from gateway.mail.edits.encoded_words import encode_words, fold_field
from gateway.mail.edits.transfer import to_quoted_printable
from gateway.mail.reply import clean_text
from gateway.portal.letters import Face
from gateway.store.bodies import SealedBody, Spool

__all__ = ["MAX_TEXT", "Attachment", "Reply", "ReplyWriter"]

#: Characters of a reply's text.
MAX_TEXT: Final = 200_000
_BASE64_LINE: Final = 57
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,100}/[A-Za-z0-9][A-Za-z0-9.+_-]{0,100}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")
#: Ids that References keeps: the first, and the newest.
_MOST_REFERENCES: Final = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reply answers, and whose it is. ``subject`` is the original's, decoded; ``references`` its ids."""

    id: str
    hostname: str
    face: Face
    author: Address
    to: Address
    subject: str
    message_id: str
    references: str
    now: float


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file: its name as the browser says it, its type, its content as it arrives."""

    name: str
    type: str
    pieces: AsyncIterator[bytes]


class ReplyWriter:
    """Writes one reply into a spool: :meth:`begin`, any number of :meth:`attach`, :meth:`finish`."""

    def __init__(self, reply: Reply, spool: Spool) -> None:
        self.reply = reply
        self._spool = spool
        self._boundary = f"=_{reply.id}"

    async def begin(self, text: str) -> None:
        """Header and text. Raises :class:`StoreError`."""
        reply = self.reply
        shown = clean_text(f"{reply.author} via {reply.face.name}", 200).replace("\\", "").replace('"', "")
        name = f'"{shown}"' if shown.isascii() else encode_words(shown, used=len("From: "))
        subject = clean_text(reply.subject, 500)
        if not subject.lower().startswith("re:"):
            subject = f"Re: {subject}".strip()
        header = [
            f"From: {name} <{reply.face.sender}>",
            f"Reply-To: <{reply.author}>",
            f"To: <{reply.to}>",
            _line("Subject", subject),
            f"Date: {format_datetime(datetime.fromtimestamp(int(reply.now), UTC))}",
            f"Message-ID: <{reply.id}@{reply.hostname}>",
            *self._thread(),
            "MIME-Version: 1.0",
            f'Content-Type: multipart/mixed;\r\n boundary="{self._boundary}"',
        ]
        body = to_quoted_printable(_lines(text).encode())
        part = (
            f"--{self._boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        )
        await self._spool.write(("\r\n".join(header) + "\r\n\r\n" + part).encode() + body + b"\r\n")

    def _thread(self) -> list[str]:
        own = _MESSAGE_ID.fullmatch(self.reply.message_id.strip())
        if own is None:
            return []
        chain = [found for found in _MESSAGE_ID.findall(self.reply.references) if found != own[0]]
        if len(chain) >= _MOST_REFERENCES:
            chain = [chain[0], *chain[2 - _MOST_REFERENCES :]]
        return [f"In-Reply-To: {own[0]}", "References: " + "\r\n ".join([*chain, own[0]])]

    async def attach(self, attachment: Attachment) -> int:
        """Add a file; its size in octets. Raises :class:`StoreError`, and what its pieces raise."""
        name = clean_text(attachment.name, 200) or "attachment"
        kind = attachment.type if _TYPE.fullmatch(attachment.type) else ""
        if not kind or kind.startswith(("multipart/", "message/")):
            kind = "application/octet-stream"
        await self._spool.write(
            (
                f"--{self._boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n"
                f"Content-Disposition: attachment;{_file_name(name)}\r\n\r\n"
            ).encode()
        )
        size = 0
        rest = b""
        async for piece in attachment.pieces:
            size += len(piece)
            rest += piece
            whole = len(rest) - len(rest) % _BASE64_LINE
            if whole:
                await self._spool.write(_base64(rest[:whole]))
                rest = rest[whole:]
        await self._spool.write(_base64(rest) + b"\r\n")
        return size

    async def finish(self) -> SealedBody:
        """The end. Raises :class:`StoreError`."""
        await self._spool.write(f"--{self._boundary}--\r\n".encode())
        return await self._spool.finish()

    async def abort(self) -> None:
        """Forget it: nothing of it stays."""
        await self._spool.abort()

    def disown(self) -> None:
        """A row names it now."""
        self._spool.disown()


def _base64(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n") if data else b""


def _file_name(name: str) -> str:
    """The parameter in the form of RFC 2231, where it is not plain ASCII."""
    if name.isascii() and not re.search(r'["\\\r\n]', name):
        return f'\r\n filename="{name}"'
    quoted = "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or chr(byte) in "-._" else f"%{byte:02X}"
        for byte in name.encode()
    )
    return f"\r\n filename*=utf-8''{quoted}"


def _line(name: str, value: str) -> str:
    return fold_field(name, value).decode("ascii").removesuffix("\r\n")


def _lines(text: str) -> str:
    """Any text as lines with CRLF, without other control characters."""
    text = re.sub(r"\r\n?|\n", "\n", text[:MAX_TEXT])
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)
    return text.replace("\n", "\r\n") + "\r\n"
