"""Plain text as HTML: escaped, addresses as links, quotations as blocks, flowed lines joined (RFC 3676)."""

from __future__ import annotations

import re

from gateway.mail.content.flowed import unflowed
from gateway.portal.reading.links import linked

__all__ = ["plain_html"]

_MAX_DEPTH = 8
#: Changes between quoted and not; a text with more is shown as it stands.
_MAX_BLOCKS = 20_000
_QUOTE = re.compile(r"(?:> ?)+")


def plain_html(text: str, *, flowed: bool = False, delete_space: bool = False) -> str:
    """``text`` (line ends LF) as blocks of HTML; linear."""
    if flowed:
        text = unflowed(text, delete_space=delete_space)
    out: list[str] = []
    left = 2000
    depth = blocks = 0
    lines: list[str] = []

    def flush() -> None:
        nonlocal left
        block = "\n".join(lines).strip("\n")
        lines.clear()
        if block.strip():
            html, left = linked(block, left)
            out.append(f'<div class="text">{html}</div>')

    for line in text.split("\n"):
        match = _QUOTE.match(line) if blocks < _MAX_BLOCKS else None
        level = 0 if match is None else min(match[0].count(">"), _MAX_DEPTH)
        if level != depth:
            flush()
            out.append("<blockquote>" * (level - depth) + "</blockquote>" * (depth - level))
            depth = level
            blocks += 1
        lines.append(line if match is None else line[match.end() :])
    flush()
    out.append("</blockquote>" * depth)
    return "".join(out)
