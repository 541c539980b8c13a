"""What ``gateway doctor`` finds, and the checks that need neither disk nor network.

A check gives one :class:`Finding` for each thing that it looked at. It never changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from gateway.config.inbound import Stage
from gateway.config.model import Settings
from gateway.delivery.peer import PeerChainUnavailable, require_peer_chain
from gateway.delivery.trust import Trust, TrustError

__all__ = ["KINDS", "Finding", "Status", "connectors", "tls_abilities"]


class Status(StrEnum):
    """How a finding came out. ``bad`` alone makes the exit status 1.

    ``note``: works, and is worth knowing. ``warning``: costs something, or will. ``bad``: stops mail, or risks it.
    """

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    BAD = "bad"


KINDS: Mapping[str, str] = MappingProxyType(
    {
        "check": "warning",
        "configuration": "bad",
        "peer_chain": "bad",
        "trust_roots": "bad",
        "certificate": "warning bad",
        "data_dir": "warning bad",
        "file_system": "warning",
        "free_space": "warning bad",
        "inodes": "warning",
        "fsync": "warning bad",
        "store": "warning bad",
        "keys": "warning bad",
        "postgresql": "warning bad",
        "postgresql_tls": "warning",
        "postgresql_space": "",
        "object_storage": "warning bad",
        "clock": "warning bad",
        "clock_sync": "note warning",
        "listeners": "warning",
        "connectors": "warning",
        "connector": "warning bad",
        "resolver": "warning bad",
        "dnssec": "note warning",
        "source_address": "bad",
        "hostname": "warning",
        "reverse_dns": "note warning",
        "port": "note warning bad",
        "spf": "note warning bad",
        "dkim": "warning bad",
        "dmarc": "note warning",
        "mx": "warning bad",
        "return_route": "note warning bad",
        "route": "warning bad",
        "portal": "note warning bad",
        "gpg": "note warning",
    }
)
"""The first word of every finding's name, and how it may come out beside ``ok``. docs/doctor.md explains each."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``remedy``: what to do about it, "" where there is nothing to do."""

    name: str
    status: Status
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert self.status is Status.OK or self.status in KINDS[self.kind].split(), self
        assert self.status is Status.OK or self.remedy, self

    @property
    def kind(self) -> str:
        """The first word of the name, a key of :data:`KINDS`."""
        return self.name.partition(" ")[0]

    def as_json(self) -> dict[str, Any]:
        """``{"name", "status", "detail", "remedy"}``."""
        return {"name": self.name, "status": str(self.status), "detail": self.detail, "remedy": self.remedy}


# -- what this Python and this system can do --------------------------------------------------------------------------


def tls_abilities(settings: Settings) -> Iterator[Finding]:
    """Whether peers' certificates can be seen, and judged."""
    try:
        require_peer_chain()
    except PeerChainUnavailable as error:
        yield Finding("peer_chain", Status.BAD, str(error), "run the gateway with CPython 3.11 or newer")
    else:
        yield Finding("peer_chain", Status.OK, "this Python gives out the certificates that a peer sent")
    try:
        trust = Trust.load(settings.tls.trust)
    except TrustError as error:
        yield Finding("trust_roots", Status.BAD, str(error), "set tls.trust to `system` or to a PEM file with roots")
        return
    if len(trust):
        yield Finding("trust_roots", Status.OK, f"{len(trust)} roots ({trust.source})")
    else:
        remedy = "install the system's roots (package ca-certificates), or name a PEM file in tls.trust"
        yield Finding("trust_roots", Status.BAD, "there are no trusted roots: nothing can be `verified`", remedy)


# -- connectors -------------------------------------------------------------------------------------------------------


def connectors(settings: Settings) -> Iterator[Finding]:
    """Who may hand us mail: stages, lock factors, ways back."""
    if not settings.listeners:
        yield Finding("listeners", Status.WARNING, "there are none: no mail comes in", "add one under `listeners`")
    if not settings.connectors:
        remedy = "add one under `connectors` for the system that hands us its mail"
        yield Finding("connectors", Status.WARNING, "there are none: every client is refused", remedy)
    for connector in settings.connectors:
        name = f"connector {connector.name}"
        factors = ", ".join(sorted(connector.lock_factors))
        if connector.is_cloud and not connector.lock_factors:
            # The configuration does not load with such a connector; this says so if that ever changes.
            remedy = "add one of tenant, header, dkim, client_certificate"
            yield Finding(name, Status.BAD, "every tenant of that cloud could relay through it", remedy)
        elif connector.stage is Stage.OBSERVE:
            remedy = "look at `would_refuse` in the trace for some days, then set stage: soft"
            yield Finding(name, Status.WARNING, "stage observe: its mail leaves without protection", remedy)
        elif connector.stage is Stage.SOFT:
            remedy = "set stage: enforce once no alarm `soft_refusal` came for some days"
            yield Finding(name, Status.WARNING, "stage soft: what does not fit is refused for now (451)", remedy)
        else:
            yield Finding(name, Status.OK, f"in force; {f'locked by {factors}' if factors else 'by network alone'}")
        if connector.return_route is None:
            remedy = "set return_route where these senders are not reached by the MX of their domain"
            yield Finding(f"return_route {connector.name}", Status.NOTE, "none: bounces go by MX", remedy)
