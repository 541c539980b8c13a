"""One life of one process that writes: leases belong to it, and its death is known from its lock file.

On the same host the kernel releases the lock at the moment of death, however it comes. On other hosts the heartbeat
tells, once it is older than the lease.
"""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from gateway.clock import Clock
from gateway.store.schema import incarnations

__all__ = ["HEARTBEAT", "LEASE", "Incarnation", "boot_id", "is_dead", "remove_if_dead"]

#: Seconds between heartbeats.
HEARTBEAT = 10.0
#: Seconds after the last heartbeat at which another host may take over.
LEASE = 60.0


def boot_id() -> str:
    """The kernel's id of this boot: after a power cut nothing that was only in memory can be believed."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


@dataclass(slots=True)
class Incarnation:
    """This process, as a holder of leases. ``heartbeat_at`` is monotonic time of the last durable heartbeat."""

    id: str
    host: str
    boot: str
    pid: int
    lock_path: Path
    heartbeat_at: float = 0.0
    _handle: int = -1

    @classmethod
    def begin(cls, run_dir: Path) -> Incarnation:
        """A new incarnation with its lock file held."""
        while True:
            name = str(uuid.uuid4())
            path = run_dir / f"{name}.lock"
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Another process that looks for the dead may find the file before we hold it, and take it for a dead one's.
            if _holds(handle, path):
                return cls(name, socket.gethostname(), boot_id(), os.getpid(), path, _handle=handle)
            os.close(handle)

    def register(self, connection: Connection, clock: Clock) -> None:
        """Write the row."""
        now = clock.time()
        connection.execute(
            insert(incarnations).values(
                id=self.id, host=self.host, boot=self.boot, pid=self.pid, started=now, heartbeat=now, ended=None
            )
        )
        self.heartbeat_at = clock.monotonic()

    def beat(self, connection: Connection, now: float) -> None:
        """Keep the leases alive; the caller notes :attr:`heartbeat_at` once this is durable."""
        connection.execute(update(incarnations).where(incarnations.c.id == self.id).values(heartbeat=now))

    def holds_lease(self, monotonic: float) -> bool:
        """Whether nobody can have taken our claims over yet, with a margin for a slow peer."""
        return monotonic - self.heartbeat_at < LEASE * 0.75

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


def is_dead(connection: Connection, incarnation_id: str, run_dir: Path, now: float) -> bool:
    """Whether the holder of leases is gone for certain."""
    row = connection.execute(select(incarnations).where(incarnations.c.id == incarnation_id)).first()
    if row is None or row.ended is not None:
        return True
    if row.host != socket.gethostname():
        return bool(now - row.heartbeat > LEASE)
    if row.boot != boot_id():
        return True
    return remove_if_dead(run_dir / f"{incarnation_id}.lock")


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
