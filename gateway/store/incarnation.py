"""One life of one process that writes: leases belong to it, and its death is known from its lock file.

Where two processes see the same lock file, the kernel releases the lock at the moment of death, however it comes. From
elsewhere the heartbeat tells: who has not seen it move for as long as the lease lasts, by its own monotonic clock,
takes over. So no two hosts need to agree about the time, and a clock that is set hurts nobody.
"""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from gateway.clock import Clock
from gateway.store.schema import incarnations

__all__ = ["LEASE", "Incarnation", "Lives", "boot_id", "is_in_use", "place_of", "remove_if_dead"]

#: Seconds after the last heartbeat at which another host may take over, unless the settings say otherwise.
LEASE = 60.0
#: Heartbeats in a lease: some may be late or lost before anybody takes over.
_BEATS = 6
#: Length of an incarnation's name.
_NAME = 36


def boot_id() -> str:
    """The kernel's id of this boot: after a power cut nothing that was only in memory can be believed."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


def place_of(run_dir: Path) -> str:
    """Which directory this is, among all that this boot of this machine knows; not two of them are called the same.

    Not its path (containers have the same ones), and no name that could be copied with it. After another boot it is
    another place: then nobody can say whether a lock is the same.
    """
    status = run_dir.stat()
    return f"{boot_id()[:36]}/{status.st_dev:x}/{status.st_ino:x}"


@dataclass(slots=True)
class Incarnation:
    """This process, as a holder of leases.

    ``heartbeat_at`` is monotonic time of the last durable heartbeat, ``lease`` how long it holds, in seconds.
    """

    id: str
    host: str
    boot: str
    pid: int
    lock_path: Path
    place: str
    lease: float = LEASE
    heartbeat_at: float = 0.0
    _handle: int = -1

    @classmethod
    def begin(cls, run_dir: Path, lease: float = LEASE) -> Incarnation:
        """A new incarnation with its lock file held."""
        place = place_of(run_dir)
        while True:
            name = str(uuid.uuid4())
            path = run_dir / f"{name}.lock"
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Another process that looks for the dead may find the file before we hold it, and take it for a dead one's.
            if _holds(handle, path):
                return cls(name, socket.gethostname(), boot_id(), os.getpid(), path, place, lease, _handle=handle)
            os.close(handle)

    def register(self, connection: Connection, clock: Clock) -> None:
        """Write the row."""
        now = clock.time()
        connection.execute(
            insert(incarnations).values(
                id=self.id,
                host=self.host,
                boot=self.boot,
                pid=self.pid,
                started=now,
                heartbeat=now,
                ended=None,
                place=self.place,
                lease=self.lease,
            )
        )
        self.heartbeat_at = clock.monotonic()

    def beat(self, connection: Connection, now: float) -> None:
        """Keep the leases alive; the caller notes :attr:`heartbeat_at` once this is durable."""
        connection.execute(update(incarnations).where(incarnations.c.id == self.id).values(heartbeat=now))

    def holds_lease(self, monotonic: float) -> bool:
        """Whether nobody can have taken our claims over yet, with a margin for a slow peer."""
        return monotonic - self.heartbeat_at < self.lease * 0.75

    def is_beat_due(self, monotonic: float) -> bool:
        """Whether it is time for the next heartbeat."""
        return monotonic - self.heartbeat_at >= self.lease / _BEATS

    def end(self, connection: Connection, now: float) -> None:
        """Say that this incarnation ended in order."""
        connection.execute(update(incarnations).where(incarnations.c.id == self.id).values(ended=now))

    def release(self) -> None:
        """Give the lock up and remove its file."""
        if self._handle >= 0:
            self.lock_path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = -1


def _holds(handle: int, path: Path) -> bool:
    """Lock the file; whether we did, and it still stands under its name."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(handle).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


class Lives:
    """Who of the other holders of leases is gone for certain, as seen from this process.

    ``together``: all who write share our data directory, as with SQLite. Then whoever has our host's name has our lock
    files too, and nobody lives on from before this boot.
    """

    def __init__(self, run_dir: Path, clock: Clock, *, together: bool) -> None:
        self._run_dir = run_dir
        self._clock = clock
        self._together = together
        self._here = place_of(run_dir)
        #: The last heartbeat that we saw of others, and when we saw it first, on our monotonic clock.
        self._seen: dict[str, tuple[float, float]] = {}

    def is_dead(self, connection: Connection, incarnation_id: str) -> bool:
        """Whether this holder of leases is gone for certain."""
        row = connection.execute(select(incarnations).where(incarnations.c.id == incarnation_id)).first()
        if row is None or row.ended is not None:
            self._seen.pop(incarnation_id, None)
            return True
        if row.place == self._here or (self._together and row.host == socket.gethostname() and row.boot == boot_id()):
            return remove_if_dead(self._run_dir / f"{incarnation_id}.lock")
        if self._together and row.host == socket.gethostname():
            return True  # before the last boot
        return self._is_silent(incarnation_id, row.heartbeat, LEASE if row.lease is None else row.lease)

    def _is_silent(self, incarnation_id: str, heartbeat: float, lease: float) -> bool:
        now = self._clock.monotonic()
        seen = self._seen.get(incarnation_id)
        if seen is None or seen[0] != heartbeat:
            self._seen[incarnation_id] = heartbeat, now
            return False
        return now - seen[1] > lease

    def forget_all_but(self, owners: Collection[str]) -> None:
        """Nobody but these holds a lease now."""
        for name in self._seen.keys() - set(owners):
            self._seen.pop(name, None)


def is_in_use(run_dir: Path) -> bool:
    """Whether any process writes to the store whose ``run`` directory this is."""
    return any(not _is_free(path) for path in run_dir.glob("*.lock") if len(path.stem) == _NAME)


def _is_free(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def remove_if_dead(path: Path) -> bool:
    """Whether nobody holds this lock file; then it is removed."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(handle)
