"""What a set of processes holds in memory, while something else happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Held", "Watch", "held", "watching"]

_EVERY: Final = 0.02


@dataclass(frozen=True, slots=True)
class Held:
    """Octets: ``rss`` counts shared pages in every process, ``pss`` shares them out; sums over the processes."""

    rss: int
    pss: int


def held(pids: list[int]) -> Held:
    """What these processes hold now; those that have ended hold nothing."""
    rss = pss = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except (OSError, ProcessLookupError):
            continue
        for line in text.splitlines():
            if line.startswith("Rss:"):
                rss += int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                pss += int(line.split()[1]) * 1024
    return Held(rss, pss)


class Watch:
    """The highest values seen since it began."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids = pids
        self.before = held(pids())
        self.peak = self.before

    def look(self) -> None:
        """Take one sample."""
        now = held(self._pids())
        self.peak = Held(max(self.peak.rss, now.rss), max(self.peak.pss, now.pss))


@contextmanager
def watching(pids: Callable[[], list[int]]) -> Iterator[Watch]:
    """Sample every 20 ms, in a thread, until the end of the block."""
    watch = Watch(pids)
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(_EVERY):
            watch.look()

    thread = threading.Thread(target=sample, name="memory")
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()
        watch.look()
