"""What a process tells about itself, in shared memory: it survives its writer, and nobody waits to read it.

A board is a file without a name (``memfd``), made by the supervisor before it forks. One process writes it - a worker
each second, and when asked -, any other reads the last whole text at any time. Two halves take turns, each with a
number and a checksum, so that a writer that dies in the middle leaves the other half.
"""

from __future__ import annotations

import os
import struct
import zlib

__all__ = ["Board"]

_HEADER = struct.Struct("!QII")  # number, length, checksum
#: Most bytes of a text; the file is sparse, so that only what was written takes memory.
_HALF = 16 * 1024 * 1024


class Board:
    """One process's words. :meth:`write` and :meth:`read` may be in different processes, on both sides of a fork."""

    def __init__(self, name: str) -> None:
        self._handle = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(self._handle, 2 * _HALF)
        self._number = -1

    def write(self, text: bytes) -> None:
        """Replace what stands there. Raises ``ValueError`` where it is longer than 16 MiB."""
        if len(text) > _HALF - _HEADER.size:
            raise ValueError("too much to tell")
        if self._number < 0:
            self._number = max(found[0] for found in (self._half(0), self._half(1)))
        self._number += 1
        start = self._number % 2 * _HALF
        os.pwrite(self._handle, text, start + _HEADER.size)
        # The header last: until it stands, this half is the old one with a wrong checksum, and the other one counts.
        os.pwrite(self._handle, _HEADER.pack(self._number, len(text), zlib.crc32(text)), start)

    def read(self) -> bytes:
        """The last whole text; empty where there is none yet."""
        return max(self._half(0), self._half(1))[1]

    def close(self) -> None:
        """This process needs it no more."""
        os.close(self._handle)

    def _half(self, which: int) -> tuple[int, bytes]:
        start = which * _HALF
        number, length, checksum = _HEADER.unpack(os.pread(self._handle, _HEADER.size, start))
        text = os.pread(self._handle, min(length, _HALF), start + _HEADER.size)
        return (number, text) if number and zlib.crc32(text) == checksum else (0, b"")
