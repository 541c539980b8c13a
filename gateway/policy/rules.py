"""The policy as a value: defaults, rules, digest. Made from files by ``parse``, judged by ``evaluate``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.mail.protection import DEFAULT_METHODS, DEFAULT_PREFERENCE, Assurance, Method, Requirement
from gateway.policy.about_content import questions_of
from gateway.policy.about_header import HeaderContains, HeaderExists, HeaderMatches, LabelIs
from gateway.policy.actions import Actions
from gateway.policy.conditions import Condition, atoms
from gateway.policy.content import Questions
from gateway.policy.detect import BUILT_IN, Detector
from gateway.policy.examine import Examiner, examiner_for

__all__ = ["Exempt", "Hold", "Policy", "Protection", "Require", "Rule"]


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
    actions: Actions = field(default_factory=Actions)

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
            "do": self.actions.canonical(),
        }


@dataclass(frozen=True, slots=True)
class Exempt:
    """An exception: where ``when`` is true, the rules it names ask for this ``tls``, and allow these ``methods``, too.

    Never below ``encrypted``, never ``plain``; holds, rejects, actions, defaults and all other rules stay. ``until``:
    seconds UTC from which it no longer holds; ``ends`` the day as written. Without knowing the time it does not hold.
    """

    when: Condition
    rules: frozenset[str]
    tls: Assurance
    methods: frozenset[Method]
    owner: str
    reason: str
    until: float
    ends: str

    @property
    def name(self) -> str:
        """What trace and explain call it."""
        return f"exception of {self.owner} ({self.reason}, until {self.ends})"

    def canonical(self) -> Any:
        """A plain form for the digest."""
        return {
            "when": self.when.canonical(),
            "rules": sorted(self.rules),
            "tls": str(self.tls),
            "methods": sorted(self.methods),
            "owner": self.owner,
            "reason": self.reason,
            "until": self.ends,
        }


@dataclass(frozen=True, slots=True)
class Policy:
    """Defaults, rules, exceptions, detectors. The order of rules means nothing: they are kept sorted by name.

    ``floors``: how many finds a detector of this policy needs to count at all. ``digest``: SHA-256, in hex, over what
    the policy says - not over how or in which file or order it is written. ``questions``: what the rules ask about the
    content of a message, which ``examiner`` answers; ``asks_header``: whether they ask about header fields other than
    the subject.
    """

    protection: Protection = Protection()
    rules: tuple[Rule, ...] = ()
    exceptions: tuple[Exempt, ...] = ()
    detectors: tuple[Detector, ...] = ()
    floors: tuple[tuple[str, int], ...] = ()
    digest: str = field(init=False)
    questions: Questions = field(init=False, compare=False, repr=False)
    examiner: Examiner = field(init=False, compare=False, repr=False)
    asks_header: bool = field(init=False, compare=False, repr=False)
    #: What mail needs that no rule speaks of.
    unmatched: Requirement = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.rules, key=lambda rule: (rule.name, _text(rule.canonical())))
        exceptions = sorted(self.exceptions, key=lambda exempt: _text(exempt.canonical()))
        object.__setattr__(self, "rules", tuple(ordered))
        object.__setattr__(self, "exceptions", tuple(exceptions))
        object.__setattr__(self, "detectors", tuple(sorted(self.detectors, key=lambda known: known.name)))
        asked = list(self._atoms())
        questions = _together(questions_of(atom) for atom in asked)
        own = {known.name: known for known in self.detectors}
        header = (HeaderContains, HeaderExists, HeaderMatches, LabelIs)
        content = {
            "version": 1,
            "protection": self.protection.canonical(),
            "rules": [rule.canonical() for rule in self.rules],
            "exceptions": [exempt.canonical() for exempt in self.exceptions],
            "detectors": {
                name: [(own.get(name) or BUILT_IN[name]).canonical(), dict(self.floors).get(name, 1)]
                for name in sorted(questions.detectors)
            },
        }
        digest = hashlib.sha256(_text(content).encode()).hexdigest()
        object.__setattr__(self, "digest", digest)
        object.__setattr__(self, "questions", questions)
        object.__setattr__(self, "examiner", examiner_for(questions, own, dict(self.floors)))
        object.__setattr__(self, "asks_header", any(isinstance(atom, header) for atom in asked))
        object.__setattr__(self, "unmatched", self.protection.requirement(digest))

    def _atoms(self) -> Iterator[Condition]:
        for rule in self.rules:
            yield from atoms(rule.when)
        for exempt in self.exceptions:
            yield from atoms(exempt.when)

    @classmethod
    def default(cls) -> Policy:
        """The policy without any file: everything is protected, TLS first."""
        return cls()


def _text(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _together(asked: Iterator[Questions]) -> Questions:
    every = list(asked)
    return Questions(
        contains=frozenset().union(*(one.contains for one in every)),
        matches=frozenset().union(*(one.matches for one in every)),
        detectors=frozenset().union(*(one.detectors for one in every)),
        structure=any(one.structure for one in every),
    )
