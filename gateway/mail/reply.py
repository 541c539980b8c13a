"""An SMTP reply as a value, with its enhanced status code (RFC 5321 section 4.2, RFC 3463, RFC 2034).

Text of a peer is cleaned on the way in: nothing of it can break a log line, a DSN or a terminal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Reply", "clean_text"]

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ \t]+|\Z)")
_UNPRINTABLE = re.compile(
    r"[^\x20-\x7e\xa0-\U0010ffff]+|[\u0080-\u009f\u2028\u2029\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+"
)

#: Longest text of a peer that we keep; a full reply may hold 64 KiB.
MAX_TEXT = 500


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """``text`` of a stranger on one line, without control or bidirectional characters, cut to ``limit``."""
    cleaned = _UNPRINTABLE.sub(" ", text).strip()
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: three-digit ``code``, ``enhanced`` code ("" where none was given), one line of cleaned text."""

    code: int
    enhanced: str
    text: str

    @classmethod
    def parse(cls, code: int, text: str) -> Reply:
        """Split the enhanced code off ``text``; one that contradicts the basic code's class is not believed."""
        match = _ENHANCED.match(text)
        if match and match.group(1)[0] == str(code)[0]:
            lines = text.split("\n")
            prefix = match.group(1)
            body = " ".join(line.removeprefix(prefix).strip() for line in lines)
            return cls(code, prefix, clean_text(body))
        return cls(code, "", clean_text(text))

    @property
    def positive(self) -> bool:
        """A 2xx or 3xx reply."""
        return 200 <= self.code < 400

    @property
    def temporary(self) -> bool:
        """A 4xx reply."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """A 5xx reply."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)

    def as_json(self) -> dict[str, Any]:
        """The shape of interfaces: ``{"code", "enhanced", "text"}``."""
        return {"code": self.code, "enhanced": self.enhanced, "text": self.text}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reply:
        """The inverse of :meth:`as_json`."""
        return cls(data["code"], data["enhanced"], data["text"])
