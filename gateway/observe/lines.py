"""Log lines of several processes into one stream: whole, one behind the other.

A line is one ``write``. To a file that is enough: the kernel lets one writer at a time append. A pipe or a socket keeps
only short writes together (``PIPE_BUF``, 4096 bytes), and a traceback is longer; there every line, short ones too,
waits for a lock between the processes: a record lock on a file without a name, which the kernel lets go of when its
holder dies.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import threading
from contextlib import suppress

__all__ = ["LineOutput"]

#: Seconds that a line waits for a reader on a non-blocking descriptor.
_PATIENCE = 1.0


class LineOutput:
    """Writes whole lines to a descriptor; make it before forking, so that all processes share its lock.

    It has what loggers want of a text stream.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._lock = -1
        self._turn = threading.Lock()
        os.register_at_fork(after_in_child=self._after_fork)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            self._lock = os.memfd_create("log-lock", os.MFD_CLOEXEC)

    def write(self, text: str) -> int:
        """Write ``text``, which ends with a line end, as one piece.

        What cannot be written - nobody reads, the disk is full - is lost: a log is no reason to break off a delivery.
        """
        data = text.encode("utf-8", "backslashreplace")
        with self._turn:  # record locks belong to the process: its threads take turns here
            if self._lock >= 0:
                fcntl.lockf(self._lock, fcntl.LOCK_EX)
            try:
                with suppress(OSError):
                    while data:
                        data = data[self._write(data) :]
            finally:
                if self._lock >= 0:
                    fcntl.lockf(self._lock, fcntl.LOCK_UN)
        return len(text)

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._handle, data)
        except BlockingIOError:  # whoever started us left it non-blocking, and its reader is slow
            select.select((), (self._handle,), (), _PATIENCE)
            return os.write(self._handle, data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        """Whether a person reads along."""
        return os.isatty(self._handle)

    def _after_fork(self) -> None:
        self._turn = threading.Lock()
