"""Whether a backup is being made: the lock that says so, and what follows from it for everybody else.

A backup copies the database first and body files after it. So while one is being made, files that no row names any more
are put aside instead of removed (``blobs``), and the checkpoint that shreds is the backup's to run (``shred``), because
between two of its own it keeps the write-ahead log from beginning anew (``hotcopy``).

Why nothing is missed: who looks does so behind its commit. Where it finds no backup, that commit came before the lock
was taken, and so before the moment that the backup holds: the backup does not name the file.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import StoreBusy

__all__ = ["backing_up", "is_backing_up"]

_NAME = "backup.lock"
#: Seconds that a backup tries to get the lock: whoever looks holds it for a moment.
_PATIENCE = 2.0


@contextmanager
def backing_up(run_dir: Path) -> Iterator[None]:
    """A backup is being made for the block. Raises :class:`StoreBusy` where another one is; ``OSError``."""
    handle = os.open(run_dir / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreBusy("another backup of this store is being made") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def is_backing_up(run_dir: Path) -> bool:
    """Whether a backup is being made right now. The kernel ends it with the process, however that ends."""
    try:
        handle = os.open(run_dir / _NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
