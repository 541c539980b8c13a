"""A waiting line in which senders take turns: first in, first out within each, one at a time among them.

A bulk job that waits for a site is one origin (``gateway.queue.turns``): whoever else has a letter for the same site
waits for one of its messages, not for all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["TurnLine"]

T = TypeVar("T")


class TurnLine(Generic[T]):
    """Items that wait, by origin."""

    __slots__ = ("_length", "_lines")

    def __init__(self) -> None:
        self._lines: dict[int, deque[T]] = {}  # in the order of turns: who had one goes to the end
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, origin: int, item: T) -> None:
        """Behind all others of its origin."""
        self._lines.setdefault(origin, deque()).append(item)
        self._length += 1

    def pop(self) -> T:
        """The first one of the origin whose turn it is. Raises ``IndexError`` where nothing waits."""
        if not self._lines:
            raise IndexError("nothing waits")
        origin = next(iter(self._lines))
        line = self._lines.pop(origin)
        item = line.popleft()
        if line:
            self._lines[origin] = line
        self._length -= 1
        return item

    def pop_next(self, origin: int, fits: Callable[[T], bool]) -> T | None:
        """The next one of this origin where it ``fits``, out of turn: it goes along with one whose turn it was."""
        line = self._lines.get(origin)
        if line is None or not fits(line[0]):
            return None
        item = line.popleft()
        if not line:
            del self._lines[origin]
        self._length -= 1
        return item

    def discard(self, origin: int, item: T) -> None:
        """Take this one out, where it still waits."""
        line = self._lines.get(origin)
        if line is None or item not in line:
            return
        line.remove(item)
        if not line:
            del self._lines[origin]
        self._length -= 1
