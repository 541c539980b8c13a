"""Many connections in one thread: a coroutine each over epoll, and as little Python between them as will do.

asyncio would cost several times as much a message, and threads that contend for the interpreter's lock more still;
what generator and sink spend here is taken from the cores that the relay needs as well.

A connection's life is a generator function. It yields :data:`READ` or :data:`WRITE` to wait for its socket, a float to
sleep until that time of the monotonic clock, and goes on once that has come - or a little early now and then: whoever
was woken tries, and waits again. It closes its socket itself. An ``OSError`` ends it quietly.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import ssl
import time
from collections.abc import Generator
from typing import Final, TypeAlias

__all__ = ["READ", "WRITE", "Loop", "Steps", "handshake", "receive", "send"]

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
_LARGEST_READ: Final = 1 << 16
_NOT_YET: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)

Wish: TypeAlias = int | float
Steps: TypeAlias = Generator[Wish, None, None]


class _Task:
    __slots__ = ("descriptor", "interest", "resume", "sleeps")

    def __init__(self, descriptor: int, steps: Steps) -> None:
        self.descriptor = descriptor
        self.resume = steps.__next__
        self.interest = -1  # not with epoll yet
        self.sleeps = 0  # the number of the sleep it is in; 0: awake


class Loop:
    """Runs coroutines until :meth:`stop`, or until none is left."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._tasks: dict[int, _Task] = {}
        self._new: list[_Task] = []
        self._sleepers: list[tuple[float, int, _Task]] = []
        self._numbers = itertools.count(1)
        self._running = True

    def start(self, descriptor: int, steps: Steps) -> None:
        """Let ``steps`` live on that descriptor, from the loop's next round on."""
        self._new.append(_Task(descriptor, steps))

    @property
    def busy(self) -> int:
        """How many coroutines there are."""
        return len(self._tasks) + len(self._new)

    def stop(self) -> None:
        """End :meth:`run` after this round."""
        self._running = False

    def run(self) -> None:
        """Until the end."""
        while self._running:
            # Only now, never within a round: a descriptor closed in that round may have come back as another's.
            new, self._new = self._new, []
            for task in new:
                self._tasks[task.descriptor] = task
                self._step(task)
            if self._new:
                continue
            if not self._tasks:
                return
            for descriptor, _ in self._epoll.poll(self._patience()):
                found = self._tasks.get(descriptor)
                if found is not None:
                    self._step(found)
            if self._sleepers:
                self._wake()

    def close(self) -> None:
        """Give epoll's descriptor back."""
        self._epoll.close()

    def _patience(self) -> float | None:
        # poll() rounds up to whole milliseconds: that late a sleeper may wake.
        return max(0.0, self._sleepers[0][0] - time.monotonic()) if self._sleepers else None

    def _wake(self) -> None:
        now = time.monotonic()
        while self._sleepers and self._sleepers[0][0] <= now:
            _, number, task = heapq.heappop(self._sleepers)
            if task.sleeps == number:  # else something woke it before
                self._step(task)

    def _step(self, task: _Task) -> None:
        task.sleeps = 0
        try:
            wish = task.resume()
        except (StopIteration, OSError):
            # Its socket is closed, which took it out of epoll.
            self._tasks.pop(task.descriptor, None)
            return
        if type(wish) is float:
            task.sleeps = next(self._numbers)
            heapq.heappush(self._sleepers, (wish, task.sleeps, task))
            wish = 0
        if wish != task.interest:
            if task.interest < 0:
                self._epoll.register(task.descriptor, int(wish))
            else:
                self._epoll.modify(task.descriptor, int(wish))
            task.interest = int(wish)


def receive(connection: socket.socket) -> Generator[Wish, None, bytes]:
    """What comes next; raises ``ConnectionError`` at the end of the connection."""
    while True:
        yield READ
        try:
            data = connection.recv(_LARGEST_READ)
        except _NOT_YET:
            continue
        if not data:
            raise ConnectionError("the other side closed the connection")
        return data


def send(connection: socket.socket, data: bytes | bytearray) -> Steps:
    """All of it."""
    total = len(data)
    done = 0
    while True:
        try:
            done += connection.send(memoryview(data)[done:] if done else data)
        except _NOT_YET:
            yield WRITE
            continue
        if done == total:
            return


def handshake(connection: ssl.SSLSocket) -> Steps:
    """TLS, either side."""
    while True:
        try:
            connection.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as want:
            yield READ if isinstance(want, ssl.SSLWantReadError) else WRITE
        else:
            return
