"""Looking for what a policy asks about a message's content, once for all its rules and recipients. Never raises.

1. the message as readers see it (``gateway.mail.content``)
2. each text made normal (``normal_text``): NFKC, no format characters, white space runs as one blank
3. texts case-folded for ``contains``, patterns and detectors on the normal text; a detector's finds are counted by what
   was found, so that a number that is quoted five times is one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import re2

from gateway.mail.content import Content, read_content
from gateway.policy.conditions import compile_pattern
from gateway.policy.content import ContentFacts, Questions
from gateway.policy.detect import BUILT_IN, Detector, Match, Scan
from gateway.policy.facts import normal_text

__all__ = ["Examiner", "Passage", "examine", "examiner_for", "masked", "passages"]

#: Characters of text that are looked at; what lies beyond is unknown.
TEXT_LIMIT = 10_000_000


@dataclass(frozen=True, slots=True)
class Examiner:
    """What a policy looks for: a plain value that can go to another process. :meth:`of` makes it.

    ``floors``: how many different finds a detector needs to count at all.
    """

    questions: Questions = field(default_factory=Questions)
    detectors: tuple[Detector, ...] = ()
    floors: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, message: bytes) -> ContentFacts:
        """See :func:`examine`."""
        return examine(message, self)


def examine(message: bytes, wanted: Examiner) -> ContentFacts:
    """The answers to the questions about this whole message; never raises."""
    try:
        return _answers(read_content(message, text_limit=TEXT_LIMIT), wanted)
    except Exception as error:  # noqa: BLE001  whatever is in a message must not keep it from being judged: unknown
        return ContentFacts.unknown(f"the content could not be examined ({type(error).__name__})")


def _answers(content: Content, wanted: Examiner) -> ContentFacts:
    questions, unread = wanted.questions, list(content.unread)
    contains: frozenset[str] = frozenset()
    matches: set[str] = set()
    counts: dict[str, int] = {}
    if questions.of_text:
        texts = [normal_text(part.text) for part in content.texts]
        if questions.contains:
            folded = [text.casefold() for text in texts]
            contains = frozenset(word for word in questions.contains if any(word in text for text in folded))
        for pattern in questions.matches:
            try:
                program = _compiled(pattern)
                if any(program.search(text) is not None for text in texts):
                    matches.add(pattern)
            except re2.error:
                unread.append("a pattern could not be looked for")
        scan = Scan(texts)
        for detector in wanted.detectors:
            counts[detector.name] = _count(scan, detector, wanted.floors.get(detector.name, 1))
    return ContentFacts(
        contains=contains,
        matches=frozenset(matches),
        counts=counts,
        unread=tuple(dict.fromkeys(unread)),
        attachments=content.attachments,
        protected=content.protected,
    )


def _count(scan: Scan, detector: Detector, floor: int) -> int:
    found = scan.matches(detector)
    if found is scan.nothing:
        return 0
    different = {
        _bare(text[match.start : match.end]) for text, hits in zip(scan.texts, found, strict=True) for match in hits
    }
    return len(different) if len(different) >= floor else 0


def _bare(text: str) -> str:
    """A find as it counts: the same number written with and without dashes is one."""
    return "".join(char for char in text if char.isalnum()).casefold() or text


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Any:
    return compile_pattern(pattern)


# -- for people -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passage:
    """A text exactly as it is judged, and what was found in it: name of the detector, pattern or word, and where."""

    where: str
    text: str
    finds: tuple[tuple[str, Match], ...]


def passages(message: bytes, wanted: Examiner) -> tuple[tuple[Passage, ...], tuple[str, ...]]:
    """Every text of the message with all finds, and why there may be more (``unread``); never raises."""
    content = read_content(message, text_limit=TEXT_LIMIT)
    texts = [normal_text(part.text) for part in content.texts]
    finds: list[list[tuple[str, Match]]] = [[] for _ in texts]
    scan = Scan(texts)
    for detector in wanted.detectors:
        for own, hits in zip(finds, scan.matches(detector), strict=True):
            own.extend((detector.name, match) for match in hits)
    for own, text in zip(finds, texts, strict=True):
        for pattern in sorted(wanted.questions.matches):
            own.extend((f"/{pattern}/", match) for match in _all_matches(_compiled(pattern), text))
        own.extend(_words(text, wanted.questions.contains))
    made = tuple(
        Passage(part.where, text, tuple(sorted(own, key=lambda find: (find[1].start, find[1].end))))
        for part, text, own in zip(content.texts, texts, finds, strict=True)
    )
    return made, content.unread


def _all_matches(program: Any, text: str) -> list[Match]:
    try:
        return [Match(found.start(), found.end()) for found in program.finditer(text) if found.end() > found.start()]
    except re2.error:
        return []


def _words(text: str, wanted: frozenset[str]) -> list[tuple[str, Match]]:
    folded = text.casefold()
    if len(folded) != len(text):  # places in the folded text are not those in the text: show that it is there
        return [(word, Match(0, 0)) for word in sorted(wanted) if word in folded]
    finds = []
    for word in sorted(wanted):
        start = folded.find(word)
        while start >= 0:
            finds.append((word, Match(start, start + len(word))))
            start = folded.find(word, start + len(word))
    return finds


def masked(passage: Passage, mask: Callable[[str], str] | None = None) -> str:
    """The text with what was found blotted out: letters and digits become dots, so that its form still shows."""
    blot = mask or (lambda found: "".join("•" if char.isalnum() else char for char in found))
    text, done, pieces = passage.text, 0, []
    for _, match in passage.finds:
        if match.end <= done:
            continue
        start = max(match.start, done)
        pieces += [text[done:start], blot(text[start : match.end])]
        done = match.end
    return "".join([*pieces, text[done:]])


def examiner_for(questions: Questions, own: Mapping[str, Detector], floors: Mapping[str, int]) -> Examiner:
    """The examiner for these questions: detectors by name, of the policy or built in. Raises ``KeyError``."""
    names = sorted(questions.detectors)
    detectors = tuple(own[name] if name in own else BUILT_IN[name] for name in names)
    return Examiner(questions, detectors, {name: floors[name] for name in names if name in floors})
