"""The clock seam: everything in the core that needs the time, or needs to wait, asks one of these.

The shipped fake is :class:`gateway.testing.clock.FakeClock`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SteadyClock", "SystemClock"]


class Clock(Protocol):
    """Wall time, monotonic time and waiting."""

    def time(self) -> float:
        """Seconds since the epoch, UTC; may jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds of monotonic time."""
        ...


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(seconds)


class SteadyClock:
    """Another clock's time, whose wall time goes on steadily when somebody sets the clock.

    While wall and monotonic time are as far apart as they were when the clock was last believed, or at most ``step``
    seconds off, this is the wall time; after a jump it is what the wall would show without it. Who decides that a jump
    was right calls :meth:`believe`.
    """

    def __init__(self, inner: Clock, step: float = 3600.0) -> None:
        self._inner = inner
        self._step = step
        self.offset = inner.time() - inner.monotonic()

    def time(self) -> float:
        """Seconds since the epoch, UTC, without jumps."""
        wall = self._inner.time()
        steady = self._inner.monotonic() + self.offset
        return wall if abs(wall - steady) <= self._step else steady

    @property
    def jumped(self) -> bool:
        """Whether the wall shows another time."""
        return abs(self._inner.time() - self._inner.monotonic() - self.offset) > self._step

    def wall(self) -> float:
        """What the wall shows, believed or not."""
        return self._inner.time()

    def believe(self, offset: float) -> None:
        """Wall minus monotonic time, as it is right."""
        self.offset = offset

    def monotonic(self) -> float:
        """Seconds of the monotonic clock."""
        return self._inner.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds of monotonic time."""
        await self._inner.sleep(seconds)
