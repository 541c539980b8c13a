"""What DKIM hashes: the body in chunks of any size, and header fields (RFC 6376 sections 3.4 and 3.7)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from gateway.mail.headers import Field

__all__ = ["BodyHasher", "Canonicalization", "header_input"]


class Canonicalization(StrEnum):
    """How much a relay may alter white space without breaking a signature."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


_WSP = re.compile(rb"[ \t]+")
_MAX_BLANK_AT_ONCE = 4096


class BodyHasher:
    """SHA-256 over the canonical body. Feed it everything behind the empty line, then ask :meth:`digest` once.

    Empty lines count only if something follows them, white space only if it does not end a line. So what may still
    vanish is held back - as a number of lines and at most one byte, however much of it arrives.
    """

    __slots__ = ("_blank_lines", "_carry", "_hash", "_relaxed", "_started")

    def __init__(self, canonicalization: Canonicalization) -> None:
        self._relaxed = canonicalization is Canonicalization.RELAXED
        self._hash = hashlib.sha256()
        self._blank_lines = 0  # line ends since the last visible byte
        self._carry = b""  # behind those: b" " for white space, b"\r" for half a line end
        self._started = False

    def update(self, piece: bytes) -> None:
        """The next bytes of the body; every CR and LF in it is part of a CRLF (the scanner saw to that)."""
        data = self._carry + piece
        visible = data.rstrip(b" \t\r\n" if self._relaxed else b"\r\n")
        tail = data[len(visible) :]
        if visible:
            self._write_blank_lines()
            self._hash.update(_relax(visible) if self._relaxed else visible)
            self._started = True
        self._blank_lines += tail.count(b"\r\n")
        unfinished = tail.rpartition(b"\r\n")[2]
        self._carry = b"\r" if unfinished.endswith(b"\r") else unfinished[:1]

    def digest(self) -> bytes:
        """The hash of the whole canonical body."""
        # An empty body is one CRLF in simple (section 3.4.3) and nothing in relaxed (3.4.4).
        if self._started or not self._relaxed:
            self._hash.update(b"\r\n")
        return self._hash.digest()

    def _write_blank_lines(self) -> None:
        while self._blank_lines:
            count = min(self._blank_lines, _MAX_BLANK_AT_ONCE)
            self._hash.update(b"\r\n" * count)
            self._blank_lines -= count


def _relax(piece: bytes) -> bytes:
    """Runs of white space as one blank, none at the end of a line."""
    # Searches for fixed bytes are many times as quick as an expression, and an attachment in base64 holds neither.
    if b"\t" in piece:
        piece = piece.replace(b"\t", b" ")
    while b"  " in piece:
        piece = piece.replace(b"  ", b" ")  # halves the longest run
    return piece.replace(b" \r\n", b"\r\n")


def header_input(names: Iterable[str], found: Sequence[Field], own: bytes, canonicalization: Canonicalization) -> bytes:
    """What a signature over these (lower-case) names signs; ``own`` is its own field, less the value of ``b=``.

    Of several fields of a name the last counts first; one that is not there counts for nothing, which says that there
    is none (section 5.4.2).
    """
    canonical = _relaxed_field if canonicalization is Canonicalization.RELAXED else _simple_field
    left: dict[str, list[Field]] = {}
    for each in found:
        left.setdefault(each.name, []).append(each)
    parts = [canonical(left[name].pop().raw) for name in names if left.get(name)]
    parts.append(canonical(own).removesuffix(b"\r\n"))
    return b"".join(parts)


def _simple_field(raw: bytes) -> bytes:
    return raw


def _relaxed_field(raw: bytes) -> bytes:
    """Section 3.4.2."""
    name, _, value = raw.partition(b":")
    unfolded = _WSP.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + unfolded + b"\r\n"
