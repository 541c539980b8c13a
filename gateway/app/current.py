"""What a reload replaces: either all of it is new, or none."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    settings: Settings = field(init=False)
    policy: Policy = field(init=False)

    def __post_init__(self) -> None:
        # Asked for a dozen times a message: plain attributes.
        object.__setattr__(self, "settings", self.loaded.settings)
        object.__setattr__(self, "policy", self.loaded.policy)


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
