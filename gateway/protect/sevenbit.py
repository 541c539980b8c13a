"""A message with 8-bit octets made fit for a peer without 8BITMIME: RFC 6152 section 3, RFC 2045, RFC 2046.

Worked on bytes, part by part: a part that is plain ASCII comes out as it went in, octet for octet; one that is not is
encoded as quoted-printable (base64 where that is shorter), and only its Content-Transfer-Encoding changes. What must
not be touched (signed, encrypted) or cannot be understood without doubt is :class:`CannotConvert`.

This changes what a DKIM signature covered: the caller signs anew.
"""

from __future__ import annotations

import re
from email.message import Message as MimeHeader

from gateway.errors import GatewayError
from gateway.mail.edits.transfer import to_base64, to_quoted_printable
from gateway.mail.headers import Field, HeaderError, fields, split_message

__all__ = ["MAX_SIZE", "CannotConvert", "to_seven_bit"]

#: Larger messages are not held in memory for this.
MAX_SIZE = 25_000_000

_MAX_DEPTH = 50
_MAX_PARTS = 1000

_IDENTITY = frozenset({"7bit", "8bit"})


class CannotConvert(GatewayError):
    """The message cannot be converted without harm; the text says why. A fault of neither side: it needs 8BITMIME."""

    enhanced = "5.6.3"  # RFC 3463: conversion required and not supported


def to_seven_bit(raw: bytes) -> bytes:
    """The message (CRLF line ends) with every octet below 128. Raises :class:`CannotConvert`.

    Takes time in proportion to the size: call it in a thread for large messages.
    """
    if raw.isascii():
        return raw
    if len(raw) > MAX_SIZE:
        raise CannotConvert(f"the message is larger than {MAX_SIZE} octets")
    converted = _Conversion().entity(raw, "text/plain", 0, top=True)
    if not converted.isascii():  # cannot happen; checked because the peer was promised it
        raise CannotConvert("8-bit octets were left over")
    return converted


class _Conversion:
    """One message's conversion; counts the parts."""

    def __init__(self) -> None:
        self._parts = 0

    def entity(self, raw: bytes, default_type: str, depth: int, *, top: bool = False) -> bytes:
        """A message or part: header block, empty line, body. ``default_type`` counts where it names none."""
        if raw.isascii():
            return raw
        self._parts += 1
        if depth > _MAX_DEPTH or self._parts > _MAX_PARTS:
            raise CannotConvert("the message has too many parts, or too many inside each other")
        block, rest = split_message(raw)
        if not block.isascii():
            raise CannotConvert("header fields hold 8-bit octets")
        try:
            found = list(fields(block))
        except HeaderError as error:
            raise CannotConvert(str(error)) from None
        separator, body = rest[:2], rest[2:]
        encoding = _single(found, "content-transfer-encoding")
        mime = _content_type(found, default_type)
        kind = mime.get_content_type()
        name = "7bit" if encoding is None else _token(encoding)
        if mime.get_content_maintype() == "multipart":
            new_body, new_encoding = self._multipart(body, mime, kind, name, depth), "7bit"
        elif kind == "message/rfc822":
            new_body, new_encoding = self._nested(body, name, depth), "7bit"
        else:
            new_body, new_encoding = _leaf(body, kind, name)
        added = b""
        if top and _single(found, "mime-version") is None:
            added = _become_mime(found, body)
        return _with_encoding(found, new_encoding) + added + separator + new_body

    def _nested(self, body: bytes, encoding: str, depth: int) -> bytes:
        if encoding not in _IDENTITY:
            raise CannotConvert(f"an attached message with encoding {encoding!r}")
        return self.entity(body, "text/plain", depth + 1)

    def _multipart(self, body: bytes, mime: MimeHeader, kind: str, encoding: str, depth: int) -> bytes:
        if kind in {"multipart/signed", "multipart/encrypted"}:
            raise CannotConvert(f"{kind} must not be changed")
        if encoding not in _IDENTITY:
            raise CannotConvert(f"{kind} with encoding {encoding!r}")
        boundary = mime.get_boundary()
        if not boundary or len(boundary) > 200 or not boundary.isascii():
            raise CannotConvert(f"{kind} without a usable boundary")
        default = "message/rfc822" if kind == "multipart/digest" else "text/plain"
        delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary.encode("ascii")) + rb"(--)?[ \t]*(?=\r\n|\Z)")
        pieces: list[bytes] = []
        position = 0
        inside = closed = False
        for match in delimiter.finditer(body):
            pieces += [self._piece(body[position : match.start()], default, depth, inside=inside), match.group()]
            position = match.end()
            inside, closed = match.group(1) is None, match.group(1) is not None
            if closed:
                break
        if not inside and not closed:
            raise CannotConvert(f"{kind} without its boundary")
        pieces.append(self._piece(body[position:], default, depth, inside=inside))
        return b"".join(pieces)

    def _piece(self, piece: bytes, default: str, depth: int, *, inside: bool) -> bytes:
        """A part between two delimiters; or what stands before the first and after the last, which is no content."""
        if piece.isascii():
            return piece
        if not inside:
            raise CannotConvert("8-bit octets before or after the parts of a multipart")
        return b"\r\n" + self.entity(piece[2:], default, depth + 1)


def _single(found: list[Field], name: str) -> Field | None:
    """The one field of this name; two of them would be read differently by different readers."""
    named = [field for field in found if field.name == name]
    if len(named) > 1:
        raise CannotConvert(f"more than one {name} field")
    return named[0] if named else None


def _token(field: Field) -> str:
    """The encoding's name, less comments (RFC 2045 section 6.1)."""
    return re.sub(r"\([^()]*\)", "", field.text).strip().lower()


def _content_type(found: list[Field], default: str) -> MimeHeader:
    """The content type as the standard library reads it: type, boundary. Only read, never written out again."""
    field = _single(found, "content-type")
    header = MimeHeader()
    header.set_default_type(default)
    if field is not None:
        header["Content-Type"] = field.text
    return header


def _leaf(body: bytes, kind: str, encoding: str) -> tuple[bytes, str]:
    """A part without parts, and its new encoding."""
    if encoding not in _IDENTITY:
        raise CannotConvert(f"a part with encoding {encoding!r} and 8-bit octets")
    if kind.startswith(("message/", "application/pgp")):
        raise CannotConvert(f"{kind} must not be encoded")
    in_base64 = to_base64(body)
    if kind.startswith("text/"):
        quoted = to_quoted_printable(body)
        if len(quoted) <= len(in_base64):
            return quoted, "quoted-printable"
    return in_base64, "base64"


def _with_encoding(found: list[Field], encoding: str) -> bytes:
    """The header block with this Content-Transfer-Encoding, in the place of the old one or at the end."""
    new = f"Content-Transfer-Encoding: {encoding}\r\n".encode("ascii")
    lines = [new if field.name == "content-transfer-encoding" else field.raw for field in found]
    if all(field.name != "content-transfer-encoding" for field in found) and encoding != "7bit":
        lines.append(new)
    return b"".join(lines)


def _become_mime(found: list[Field], body: bytes) -> bytes:
    """The fields that make a MIME message of one that says it is none; the charset as far as it can be known."""
    lines = [b"MIME-Version: 1.0\r\n"]
    if _single(found, "content-type") is None:
        try:
            body.decode("utf-8")
            charset = b"utf-8"
        except UnicodeDecodeError:
            charset = b"unknown-8bit"  # RFC 1428 section 3
        lines.append(b"Content-Type: text/plain; charset=" + charset + b"\r\n")
    return b"".join(lines)
