"""BDAT (RFC 3030, without BINARYMIME): the command, and what its chunks hold, without any I/O.

The rules for content are those of DATA: a CR or LF that is not part of a CRLF, or a NUL, makes the message void,
wherever a chunk ends. Dots mean nothing here. A message whose last line lacks its CRLF gets one when it ends, as it
would have needed by DATA: what is hashed and kept is what every next hop will be sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.ingress.data import Violation, first_violation

__all__ = ["Chunk", "ChunkScanner", "is_bdat", "parse_bdat"]

_COMMAND = re.compile(rb"BDAT +([0-9]{1,20})( +LAST)? *\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What BDAT announces: so many octets follow its line; ``last``: with them the message is complete."""

    size: int
    last: bool


def is_bdat(line: bytes) -> bool:
    """Whether a command line, or the beginning of a faulty one, may be BDAT - and octets follow that are no command."""
    return line[:4].upper() == b"BDAT"


def parse_bdat(line: bytes) -> Chunk | None:
    """RFC 3030 section 2. None where it cannot be read: then nothing tells where the next command begins."""
    match = _COMMAND.match(line)
    return None if match is None else Chunk(int(match[1]), match[2] is not None)


class ChunkScanner:
    """Feed it the octets of all chunks of a message, in pieces of any size; it gives back what they settle.

    ``violation`` is the first thing that makes the message void; from then on nothing is given back.
    ``received`` counts all octets that were fed.
    """

    __slots__ = ("_carry", "_line_ended", "received", "violation")

    def __init__(self) -> None:
        self._carry = b""
        self._line_ended = True
        self.received = 0
        self.violation: Violation | None = None

    def feed(self, piece: bytes) -> bytes:
        """The clean octets; a CR at the end waits for what the next piece, or chunk, begins with."""
        self.received += len(piece)
        if self.violation is not None or not piece:
            return b""
        settled = self._carry + piece if self._carry else piece
        self._carry = b""
        if settled.endswith(b"\r"):
            settled, self._carry = settled[:-1], b"\r"
        if not settled:
            return b""
        self.violation = first_violation(settled)
        if self.violation is not None:
            return b""
        self._line_ended = settled.endswith(b"\r\n")
        return settled

    def finish(self) -> bytes:
        """The message is complete: the CRLF that its last line lacks, if it does."""
        if self._carry and self.violation is None:
            self.violation = Violation.BARE_CR
        return b"" if self._line_ended or self.violation is not None else b"\r\n"
