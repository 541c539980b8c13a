"""Running policy tests: what would become of a message, for a recipient who can take this and that.

The same evaluation and the same choice as in delivery. A method that this version cannot carry out yet counts as one
that it can: a policy test is about the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from gateway.mail.address import Address
from gateway.mail.envelope import Kind
from gateway.mail.protection import Assurance, Capability, Decision, Disposition, Method, Requirement
from gateway.policy import Policy, evaluate
from gateway.policy.cases import Able, Case, Expected
from gateway.policy.whole import facts_of
from gateway.protect.choose import choose

__all__ = ["Rehearsed", "capabilities_of", "rehearse"]


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of a test: a decision for each recipient, and what differs from what was expected, in words."""

    case: Case
    decisions: tuple[tuple[Address, Decision], ...]
    differences: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return not self.differences


def capabilities_of(able: Able, requirement: Requirement) -> dict[Method, Capability]:
    """What speaks against methods for such a recipient."""
    known: dict[Method, Capability] = {}
    if able.tls < max(Assurance.ENCRYPTED, requirement.tls):
        reason = f"needs {requirement.tls}, the recipient's hosts reach {able.tls}"
        known[Method.TLS] = Capability(Method.TLS, possible=False, reason=reason)
    if not able.smime:
        known[Method.SMIME] = Capability(Method.SMIME, possible=False, reason="no certificate")
    if not able.pgp:
        known[Method.PGP] = Capability(Method.PGP, possible=False, reason="no key")
    if not able.pdf:
        known[Method.PDF] = Capability(Method.PDF, possible=False, reason="no password is agreed with the recipient")
    return known


def rehearse(
    policy: Policy, case: Case, now: float, kinds: Mapping[str, Iterable[str]] = MappingProxyType({})
) -> Rehearsed:
    """Run one test; ``now`` (seconds UTC) is the time where the test names none.

    ``kinds``: the kinds of mail that each connector vouches for, by its name.
    """
    common = facts_of(
        policy,
        case.message,
        sender=case.sender,
        recipients=case.recipients,
        connector=case.connector or None,
        declared=frozenset(Kind(name) for name in kinds.get(case.connector, ())),
        time=now if case.time is None else case.time,
    )
    decisions = []
    differences: list[str] = []
    for recipient in case.recipients:
        requirement = evaluate(policy, replace(common, recipient=recipient))
        decision = choose(requirement, capabilities_of(case.able, requirement))
        decisions.append((recipient, decision))
        name = f"{recipient}: " if len(case.recipients) > 1 else ""
        differences += [f"{name}{text}" for text in _differences(case.expected, decision)]
    return Rehearsed(case, tuple(decisions), tuple(differences))


def _differences(expected: Expected, decision: Decision) -> Iterator[str]:
    requirement = decision.requirement
    if expected.disposition is not None and requirement.disposition is not expected.disposition:
        yield f"expected {expected.disposition}, got {requirement.disposition} {requirement.reason}".rstrip()
    if expected.method is not None:
        if requirement.disposition is not Disposition.DELIVER:
            yield f"expected {expected.method}, got {requirement.disposition}: {requirement.reason}"
        elif decision.method is not expected.method:
            yield f"expected {expected.method}, got {decision.method or 'no method'}"
    if expected.tls is not None and requirement.tls is not expected.tls:
        yield f"expected tls {expected.tls}, got {requirement.tls}"
    if expected.methods is not None and requirement.methods != expected.methods:
        yield f"expected the methods {_names(expected.methods)}, got {_names(requirement.methods)}"
    yield from _rule_differences(expected, {match.name for match in requirement.rules})
    if expected.actions is not None:
        done = _done(requirement)
        if done != set(expected.actions):
            wanted, got = (" ".join(sorted(names)) or "none" for names in (expected.actions, done))
            yield f"expected the actions {wanted}, got {got}"


def _rule_differences(expected: Expected, matched: set[str]) -> Iterator[str]:
    yield from (f"the rule {name!r} did not match" for name in expected.rules if name not in matched)
    yield from (f"the rule {name!r} matched" for name in expected.no_rules if name in matched)


def _done(requirement: Requirement) -> set[str]:
    effects = {"copy_to": requirement.copy_to, "notify": requirement.notify}
    return {change.action for change in requirement.transforms.planned()} | {name for name, to in effects.items() if to}


def _names(methods: frozenset[Method]) -> str:
    return " ".join(method for method in Method if method in methods) or "none"
