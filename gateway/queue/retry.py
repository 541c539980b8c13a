"""When to try again: pure functions (RFC 5321 section 4.5.4.1).

The wait doubles from ``first`` to ``max``, with a fifth of jitter either way so that what failed together does not
come back together.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RetrySchedule"]

_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Durations in seconds; ``expire`` counts from acceptance."""

    first: float = 60.0
    max: float = 14400.0
    expire: float = 432000.0
    delay_notice: float = 14400.0

    def wait(self, attempts: int, chance: float) -> float:
        """Seconds to wait after this many attempts (1 for the first); ``chance`` is uniform in [0, 1)."""
        doubled = self.first * 2.0 ** min(max(attempts, 1) - 1, 40)
        return min(doubled, self.max) * (1.0 - _JITTER + 2 * _JITTER * chance)

    def next_attempt(
        self, now: float, attempts: int, chance: float, *, expires: float, fallback_at: float | None = None
    ) -> float:
        """When to try again: never later than the end of its time, so that the last try happens then.

        ``fallback_at`` is the end of the fallback clock where it runs: the next method is not kept waiting.
        """
        when = min(now + self.wait(attempts, chance), max(expires, now))
        if fallback_at is not None and now < fallback_at < when:
            return fallback_at
        return when
