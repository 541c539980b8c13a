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
import queue
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
        self._waiter: _Waiter | None = None

    def enter(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()

    def leave(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._waiter is not None:
            self._waiter.end()
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _wait(self) -> None:
        if self._waiter is None:
            self._waiter = _Waiter()
        if not self._waiter.lock(self._handle, self._patience):
            self._waiter = None  # it still waits, and the handle is its own now
            self._handle = self._open()
            raise StoreBusy("another process has been writing to the store for too long")


class _Waiter:
    """A thread that waits for locks, one at a time; who has the patience for it waits for the thread."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._locked = threading.Semaphore(0)
        self._settling = threading.Lock()
        self._given_up = False
        threading.Thread(target=self._run, name="store-turn", daemon=True).start()

    def lock(self, handle: int, patience: float) -> bool:
        """Whether the lock came in time. Where it did not, the thread closes the handle and ends, sooner or later."""
        self._asked.put(handle)
        if self._locked.acquire(timeout=patience):
            return True
        with self._settling:
            self._given_up = not self._locked.acquire(blocking=False)
            return not self._given_up

    def end(self) -> None:
        """No lock is wanted any more."""
        self._asked.put(-1)

    def _run(self) -> None:
        while (handle := self._asked.get()) >= 0:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with self._settling:
                if self._given_up:
                    os.close(handle)  # and so unlocks it
                    return
                self._locked.release()
