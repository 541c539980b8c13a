"""Detectors that a policy defines: a pattern, and words of which one must stand near."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from gateway.policy.conditions import compile_pattern
from gateway.policy.detect.detector import Match
from gateway.policy.detect.engine import MAX_MATCHES
from gateway.policy.facts import normal_text

__all__ = ["MAX_WITHIN", "MAX_WORDS", "OwnDetector", "own_detector"]

MAX_WITHIN = 1000
"""Characters; farther away is not near."""

MAX_WORDS = 200


@dataclass(frozen=True, slots=True)
class OwnDetector:
    """A pattern of the policy's author, over the text itself; made by ``own_detector``."""

    name: str
    pattern: str
    near_words: tuple[str, ...]
    within: int
    _program: Any = field(init=False, repr=False, compare=False)
    _near: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_program", compile_pattern(self.pattern))
        edge = r"[^\pL\pN\pM_]"
        words = "|".join(_quoted(word) for word in self.near_words)
        near = compile_pattern(f"(?:^|{edge})(?:{words})(?:$|{edge})") if words else None
        object.__setattr__(self, "_near", near)

    def __reduce__(self) -> tuple[Any, ...]:
        return OwnDetector, (self.name, self.pattern, self.near_words, self.within)

    def find(self, text: str) -> list[Match]:
        """See ``Detector``."""
        return list(islice(self._matches(text), MAX_MATCHES))

    def find_in_message(self, texts: Sequence[str]) -> list[list[Match]]:
        """See ``Detector``; each text by itself."""
        return [self.find(text) for text in texts]

    def canonical(self) -> Any:
        """The pattern, the words in any order, and the distance; not the name, which the policy's form has."""
        return {"pattern": self.pattern, "near": sorted(self.near_words), "within": self.within}

    def _matches(self, text: str) -> Iterator[Match]:
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8 form
        for found in self._program.finditer(text):
            start, end = found.span()
            if end > start and (self._near is None or self._is_near(text, start, end)):
                yield Match(start, end)

    def _is_near(self, text: str, start: int, end: int) -> bool:
        first, stop = max(0, start - self.within), min(len(text), end + self.within)
        while 0 < first < start and _is_word(text[first - 1]) and _is_word(text[first]):
            first += 1  # the rest of a word is not the word
        while end < stop < len(text) and _is_word(text[stop]) and _is_word(text[stop - 1]):
            stop -= 1
        search = self._near.search
        return search(text[first:start].casefold()) is not None or search(text[end:stop].casefold()) is not None


def own_detector(name: str, pattern: str, *, near_words: Sequence[str] = (), within: int = 60) -> OwnDetector:
    """A detector of one's own; raises ``ValueError`` in plain words.

    ``pattern`` is RE2, found anywhere in the text; ``(?i)`` makes it ignore case. With ``near_words``, one of them must
    stand within ``within`` characters on either side, as a whole word, in any case.
    """
    if not 1 <= within <= MAX_WITHIN:
        raise ValueError(f"within: expected 1 to {MAX_WITHIN} characters, found {within}")
    if len(near_words) > MAX_WORDS:
        raise ValueError(f"near: at most {MAX_WORDS} words, found {len(near_words)}")
    words = tuple(dict.fromkeys(normal_text(word).casefold() for word in near_words))
    if "" in words:
        raise ValueError("near: a word is empty")
    if compile_pattern(pattern).search("") is not None:
        raise ValueError("the pattern fits the empty text, and so every text")
    return OwnDetector(name, pattern, words, within)


def _quoted(word: str) -> str:
    return "".join(
        char if char.isalnum() or ord(char) > 127 or char == " " else f"\\x{{{ord(char):x}}}" for char in word
    )


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"
