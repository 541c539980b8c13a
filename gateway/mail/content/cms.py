"""S/MIME by its content and not its name: just enough of CMS (RFC 5652) in BER to see what it is.

Read by hand: what is signed can be as large as a message, the outermost octets say which kind it is, and BER allows
forms (indefinite lengths, strings in pieces) whose general parsers copy or recurse.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Cms", "cms_kind", "signed_content"]


class Cms(Enum):
    """What a CMS object is."""

    ENCRYPTED = "encrypted"
    SIGNED = "signed"
    OTHER = "other"  # compressed, certificates, not CMS at all


_ENVELOPED = bytes.fromhex("2a864886f70d010703")
_AUTH_ENVELOPED = bytes.fromhex("2a864886f70d0109100117")  # RFC 5083
_SIGNED = bytes.fromhex("2a864886f70d010702")
_KINDS = {_ENVELOPED: Cms.ENCRYPTED, _AUTH_ENVELOPED: Cms.ENCRYPTED, _SIGNED: Cms.SIGNED}

_SEQUENCE, _SET, _OID, _INTEGER, _EXPLICIT = 0x30, 0x31, 0x06, 0x02, 0xA0
_OCTETS, _OCTETS_IN_PIECES = 0x04, 0x24
#: A stream of OpenSSL has pieces of some KB.
_MAX_PIECES = 100_000


class _Malformed(ValueError):
    """This is not the CMS that was expected."""


class _Element(NamedTuple):
    """Where its content starts and ends; the end is None for an indefinite length."""

    tag: int
    start: int
    end: int | None


def _element(data: bytes, position: int) -> _Element:
    """The header of the element at ``position`` (X.690 section 8.1)."""
    if position + 2 > len(data):
        raise _Malformed
    tag, length = data[position], data[position + 1]
    start = position + 2
    if length == 0x80:
        return _Element(tag, start, None)
    if length > 0x80:
        octets = length - 0x80
        if octets > 8 or start + octets > len(data):
            raise _Malformed
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
    return _Element(tag, start, start + length)


def _expect(data: bytes, position: int, tag: int) -> _Element:
    element = _element(data, position)
    if element.tag != tag:
        raise _Malformed
    return element


def _after(data: bytes, element: _Element) -> int:
    """Where the next element begins. Of indefinite ones only those that hold no others of the kind are skipped."""
    if element.end is not None:
        return element.end
    position = element.start
    for _ in range(1000):
        if data.startswith(b"\x00\x00", position):
            return position + 2
        inner = _element(data, position)
        if inner.end is None:
            raise _Malformed
        position = inner.end
    raise _Malformed


def _content_type(data: bytes) -> tuple[bytes, int]:
    """The object identifier of the outermost content, and where what follows it stands."""
    outer = _expect(data, 0, _SEQUENCE)
    identifier = _expect(data, outer.start, _OID)
    if identifier.end is None or identifier.end - identifier.start > 32:
        raise _Malformed
    return data[identifier.start : identifier.end], identifier.end


def cms_kind(data: bytes) -> Cms:
    """What ``data`` is; a few octets of its head are enough."""
    try:
        return _KINDS.get(_content_type(data)[0], Cms.OTHER)
    except _Malformed:
        return Cms.OTHER


def signed_content(data: bytes) -> bytes | None:
    """What a SignedData holds (RFC 5652 section 5.1); b"" for a detached signature, None where it cannot be read."""
    try:
        identifier, position = _content_type(data)
        if identifier != _SIGNED:
            return None
        signed = _expect(data, _expect(data, position, _EXPLICIT).start, _SEQUENCE)
        version = _expect(data, signed.start, _INTEGER)
        algorithms = _expect(data, _after(data, version), _SET)
        held = _expect(data, _after(data, algorithms), _SEQUENCE)
        kind = _expect(data, held.start, _OID)
        position = _after(data, kind)
        if position == held.end or (held.end is None and data.startswith(b"\x00\x00", position)):
            return b""
        return _octets(data, _element(data, _expect(data, position, _EXPLICIT).start))
    except _Malformed:
        return None


def _octets(data: bytes, string: _Element) -> bytes:
    if string.tag == _OCTETS and string.end is not None:
        if string.end > len(data):
            raise _Malformed
        return data[string.start : string.end]
    if string.tag != _OCTETS_IN_PIECES:
        raise _Malformed
    pieces: list[bytes] = []
    position = string.start
    while len(pieces) < _MAX_PIECES:
        if position == string.end or (string.end is None and data.startswith(b"\x00\x00", position)):
            return b"".join(pieces)
        piece = _expect(data, position, _OCTETS)
        if piece.end is None or piece.end > len(data):
            raise _Malformed
        pieces.append(data[piece.start : piece.end])
        position = piece.end
    raise _Malformed
