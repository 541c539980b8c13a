"""After a deletion the key still stands in the write-ahead log; the checkpoint that truncates it is the shredding.

``deleted`` says that the row is gone, ``shredded`` that a truncating checkpoint which began later succeeded: measured,
one with a reader open is "busy" and leaves the key where it was. One checkpoint covers every deletion so far; there is
at most one a minute, and one within ten minutes of a deletion unless readers keep it busy - then it is tried again and
the alarm says so.

PostgreSQL has nothing of that kind: rows that were deleted stay in its files and its log until it needs the room. There
``deleted`` is all that is promised, and nobody says ``shredded``.

While a backup is being made its process does it for all, in its own way (``hotcopy``).

What is left to do is kept as two counter rows, so that deletions of a process that died, or of an operator's command
that has ended, are not forgotten.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy import Connection

from gateway.store.backup_lock import is_backing_up
from gateway.store.counting import counted
from gateway.store.store import DELETED, SHREDDED, Store
from gateway.store.writer import Transaction

__all__ = ["Shredder"]

#: Seconds between two checkpoints for shredding.
INTERVAL = 60.0
#: Seconds after a deletion at which a busy checkpoint becomes an alarm.
LIMIT = 600.0

_log = structlog.get_logger()


class Shredder:
    """Looks at what was deleted and runs the checkpoint; :meth:`step` is called every few seconds.

    ``overdue``: readers have kept the checkpoint from finishing for longer than ten minutes. ``checkpoint``: how
    whoever makes a backup has one, instead of by the writer.
    """

    def __init__(self, store: Store, checkpoint: Callable[[], Awaitable[bool]] | None = None) -> None:
        self._store = store
        self._checkpoint = checkpoint
        self._last = store.clock.monotonic() - INTERVAL
        self._waiting_since: float | None = None
        self._waiting_for = 0
        self.overdue = False

    async def step(self) -> bool:
        """Checkpoint where it is due; whether everything deleted so far is as gone as it gets. Raises StoreError."""
        if not self._store.can_shred:
            return True
        now = self._store.clock.monotonic()
        deleted, shredded = await self._store.read(_so_far)
        pending = deleted - shredded
        if pending <= 0:
            self._waiting_since, self.overdue = None, False
            return True
        if self._waiting_since is None or shredded >= self._waiting_for:
            self._waiting_since, self._waiting_for, self.overdue = now, deleted, False  # others shred, too
        if now - self._last < INTERVAL:
            return False
        self._last = now
        if self._checkpoint is None and is_backing_up(self._store.run_dir):
            self.overdue = now - self._waiting_since > LIMIT
            return False
        if not await (self._checkpoint or self._store.writer.checkpoint)():
            self.overdue = now - self._waiting_since > LIMIT
            _log.warning("shredding_busy", pending=pending, overdue=self.overdue)
            return False

        def note(transaction: Transaction) -> None:
            # Another worker's checkpoint may have covered some of them meanwhile.
            _, known = _so_far(transaction.connection)
            fresh = deleted - known
            if fresh > 0:
                transaction.event("shredded", {"deletions": fresh})
                transaction.count(SHREDDED, fresh)

        await self._store.write(note)
        self._waiting_since, self.overdue = None, False
        deleted, shredded = await self._store.read(_so_far)
        return deleted <= shredded


def _so_far(connection: Connection) -> tuple[int, int]:
    """How many keys were deleted, and how many of them are shredded."""
    values = counted(connection, (DELETED, SHREDDED))
    return values.get(DELETED, 0), values.get(SHREDDED, 0)
