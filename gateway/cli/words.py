"""Times, and lines that fit where they are read."""

from __future__ import annotations

import sys
import textwrap
from datetime import UTC, datetime

from rich.console import Console

__all__ = ["ago", "ahead", "moment", "printable", "terminal", "wrapped"]

#: For a program or a file: lines are never broken, so that they can be searched.
_UNBROKEN = 100_000


def terminal() -> Console:
    """Where people's output goes: as wide as the terminal; as wide as it takes where there is none."""
    width = None if sys.stdout.isatty() else _UNBROKEN
    return Console(highlight=False, soft_wrap=True, width=width)


def wrapped(text: str, width: int, *, indent: int) -> str:
    """``text`` in lines of ``width`` columns, all but the first indented. Long words are left whole."""
    lines = textwrap.wrap(
        text, max(width, 40), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def printable(text: str) -> str:
    """``text`` without what a terminal would obey: a reason, a name or a reply may hold anything."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def ago(seconds: float) -> str:
    """A length of time: ``42s``, ``7m``, ``3h``, ``2d``."""
    seconds = max(seconds, 0.0)
    for limit, unit, letter in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // unit)}{letter}"
    return f"{int(seconds // 86400)}d"


def ahead(when: float | None, now: float) -> str:
    """A moment to come: ``in 7m``, ``now``; nothing for none."""
    if when is None:
        return ""
    return "now" if when <= now else f"in {ago(when - now)}"


def moment(when: float) -> str:
    """A point in time, UTC, to the second."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S")
