"""How fast the content of one message comes: only the time that its client lets us wait counts."""

from __future__ import annotations

from gateway.clock import Clock

__all__ = ["RATE_AFTER", "Pace"]

#: The minimum rate holds after so many seconds of waiting.
RATE_AFTER = 30.0


class Pace:
    """The clock of one message. :meth:`wait` before each read, :meth:`go_on` after it, with what came."""

    __slots__ = ("_clock", "_octets", "_since", "_waited")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._octets = 0
        self._waited = 0.0
        self._since: float | None = None

    def wait(self) -> None:
        """It is the client's turn."""
        self._since = self._clock.monotonic()

    def go_on(self, octets: int = 0) -> None:
        """The client has sent so many octets of content; it is our turn."""
        if self._since is not None:
            self._waited += self._clock.monotonic() - self._since
            self._since = None
        self._octets += octets

    def is_too_slow(self, now: float, rate: int) -> bool:
        """Whether we wait now, and the client has stayed below ``rate`` octets a second for longer than is borne."""
        if self._since is None:
            return False
        waited = self._waited + now - self._since
        return waited > RATE_AFTER and self._octets < rate * waited
