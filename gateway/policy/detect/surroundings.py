"""What stands near a number and says what it is: words that speak for it, and labels that give it to something else."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.policy.detect.engine import Program

__all__ = ["OTHER_THINGS", "PHONE_LABEL", "Context", "Label", "glued", "glued_in_front"]


@dataclass(frozen=True, slots=True)
class Context:
    """Words of which one must stand near: up to ``before`` characters in front, ``after`` behind.

    In lists and columns the word stands once, at the top: a match carries it on to the next number, ``carry``
    characters further.
    """

    words: Program
    before: int = 60
    after: int = 40
    carry: int = 60

    def near(self, plain: bytes, start: int, end: int, last: int) -> bool:
        """Whether one of the words, or the match before, is near."""
        if start - last <= self.carry:
            return True
        return self.words.within(plain, start - self.before, start) or self.words.within(plain, end, end + self.after)


@dataclass(frozen=True, slots=True)
class Label:
    """A label directly in front, such as ``Order no.``; it takes the number for itself."""

    words: Program

    def before(self, plain: bytes, start: int) -> bool:
        """Whether it stands there."""
        return self.words.within(plain, start - 32, start)


_MARK = r"[ _-]?(?:(?:no|nos|number|numbers|num|nr|id|ids|code)\b)?[ .:#=(]*$"

OTHER_THINGS = Label(
    Program(
        r"(?i)\b(?:order|invoice|inv|item|part|sku|tracking|shipment|shipping|waybill|p\.?o\.?|model|lot|serial|s/n|"
        r"article|product|upc|isbn|issn|ean|gtin|imei|ticket|confirmation|transaction|booking|reservation|"
        r"catalog(?:ue)?|asset|quote|rma|doi|patent|drawing)" + _MARK
    )
)
"""Numbers of goods and deeds. A person's number that is labelled so on purpose is missed; documented."""

PHONE_LABEL = Label(Program(r"(?i)\b(?:tel|telephone|phone|ph|fax|f|t|cell|mobile|m|call|text|dial|ext)" + _MARK))
"""Telephone numbers that have the length of something else."""


def glued(plain: bytes, start: int, end: int) -> bool:
    """Whether the number is a part of a longer one: ``1-536-22-8726``, ``192.168.12.3456``, ``536-22-8726-01``."""
    after = plain[end : end + 2]
    return glued_in_front(plain, start) or (len(after) == 2 and after[:1] in b"-./@" and after[1:].isdigit())


def glued_in_front(plain: bytes, start: int) -> bool:
    """Whether a longer number begins before this one."""
    before = plain[max(0, start - 2) : start]
    return len(before) == 2 and before[1:] in b"-./,:" and before[:1].isdigit()
