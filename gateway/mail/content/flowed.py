"""``format=flowed``: lines that end with a blank go on in the next (RFC 3676)."""

from __future__ import annotations

import re

__all__ = ["unflowed"]

#: A soft line end in text that is not quoted; the signature's separator is none (RFC 3676 section 4.3).
_SOFT = re.compile(r"(?<!\n--) \n(?!>) ?")
_QUOTES = re.compile(r">*")
#: Beyond this only text that is not quoted flows: a loop over the lines would take too long.
_MAX_LINES = 100_000


def unflowed(text: str, *, delete_space: bool) -> str:
    """``text`` (line ends LF) with its soft line ends gone; ``delete_space`` is the parameter ``delsp``."""
    if " \n" not in text:
        return text
    if "\n>" in text or text.startswith(">"):
        lines = text.split("\n", _MAX_LINES)
        rest = lines.pop() if len(lines) > _MAX_LINES else ""
        text = _join_quoted(lines, "" if delete_space else " ")
        if not rest:
            return text
        text = f"{text}\n{rest}"
    return _SOFT.sub("" if delete_space else " ", text)


def _join_quoted(lines: list[str], joint: str) -> str:
    """Paragraph by paragraph: lines flow into those of the same depth of quotation (RFC 3676 section 4.5)."""
    paragraphs: list[str] = []
    current: list[str] = []
    depth = -1
    for line in lines:
        quotes = _QUOTES.match(line)
        marks = 0 if quotes is None else quotes.end()
        content = line[marks:].removeprefix(" ")
        if current and marks != depth:
            paragraphs.append("".join(current))
            current = []
        if not current and marks:
            current.append(">" * marks + " ")
        depth = marks
        if content.endswith(" ") and content != "-- ":
            current += (content[:-1], joint)
            continue
        current.append(content)
        paragraphs.append("".join(current))
        current = []
    if current:
        paragraphs.append("".join(current))
    return "\n".join(paragraphs)
