"""The body of a mail as a fake peer reads it: its end found, dots un-stuffed, breaches noted, kept or only counted.

RFC 5321 section 4.5.2 (transparency), section 2.3.8 (CR and LF only together), RFC 3030 (BDAT).
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["Body", "DotScanner"]

_END = b"\r\n.\r\n"
_LAX_END = re.compile(rb"(?:\r\n|\n|\r)\.(?:\r\n|\n|\r(?!\n)(?=.))", re.DOTALL)
_LAX_DOT = re.compile(rb"(\r\n|\n|\r)\.")


class Body:
    """Collects a body: always its size and digest, its bytes where ``keep`` is set."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self.size = 0
        self.wire_size = 0
        self.raw = bytearray()
        self.wire = bytearray()
        self.eight_bit = False
        self._digest = hashlib.sha256()
        self._cr = self._lf = self._crlf = self._nul = 0
        self._ends_in_cr = False

    def add(self, wire: bytes, raw: bytes) -> None:
        """Take the next piece, as it came and as it is meant."""
        if self.keep:
            self.wire += wire
            self.raw += raw
        self.size += len(raw)
        self.wire_size += len(wire)
        self._digest.update(raw)
        self._cr += wire.count(b"\r")
        self._lf += wire.count(b"\n")
        self._crlf += wire.count(b"\r\n") + (self._ends_in_cr and wire.startswith(b"\n"))
        self._nul += wire.count(b"\0")
        if wire:
            self._ends_in_cr = wire.endswith(b"\r")
        self.eight_bit = self.eight_bit or not wire.isascii()

    @property
    def sha256(self) -> str:
        """SHA-256 of the un-stuffed body, hex."""
        return self._digest.hexdigest()

    def faults(self, *, eight_bit_declared: bool) -> list[str]:
        """What no client may send."""
        found = {
            "bare CR in the body": self._cr > self._crlf,
            "bare LF in the body": self._lf > self._crlf,
            "NUL in the body": self._nul > 0,
            "octets above 127 without BODY=8BITMIME": self.eight_bit and not eight_bit_declared,
        }
        return [fault for fault, is_so in found.items() if is_so]


class DotScanner:
    """Finds the end of DATA in a stream of pieces and fills a :class:`Body`."""

    def __init__(self, body: Body, *, lax: bool = False) -> None:
        self._body = body
        self._lax = lax
        # As if a line end came before: a dot on the first line counts. Those two octets are never passed on.
        self._pending = b"\r\n"
        self._virtual = 2

    def feed(self, piece: bytes) -> bytes | None:
        """Take a piece; None while the end has not come, else what follows the end (perhaps nothing)."""
        data = self._pending + piece
        end = self._find_end(data)
        if end is not None:
            start, after = end
            self._pass_on(data[:start])
            return data[after:]
        keep = _lax_tail(data) if self._lax else _strict_tail(data)
        self._pending = data[len(data) - keep :]
        self._pass_on(data[: len(data) - keep])
        return None

    def _find_end(self, data: bytes) -> tuple[int, int] | None:
        """Where the body ends, its last line end included, and where what follows begins."""
        if self._lax:
            found = _LAX_END.search(data)
            return (data.index(b".", found.start()), found.end()) if found else None
        at = data.find(_END)
        return (at + 2, at + len(_END)) if at >= 0 else None

    def _pass_on(self, data: bytes) -> None:
        raw = _LAX_DOT.sub(rb"\1", data) if self._lax else data.replace(b"\r\n.", b"\r\n")
        cut = min(self._virtual, len(data))
        self._virtual -= cut
        self._body.add(data[cut:], raw[cut:])


def _strict_tail(data: bytes) -> int:
    """How many of the last octets may be the beginning of the end."""
    return next((n for n in range(len(_END) - 1, 0, -1) if data.endswith(_END[:n])), 0)


def _lax_tail(data: bytes) -> int:
    """The same for the lax rule: from the first CR or LF among the last four octets."""
    tail = data[-4:]
    ends = [at for at in (tail.find(b"\r"), tail.find(b"\n")) if at >= 0]
    return len(tail) - min(ends) if ends else 0
