"""DKIM's body hash while the body arrives, in chunks of any size (RFC 6376 section 3.4). No I/O."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum

__all__ = ["BodyHasher", "Canonicalization"]


class Canonicalization(StrEnum):
    """How much a relay may alter white space without breaking a signature."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


_RUN = re.compile(rb"[ \t]{2,}|\t")
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
    return _RUN.sub(b" ", piece).replace(b" \r\n", b"\r\n")
