"""What a reload replaces: either all of it is new, or none."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config.model import Settings
from gateway.delivery.trust import Trust
from gateway.directory import Answer, DnsResolver
from gateway.policy import Policy
from gateway.policy.bundle import Loaded

__all__ = ["Current", "CurrentResolver"]


@dataclass(frozen=True, slots=True)
class Current:
    """What a reload replaces, as one value: either all of it is new, or none."""

    loaded: Loaded
    trust: Trust

    @property
    def settings(self) -> Settings:
        """The settings of now."""
        return self.loaded.settings

    @property
    def policy(self) -> Policy:
        """The policy of now."""
        return self.loaded.policy


class CurrentResolver:
    """The resolver of the settings of now."""

    def __init__(self, resolver: DnsResolver) -> None:
        self._resolver = resolver

    def use(self, resolver: DnsResolver) -> None:
        """Answer by this resolver from here on."""
        self._resolver = resolver

    async def query(self, name: str, rdtype: str) -> Answer:
        """See :class:`gateway.directory.Resolver`."""
        return await self._resolver.query(name, rdtype)
