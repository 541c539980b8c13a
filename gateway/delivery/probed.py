"""What a probe of a domain found: values, and their shape as JSON (a contract: fields may be added)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.delivery.certificate_facts import CertificateFacts
from gateway.delivery.judge import APPROVED_CIPHERS
from gateway.delivery.nexthop import Hop, NextHop, Unreachable
from gateway.directory.mx import MxStatus
from gateway.mail.attempt import Failure, Stage, TlsEvidence, Verdict
from gateway.mail.protection import Method

__all__ = ["UNSEEN", "AddressProbe", "DomainProbe", "HostProbe", "ProbeStatus", "Shown", "Timing"]

ProbeStatus = Literal[MxStatus, "error", "route", "literal"]

#: What this version does not look at: said, so that nobody takes silence for "there is none".
UNSEEN = {"status": "not looked at", "detail": "this version does not look at it"}


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds until each phase was over, counted from its own begin; None where it was not reached.

    ``tls``: from the command STARTTLS to the end of the handshake. ``total``: until QUIT, or the failure.
    """

    connect: float | None = None
    greeting: float | None = None
    tls: float | None = None
    total: float | None = None

    def as_json(self) -> dict[str, float | None]:
        """All phases."""
        return {"connect": self.connect, "greeting": self.greeting, "tls": self.tls, "total": self.total}


@dataclass(frozen=True, slots=True)
class Shown:
    """What one session showed to someone who asked it for encryption and no more.

    ``failure``: why it came to less. ``starttls``: whether it was offered; None where that was not reached, or not
    asked. ``extensions``: those offered last, with their parameters. ``chain``: as it was sent, leaf first.
    """

    failure: Failure | None
    evidence: TlsEvidence | None = None
    starttls: bool | None = None
    greeting: str = ""
    extensions: tuple[str, ...] = ()
    group: str = ""
    chain: tuple[CertificateFacts, ...] = ()
    timing: Timing = Timing()

    @property
    def answers(self) -> bool:
        """Whether there is a mail server that would go on, if only in clear."""
        failure = self.failure
        if failure is None:
            return True
        if failure.stage not in (Stage.STARTTLS, Stage.HANDSHAKE, Stage.JUDGE):
            return False
        return failure.reply is None or failure.reply.code != 421


@dataclass(frozen=True, slots=True)
class AddressProbe:
    """One address of a host. ``dialled`` false: it may not be, or there was no time left."""

    address: str
    shown: Shown
    dialled: bool = True


@dataclass(frozen=True, slots=True)
class HostProbe:
    """One host. ``failure``: why no address of it is known. ``secure``: its addresses are signed (None: not asked).

    ``alias``: where its name leads to as a CNAME, which RFC 2181 section 10.3 forbids for an MX; "" where it is none.
    """

    hop: Hop
    preference: int | None
    addresses: tuple[AddressProbe, ...] = ()
    failure: Failure | None = None
    secure: bool | None = None
    alias: str = ""


@dataclass(frozen=True, slots=True)
class DomainProbe:
    """What mail to ``domain`` would meet, as of ``time`` (seconds since the epoch).

    ``status``: how it was found out where its mail goes; ``error``: DNS did not say. ``dnssec``: whether that is
    authenticated; None where nobody said, or no resolver is trusted to say. ``ways``: next hop and demands of each
    method that is carried by a session, as delivery finds them; for ``tls`` those of level ``encrypted``. ``ciphers``:
    what counts as protection.
    """

    domain: str
    time: float
    status: ProbeStatus
    ways: Mapping[Method, NextHop | Unreachable]
    hosts: tuple[HostProbe, ...] = ()
    dnssec: bool | None = None
    alias: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    ciphers: frozenset[str] = field(default=APPROVED_CIPHERS, repr=False)

    def host(self, hop: Hop) -> HostProbe:
        """What was found of this host; a temporary failure where it was not looked at."""
        for found in self.hosts:
            if found.hop == hop:
                return found
        return HostProbe(hop, None, failure=Failure(Stage.DNS, Verdict.TEMPORARY, f"{hop.host} was not looked at"))
