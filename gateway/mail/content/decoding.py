"""Content transfer encodings (RFC 2045 section 6), and uuencode, undone as leniently as mail programs do it.

Where two programs would come to different octets, ``fault`` says that there is doubt.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import NamedTuple

from gateway.mail.content.charsets import as_lines

__all__ = ["Decoded", "UuBlock", "base64_size", "decode", "from_base64", "from_quoted_printable", "uu_blocks"]


class Decoded(NamedTuple):
    """The octets; ``fault`` says what was in doubt, or is ""."""

    data: bytes
    fault: str


class UuBlock(NamedTuple):
    """A file in uuencode: where it stands in the text, its name as written, its octets."""

    start: int
    end: int
    name: bytes
    data: bytes
    fault: str


_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BLANK = b" \t\r\n"
_MAX_SEGMENTS = 1000

_SOFT_BREAK_WITH_BLANKS = re.compile(rb"=[ \t]+(?=\n|\Z)")
_BEGIN = re.compile(rb"^begin(-base64)? [0-7]{3,4} ([^\r\n]{1,500})\r?\n", re.MULTILINE)
_MAX_UU_LINE = 200
_MAX_BEGINNINGS = 2000

_IDENTITY = frozenset({"", "7bit", "8bit", "binary"})


def decode(body: bytes, encoding: str) -> Decoded:
    """``body`` with the named encoding (lower case, "": none) undone. Uuencode is not undone: see ``uu_blocks``."""
    if encoding in _IDENTITY:
        return Decoded(body, "")
    if encoding == "base64":
        return from_base64(body)
    if encoding == "quoted-printable":
        return from_quoted_printable(body)
    return Decoded(body, f"transfer encoding {encoding[:40]!r} is unknown")


def from_base64(body: bytes) -> Decoded:
    """What stands between the junk; padding may be missing, and may stand in the middle, where doubt begins."""
    fault = "it is not clean base64" if body.translate(None, _BASE64 + _BLANK + b"=") else ""
    padding = body.find(b"=")
    if padding >= 0 and body[padding : padding + 100_000].strip(b"= \t\r\n"):
        return _segments(body)
    data, whole = _segment(body)
    return Decoded(data, fault or ("" if whole else "its base64 ends within an octet"))


def _segment(body: bytes) -> tuple[bytes, bool]:
    """The octets, and whether there was no character too many. The padding may be missing."""
    try:
        return binascii.a2b_base64(body), True
    except binascii.Error:
        pass
    try:
        return binascii.a2b_base64(body + b"=="), True
    except binascii.Error:
        characters = body.translate(None, bytes(set(range(256)) - set(_BASE64)))
        return binascii.a2b_base64(characters[: len(characters) // 4 * 4]), False


def _segments(body: bytes) -> Decoded:
    """Several base64 texts after another: some programs stop after the first, some go on. Doubt, whatever it holds."""
    pieces = re.split(rb"=+", body, maxsplit=_MAX_SEGMENTS)
    data = b"".join(_segment(piece)[0] for piece in pieces[:_MAX_SEGMENTS])
    return Decoded(data, "its base64 goes on after its end")


def base64_size(data: bytes, start: int, end: int) -> int:
    """How many octets the base64 in ``data[start:end]`` stands for, without decoding it."""
    blanks = sum(data.count(blank, start, end) for blank in (b"\r", b"\n", b" ", b"\t"))
    padding = data.count(b"=", max(start, end - 8), end)
    return max(0, (end - start - blanks - padding) * 3 // 4)


def from_quoted_printable(body: bytes) -> Decoded:
    """RFC 2045 section 6.7. What is no escape stays as it stands, as everywhere."""
    body = as_lines(body)  # the library's decoder swallows the line after a bare CR
    if b"= " in body or b"=\t" in body:
        body = _SOFT_BREAK_WITH_BLANKS.sub(b"=", body)
    return Decoded(binascii.a2b_qp(body), "")


def uu_blocks(body: bytes) -> Iterator[UuBlock]:
    """The uuencoded files in ``body``, in order."""
    position = tries = 0
    while (match := _BEGIN.search(body, position)) is not None:
        tries += 1
        if tries > _MAX_BEGINNINGS:
            yield UuBlock(position, position, b"", b"", "there is more uuencode than is read")
            return
        block = _uu_base64(body, match) if match[1] else _uu_lines(body, match)
        position = match.end() if block is None else block.end
        if block is not None:
            yield block


def _uu_lines(body: bytes, match: re.Match[bytes]) -> UuBlock | None:
    """Lines whose first character tells their length; None where the first is none."""
    position, octets, fault = match.end(), bytearray(), "its uuencode has no end"
    while position < len(body):
        stop = body.find(b"\n", position, position + _MAX_UU_LINE)
        line = body[position : stop if stop >= 0 else position + _MAX_UU_LINE].rstrip(b"\r")
        after = stop + 1 if stop >= 0 else min(len(body), position + _MAX_UU_LINE)
        if line.strip() == b"end":
            position, fault = after, ""
            break
        piece = _uu_line(line)
        if piece is None:
            break
        octets += piece
        position = after
    if position == match.end():
        return None
    return UuBlock(match.start(), position, match[2].strip(), bytes(octets), fault)


def _uu_line(line: bytes) -> bytes | None:
    if not line or line == b"`":
        return b""
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:
        pass
    # Some encoders leave characters after the line's length; the length is right.
    needed = (((line[0] - 32) & 63) * 4 + 5) // 3
    try:
        return binascii.a2b_uu(line[:needed])
    except binascii.Error:
        return None


def _uu_base64(body: bytes, match: re.Match[bytes]) -> UuBlock:
    stop = body.find(b"\n====", match.end() - 1)
    end = len(body) if stop < 0 else stop + 5
    decoded = from_base64(body[match.end() : len(body) if stop < 0 else stop + 1])
    fault = decoded.fault or ("" if stop >= 0 else "its base64 has no end")
    return UuBlock(match.start(), end, match[2].strip(), decoded.data, fault)
