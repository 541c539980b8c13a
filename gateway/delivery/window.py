"""How many connections a site may have now: a window that opens with success and closes with failure, as in Postfix.

It begins at 5 and grows by 1/N with each success, so by one for as many as it holds; it shrinks by 1/N with each
failure to connect, failed handshake or 421 - and for nothing else: what a peer thinks of a message says nothing about
its capacity. When as many failures as the window holds came without a success between them, and all that is known
speaks of a host that is away (ordinary, temporary), the site is *dead* for a while (it doubles, to a limit that the
caller gives): nobody dials, who comes meanwhile hears what the last one heard. Afterwards one connection tries; its
success begins anew. A site that answers but does not prove what it should is never dead: that must be seen each time,
and is remembered by nobody.

Pure: the time is given (monotonic seconds).
"""

from __future__ import annotations

__all__ = ["FIRST", "Window"]

#: Connections to a site that nothing is known about.
FIRST = 5.0


class Window:
    """Connections that a site may have: ``first`` at first. ``size`` is never below 1."""

    __slots__ = ("_cohort", "_rest", "dead_until", "size")

    def __init__(self, first: float = FIRST) -> None:
        self.size = first
        self.dead_until = 0.0
        self._cohort = 0.0
        self._rest = 0.0

    def room(self, most: int) -> int:
        """Connections that may be open now, at most ``most``, at least one."""
        return max(min(int(self.size), most), 1)

    def succeeded(self, most: int) -> None:
        """A transaction came through."""
        self._cohort = self._rest = 0.0
        self.size = min(self.size + 1 / self.size, float(max(most, 1)))

    def failed(self, now: float, rest: float, *, away: bool) -> None:
        """Connecting failed, a handshake failed, or the peer said 421. ``away``: nothing but ordinary failures.

        ``rest``: seconds that a dead site is left alone at most; a third of it the first time.
        """
        self._cohort = self._cohort + 1 / self.size if away else 0.0
        self.size = max(self.size - 1 / self.size, 1.0)
        if self._cohort >= 1.0:
            self._rest = min(max(self._rest * 2, rest / 3), rest)
            self.dead_until = now + self._rest
            self.size, self._cohort = 1.0, 0.0

    def is_dead(self, now: float) -> bool:
        """Whether it is left alone now."""
        return now < self.dead_until
