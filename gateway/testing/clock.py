"""A clock that stands still until a test moves it: hours of retry schedule pass in milliseconds."""

from __future__ import annotations

import asyncio
import heapq
import itertools

__all__ = ["FakeClock"]

#: How often other tasks get a turn before the clock moves on. A task that woke up may await a few things that are
#: ready at once (locks, queues, futures) before it sleeps again; a real socket needs ``poll`` instead.
_TURNS = 25


class FakeClock:
    """Implements :class:`gateway.clock.Clock`; time passes only by :meth:`advance` and :meth:`jump`.

    ``start`` is the wall time at the beginning, in seconds since the epoch (default 2026-01-01 00:00 UTC); the
    monotonic clock starts at 0. Belongs to one event loop.
    """

    def __init__(self, start: float = 1_767_225_600.0) -> None:
        self._epoch = start
        self._now = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def time(self) -> float:
        """Wall time: seconds since the epoch."""
        return self._epoch + self._now

    def monotonic(self) -> float:
        """Seconds that this clock was advanced so far."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by that many seconds; zero or less only gives other tasks a turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), wake))
        await wake

    async def advance(self, seconds: float) -> None:
        """Let that much time pass.

        Sleepers wake one after the other in the order of their deadlines (first come first served where equal), each at
        its own moment: it sees :meth:`monotonic` at its deadline, and may sleep again within the same advance.
        Raises ``ValueError`` for a negative amount: monotonic time does not run backwards, see :meth:`jump`.
        """
        if seconds < 0:
            raise ValueError("monotonic time does not run backwards; use jump() to set the wall clock")
        target = self._now + seconds
        await self._give_turns()
        while self._sleepers and self._sleepers[0][0] <= target:
            deadline, _, wake = heapq.heappop(self._sleepers)
            if wake.done():  # its task was cancelled while it slept
                continue
            self._now = max(self._now, deadline)
            wake.set_result(None)
            await self._give_turns()
        self._now = max(self._now, target)
        await self._give_turns()

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back with a negative amount; nobody wakes, monotonic time stays."""
        self._epoch += seconds

    @property
    def sleepers(self) -> int:
        """How many tasks wait on this clock at the moment."""
        return sum(not wake.done() for _, _, wake in self._sleepers)

    @property
    def next_wake(self) -> float | None:
        """Seconds until the next sleeper is due, None where nobody sleeps."""
        pending = [deadline for deadline, _, wake in self._sleepers if not wake.done()]
        return min(pending) - self._now if pending else None

    @staticmethod
    async def _give_turns() -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
