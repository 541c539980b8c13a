"""Where a message ends (RFC 5321 section 4.1.1.4) and its transparency dots (section 4.5.2), without any I/O.

Servers that disagree about the end of a message let one message smuggle in another. So there is one reading only:
CR LF dot CR LF ends data, and a CR or LF that is not part of a CRLF, or a NUL, makes the whole message void. Reading
goes on to the true end all the same, because the session would otherwise take the rest of the body for commands.

Everything is done on whole chunks by the C functions of ``bytes``; no loop in Python sees a line.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["DataScanner", "HeaderCollector", "Violation", "first_violation"]

_END = b"\r\n.\r\n"
#: What may stand at the end of a chunk and become, or begin, something that the next chunk decides.
_OPEN_ENDS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")


class Violation(StrEnum):
    """What makes a message void."""

    BARE_CR = "bare CR"
    BARE_LF = "bare LF"
    NUL = "NUL"


class DataScanner:
    """Feed it what arrives after ``354``, in chunks of any size; it gives back the clean bytes of the message.

    ``done`` turns true when the end was seen; ``rest`` is then what arrived behind it (pipelined commands).
    ``violation`` is the first thing that makes the message void; from then on :meth:`feed` gives nothing back.
    ``received`` counts the bytes that were fed and belong to the message, with stuffing and end.
    """

    __slots__ = ("_carry", "_virtual", "done", "received", "rest", "violation")

    def __init__(self) -> None:
        # The line before the first one has ended: with that in front, a dot at the very start needs no special case.
        self._carry = b"\r\n"
        self._virtual = 2
        self.done = False
        self.rest = b""
        self.violation: Violation | None = None
        self.received = 0

    def feed(self, chunk: bytes) -> bytes:
        """The clean bytes that this chunk completes, dots unstuffed; b"" where there are none yet or it is void."""
        if self.done:
            raise ValueError("the end of data was seen already")
        buffer = self._carry + chunk
        self.received += len(chunk)
        end = buffer.find(_END)
        if end >= 0:
            self.done = True
            self.rest = buffer[end + len(_END) :]
            self.received -= len(self.rest)
            self._carry = b""
            settled = buffer[: end + 2]  # the CRLF before the dot ends the last line, it belongs to the message
        else:
            keep = next((len(tail) for tail in _OPEN_ENDS if buffer.endswith(tail)), 0)
            cut = len(buffer) - keep
            self._carry, settled = buffer[cut:], buffer[:cut]
        if not settled or self.violation is not None:
            return b""
        # A settled piece never ends in an undecided CR, so it never begins with the LF of an earlier one: what is
        # bare in it is bare in the message.
        self.violation = first_violation(settled)
        if self.violation is not None:
            return b""
        clean = settled.replace(b"\r\n.", b"\r\n")
        if self._virtual:
            clean, self._virtual = clean[self._virtual :], 0
        return clean


def first_violation(piece: bytes) -> Violation | None:
    """What is wrong with a piece that neither begins nor ends within a CRLF; None where it is clean."""
    pairs = piece.count(b"\r\n")
    if piece.count(b"\r") != pairs:
        return Violation.BARE_CR
    if piece.count(b"\n") != pairs:
        return Violation.BARE_LF
    return Violation.NUL if b"\0" in piece else None


class HeaderCollector:
    """Collects clean bytes until the header block is complete, at most ``limit`` bytes of it.

    ``block`` is the header block, each line with its CRLF, once ``complete``; ``overflow`` says that it is too large.
    """

    __slots__ = ("_buffer", "_limit", "block", "complete", "overflow")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self.block = b""
        self.complete = False
        self.overflow = False

    def feed(self, piece: bytes) -> bytes | None:
        """What of ``piece`` (and earlier ones) belongs to the body, which begins with the empty line.

        None until the header block is complete.
        """
        buffer = self._buffer
        start = max(0, len(buffer) - 3)
        buffer += piece
        if buffer.startswith(b"\r\n"):
            return self._complete(0)
        end = buffer.find(b"\r\n\r\n", start)
        if end >= 0:
            return self._complete(end + 2)
        if len(buffer) > self._limit + 2:
            self.overflow = True
            buffer.clear()
        return None

    def finish(self) -> None:
        """The message ended: where no empty line came, all of it was header."""
        if not self.complete and not self.overflow:
            self._complete(len(self._buffer))

    def _complete(self, end: int) -> bytes | None:
        self.overflow = end > self._limit
        body = None
        if not self.overflow:
            self.complete = True
            self.block = bytes(self._buffer[:end])
            body = bytes(self._buffer[end:])
        self._buffer.clear()
        return body
