"""The stream reader of a session: command lines with a verdict instead of an exception, and chunks of data.

Commands end with CRLF and nothing else: a bare LF or CR is told apart here, so that no two servers on the way can
read one stream of commands in two ways (RFC 5321 section 2.3.8).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["ChunkReader", "Line", "LineFault"]

#: Bytes that the stream holds before the transport is paused (twice this). Large chunks make data cheap.
STREAM_LIMIT = 64 * 1024
CHUNK = 2 * STREAM_LIMIT
#: Octets of a faulty line that are kept: enough to see its verb.
_BEGINNING = 4


class LineFault(StrEnum):
    """What is wrong with a command line."""

    BARE_LINE_END = "bare line end"
    NUL = "NUL"
    TOO_LONG = "too long"


@dataclass(frozen=True, slots=True)
class Line:
    """A command line without its CRLF, or what is wrong with it; ``data`` is then what it began with."""

    data: bytes
    fault: LineFault | None = None


class ChunkReader(asyncio.StreamReader):
    """A stream reader that can take bytes back, and whose transport can be replaced (STARTTLS)."""

    # The standard library keeps these to itself, but has kept their names since 3.4; the tests run on each version.
    _buffer: bytearray
    _exception: BaseException | None
    _transport: Any

    @property
    def pending(self) -> int:
        """Bytes that have arrived and were not read."""
        return len(self._buffer)

    def rebind(self, transport: asyncio.BaseTransport) -> None:
        """Control the flow of this transport from now on."""
        self._transport = transport

    def unread(self, data: bytes) -> None:
        """Put ``data`` back in front of what is still to be read."""
        if data:
            self._buffer[:0] = data

    def take_line(self, limit: int) -> Line | None:
        """The next command line where all of it has arrived; None where :meth:`read_line` must say what comes."""
        end = self._buffer.find(b"\n", 0, limit)
        if end < 0 or self._exception is not None:
            return None
        return _judged(self.take(end + 1))

    def take(self, most: int) -> bytes:
        """Up to so many of the bytes that have arrived; b"" where none have, or the connection broke."""
        if not self._buffer or self._exception is not None:
            return b""
        taken = bytes(memoryview(self._buffer)[:most])
        del self._buffer[:most]
        self._maybe_resume_transport()  # type: ignore[attr-defined] # of asyncio's StreamReader, left out of its stubs
        return taken

    async def read_line(self, limit: int) -> Line | None:
        """The next command line; None at the end of the stream (an unfinished line is not a command).

        A line longer than ``limit`` with its CRLF is read to its end, without keeping it, and is a fault.
        """
        overlong = False
        start = b""
        while True:
            try:
                raw = await self.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return None
            except asyncio.LimitOverrunError as error:
                skipped = await self.readexactly(error.consumed)
                start = start or skipped[:_BEGINNING]
                overlong = True
                continue
            break
        if overlong or len(raw) > limit:
            return Line(start or raw[:_BEGINNING], LineFault.TOO_LONG)
        return _judged(raw)


def _judged(raw: bytes) -> Line:
    line = raw[:-2]
    if not raw.endswith(b"\r\n") or b"\r" in line:
        return Line(raw[:_BEGINNING], LineFault.BARE_LINE_END)
    if b"\0" in line:
        return Line(raw[:_BEGINNING], LineFault.NUL)
    return Line(line)
