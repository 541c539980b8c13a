"""What would become of a message, recipient by recipient: the decision of a delivery, made on what a probe sees now.

The requirement comes from policy, the capabilities from a probe (``outlook``), the choice from ``protect.choose``: the
same functions as in a delivery. Nothing is sent; only the session that carries a message decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.config.model import Settings
from gateway.delivery.advice import Advice, advice
from gateway.delivery.outlook import capabilities, carrier, obstacle
from gateway.delivery.probed import DomainProbe
from gateway.mail.address import Address
from gateway.mail.attempt import Failure, Verdict
from gateway.mail.protection import Assurance, Decision, Disposition, Method, Requirement
from gateway.policy import MessageFacts, Policy, evaluate
from gateway.portal.depositor import needs_of, portal_obstacle
from gateway.protect.choose import choose, unavailable

__all__ = ["PortalWay", "Preview", "Remedy", "preview"]

_CARRIED = (Method.TLS, Method.PLAIN)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What the recipient's administrator would have to do so that ``method`` could be used, at which host."""

    method: Method
    host: str
    advice: Advice

    def as_json(self) -> dict[str, Any]:
        """``{"method", "host", "level", "missing", "remedy"}``."""
        return {"method": str(self.method), "host": self.host, **self.advice.as_json()}


@dataclass(frozen=True, slots=True)
class PortalWay:
    """What the way of a notice and a code is worth: ``attained`` by a session of now (None: nobody looked).

    ``needs``: what it has to reach for the code alone to open the message.
    """

    needs: Assurance
    attained: Assurance | None

    @property
    def phrase(self) -> bool | None:
        """Whether the sender would be mailed an access phrase to tell; None: not known."""
        return None if self.attained is None else self.attained < self.needs

    def as_json(self) -> dict[str, Any]:
        """``{"needs", "attained", "phrase"}``."""
        attained = None if self.attained is None else str(self.attained)
        return {"needs": str(self.needs), "attained": attained, "phrase": self.phrase}


@dataclass(frozen=True, slots=True)
class Preview:
    """One recipient's outcome.

    ``obstacle``: why the chosen method would fail now, None where it would not, or nobody looked. ``evidence``: where
    the message would go, and what that session showed to the probe. ``portal``: how its notice would travel, where it
    would lie in the portal.
    """

    recipient: Address
    decision: Decision
    obstacle: Failure | None = None
    evidence: Mapping[str, Any] | None = None
    remedies: tuple[Remedy, ...] = ()
    probed: bool = False
    portal: PortalWay | None = None

    @property
    def outcome(self) -> str:
        """``deliver``, ``wait``, ``bounce``, ``hold``, ``reject``, or ``unknown`` where nobody looked."""
        requirement = self.decision.requirement
        if requirement.disposition is not Disposition.DELIVER:
            return str(requirement.disposition)
        if self.decision.method is None:
            return "bounce"
        if self.obstacle is not None:
            return "bounce" if self.obstacle.verdict is Verdict.FINAL else "wait"
        return "deliver" if self.probed else "unknown"

    def as_json(self) -> dict[str, Any]:
        """The shape of interfaces.md, with ``outcome``, ``obstacle`` and ``remedies`` beside."""
        told = self.decision.as_json(str(self.recipient), None if self.evidence is None else dict(self.evidence))
        return {
            **told,
            "outcome": self.outcome,
            "obstacle": None if self.obstacle is None else str(self.obstacle),
            "portal": None if self.portal is None else self.portal.as_json(),
            "remedies": [remedy.as_json() for remedy in self.remedies],
            "copy_to": list(self.decision.requirement.copy_to),
            "notify": list(self.decision.requirement.notify),
        }


def preview(
    policy: Policy,
    facts: MessageFacts,
    recipients: Sequence[Address],
    probes: Mapping[str, DomainProbe],
    settings: Settings,
) -> list[Preview]:
    """The outcome for each; ``probes`` by domain, for a domain without one nothing is known of its hosts."""
    no_portal = portal_obstacle(settings, facts.sender)
    found = []
    for recipient in recipients:
        requirement = evaluate(policy, replace(facts, recipient=recipient))
        one = _one(requirement, recipient, probes.get(recipient.domain), no_portal)
        if one.decision.method is Method.PORTAL:
            probe = probes.get(recipient.domain)
            failed = None if probe is None else obstacle(probe, Method.PLAIN, Assurance.NONE)
            final = failed is not None and failed.failure.verdict is Verdict.FINAL
            one = replace(
                one,
                portal=_portal(needs_of(settings, requirement), probe),
                obstacle=failed.failure if failed is not None and final else None,  # its notice could not be delivered
            )
        found.append(one)
    return found


def _portal(needs: Assurance, probe: DomainProbe | None) -> PortalWay:
    """How notice and code would travel: mail of our own takes the strongest TLS that a host offers."""
    if probe is None:
        return PortalWay(needs, None)
    shown = _evidence(probe, Method.PLAIN, Assurance.NONE)
    tls = None if shown is None else shown["tls"]
    return PortalWay(needs, Assurance.NONE if tls is None else Assurance.parse(tls["assurance"]))


def _one(requirement: Requirement, recipient: Address, probe: DomainProbe | None, no_portal: str) -> Preview:
    known = unavailable(no_portal) if probe is None else capabilities(requirement, probe, no_portal)
    decision = choose(requirement, known)
    if probe is None:
        return Preview(recipient, decision)
    method = decision.method
    failure, evidence = None, None
    if method in _CARRIED:
        level = Assurance.NONE if method is Method.PLAIN else requirement.tls
        failed = obstacle(probe, method, level)
        failure = None if failed is None else failed.failure
        evidence = _evidence(probe, method, level)
    return Preview(recipient, decision, failure, evidence, _remedies(requirement, decision, probe), probed=True)


def _evidence(probe: DomainProbe, method: Method, level: Assurance) -> dict[str, Any] | None:
    found = carrier(probe, method, level)
    if found is None:
        return None
    host, address = found
    shown = address.shown
    return {
        "host": host.hop.host,
        "address": address.address,
        "tls": None if shown.evidence is None else dict(shown.evidence.as_json()),
        "group": shown.group or None,
        "milliseconds": shown.timing.total,
        "time": probe.time,
    }


def _remedies(requirement: Requirement, decision: Decision, probe: DomainProbe) -> tuple[Remedy, ...]:
    """For method ``tls``, where it was passed over or would fail: what is missing at each host."""
    passed = {entry.method for entry in decision.passed_over}
    if Method.TLS not in requirement.methods or (Method.TLS not in passed and decision.method is not Method.TLS):
        return ()
    if obstacle(probe, Method.TLS, requirement.tls) is None:
        return ()
    remedies: dict[tuple[str, str], Remedy] = {}
    for host in probe.hosts:
        for address in host.addresses:
            told = advice(probe, host, address.shown)
            if told is not None and told.level <= requirement.tls:
                remedies.setdefault((host.hop.host, told.remedy), Remedy(Method.TLS, host.hop.host, told))
    return tuple(remedies.values())
