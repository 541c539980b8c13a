"""Whose turn it is to write, between processes.

SQLite's own lock is polled with growing pauses: who has just written finds it free again, who waits comes too late.
So writers queue before they ask for it, at a turnstile of two locked files: take *next*, take *write*, let go of
*next*; write; let go of *write*. Only one ever waits for *write*, and who has just written has to get in line behind
it. The kernel lets go of the locks of a process that dies.

Nothing depends on it but fairness: a program that does not come through here meets SQLite's lock.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final, Protocol

from gateway.errors import StoreBusy

__all__ = ["PATIENCE", "OpenDoor", "Turns", "Turnstile"]

#: Seconds that a writer waits for its turn; SQLite's own patience is as long.
PATIENCE: Final = 10.0


class Turns(Protocol):
    """Gives turns to write; see :class:`Turnstile`."""

    def turn(self) -> AbstractContextManager[None]:
        """Wait for our turn, and keep it for the block. Raises :class:`StoreBusy` where it does not come in time."""
        ...

    def close(self) -> None:
        """No turn is wanted any more."""
        ...


class OpenDoor:
    """Where nobody has to wait for another writer, as with PostgreSQL."""

    def turn(self) -> AbstractContextManager[None]:
        """Come in."""
        return nullcontext()

    def close(self) -> None:
        """There is nothing to close."""


class Turnstile:
    """One writer's place at the turnstile of the store whose ``run`` directory this is; for one thread at a time."""

    def __init__(self, run_dir: Path, patience: float = PATIENCE) -> None:
        self._next = _Gate(run_dir / "write-next.lock", patience)
        self._write = _Gate(run_dir / "write.lock", patience)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for our turn, and keep it for the block. Raises :class:`StoreBusy` where it does not come in time."""
        self._next.enter()
        try:
            self._write.enter()
        finally:
            self._next.leave()
        try:
            yield
        finally:
            self._write.leave()

    def close(self) -> None:
        """No turn is wanted any more. Once more does nothing."""
        self._next.close()
        self._write.close()


class _Gate:
    """A locked file. The kernel wakes who waits at once, but knows no time limit: so a thread waits in our place."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._handle = self._open()

    def enter(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()

    def leave(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _wait(self) -> None:
        handle = self._handle
        settled, entered, given_up = threading.Lock(), threading.Event(), threading.Event()

        def wait() -> None:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with settled:
                if given_up.is_set():
                    os.close(handle)  # and so unlocks it
                else:
                    entered.set()

        threading.Thread(target=wait, name="store-turn", daemon=True).start()
        if entered.wait(self._patience):
            return
        with settled:
            if entered.is_set():
                return
            given_up.set()
        self._handle = self._open()  # the old one is the thread's now
        raise StoreBusy("another process has been writing to the store for too long")
