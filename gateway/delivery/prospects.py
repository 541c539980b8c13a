"""What was last seen of each mail host, by real sessions and by probes: for previews only.

A cache that only plans. What it holds may be false by the time that anybody reads it - a certificate swapped, a
STARTTLS stripped -, so nothing that decides a delivery may read it: each session is judged for itself. An import
contract (``pyproject.toml``) keeps this module out of reach of everything that decides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.delivery.sighting import Sighting

__all__ = ["Prospects", "Seen"]

#: Hosts that are remembered, and addresses of each: some 10 MB at most.
_MAX_HOSTS = 2_000
_MAX_ADDRESSES = 6
#: Seconds after which what was seen says nothing any more.
_TOO_OLD = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A sighting and how old it is, in seconds."""

    sighting: Sighting
    age: float


class Prospects:
    """The last sighting of each address, within bounds; the host that was not seen for the longest goes first."""

    def __init__(self, clock: Clock, hosts: int = _MAX_HOSTS) -> None:
        self._clock = clock
        self._most = hosts
        self._hosts: OrderedDict[tuple[str, int], OrderedDict[str, tuple[float, Sighting]]] = OrderedDict()

    def saw(self, sighting: Sighting) -> None:
        """Remember this in place of what was seen of the same address before."""
        key = (sighting.host, sighting.port)
        addresses = self._hosts.setdefault(key, OrderedDict())
        addresses[sighting.address] = (self._clock.monotonic(), sighting)
        addresses.move_to_end(sighting.address)
        while len(addresses) > _MAX_ADDRESSES:
            addresses.popitem(last=False)
        self._hosts.move_to_end(key)
        while len(self._hosts) > self._most:
            self._hosts.popitem(last=False)

    def of(self, host: str, port: int = 25) -> Sequence[Seen]:
        """What was last seen of the host's addresses, newest first; empty where nothing was within a week."""
        now = self._clock.monotonic()
        found = [Seen(sighting, now - when) for when, sighting in self._hosts.get((host, port), {}).values()]
        return sorted((seen for seen in found if seen.age < _TOO_OLD), key=lambda seen: seen.age)

    def __len__(self) -> int:
        return len(self._hosts)
