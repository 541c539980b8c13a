"""Conditions on what a message holds: text, attachments, protection that it has already.

They only look up answers (:class:`gateway.policy.content.ContentFacts`): finding them is done once a message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from gateway.mail.content import Attachment, FileType
from gateway.policy.conditions import Truth, weighed
from gateway.policy.content import Questions
from gateway.policy.facts import MessageFacts

__all__ = [
    "AttachmentIs",
    "ContentContains",
    "ContentDetects",
    "ContentMatches",
    "ContentUnreadable",
    "EncryptedAlready",
    "questions_of",
]


@dataclass(frozen=True, slots=True)
class ContentContains:
    """Subject, body or a text attachment contains one of the texts: normal, case-folded (``normal_text``)."""

    texts: frozenset[str]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where it was not found and something could not be read."""
        content = facts.content
        if content is None:
            return None
        return weighed(found=not self.texts.isdisjoint(content.contains), complete=not content.unread)

    def canonical(self) -> Any:
        """``{"content_contains": [...]}``."""
        return {"content_contains": sorted(self.texts)}


@dataclass(frozen=True, slots=True)
class ContentMatches:
    """One of the patterns (RE2) is found in subject, body or a text attachment, after NFKC."""

    patterns: frozenset[str]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where none was found and something could not be read."""
        content = facts.content
        if content is None:
            return None
        return weighed(found=not self.patterns.isdisjoint(content.matches), complete=not content.unread)

    def canonical(self) -> Any:
        """``{"content_matches": [...]}``."""
        return {"content_matches": sorted(self.patterns)}


@dataclass(frozen=True, slots=True)
class ContentDetects:
    """The detectors together make at least so many different finds."""

    detectors: frozenset[str]
    at_least: int = 1

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where it was fewer and something could not be read."""
        content = facts.content
        if content is None:
            return None
        total = sum(content.counts.get(name, 0) for name in self.detectors)
        return weighed(found=total >= self.at_least, complete=not content.unread)

    def canonical(self) -> Any:
        """``{"content_detects": [[...], at_least]}``."""
        return {"content_detects": [sorted(self.detectors), self.at_least]}


@dataclass(frozen=True, slots=True)
class ContentUnreadable:
    """Some of the content could not be read; always known once it was looked at."""

    def truth(self, facts: MessageFacts) -> Truth:
        """Whether anything stayed unread."""
        return None if facts.content is None else bool(facts.content.unread)

    def canonical(self) -> Any:
        """``{"content_unreadable": true}``."""
        return {"content_unreadable": True}


@dataclass(frozen=True, slots=True)
class EncryptedAlready:
    """The message is protected already in one of these ways: ``smime``, ``pgp``, ``pdf``."""

    ways: frozenset[str]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where its form is."""
        content = facts.content
        if content is None or content.protected is None:
            return None
        return not self.ways.isdisjoint(content.protected)

    def canonical(self) -> Any:
        """``{"encrypted_already": [...]}``."""
        return {"encrypted_already": sorted(self.ways)}


@dataclass(frozen=True, slots=True)
class AttachmentIs:
    """At least ``count`` attachments are all of this: of one of the types (by content), with such a name and size.

    ``names`` are patterns with ``*`` and ``?``, compared without case. ``encrypted``: it cannot be opened without a
    password. ``over`` and ``under``: octets.
    """

    types: frozenset[FileType] = frozenset()
    names: tuple[str, ...] = ()
    over: int | None = None
    under: int | None = None
    encrypted: bool | None = None
    count: int = 1
    _names: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = "|".join(translate(name.casefold()) for name in self.names)
        object.__setattr__(self, "_names", re.compile(patterns) if patterns else None)

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where it hangs on an attachment of which that cannot be known."""
        if facts.content is None or facts.content.attachments is None:
            return None
        truths = [self._fits(attachment) for attachment in facts.content.attachments]
        if truths.count(True) >= self.count:
            return True
        return None if len(truths) - truths.count(False) >= self.count else False

    def _fits(self, attachment: Attachment) -> Truth:
        if self.over is not None and attachment.size <= self.over:
            return False
        if self.under is not None and attachment.size >= self.under:
            return False
        if self._names is not None and not self._names.match(attachment.name.casefold()):
            return False
        if self.types and attachment.type not in self.types:
            # What is locked up may be of any type.
            return None if attachment.type is FileType.ENCRYPTED else False
        if self.encrypted is None:
            return True
        return None if attachment.encrypted is None else attachment.encrypted is self.encrypted

    def canonical(self) -> Any:
        """``{"attachment": {...}}``."""
        return {
            "attachment": {
                "type": sorted(self.types),
                "name": sorted({name.casefold() for name in self.names}),
                "size": [self.over, self.under],
                "encrypted": self.encrypted,
                "count": self.count,
            }
        }


def questions_of(condition: object) -> Questions:
    """What this one condition asks about the content."""
    match condition:
        case ContentContains():
            return Questions(contains=condition.texts)
        case ContentMatches():
            return Questions(matches=condition.patterns)
        case ContentDetects():
            return Questions(detectors=condition.detectors)
        case ContentUnreadable() | AttachmentIs() | EncryptedAlready():
            return Questions(structure=True)
    return Questions()
