"""The hosts that take mail for a domain: RFC 5321 section 5.1, null MX RFC 7505."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import dns.rdtypes.ANY.MX

from gateway.directory.resolver import Answer, Resolver
from gateway.mail.address import AddressError, normal_domain
from gateway.mail.reply import clean_text

__all__ = ["MxHost", "MxSet", "MxStatus", "find_mx"]

#: Hosts of one domain that are considered; more are there to keep us busy.
MAX_HOSTS = 20

MxStatus = Literal["mx", "implicit", "null", "nxdomain", "loop"]


@dataclass(frozen=True, slots=True)
class MxHost:
    """One host, in lower-case A-labels without the final dot; the lower the preference, the sooner it is tried."""

    name: str
    preference: int


@dataclass(frozen=True, slots=True)
class MxSet:
    """Where mail for ``domain`` goes, in the order in which hosts are tried.

    ``status``: ``mx`` (hosts empty: every name was unusable, see ``skipped``); ``implicit`` - no MX record, the
    domain itself (or what its CNAME leads to) is the host; ``null`` - takes no mail; ``nxdomain`` - no such domain;
    ``loop`` - only we ourselves are left. ``secure``: the answer was authenticated by DNSSEC. ``skipped``: names that
    were passed over, with the reason.
    """

    domain: str
    status: MxStatus
    secure: bool
    hosts: tuple[MxHost, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


async def find_mx(
    resolver: Resolver,
    domain: str,
    own_names: frozenset[str] = frozenset(),
    *,
    rng: random.Random | None = None,
) -> MxSet:
    """Look the domain (A-labels) up. Hosts of equal preference are shuffled, by ``rng`` where one is given.

    ``own_names`` (lower case): hosts that are ourselves; they and every host that is not preferred to them are taken
    out, or mail would go round. Raises :class:`gateway.directory.resolver.DnsError`.
    """
    answer = await resolver.query(domain, "MX")
    if not answer.exists:
        return MxSet(domain, "nxdomain", answer.secure)
    if not answer.records:
        return _implicit(domain, answer, own_names)
    found = [
        (record.preference, record.exchange.to_text(omit_final_dot=True).lower())
        for record in cast("tuple[dns.rdtypes.ANY.MX.MX, ...]", answer.records)
    ]
    if len(found) == 1 and found[0][1] in {"", ".", "@"}:
        return MxSet(domain, "null", answer.secure)
    hosts, skipped = _usable(found)
    ours = [host.preference for host in hosts if host.name in own_names]
    if ours:
        hosts = [host for host in hosts if host.preference < min(ours)]
        if not hosts:
            return MxSet(domain, "loop", answer.secure, (), skipped)
    source = rng if rng is not None else random.SystemRandom()
    source.shuffle(hosts)
    hosts.sort(key=lambda host: host.preference)
    return MxSet(domain, "mx", answer.secure, tuple(hosts[:MAX_HOSTS]), skipped)


def _implicit(domain: str, answer: Answer, own_names: frozenset[str]) -> MxSet:
    """No MX: the domain is its own host; after a CNAME, the name that it leads to takes its place."""
    host = answer.canonical or domain
    reason = _unusable(host)
    if reason is not None:
        return MxSet(domain, "implicit", answer.secure, (), ((clean_text(host, 255), reason),))
    if host in own_names or domain in own_names:
        return MxSet(domain, "loop", answer.secure)
    return MxSet(domain, "implicit", answer.secure, (MxHost(host, 0),))


def _usable(found: Iterable[tuple[int, str]]) -> tuple[list[MxHost], tuple[tuple[str, str], ...]]:
    """The hosts whose names can be looked up and matched, each once at its best preference; and the others."""
    best: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for preference, name in found:
        reason = _unusable(name)
        if reason is None:
            best[name] = min(preference, best.get(name, preference))
        else:
            skipped[clean_text(name, 255)] = reason
    return [MxHost(name, preference) for name, preference in best.items()], tuple(skipped.items())


def _unusable(name: str) -> str | None:
    if name in {"", ".", "@"}:
        return "the root is no host"
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return "an IP address is no host name"
    if name.rpartition(".")[2].isdigit():
        return "a name that ends in a number is no host name"
    try:
        normal_domain(name)
    except AddressError as error:
        return str(error)
    return None
