"""What a delivery would make of what a probe saw (pure): by the judgements of delivery itself, never by others.

A probe opens each session once and asks it for encryption. What any other demand would have made of the same session
follows from its evidence: :func:`judged` does it for one address, :func:`obstacle` for a domain, in the order in which
an attempt goes through hosts and addresses. It is a preview: only the session that carries the mail decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway.delivery.candidates import MAX_ADDRESSES, not_tried
from gateway.delivery.carried import HostFailure
from gateway.delivery.nexthop import NextHop, Unreachable
from gateway.delivery.probed import AddressProbe, DomainProbe, HostProbe, Shown
from gateway.delivery.shortfall import attained, shortfall
from gateway.delivery.target import TlsPolicy
from gateway.delivery.verdict import cannot, summed_up
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.protection import Assurance, Capability, Method, Requirement
from gateway.protect.choose import NO_PORTAL, unavailable

__all__ = [
    "Outlook",
    "assurance_of",
    "capabilities",
    "carrier",
    "demands",
    "judged",
    "obstacle",
    "outlook",
    "worst_assurance",
]

_CARRIED = (Method.TLS, Method.PLAIN)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What mail would meet that goes by ``method`` and needs ``level``.

    ``obstacle`` None: it would be carried. ``sufficient`` and ``lacking``: ``host [address]`` of those that would and
    would not do; mail passes by the former, and waits or fails while they are away.
    """

    method: Method
    level: Assurance
    obstacle: Failure | None
    sufficient: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


def demands(probe: DomainProbe, method: Method, required: Assurance) -> TlsPolicy | None:
    """What a session must show for mail that needs ``required``, by this method; None where there is no way."""
    way = probe.ways[method]
    if isinstance(way, Unreachable):
        return None
    # A higher need raises the demand of the same session and changes nothing else of it (``nexthop``).
    return way.policy if method is Method.PLAIN else replace(way.policy, require=max(way.policy.require, required))


def judged(shown: Shown, policy: TlsPolicy, ciphers: frozenset[str]) -> Failure | None:
    """What a session like this one would have failed by under ``policy``; None where it would have carried mail."""
    failure, evidence = shown.failure, shown.evidence
    if evidence is not None:
        evidence = replace(evidence, assurance=attained(evidence, policy, ciphers))
        if evidence.assurance < policy.require:  # judged before anything else is said under TLS
            return Failure(Stage.JUDGE, Verdict.DEFINITE, shortfall(evidence, policy))
        return None if failure is None or failure.stage is Stage.JUDGE else failure
    if failure is None or policy.starttls == "must" or policy.implicit:
        return failure
    if shown.answers or _knows_helo_only(failure):
        return None  # opportunistic TLS: what cannot be had is done without (RFC 7435)
    # A peer that is closing has said nothing about protection to somebody who does not ask for it.
    return replace(failure, verdict=Verdict.TEMPORARY) if failure.verdict is Verdict.ASSURANCE else failure


def _knows_helo_only(failure: Failure) -> bool:
    """Whether the peer does not know the command EHLO: opportunistic sessions then say HELO (RFC 5321 section 3.2)."""
    return failure.stage is Stage.EHLO and failure.reply is not None and failure.reply.code in (500, 502)


def assurance_of(shown: Shown, policy: TlsPolicy, ciphers: frozenset[str]) -> Assurance | None:
    """The level that this session attained for mail under ``policy``; None where there was no session to speak of."""
    if shown.evidence is not None and (shown.failure is None or shown.failure.stage is Stage.JUDGE):
        return attained(shown.evidence, policy, ciphers)
    return Assurance.NONE if shown.answers else None


def obstacle(probe: DomainProbe, method: Method, required: Assurance) -> HostFailure | None:
    """What a delivery by this method would fail by; None where one of the hosts would take the mail.

    Hosts, addresses and their number are gone through as an attempt does it (``sites``).
    """
    way = probe.ways[method]
    if isinstance(way, Unreachable):
        return HostFailure(way.host, "", way.failure)
    policy = demands(probe, method, required)
    assert policy is not None
    failures: list[HostFailure] = [HostFailure(host, "", failure) for host, failure in way.excluded]
    dialled = 0
    for host, address in _in_order(probe, way):
        if address is None:
            if host.failure is not None:
                failures.append(HostFailure(host.hop.host, "", host.failure))
            continue
        if address.dialled and dialled >= MAX_ADDRESSES:
            failures.append(not_tried(host.hop.host, address.address))
            break
        dialled += address.dialled
        failure = judged(address.shown, policy, probe.ciphers)
        if failure is None:
            return None
        failures.append(HostFailure(host.hop.host, address.address, failure, address.shown.evidence))
    failure, name = summed_up(failures)
    return HostFailure(name, "", failure)


def _in_order(probe: DomainProbe, way: NextHop) -> Iterator[tuple[HostProbe, AddressProbe | None]]:
    for hop in way.hops:
        host = probe.host(hop)
        yield host, None
        for address in host.addresses:
            yield host, address


def carrier(probe: DomainProbe, method: Method, required: Assurance) -> tuple[HostProbe, AddressProbe] | None:
    """The host and address that a delivery by this method would use; None where there is none."""
    way, policy = probe.ways[method], demands(probe, method, required)
    if policy is None or isinstance(way, Unreachable):
        return None
    for host, address in _in_order(probe, way):
        if address is not None and judged(address.shown, policy, probe.ciphers) is None:
            return host, address
    return None


def outlook(probe: DomainProbe, method: Method, level: Assurance) -> Outlook:
    """What mail that needs ``level`` would meet by this method, and at which hosts."""
    way, policy = probe.ways[method], demands(probe, method, level)
    sufficient: list[str] = []
    lacking: list[str] = []
    if isinstance(way, NextHop) and policy is not None:
        for host, address in _in_order(probe, way):
            if address is not None and address.shown.answers:
                group = lacking if judged(address.shown, policy, probe.ciphers) else sufficient
                group.append(f"{host.hop.host} [{address.address}]")
    failed = obstacle(probe, method, level)
    return Outlook(method, level, None if failed is None else failed.failure, tuple(sufficient), tuple(lacking))


def worst_assurance(probe: DomainProbe) -> Assurance | None:
    """The level that every host reaches that can be used at all; None where there is none.

    Hosts that a pin excludes do not count: mail that must be protected never goes there.
    """
    method = Method.TLS if isinstance(probe.ways[Method.TLS], NextHop) else Method.PLAIN
    way = probe.ways[method]
    if isinstance(way, Unreachable):
        return None
    levels = [
        level
        for _, address in _in_order(probe, way)
        if address is not None and (level := assurance_of(address.shown, way.policy, probe.ciphers)) is not None
    ]
    return min(levels, default=None)


def capabilities(requirement: Requirement, probe: DomainProbe, no_portal: str = NO_PORTAL) -> dict[Method, Capability]:
    """What :func:`gateway.protect.choose.choose` is to know for the choice that a delivery would come to.

    A method that would carry the mail is possible. One whose failure is definite cannot; one whose failure may pass
    (``assurance``) cannot once it has lasted for ``fallback_after``: not definite. Where the failure is temporary or
    final nothing is known against the method, because a delivery waits, or bounces, under it and takes no other one:
    ask :func:`obstacle` for that. ``no_portal``: why it cannot lie in the portal; "" where it can.
    """
    known = unavailable(no_portal)
    for method in _CARRIED:
        if method not in requirement.methods:
            continue
        failed = obstacle(probe, method, Assurance.NONE if method is Method.PLAIN else requirement.tls)
        if failed is None:
            known[method] = Capability(method, possible=True)
        elif failed.failure.verdict in (Verdict.DEFINITE, Verdict.ASSURANCE):
            known[method] = cannot(method, failed.failure, "if it lasts for fallback_after")
    return known
