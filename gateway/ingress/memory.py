"""How much memory messages on their way in may hold, all together: a message that finds no room is refused for now.

Each message holds the most that it can come to need with its size: what the reader, the scanner, the header and the
spool keep of it at one time. So the sum is bounded before anything arrives. A client that does not say the size of its
message begins small; what it sends beyond is asked for as it comes, and where there is none left, the rest of the
message is read and thrown away. Nothing ever waits for room, so nothing can wait for ever.
"""

from __future__ import annotations

from gateway.config.shares import WHOLE, Share
from gateway.ingress.refusals import Reason, refusal

__all__ = ["LEAST", "MOST", "Hold", "MemoryBudget", "need"]

#: A message that nothing is known about, and the least that any is counted with. Octets.
LEAST = 16 * 1024
#: What the largest message holds: its body goes through in blocks, whatever its size.
MOST = 1536 * 1024
#: A small one stands in memory up to so many times: arriving, being scanned, in clear for its first delivery, sealed.
_COPIES = 5


def need(size: int) -> int:
    """The most that a message of so many octets holds at one time."""
    return min(LEAST + _COPIES * size, MOST)


class MemoryBudget:
    """What this process holds, which has a ``share`` of the gateway's limit."""

    def __init__(self, share: Share = WHOLE) -> None:
        self._share = share
        self.held = 0

    def hold(self, size: int, limit: int) -> Hold:
        """Room for a message of this size, 0 where it is not known, under ``limit`` for the whole gateway.

        Raises :class:`gateway.errors.Refusal` (452) where there is none. A single message always finds room.
        """
        hold = Hold(self, limit)
        hold.cover(size)
        return hold

    def take(self, octets: int, limit: int) -> None:
        """Count so many octets as held; raises like :meth:`hold`, and counts nothing then."""
        if self.held + octets > max(self._share.of(limit), MOST):
            text = "Too many messages at a time, please try again later"
            raise refusal(452, "4.3.1", text, Reason.MEMORY, detail=f"{self.held} octets are held")
        self.held += octets

    def give_back(self, octets: int) -> None:
        """Count them as free."""
        self.held -= octets


class Hold:
    """What one message holds; given back by :meth:`release`, which may be repeated."""

    __slots__ = ("_budget", "_limit", "_octets")

    def __init__(self, budget: MemoryBudget, limit: int) -> None:
        self._budget = budget
        self._limit = limit
        self._octets = 0

    def cover(self, size: int) -> None:
        """Hold enough for a message that has, or will have, so many octets. Raises :class:`gateway.errors.Refusal`."""
        more = need(size) - self._octets
        if more > 0:
            self._budget.take(more, self._limit)
            self._octets += more

    def release(self) -> None:
        """Give everything back."""
        octets, self._octets = self._octets, 0
        self._budget.give_back(octets)
