"""What a policy asks about a message's content, and the answers: found once a message, whatever the number of rules.

:class:`Questions` are gathered from the rules when a policy is made; ``examine`` answers them. Both are plain values
that can go to another process and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.mail.content import Attachment

__all__ = ["ContentFacts", "Questions"]


@dataclass(frozen=True, slots=True)
class Questions:
    """``contains``: texts, normal and case-folded; ``matches``: RE2 patterns; ``detectors``: names.

    ``structure``: attachments, protection or unreadable parts are asked about, too.
    """

    contains: frozenset[str] = frozenset()
    matches: frozenset[str] = frozenset()
    detectors: frozenset[str] = frozenset()
    structure: bool = False

    def __bool__(self) -> bool:
        return bool(self.contains or self.matches or self.detectors or self.structure)

    @property
    def of_text(self) -> bool:
        """Whether any of them is about text."""
        return bool(self.contains or self.matches or self.detectors)


@dataclass(frozen=True, slots=True)
class ContentFacts:
    """What is in a message: the texts and patterns that were found, and how many different finds a detector made.

    ``unread``: why there may be more than was found - attachments that are not text, a limit reached, an unknown
    charset; empty where all of it was read. ``attachments`` None: how they are is not known. ``protected``: the
    message is S/MIME, PGP or a protected PDF already; None: not known.
    """

    contains: frozenset[str] = frozenset()
    matches: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] | None = ()
    protected: frozenset[str] | None = frozenset()

    @classmethod
    def unknown(cls, why: str) -> ContentFacts:
        """Nothing is known of it."""
        return cls(unread=(why,), attachments=None, protected=None)
