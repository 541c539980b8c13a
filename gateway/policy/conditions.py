"""Conditions: three-valued functions of the facts.

``True`` and ``False`` are known; ``None`` is "cannot be known". ``all``, ``any`` and ``not`` follow Kleene: an unknown
part matters only where the known ones leave the answer open. Each condition has a canonical form, equal for equal
meaning as written in another order, from which the policy's digest is made.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Protocol

import re2

from gateway.policy.facts import MessageFacts, normal_text
from gateway.policy.patterns import AddressPattern, DomainPattern

__all__ = [
    "AllOf",
    "AnyOf",
    "Condition",
    "Not",
    "RecipientDomainIs",
    "RecipientIs",
    "SenderIs",
    "SubjectContains",
    "SubjectMatches",
    "SubjectTag",
    "Truth",
    "compile_pattern",
]

Truth = bool | None
"""``None``: cannot be known."""

_PATTERN_MEMORY = 1 << 20  # a pattern that compiles to more than this is not one a person wrote


class Condition(Protocol):
    """Something that holds, does not hold, or cannot be known."""

    def truth(self, facts: MessageFacts) -> Truth:
        """Whether it holds; never raises."""
        ...

    def canonical(self) -> Any:
        """A plain form for the digest, independent of the order in which alternatives were written."""
        ...


def _sorted(parts: tuple[Condition, ...]) -> list[Any]:
    forms = (part.canonical() for part in parts)
    return sorted(forms, key=lambda form: json.dumps(form, sort_keys=True))


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds. Without parts it holds."""

    parts: tuple[Condition, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """False if a part is false, else unknown if a part is unknown, else true."""
        values = [part.truth(facts) for part in self.parts]
        return False if False in values else (None if None in values else True)

    def canonical(self) -> Any:
        """``{"all": [...]}``."""
        return {"all": _sorted(self.parts)}


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds. Without parts it does not."""

    parts: tuple[Condition, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """True if a part is true, else unknown if a part is unknown, else false."""
        values = [part.truth(facts) for part in self.parts]
        return True if True in values else (None if None in values else False)

    def canonical(self) -> Any:
        """``{"any": [...]}``."""
        return {"any": _sorted(self.parts)}


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Condition

    def truth(self, facts: MessageFacts) -> Truth:
        """The opposite; the opposite of unknown is unknown."""
        value = self.part.truth(facts)
        return None if value is None else not value

    def canonical(self) -> Any:
        """``{"not": ...}``."""
        return {"not": self.part.canonical()}


@dataclass(frozen=True, slots=True)
class SenderIs:
    """The envelope sender fits one of the patterns."""

    patterns: tuple[AddressPattern, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Always known."""
        return any(pattern.matches(facts.sender) for pattern in self.patterns)

    def canonical(self) -> Any:
        """``{"sender": [...]}``."""
        return {"sender": sorted({pattern.text for pattern in self.patterns})}


@dataclass(frozen=True, slots=True)
class RecipientIs:
    """The envelope recipient fits one of the patterns."""

    patterns: tuple[AddressPattern, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Always known."""
        return any(pattern.matches(facts.recipient) for pattern in self.patterns)

    def canonical(self) -> Any:
        """``{"recipient": [...]}``."""
        return {"recipient": sorted({pattern.text for pattern in self.patterns})}


@dataclass(frozen=True, slots=True)
class RecipientDomainIs:
    """The domain of the envelope recipient fits one of the patterns."""

    patterns: tuple[DomainPattern, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Always known."""
        return any(pattern.matches(facts.recipient.domain) for pattern in self.patterns)

    def canonical(self) -> Any:
        """``{"recipient_domain": [...]}``."""
        return {"recipient_domain": sorted({pattern.text for pattern in self.patterns})}


@dataclass(frozen=True, slots=True)
class SubjectContains:
    """The subject contains one of the texts; compared after NFKC, without case."""

    texts: tuple[str, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where the subject is."""
        if facts.subject is None:
            return None
        subject = normal_text(facts.subject).casefold()
        return any(normal_text(text).casefold() in subject for text in self.texts)

    def canonical(self) -> Any:
        """``{"subject_contains": [...]}``."""
        return {"subject_contains": sorted({normal_text(text).casefold() for text in self.texts})}


def compile_pattern(text: str) -> Any:
    """The RE2 program of a pattern (linear time, no back-references); raises ``ValueError`` in plain words."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    try:
        return re2.compile(text, options)  # type: ignore[no-untyped-call]  # google-re2 ships no types
    except (re2.error, UnicodeEncodeError) as error:
        detail = error.args[0] if error.args else ""
        words = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(error)
        raise ValueError(f"the pattern is not valid (RE2 syntax): {words}") from None


@dataclass(frozen=True, slots=True)
class SubjectMatches:
    """One of the patterns (RE2) is found anywhere in the subject, after NFKC. ``(?i)`` makes it ignore case."""

    patterns: tuple[str, ...]
    _programs: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_programs", tuple(compile_pattern(text) for text in self.patterns))

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where the subject is, or where the engine gives up."""
        if facts.subject is None:
            return None
        subject = normal_text(facts.subject)
        try:
            return any(program.search(subject) is not None for program in self._programs)
        except re2.error:
            return None

    def canonical(self) -> Any:
        """``{"subject_matches": [...]}``."""
        return {"subject_matches": sorted(set(self.patterns))}


@dataclass(frozen=True, slots=True)
class SubjectTag:
    """The subject carries one of the tags, as ``[tag]``, ``(tag)`` or ``tag:``, in any case; or ``facts.tags`` does."""

    tags: tuple[str, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """True where a tag was given apart; else unknown where the subject is."""
        wanted = {tag.casefold() for tag in self.tags}
        if wanted & {tag.casefold() for tag in facts.tags}:
            return True
        if facts.subject is None:
            return None
        subject = normal_text(facts.subject).casefold()
        return any(_carries(subject, tag) for tag in wanted)

    def canonical(self) -> Any:
        """``{"subject_tag": [...]}``."""
        return {"subject_tag": sorted({tag.casefold() for tag in self.tags})}


def _carries(subject: str, tag: str) -> bool:
    word = re.escape(tag)
    return re.search(rf"\[ ?{word} ?\]|\( ?{word} ?\)|(?<![\w-]){word} ?:", subject) is not None
