"""Transfer encodings undone piece by piece, from the beginning or - where the lines allow it - from the middle.

What comes out is what ``gateway.mail.content.decoding`` makes of the whole, with one difference: line ends of
quoted-printable stay CRLF, because here they are written to a file and not read as text (RFC 2045 section 6.7).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from gateway.portal.reading.parts import Part, Read

__all__ = ["Decoder", "LineMeter", "decoded", "decoder", "encoded_range"]

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_FOREIGN = bytes(set(range(256)) - set(_ALPHABET) - set(b"="))
_SOFT_BREAK_WITH_BLANKS = re.compile(rb"=[ \t]+(?=\r\n|\Z)")
_BARE_CR = re.compile(rb"\r(?!\n)")
#: Longer lines of quoted-printable are decoded before their end is seen; RFC 2045 allows 76 characters.
_MAX_LINE = 65_536
#: Longer lines of base64 are no lines to count by.
_MAX_REGULAR = 1000


class Decoder(Protocol):
    """An encoding undone as its octets come."""

    def feed(self, piece: bytes) -> bytes:
        """What ``piece`` completes."""
        ...

    def finish(self) -> bytes:
        """What is left at the end."""
        ...


def decoder(encoding: str) -> Decoder:
    """For this (lower-case) encoding; what is unknown stays as it stands."""
    if encoding == "base64":
        return _Base64()
    return _QuotedPrintable() if encoding == "quoted-printable" else _AsItStands()


class _AsItStands:
    def feed(self, piece: bytes) -> bytes:
        return piece

    def finish(self) -> bytes:
        return b""


class _Base64:
    """What stands between the junk. Padding ends one text, and another may follow it."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        data = self._rest + piece.translate(None, _FOREIGN)
        if b"=" not in data:
            whole = len(data) // 4 * 4
            self._rest = data[whole:]
            return binascii.a2b_base64(data[:whole])
        *ended, last = data.split(b"=")
        self._rest = b""
        out = [_segment(text) for text in ended if text]
        if last:
            out.append(self.feed(last))
        return b"".join(out)

    def finish(self) -> bytes:
        rest, self._rest = self._rest, b""
        return _segment(rest)


def _segment(text: bytes) -> bytes:
    """A text of base64 without its padding; a last character alone says nothing."""
    if len(text) % 4 == 1:
        text = text[:-1]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


class _QuotedPrintable:
    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        data = self._rest + piece
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) > _MAX_LINE:
            cut = data.rfind(b"=", len(data) - 1000)  # what follows it may not be complete
            if cut < 0:
                cut = len(data) - data.endswith(b"\r")
        self._rest = data[cut:]
        return self._decoded(data[:cut])

    def finish(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._decoded(rest)

    @staticmethod
    def _decoded(data: bytes) -> bytes:
        if data.count(b"\r") != data.count(b"\r\n"):  # the library's decoder swallows the line after a bare CR
            data = _BARE_CR.sub(b"\r\n", data)
        if b"= " in data or b"=\t" in data:
            data = _SOFT_BREAK_WITH_BLANKS.sub(b"=", data)
        return binascii.a2b_qp(data)


class LineMeter:
    """Looks at base64 as it comes: whether all its lines are alike, so that the n-th octet stands at a known place."""

    def __init__(self) -> None:
        self._line: int | None = None
        self._rest = b""
        self._over = False

    def feed(self, piece: bytes) -> None:
        """The next octets."""
        if self._line == 0:
            return
        lines = (self._rest + piece).split(b"\r\n")
        self._rest = lines.pop()
        if len(self._rest) > _MAX_REGULAR:
            self._line = 0
            return
        if lines and self._line is None:
            self._line = len(lines[0])
        if lines and not self._fits(lines):
            self._line = 0
            self._rest = b""

    def _fits(self, lines: list[bytes]) -> bool:
        text = b"".join(lines)
        if self._over:
            return not text
        assert self._line is not None
        if len(text) != self._line * len(lines) or text.translate(None, _ALPHABET):
            # Only the very last line may be shorter, and only it may hold the padding.
            *before, last = lines
            while before and not last:
                last = before.pop()
            self._over = True
            shorter = len(last) <= self._line and not last.rstrip(b"=").translate(None, _ALPHABET)
            return shorter and all(len(line) == self._line for line in before) and not _junk(before)
        return self._line > 0 and self._line % 4 == 0

    def line(self) -> int:
        """After the last octet: how many characters each line has, or 0."""
        if self._line and self._rest:
            self.feed(b"\r\n")
        if not self._line or self._line % 4 or self._line > _MAX_REGULAR:
            return 0
        return self._line


def _junk(lines: list[bytes]) -> bool:
    return bool(b"".join(lines).translate(None, _ALPHABET))


def encoded_range(part: Part, start: int, end: int) -> tuple[int, int, int]:
    """Which octets of the message hold the decoded ones ``start`` to ``end``: from, to, how many to leave out first.

    Where lines are not alike all of the part is read from its beginning.
    """
    if part.line:
        unit = part.line // 4 * 3
        first, last = start // unit, max(end - 1, start) // unit
        step = part.line + 2
        return part.start + first * step, min(part.end, part.start + (last + 1) * step), start - first * unit
    if part.encoding in {"base64", "quoted-printable"}:
        return part.start, part.end, start
    return part.start + start, part.start + end, 0


async def decoded(part: Part, read: Read, start: int, end: int) -> AsyncGenerator[bytes, None]:
    """The decoded octets ``start`` to ``end`` of a part (``0 <= start <= end <= size``). Errors are the reader's."""
    if start >= end:
        return
    begin, stop, skip = encoded_range(part, start, end)
    undo = decoder(part.encoding)
    left = end - start
    async with aclosing(read(begin, stop)) as pieces:
        async for piece in pieces:
            data = undo.feed(piece)
            if skip:
                data, skip = data[skip:], max(0, skip - len(data))
            if len(data) >= left:
                yield data[:left]
                return
            left -= len(data)
            if data:
                yield data
    data = undo.finish()[skip:][:left]
    if data:
        yield data
