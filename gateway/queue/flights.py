"""Which messages are on a connection right now, in a file that outlives the process.

When a worker dies, a claim whose message was on no connection can be tried again at once; one that was may already
have arrived, so it follows the retry schedule and counts as a possible duplicate (promise P3). The file is mapped
memory: the kernel keeps it through ``kill -9`` at no cost. After a power cut it is not believed (see
``recovery``): then every claim counts as possibly sent.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

from gateway.store.database import translated

__all__ = ["Flights", "read_flights"]

_SLOT = 36  # a message id in text
_SLOTS = 4096


def flights_path(run_dir: Path, incarnation: str) -> Path:
    """The file of one incarnation."""
    return run_dir / f"{incarnation}.flights"


class Flights:
    """The messages this process has on connections. There is room for 4096, far above what is delivered at once.

    Raises :class:`~gateway.errors.StoreError` where the file cannot be made.
    """

    def __init__(self, run_dir: Path, incarnation: str) -> None:
        self._path = flights_path(run_dir, incarnation)
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # All of it now: a mapped page that finds the disk full later is a signal that ends the process.
                os.posix_fallocate(handle, 0, _SLOT * _SLOTS)
                self._map = mmap.mmap(handle, _SLOT * _SLOTS)
            finally:
                os.close(handle)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            raise translated(error) from error
        self._slots: dict[str, int] = {}
        self._uses: Counter[str] = Counter()
        self._free = list(range(_SLOTS - 1, -1, -1))

    def take_off(self, message_id: str) -> None:
        """The message goes onto a connection now."""
        self._uses[message_id] += 1
        if self._uses[message_id] == 1:
            slot = self._free.pop()
            self._slots[message_id] = slot
            self._map[slot * _SLOT : (slot + 1) * _SLOT] = message_id.encode("ascii")

    def land(self, message_id: str) -> None:
        """Its outcome is durable."""
        self._uses[message_id] -= 1
        if self._uses[message_id] <= 0:
            del self._uses[message_id]
            slot = self._slots.pop(message_id)
            self._map[slot * _SLOT : (slot + 1) * _SLOT] = bytes(_SLOT)
            self._free.append(slot)

    def is_flying(self, message_id: str) -> bool:
        """Whether the message is on a connection now."""
        return message_id in self._uses

    def close(self) -> None:
        """Ended in order: nothing is in the air, the file goes."""
        self._map.close()
        with suppress(OSError):
            self._path.unlink()


def read_flights(run_dir: Path, incarnation: str) -> frozenset[str] | None:
    """The messages that were on a connection when the incarnation died; None where that is not known."""
    try:
        data = flights_path(run_dir, incarnation).read_bytes()
    except OSError:
        return None
    slots = (data[offset : offset + _SLOT] for offset in range(0, len(data), _SLOT))
    return frozenset(slot.decode("ascii", "replace") for slot in slots if slot.strip(b"\0"))
