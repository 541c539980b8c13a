"""Conditions on the header: subject, any field, sensitivity labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import re2

from gateway.policy.conditions import Truth, compile_pattern
from gateway.policy.facts import MessageFacts, normal_text
from gateway.policy.typos import is_almost

__all__ = [
    "HeaderContains",
    "HeaderExists",
    "HeaderMatches",
    "LabelIs",
    "SubjectContains",
    "SubjectMatches",
    "SubjectTag",
    "SubjectTagTypo",
]


@lru_cache(maxsize=256)
def _folded(text: str) -> str:
    return normal_text(text).casefold()


@dataclass(frozen=True, slots=True)
class SubjectContains:
    """The subject contains one of the texts; compared after NFKC, without case."""

    texts: tuple[str, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where the subject is."""
        if facts.subject is None:
            return None
        subject = _folded(facts.subject)
        return any(_folded(text) in subject for text in self.texts)

    def canonical(self) -> Any:
        """``{"subject_contains": [...]}``."""
        return {"subject_contains": sorted({_folded(text) for text in self.texts})}


@dataclass(frozen=True, slots=True)
class SubjectMatches:
    """One of the patterns (RE2) is found anywhere in the subject, after NFKC. ``(?i)`` makes it ignore case."""

    patterns: tuple[str, ...]
    _programs: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_programs", tuple(compile_pattern(text) for text in self.patterns))

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where the subject is, or where the engine gives up."""
        return None if facts.subject is None else _search(self._programs, normal_text(facts.subject))

    def canonical(self) -> Any:
        """``{"subject_matches": [...]}``."""
        return {"subject_matches": sorted(set(self.patterns))}


def _search(programs: tuple[Any, ...], text: str) -> Truth:
    try:
        return any(program.search(text) is not None for program in programs)
    except re2.error:
        return None


@dataclass(frozen=True, slots=True)
class SubjectTag:
    """The subject carries one of the tags, as ``[tag]``, ``(tag)`` or ``tag:``, in any case; or ``facts.tags`` does."""

    tags: tuple[str, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """True where a tag was given apart; else unknown where the subject is."""
        wanted = {tag.casefold() for tag in self.tags}
        if facts.tags and wanted & {tag.casefold() for tag in facts.tags}:
            return True
        if facts.subject is None:
            return None
        subject = _folded(facts.subject)
        return any(tag in subject and _carries(subject, tag) for tag in wanted)

    def canonical(self) -> Any:
        """``{"subject_tag": [...]}``."""
        return {"subject_tag": sorted({tag.casefold() for tag in self.tags})}


def _carries(subject: str, tag: str) -> bool:
    word = re.escape(tag)
    return re.search(rf"\[ ?{word} ?\]|\( ?{word} ?\)|(?<![\w-]){word} ?:", subject) is not None


#: A tag as somebody may have meant it: in brackets, one of them forgotten, or before a colon at the beginning.
_MEANT = re.compile(r"[\[({] ?([\w.+-]{2,64})|([\w.+-]{2,64}) ?[\])}]|(?:^|: )([\w.+-]{2,64}) ?[:;]")


@dataclass(frozen=True, slots=True)
class SubjectTagTypo:
    """The subject carries something that is almost one of the tags, and not the tag itself."""

    tags: tuple[str, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where the subject is."""
        if facts.subject is None:
            return None
        subject = _folded(facts.subject)
        wanted = [tag.casefold() for tag in self.tags]
        for match in _MEANT.finditer(subject):
            meant = match[1] or match[2] or match[3]
            if any(is_almost(meant, tag) or (meant == tag and not _carries(subject, tag)) for tag in wanted):
                return True
        return False

    def canonical(self) -> Any:
        """``{"subject_tag_typo": [...]}``."""
        return {"subject_tag_typo": sorted({tag.casefold() for tag in self.tags})}


@dataclass(frozen=True, slots=True)
class HeaderExists:
    """There is a field of this (lower-case) name."""

    name: str

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown until the header was read."""
        values = _values(facts, self.name)
        return None if values is None else bool(values)

    def canonical(self) -> Any:
        """``{"header_exists": name}``."""
        return {"header_exists": self.name}


@dataclass(frozen=True, slots=True)
class HeaderContains:
    """A field of this (lower-case) name contains one of the texts, compared like the subject."""

    name: str
    texts: tuple[str, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where no field that can be read contains it, and one cannot be read."""
        values = _values(facts, self.name)
        if values is None:
            return None
        readable = [_folded(value) for value in values if value is not None]
        if any(_folded(text) in value for text in self.texts for value in readable):
            return True
        return None if None in values else False

    def canonical(self) -> Any:
        """``{"header_contains": [name, [...]]}``."""
        return {"header_contains": [self.name, sorted({_folded(text) for text in self.texts})]}


@dataclass(frozen=True, slots=True)
class HeaderMatches:
    """One of the patterns (RE2) is found in a field of this (lower-case) name."""

    name: str
    patterns: tuple[str, ...]
    _programs: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_programs", tuple(compile_pattern(text) for text in self.patterns))

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where none that can be read fits, and one cannot be read."""
        values = _values(facts, self.name)
        if values is None:
            return None
        found = [None if value is None else _search(self._programs, normal_text(value)) for value in values]
        return True if True in found else (None if None in found else False)

    def canonical(self) -> Any:
        """``{"header_matches": [name, [...]]}``."""
        return {"header_matches": [self.name, sorted(set(self.patterns))]}


def _values(facts: MessageFacts, name: str) -> tuple[str | None, ...] | None:
    return None if facts.header is None else facts.header.values(name)


_LABEL = re.compile(r"\s*MSIP_Label_([0-9a-f-]{36})_(\w+)\s*=([^;]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LabelIs:
    """The message carries one of these sensitivity labels of Microsoft Purview, by GUID or by name, in any case.

    They stand in the field ``msip_labels`` as ``MSIP_Label_GUID_Enabled=True; MSIP_Label_GUID_Name=Confidential; ...``.
    """

    labels: frozenset[str]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown until the header was read, and where the field cannot be."""
        values = _values(facts, "msip_labels")
        if values is None:
            return None
        carried = {label for value in values if value is not None for label in _labels(value)}
        if carried & self.labels:
            return True
        return None if None in values else False

    def canonical(self) -> Any:
        """``{"sensitivity_label": [...]}``."""
        return {"sensitivity_label": sorted(self.labels)}


def _labels(value: str) -> set[str]:
    """GUIDs and names of the labels that are enabled, case-folded."""
    known: dict[str, dict[str, str]] = {}
    for part in value.split(";"):
        match = _LABEL.match(part)
        if match is not None:
            known.setdefault(match[1].casefold(), {})[match[2].casefold()] = match[3].strip().casefold()
    on = {guid: about for guid, about in known.items() if about.get("enabled", "true") == "true"}
    return {*on, *(about["name"] for about in on.values() if about.get("name"))}
