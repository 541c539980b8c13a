"""The policy as a value: defaults, rules, digest. Made from files by ``parse``, judged by ``evaluate``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from gateway.mail.protection import DEFAULT_METHODS, DEFAULT_PREFERENCE, Assurance, Method, Requirement
from gateway.policy.conditions import Condition

__all__ = ["Hold", "Policy", "Protection", "Require", "Rule"]


@dataclass(frozen=True, slots=True)
class Protection:
    """The defaults: what holds for a message that no rule speaks of.

    ``fallback_after``: seconds that a protected recipient waits for a method before the next one is tried.
    """

    methods: frozenset[Method] = DEFAULT_METHODS
    tls: Assurance = Assurance.ENCRYPTED
    prefer: tuple[Method, ...] = DEFAULT_PREFERENCE
    fallback_after: float = 900.0

    def requirement(self, digest: str) -> Requirement:
        """What these defaults ask for by themselves, under the policy of this digest."""
        return Requirement(
            methods=self.methods,
            # Method `tls` without any assurance would be `plain` by another name.
            tls=max(Assurance.ENCRYPTED, self.tls),
            digest=digest,
            prefer=self.prefer,
            fallback_after=self.fallback_after,
        )

    def canonical(self) -> Any:
        """A plain form for the digest."""
        return {
            "methods": sorted(self.methods),
            "tls": str(self.tls),
            "prefer": list(self.prefer),
            "fallback_after": self.fallback_after,
        }


@dataclass(frozen=True, slots=True)
class Require:
    """What a matching rule narrows: to these methods (``None``: all), and to at least this TLS assurance."""

    methods: frozenset[Method] | None = None
    tls: Assurance = Assurance.NONE


@dataclass(frozen=True, slots=True)
class Hold:
    """What a matching rule waits for, and after how many seconds it bounces (``None``: never)."""

    reason: str
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A named condition and what follows from it. ``ignore_unknown``: what cannot be known counts as false."""

    name: str
    when: Condition
    require: Require | None = None
    allow: frozenset[Method] | None = None
    hold: Hold | None = None
    reject: str | None = None
    ignore_unknown: bool = False

    def canonical(self) -> Any:
        """A plain form for the digest."""
        require = self.require
        return {
            "name": self.name,
            "when": self.when.canonical(),
            "require": None
            if require is None
            else {
                "methods": None if require.methods is None else sorted(require.methods),
                "tls": str(require.tls),
            },
            "allow": None if self.allow is None else sorted(self.allow),
            "hold": None if self.hold is None else {"for": self.hold.reason, "expires": self.hold.expires},
            "reject": self.reject,
            "unknown": "ignore" if self.ignore_unknown else "strict",
        }


@dataclass(frozen=True, slots=True)
class Policy:
    """Defaults and rules. The order of rules means nothing: they are kept sorted by name.

    ``digest``: SHA-256, in hex, over what the policy says - not over how or in which file or order it is written.
    """

    protection: Protection = Protection()
    rules: tuple[Rule, ...] = ()
    digest: str = field(init=False)
    #: What mail needs that no rule speaks of.
    unmatched: Requirement = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.rules, key=lambda rule: (rule.name, json.dumps(rule.canonical(), sort_keys=True)))
        object.__setattr__(self, "rules", tuple(ordered))
        content = {
            "version": 1,
            "protection": self.protection.canonical(),
            "rules": [rule.canonical() for rule in self.rules],
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        object.__setattr__(self, "digest", digest)
        object.__setattr__(self, "unmatched", self.protection.requirement(digest))

    @classmethod
    def default(cls) -> Policy:
        """The policy without any file: everything is protected, TLS first."""
        return cls()
