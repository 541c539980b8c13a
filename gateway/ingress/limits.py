"""How many connections and messages: in all, from one client network, for one connector.

Limits in the configuration are those of the whole gateway; a process enforces its share of them.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.config.model import Connector, Limits
from gateway.config.shares import WHOLE, Share
from gateway.errors import Refusal
from gateway.ingress.connectors import IpAddress
from gateway.ingress.refusals import Reason, refusal

__all__ = ["ConnectionCounts", "Place", "Rates", "client_network", "tightest"]


def client_network(address: IpAddress) -> str:
    """The network that is counted as one client: /24 for IPv4, /64 for IPv6."""
    prefix = 24 if address.version == 4 else 64
    return str(ipaddress.ip_network((address, prefix), strict=False))


def tightest(connectors: Sequence[Connector], what: str) -> int | None:
    """The smallest of a limit among ``connectors``: until a message has found its own, the tightest holds."""
    return min((int(getattr(connector.limits, what)) for connector in connectors), default=None)


@dataclass(frozen=True, slots=True)
class Place:
    """What one connection is counted under; give it back with :meth:`ConnectionCounts.leave`."""

    network: str
    connectors: tuple[str, ...]


class ConnectionCounts:
    """The connections of this process, which has a ``share`` of the gateway's limits."""

    def __init__(self, share: Share = WHOLE) -> None:
        self._share = share
        self._total = 0
        self._networks: Counter[str] = Counter()
        self._connectors: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Connections at the moment."""
        return self._total

    def enter(self, address: IpAddress, limits: Limits, named_by: Sequence[Connector]) -> Place:
        """Count a connection; ``named_by`` are the connectors whose listener and networks hold for it.

        Raises :class:`gateway.errors.Refusal` (421) where a limit is reached; nothing is counted then.
        """
        network = client_network(address)
        if self._total >= self._share.of(limits.connections):
            raise self._full("in all")
        known = any(connector.accept.networks for connector in named_by)
        if not known and self._networks[network] >= self._share.of(limits.connections_per_network):
            raise self._full(f"network {network}")
        for connector in named_by:
            if self._connectors[connector.name] >= self._share.of(connector.limits.connections):
                raise self._full(f"connector {connector.name}")
        place = Place(network, tuple(connector.name for connector in named_by))
        self._total += 1
        self._networks[network] += 1
        self._connectors.update(place.connectors)
        return place

    def leave(self, place: Place) -> None:
        """The connection of this place is over."""
        self._total -= 1
        for counter, keys in ((self._networks, (place.network,)), (self._connectors, place.connectors)):
            counter.subtract(keys)
            for key in keys:
                if counter[key] <= 0:  # else the counters would remember every network that ever came
                    del counter[key]

    @staticmethod
    def _full(detail: str) -> Refusal:
        return refusal(421, "4.3.2", "Too many connections, try again later", Reason.CONNECTIONS, detail=detail)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


class Rates:
    """Messages a minute of each connector, as token buckets that hold one minute's worth."""

    def __init__(self, clock: Clock, share: Share = WHOLE) -> None:
        self._clock = clock
        self._share = share
        self._buckets: dict[str, _Bucket] = {}

    def check(self, connector: Connector) -> None:
        """Raises :class:`gateway.errors.Refusal` (451) where the connector has no message left now."""
        if self._fill(connector).tokens < 1:
            raise refusal(
                451, "4.3.2", "Too many messages a minute, try again later", Reason.RATE, detail=connector.name
            )

    def take(self, connector: Connector) -> None:
        """Count one message; raises like :meth:`check`."""
        self.check(connector)
        self._buckets[connector.name].tokens -= 1

    def _fill(self, connector: Connector) -> _Bucket:
        capacity = self._share.of(connector.limits.messages_per_minute)
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault(connector.name, _Bucket(capacity, now))
        bucket.tokens = min(capacity, bucket.tokens + (now - bucket.filled) * capacity / 60)
        bucket.filled = now
        return bucket
