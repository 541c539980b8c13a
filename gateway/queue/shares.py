"""How the slots for delivery are shared: no domain and no sender may hold them all.

A slot is one recipient in delivery. Of what is free a domain may have half, and an origin (``turns``) three quarters
of what the other origins leave; of what that leaves the origin, each of its domains half again. So

* a bulk job alone has three quarters of the slots, and the next sender finds some free at once;
* however many dead domains hold on to theirs, there are some left for one that lives - of the same sender too.
"""

from __future__ import annotations

from collections import Counter

__all__ = ["Shares"]


class Shares:
    """Who has how many of ``slots`` now; one domain never more than ``per_domain``."""

    __slots__ = ("_domains", "_origins", "_per_domain", "_slots", "taken")

    def __init__(self, slots: int, per_domain: int) -> None:
        self.taken = 0
        self._slots = slots
        self._per_domain = per_domain
        self._domains: Counter[str] = Counter()
        self._origins: Counter[int] = Counter()

    @property
    def domains(self) -> int:
        """How many domains have slots."""
        return len(self._domains)

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return max(self._slots - self.taken, 0)

    def copy(self) -> Shares:
        """The same, to try things out on."""
        made = Shares(self._slots, self._per_domain)
        made.taken = self.taken
        made._domains.update(self._domains)
        made._origins.update(self._origins)
        return made

    def take(self, origin: int, domain: str, number: int) -> None:
        """So many recipients begin."""
        self.taken += number
        self._domains[domain] += number
        self._origins[origin] += number

    def give_back(self, origin: int, domain: str, number: int) -> None:
        """So many recipients ended."""
        self.taken -= number
        self._domains[domain] -= number
        if self._domains[domain] <= 0:
            del self._domains[domain]
        self._origins[origin] -= number
        if self._origins[origin] <= 0:
            del self._origins[origin]

    def left_for(self, origin: int) -> int:
        """Slots that this origin may take now."""
        mine = self._origins[origin]
        share = max((self.free + mine) * 3 // 4, 1)
        return max(min(share - mine, self.free), 0)

    def left_at(self, origin: int, domain: str) -> int:
        """Slots that this origin may take now for this domain."""
        there, left = self._domains[domain], self.left_for(origin)
        share = min(self._per_domain, max(left // 2, 1), max(self.free // 2, 1))
        return max(min(left, share - there), 0)
