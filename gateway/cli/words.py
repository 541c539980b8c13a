"""Times as people say them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["ago", "ahead", "moment"]


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
