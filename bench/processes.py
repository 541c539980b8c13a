"""Which processes belong to a relay, and how long they have worked."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["settle", "threads", "tree", "worked"]

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
        with contextlib.suppress(OSError):  # it ended meanwhile
            ticks += sum(_times(Path(f"/proc/{pid}/stat")))
    return ticks * _TICK


def threads(pids: list[int]) -> dict[int, float]:
    """Seconds of CPU by thread id, of all living threads of these processes."""
    found: dict[int, float] = {}
    for pid in pids:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found[int(task.name)] = sum(_times(task / "stat")[:2]) * _TICK
        except OSError:
            continue
    return found


def _times(path: Path) -> list[int]:
    """User and system time, own and of children that were waited for, in ticks: fields 14 to 17 of proc(5)."""
    # The name in parentheses may hold anything; behind it stands field 3.
    fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


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
