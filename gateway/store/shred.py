"""After a deletion the key still stands in the write-ahead log; the checkpoint that truncates it is the shredding.

``deleted`` says that the row is gone, ``shredded`` that a truncating checkpoint which began later succeeded: measured,
one with a reader open is "busy" and leaves the key where it was. One checkpoint covers every deletion so far; there is
at most one a minute, and one within ten minutes of a deletion unless readers keep it busy - then it is tried again and
the alarm says so.
"""

from __future__ import annotations

import structlog

from gateway.store.store import Store

__all__ = ["Shredder"]

#: Seconds between two checkpoints for shredding.
INTERVAL = 60.0
#: Seconds after a deletion at which a busy checkpoint becomes an alarm.
LIMIT = 600.0

_log = structlog.get_logger()


class Shredder:
    """Counts deletions and runs the checkpoint; :meth:`step` is called every few seconds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending = 0
        self._oldest = 0.0
        self._last = store.clock.monotonic() - INTERVAL
        self.overdue = False

    def note(self, deletions: int) -> None:
        """Bodies were deleted (their commit stands)."""
        if deletions and not self._pending:
            self._oldest = self._store.clock.monotonic()
        self._pending += deletions

    async def step(self) -> bool:
        """Checkpoint where it is due; whether everything deleted so far is shredded now."""
        now = self._store.clock.monotonic()
        if not self._pending or now - self._last < INTERVAL:
            return not self._pending
        self._last = now
        covered = self._pending
        if await self._store.writer.checkpoint():
            self._pending -= covered
            self._oldest = now
            self.overdue = False
            await self._store.write(lambda tx: tx.event("shredded", {"deletions": covered}))
            return not self._pending
        self.overdue = now - self._oldest > LIMIT
        _log.warning("shredding_busy", pending=self._pending, overdue=self.overdue)
        return False
