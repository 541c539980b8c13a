"""Signals as something that a selector can wait for: no handler does more than to write a byte."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress

__all__ = ["Signals"]


class Signals:
    """SIGTERM, SIGINT, SIGHUP and SIGCHLD of this process, once :meth:`listen` was called."""

    def __init__(self) -> None:
        self._ends = socket.socketpair()
        self._seen: set[int] = set()

    def listen(self) -> None:
        """From now on they are collected. In the main thread only."""
        for end in self._ends:
            end.settimeout(0.0)
        signal.set_wakeup_fd(self._ends[1].fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        """For selectors: readable when there is something to :meth:`collect`."""
        return self._ends[0].fileno()

    def collect(self) -> None:
        """Note what has come."""
        with suppress(BlockingIOError):
            while caught := self._ends[0].recv(256):
                self._seen.update(caught)

    def has(self, *numbers: int) -> bool:
        """Whether one of these has come."""
        return not self._seen.isdisjoint(numbers)

    def take(self, number: int) -> bool:
        """The same of one, which is then seen to."""
        found = number in self._seen
        self._seen.discard(number)
        return found

    def close(self) -> None:
        """In a child: they are the supervisor's."""
        for end in self._ends:
            end.close()
