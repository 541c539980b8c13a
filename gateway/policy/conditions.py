"""Conditions: three-valued functions of the facts, and how they combine.

``True`` and ``False`` are known; ``None`` is "cannot be known". ``all``, ``any`` and ``not`` follow Kleene: an unknown
part matters only where the known ones leave the answer open. Each condition has a canonical form, equal for equal
meaning as written in another order, from which the policy's digest is made; and tells what it asks about a message's
content, so that this is looked for once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import re2

from gateway.policy.facts import MessageFacts

__all__ = ["AllOf", "AnyOf", "Condition", "Not", "Truth", "atoms", "compile_pattern", "weighed"]

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


def atoms(condition: Condition) -> Iterator[Condition]:
    """The conditions that ``all``, ``any`` and ``not`` are made of here, from left to right."""
    if isinstance(condition, (AllOf, AnyOf)):
        for part in condition.parts:
            yield from atoms(part)
    elif isinstance(condition, Not):
        yield from atoms(condition.part)
    else:
        yield condition


def weighed(*, found: bool, complete: bool) -> Truth:
    """True where it was found; where not, that is only known if everything was looked at."""
    return True if found else (False if complete else None)


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


def _sorted(parts: tuple[Condition, ...]) -> list[Any]:
    forms = (part.canonical() for part in parts)
    return sorted(forms, key=lambda form: json.dumps(form, sort_keys=True))


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds. Without parts it holds."""

    parts: tuple[Condition, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """False if a part is false, else unknown if a part is unknown, else true."""
        known: Truth = True
        for part in self.parts:
            value = part.truth(facts)
            if value is False:
                return False
            if value is None:
                known = None
        return known

    def canonical(self) -> Any:
        """``{"all": [...]}``."""
        return {"all": _sorted(self.parts)}


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds. Without parts it does not."""

    parts: tuple[Condition, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """True if a part is true, else unknown if a part is unknown, else false."""
        known: Truth = False
        for part in self.parts:
            value = part.truth(facts)
            if value is True:
                return True
            if value is None:
                known = None
        return known

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
