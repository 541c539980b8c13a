"""Which processes belong to a relay, and how long they have worked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["settle", "tree", "worked"]

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_QUIET: Final = 0.25  # seconds over which a relay may work a tick, and counts as done
_PATIENCE: Final = 5.0


def tree(root: int) -> list[int]:
    """That process and all below it, as they are now."""
    found = [root]
    for pid in found:  # grows meanwhile: children of children follow
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
        except OSError:
            continue  # it ended meanwhile
    return found


def worked(pids: list[int]) -> float:
    """Seconds of CPU, user and system, of these processes and of the children whose end they have seen.

    So a process that ends between two looks is counted by its parent. What the kernel does in threads of its own
    (journal, interrupts) is in nobody's account.
    """
    ticks = 0
    for pid in pids:
        try:
            # The name in parentheses may hold anything; behind it stand fields 3 and on (proc(5)): 14 to 17 are wanted.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks * _TICK


def settle(pids: Callable[[], list[int]]) -> float:
    """Wait until these processes have all but nothing left to do, five seconds at most; returns :func:`worked`.

    What a relay puts off until it is idle (removing, checkpoints) is part of a message's price.
    """
    deadline = time.monotonic() + _PATIENCE
    before = worked(pids())
    while True:
        time.sleep(_QUIET)  # the span that is looked at; the deadline ends it
        now = worked(pids())
        if now - before <= 1.5 * _TICK or time.monotonic() > deadline:
            return now
        before = now
