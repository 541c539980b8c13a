"""What policy asks for, what a recipient can take, and what was chosen: the values of a decision.

Methods are a *set*; assurance is a *level*; both can only be tightened (:meth:`Requirement.join`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Any

from gateway.jsontext import to_json
from gateway.mail.edits import NO_EDITS, Change, Edits

__all__ = [
    "DEFAULT_METHODS",
    "DEFAULT_PREFERENCE",
    "Assurance",
    "Capability",
    "Decision",
    "Disposition",
    "Method",
    "PassedOver",
    "Requirement",
    "RuleMatch",
]


class Method(StrEnum):
    """How a message reaches a recipient; the same names in config, metrics, API and audit."""

    PLAIN = "plain"  # opportunistic TLS, only where policy allows it
    TLS = "tls"
    SMIME = "smime"
    PGP = "pgp"
    PDF = "pdf"
    PORTAL = "portal"


class Assurance(IntEnum):
    """What the delivery session itself must show; each level includes those before it."""

    NONE = 0
    ENCRYPTED = 1  # TLS 1.2 or newer with an approved cipher; certificate not judged
    VERIFIED = 2  # plus a chain to a trusted root and a name that matches the MX host
    AUTHENTICATED = 3  # plus a host name that an attacker on the DNS path could not have chosen

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Assurance:
        """The level with this lower-case name; raises ``ValueError``."""
        try:
            return cls[text.upper()]
        except KeyError:
            raise ValueError(f"unknown assurance {text!r}") from None


class Disposition(IntEnum):
    """What happens to the message for this recipient; the higher one wins."""

    DELIVER = 0
    HOLD = 1
    REJECT = 2

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Disposition:
        """The disposition with this lower-case name; raises ``ValueError``."""
        try:
            return cls[text.upper()]
        except KeyError:
            raise ValueError(f"unknown disposition {text!r}") from None


DEFAULT_METHODS = frozenset({Method.TLS, Method.SMIME, Method.PGP, Method.PDF, Method.PORTAL})
DEFAULT_PREFERENCE = (Method.TLS, Method.PLAIN, Method.SMIME, Method.PGP, Method.PDF, Method.PORTAL)


@lru_cache(maxsize=256)
def _ranking(methods: frozenset[Method], prefer: tuple[Method, ...]) -> tuple[Method, ...]:
    ranked = tuple(method for method in prefer if method in methods)
    return ranked + tuple(method for method in DEFAULT_PREFERENCE if method in methods - set(ranked))


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """A rule that matched, and in words what it did: ``require tls verified``, ``hold: review``."""

    name: str
    effect: str

    def as_json(self) -> dict[str, str]:
        """``{"name", "effect"}``."""
        return {"name": self.name, "effect": self.effect}


@dataclass(frozen=True, slots=True)
class Requirement:
    """What policy asks for one recipient.

    ``reason`` is the text of a reject, or what a hold waits for. ``hold_rules`` names the rules that hold, so that
    an approval can name them. ``digest`` is that of the policy that was evaluated. ``transforms`` is what is changed in
    the message on its way out. Durations in seconds.
    """

    methods: frozenset[Method] = DEFAULT_METHODS
    tls: Assurance = Assurance.ENCRYPTED
    disposition: Disposition = Disposition.DELIVER
    reason: str = ""
    hold_rules: tuple[str, ...] = ()
    hold_expires: float | None = None
    rules: tuple[RuleMatch, ...] = ()
    digest: str = ""
    prefer: tuple[Method, ...] = DEFAULT_PREFERENCE
    fallback_after: float = 900.0
    transforms: Edits = NO_EDITS
    copy_to: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    #: Its two plain forms, kept: a policy has few different requirements, and every message writes them down.
    _text: str | None = field(default=None, init=False, repr=False, compare=False)
    _evidence: dict[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def join(self, newer: Requirement) -> Requirement:
        """This requirement tightened by one made later: it can never come out weaker than either.

        Methods intersect (an empty set is held as ``contradiction``), assurance and disposition take the maximum;
        preference, clocks, transforms and digest come from the newer one. ``plain`` stays only where both allow it: a
        ``require`` with an assurance has cut it already, and the default assurance speaks of method ``tls`` alone.
        """
        methods = self.methods & newer.methods
        tls = max(self.tls, newer.tls)
        stricter = self if self.disposition > newer.disposition else newer
        disposition, reason = stricter.disposition, stricter.reason
        hold_rules = tuple(sorted({*self.hold_rules, *newer.hold_rules}))
        if not methods and disposition < Disposition.HOLD:
            disposition, reason = Disposition.HOLD, "contradiction"
        known = {match.name for match in newer.rules}
        rules = newer.rules + tuple(match for match in self.rules if match.name not in known)
        return replace(
            newer,
            methods=methods,
            tls=tls,
            disposition=disposition,
            reason=reason,
            hold_rules=hold_rules,
            hold_expires=stricter.hold_expires,
            rules=rules,
        )

    def ranking(self) -> tuple[Method, ...]:
        """The allowed methods, best first; those that the preference forgot come last."""
        return _ranking(self.methods, self.prefer)

    def as_json(self) -> dict[str, Any]:
        """A complete, plain form: what the queue keeps and what ``trace`` shows."""
        data: dict[str, Any] = {
            "methods": [str(method) for method in self.ranking()],
            "tls": str(self.tls),
            "disposition": str(self.disposition),
            "reason": self.reason,
            "hold_rules": list(self.hold_rules),
            "hold_expires": self.hold_expires,
            "rules": [match.as_json() for match in self.rules],
            "policy": self.digest,
            "prefer": [str(method) for method in self.prefer],
            "fallback_after": self.fallback_after,
        }
        if self.transforms:
            data["transforms"] = self.transforms.as_json()
        if self.copy_to:
            data["copy_to"] = list(self.copy_to)
        if self.notify:
            data["notify"] = list(self.notify)
        return data

    def as_text(self) -> str:
        """:meth:`as_json` as text."""
        text = self._text
        if text is None:
            text = to_json(self.as_json())
            object.__setattr__(self, "_text", text)
        return text

    def as_evidence(self) -> dict[str, Any]:
        """:meth:`as_json` without what follows from the policy that its digest names. Not to be changed."""
        evidence = self._evidence
        if evidence is None:
            data = self.as_json()
            told = ("methods", "tls", "disposition", "reason", "rules", "policy", "transforms", "copy_to", "notify")
            evidence = {key: data[key] for key in told if key in data}
            object.__setattr__(self, "_evidence", evidence)
        return evidence

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Requirement:
        """The inverse of :meth:`as_json`."""
        return cls(
            methods=frozenset(Method(name) for name in data["methods"]),
            tls=Assurance.parse(data["tls"]),
            disposition=Disposition.parse(data["disposition"]),
            reason=data["reason"],
            hold_rules=tuple(data["hold_rules"]),
            hold_expires=data["hold_expires"],
            rules=tuple(RuleMatch(match["name"], match["effect"]) for match in data["rules"]),
            digest=data["policy"],
            prefer=tuple(Method(name) for name in data["prefer"]),
            fallback_after=data["fallback_after"],
            transforms=Edits.from_json(data.get("transforms")),
            copy_to=tuple(data.get("copy_to", ())),
            notify=tuple(data.get("notify", ())),
        )


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether a recipient can take one method right now; ``reason`` explains a "no".

    ``definite``: waiting will not change it, so the next method may be tried at once. Otherwise the fallback clock
    decides (architecture: "What ends an attempt").
    """

    method: Method
    possible: bool
    reason: str = ""
    definite: bool = True


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A method that was allowed but not used, and why."""

    method: Method
    reason: str
    definite: bool

    def as_json(self) -> dict[str, Any]:
        """``{"method", "reason", "definite"}``."""
        return {"method": str(self.method), "reason": self.reason, "definite": self.definite}


@dataclass(frozen=True, slots=True)
class Decision:
    """Requirement x capabilities: the method chosen (none: nothing is left) and those passed over.

    ``changes``: what was changed in the message, or was not and why; None where it did not come to that yet, and what
    is planned counts.
    """

    requirement: Requirement
    method: Method | None
    passed_over: tuple[PassedOver, ...] = field(default=())
    changes: tuple[Change, ...] | None = None

    def as_json(self, recipient: str, evidence: dict[str, Any] | None = None) -> dict[str, Any]:
        """The shape that ``explain`` prints for one recipient."""
        requirement = self.requirement
        asked = requirement.as_evidence()
        changes = requirement.transforms.planned() if self.changes is None else self.changes
        return {
            "recipient": recipient,
            "disposition": asked["disposition"],
            "method": None if self.method is None else str(self.method),
            "requirement": {"methods": asked["methods"], "tls": asked["tls"]},
            "rules": asked["rules"],
            "passed_over": [entry.as_json() for entry in self.passed_over],
            "evidence": evidence,
            "actions": [change.as_json() for change in changes],
            "policy": requirement.digest,
            "reason": requirement.reason,
        }
