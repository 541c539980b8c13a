"""The place of one worker: what stays while the workers that sit there come and go.

A worker dies with all it knows but what stands on its board. Its successor takes the seat: the same number and share,
the same sockets, and counters that go on where they ended.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypedDict

from gateway.app.board import Board
from gateway.config.shares import Share
from gateway.observe.aggregate import Snapshot

__all__ = ["Report", "Seat", "drain"]


class Report(TypedDict):
    """What a worker tells each second: when (monotonic seconds), who, why it cannot take mail, its metrics.

    ``warnings``: what needs a person though it takes mail.
    """

    time: float
    pid: int
    problems: list[str]
    metrics: Snapshot
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Seat:
    """Made by the supervisor before it forks.

    ``bell``: the health process rings at its end, and the worker answers at the other once it has written a fresh
    report. What a dead process has left in there means nothing to the next one.
    """

    share: Share
    board: Board = field(default_factory=lambda: Board("worker"))
    bell: tuple[socket.socket, socket.socket] = field(
        default_factory=lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    )

    @property
    def number(self) -> int:
        """From 1."""
        return self.share.number

    @property
    def worker_end(self) -> socket.socket:
        """Where the worker hears the bell."""
        return self.bell[0]

    @property
    def health_end(self) -> socket.socket:
        """Where it is rung."""
        return self.bell[1]

    def report(self, pid: int, problems: list[str], metrics: Snapshot, warnings: Sequence[str] = ()) -> None:
        """Write a report."""
        told = Report(time=time.monotonic(), pid=pid, problems=problems, metrics=metrics, warnings=list(warnings))
        self.board.write(json.dumps(told, separators=(",", ":")).encode())

    def read(self) -> Report | None:
        """The last report of whoever sits or sat here."""
        text = self.board.read()
        if not text:
            return None
        told: Report = json.loads(text)
        return told

    def close(self) -> None:
        """Nobody sits here any more."""
        self.board.close()
        for end in self.bell:
            end.close()


def drain(end: socket.socket) -> int:
    """Take everything out; how many signals there were."""
    count = 0
    with suppress(BlockingIOError, ConnectionError):
        while end.recv(16):
            count += 1
    return count
