"""The addresses of a host that an attempt may dial, and what speaks against the others."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.delivery.carried import HostFailure
from gateway.delivery.nexthop import Hop
from gateway.directory.addresses import Family, find_addresses
from gateway.directory.destinations import DestinationGuard
from gateway.directory.resolver import DnsError, Resolver
from gateway.mail.attempt import Failure, Stage, Verdict

__all__ = ["MAX_ADDRESSES", "Candidates", "certificate_unreadable", "find_candidates", "not_tried"]

#: Most addresses that one attempt dials, over all hosts.
MAX_ADDRESSES = 6

#: For hosts that the administrator named.
_EVERYWHERE = DestinationGuard((ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))


@dataclass(frozen=True, slots=True)
class Candidates:
    """``addresses`` in the order to dial them; ``failures``: why there are no others.

    ``secure``: the addresses were authenticated by DNSSEC; None where they were not looked up.
    """

    addresses: tuple[str, ...] = ()
    failures: tuple[HostFailure, ...] = ()
    secure: bool | None = None


async def find_candidates(
    hop: Hop, resolver: Resolver, guard: DestinationGuard, families: Sequence[Family]
) -> Candidates:
    """The addresses of this host, less those that ``guard`` refuses; a host that the administrator named may be any."""
    if hop.exempt:
        guard = _EVERYWHERE
    if hop.address is not None:
        if guard.refusal(hop.address) is None:
            return Candidates((hop.address,))
        return Candidates(failures=(_refused(hop.host, hop.address),))
    try:
        found = await find_addresses(resolver, hop.host, guard, families)
    except DnsError as error:
        return Candidates(failures=(HostFailure(hop.host, "", Failure(Stage.DNS, Verdict.TEMPORARY, str(error))),))
    failures = tuple(_refused(hop.host, address) for address in found.refused)
    if not found.addresses and not failures:
        reason = f"{hop.host} has no address"
        failures = (HostFailure(hop.host, "", Failure(Stage.DNS, Verdict.TEMPORARY, reason)),)
    return Candidates(found.addresses, failures, found.secure)


def not_tried(host: str, address: str) -> HostFailure:
    """This address was one too many: what was not tried was not found wanting, so all is not yet "definite"."""
    reason = f"not tried: {MAX_ADDRESSES} addresses before it failed"
    return HostFailure(host, address, Failure(Stage.CONNECT, Verdict.TEMPORARY, reason))


def certificate_unreadable(host: str, address: str) -> HostFailure:
    """Our own certificate cannot be shown. The sender may read this some day: which file it is, is in the log."""
    reason = "our own certificate for this host cannot be loaded"
    return HostFailure(host, address, Failure(Stage.CONNECT, Verdict.TEMPORARY, reason))


def _refused(host: str, address: str) -> HostFailure:
    reason = f"{address} is a private or special address; delivery.allow_networks does not list it"
    return HostFailure(host, address, Failure(Stage.DNS, Verdict.TEMPORARY, reason))
