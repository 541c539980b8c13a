"""Checks of the data directory and of the store in it. Reads only; the one file written is removed again."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, create_engine, func, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from gateway.cli.doctor_checks import Finding, Status
from gateway.config.model import Settings
from gateway.config.values import KeySource
from gateway.errors import StoreError
from gateway.store import timekeeping
from gateway.store.database import database_path
from gateway.store.keyring import Kek, KeyRing, parse_key
from gateway.store.migrate import expected_version
from gateway.store.schema import messages
from gateway.store.space import SpaceWatch

__all__ = [
    "StoreState",
    "data_dir",
    "file_system_of",
    "inode_finding",
    "key_finding",
    "looked_at",
    "store",
    "sync_finding",
    "version_finding",
]

#: File systems whose fsync we know to mean it, on a disk of this machine.
_GOOD = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "nilfs2"})
_WHY = {
    "tmpfs": "it is memory: a reboot loses all mail",
    "ramfs": "it is memory: a reboot loses all mail",
    "overlay": "it is a container's own layer: it goes with the container",
}
_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "glusterfs", "afs", "virtiofs", "vboxsf", "lustre", "gfs2")
#: Syncs that are timed, and the median from which clients feel it: a hard disk takes some 10 to 20 ms.
_SYNCS, _SLOW_SYNC = 7, 0.05
_FEW_INODES = 10_000
_LOCAL_DISK = "put data_dir on a local disk with ext4, xfs, btrfs or zfs (a volume, where it runs in a container)"


# -- the directory ----------------------------------------------------------------------------------------------------


def data_dir(settings: Settings) -> Iterator[Finding]:
    """Writable, on a disk that keeps what it is told to, with room."""
    path = settings.data_dir
    if not path.exists():
        parent = next(each for each in path.parents if each.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield Finding("data_dir", Status.OK, f"{path} is not there yet; the first `gateway run` makes it")
        else:
            remedy = f"make it, owned by the user that the gateway runs as: install -d -m 0700 -o gateway {path}"
            yield Finding("data_dir", Status.BAD, f"{path} is not there, and this user cannot make it", remedy)
        yield from _medium(parent)
        return
    yield _directory(path)
    yield from _medium(path)
    yield _room(settings)
    room = os.statvfs(path)
    yield inode_finding(path, room.f_files, room.f_favail)
    if os.access(path, os.W_OK | os.X_OK):
        yield _sync(path)


def _directory(path: Path) -> Finding:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if not os.access(path, os.W_OK | os.X_OK):
        remedy = "give it to the user that the gateway runs as, or run this as that user"
        return Finding("data_dir", Status.BAD, f"{path} is not writable by this user", remedy)
    if status.st_uid != os.geteuid():
        detail = f"{path} belongs to user {status.st_uid}, you are {os.geteuid()}: this tells little about the daemon"
        return Finding("data_dir", Status.WARNING, detail, "run this as the gateway's user: sudo -u gateway ...")
    if mode & 0o077:
        remedy = f"chmod 0700 {path}"
        return Finding("data_dir", Status.WARNING, f"{path} can be read by others (mode {mode:04o})", remedy)
    return Finding("data_dir", Status.OK, f"{path} is writable, and nobody else's")


def _medium(path: Path) -> Iterator[Finding]:
    kind = file_system_of(path)
    if kind is None:
        yield Finding("file_system", Status.WARNING, "could not tell which one it is", "look at `findmnt -T DIRECTORY`")
    elif kind in _GOOD:
        yield Finding("file_system", Status.OK, f"{kind}, local")
    elif kind in _WHY:
        yield Finding("file_system", Status.WARNING, f"{kind}: {_WHY[kind]}", _LOCAL_DISK)
    elif kind.startswith(_NETWORK):
        detail = f"{kind}: locks and fsync over a network are not what durability is proved with"
        yield Finding("file_system", Status.WARNING, detail, _LOCAL_DISK)
    else:
        detail = f"{kind}: whether it honours fsync is not known here"
        yield Finding("file_system", Status.WARNING, detail, _LOCAL_DISK)


def file_system_of(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the file system that ``path`` lies on (proc(5), mountinfo); None where that cannot be known."""
    try:
        lines = mountinfo.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    real = path.resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if len(fields) < 5 or not kinds[0]:
            continue
        point = Path(fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        # Of two mounts on one point the later one is seen.
        if (real == point or point in real.parents) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), kinds[0])
    return best[1] if best else None


def _room(settings: Settings) -> Finding:
    floor = settings.limits.free_space
    space = SpaceWatch(settings.data_dir, floor)
    space.look()
    said = f"{space.free / 1e9:.1f} GB free, the floor is {floor / 1e9:.1f} GB"
    if space.problem:
        return Finding("free_space", Status.BAD, space.problem, "make room, or lower limits.free_space")
    if space.free < 2 * floor:
        return Finding("free_space", Status.WARNING, said, "make room: below the floor mail is answered 452")
    return Finding("free_space", Status.OK, said)


def inode_finding(path: Path, total: int, left: int) -> Finding:
    """Room for files: large bodies are files. ``total`` 0: a file system that makes inodes as it needs them."""
    if total and left < _FEW_INODES:
        remedy = "remove files there, or make the file system anew with more inodes: large mail would be refused"
        return Finding("inodes", Status.WARNING, f"{left} left for files under {path}", remedy)
    return Finding("inodes", Status.OK, f"{left} left" if total else "made as they are needed")


def _sync(path: Path) -> Finding:
    try:
        # Without a name where the file system can do that, so that nothing is left even by a kill.
        with tempfile.TemporaryFile(dir=path) as file:
            took = [_synced(file) for _ in range(_SYNCS)]
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        remedy = "replace the disk or the file system: without fsync nothing can be promised"
        return Finding("fsync", Status.BAD, f"a file in {path} cannot be written and synced: {error.strerror}", remedy)
    return sync_finding(statistics.median(took))


def _synced(file: IO[bytes]) -> float:
    begun = time.monotonic()
    file.write(b"gateway doctor\n" * 256)
    file.flush()
    os.fsync(file.fileno())
    return time.monotonic() - begun


def sync_finding(seconds: float) -> Finding:
    """What the median time of a sync means for mail: each 250 waits for one, which it shares with others."""
    told = f"a file and its directory can be synced, in {seconds * 1000:.1f} ms"
    if seconds > _SLOW_SYNC:
        remedy = "use a faster disk (an SSD, or a controller with a battery); look at what else writes there"
        return Finding("fsync", Status.WARNING, f"{told}: every 250 waits for that", remedy)
    return Finding("fsync", Status.OK, told)


# -- the store --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoreState:
    """What was found. ``newest``: when the newest message came in, by the store (epoch seconds).

    ``doubted``: the gateway itself holds this machine's clock for wrong (:mod:`gateway.store.timekeeping`).
    """

    findings: tuple[Finding, ...]
    newest: float | None = None
    doubted: bool = False


def store(settings: Settings) -> StoreState:
    """Version and keys of the store, looked at without making or changing anything."""
    path = database_path(settings.data_dir)
    if not path.exists():
        keks = list(_keks_before_the_first_start(settings))
        return StoreState((Finding("store", Status.OK, "there is none yet; the first `gateway run` makes it"), *keks))
    wal, shm = path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
    if wal.exists() and not shm.exists():
        # Opening it would make the file that is missing.
        detail = "could not tell: it was not closed in order; the next start recovers it"
        return StoreState((Finding("store", Status.WARNING, detail, "start the gateway, then ask again"),))
    try:
        with _read_only(path, immutable=not wal.exists()) as connection:
            findings = [version_finding(connection)]
            if findings[0].status is not Status.BAD:
                findings.append(key_finding(settings, connection))
                return looked_at(findings, connection)
            return StoreState(tuple(findings))
    except DBAPIError as error:
        text = str(error.orig)
        if "unable to open" in text or "permission" in text.lower() or not os.access(path, os.R_OK):
            remedy = "run this as the gateway's user: sudo -u gateway ..."
            return StoreState((Finding("store", Status.WARNING, f"could not tell: {text}", remedy),))
        remedy = "put a backup back, or ask for help; keep the files as they are"
        return StoreState((Finding("store", Status.BAD, f"{path} cannot be read: {text}", remedy),))


def looked_at(findings: Sequence[Finding], connection: Connection) -> StoreState:
    """``findings``, and what a store of the right version says about time."""
    newest = connection.execute(select(func.max(messages.c.received))).scalar()
    clock = timekeeping.load(connection)
    return StoreState(tuple(findings), newest, doubted=clock is not None and bool(clock.doubt))


@contextlib.contextmanager
def _read_only(path: Path, *, immutable: bool) -> Iterator[Connection]:
    """A connection that cannot write; ``immutable``: nobody else has it open, so that not even a lock file is made."""
    uri = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"
    engine = create_engine(
        "sqlite+pysqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=2.0), poolclass=NullPool
    )
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def version_finding(connection: Connection) -> Finding:
    """Whether the tables are those that this gateway works with."""
    if not inspect(connection).has_table("alembic_version"):
        return Finding("store", Status.OK, "there are no tables yet; the first `gateway run` makes them")
    current = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    expected = expected_version()
    if current == expected:
        return Finding("store", Status.OK, f"at version {current}, as this gateway needs it")
    if str(current) < expected:  # revisions are numbered
        remedy = "stop the gateway, back the store up, run `gateway store migrate`"
        return Finding("store", Status.BAD, f"at version {current}, this gateway needs {expected}", remedy)
    remedy = "use the newer gateway again; a store does not go back"
    return Finding("store", Status.BAD, f"at version {current}, which this gateway ({expected}) does not know", remedy)


def key_finding(settings: Settings, connection: Connection) -> Finding:
    """Whether the key-encryption keys that are given open the store."""
    keks: list[Kek] = []
    for source in settings.store.keys:
        loaded = _kek(settings, source)
        if isinstance(loaded, Finding):
            return loaded
        keks.append(loaded)
    try:
        KeyRing(keks).load(connection)
    except StoreError as error:
        remedy = "put the key-encryption key back from your backup, and name it under store.keys"
        return Finding("keys", Status.BAD, str(error), remedy)
    paths = [source.path(settings.data_dir) for source in settings.store.keys if source.kind == "file"]
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            detail = f"{path} can be read by others (mode {mode:04o})"
            return Finding("keys", Status.WARNING, detail, f"chmod 0400 {path}")
    inside = [path for path in paths if path.resolve().is_relative_to(settings.data_dir.resolve())]
    told = f"; {inside[0].name} lies in data_dir: keep a copy elsewhere, apart from the store's backups"
    return Finding("keys", Status.OK, f"the key-encryption keys open the store{told if inside else ''}")


def _kek(settings: Settings, source: KeySource) -> Kek | Finding:
    try:
        data = source.read(settings.data_dir, os.environ)
    except OSError as error:
        remedy = "run this as the gateway's user: sudo -u gateway ..."
        return Finding("keys", Status.WARNING, f"could not tell: {source}: {error.strerror}", remedy)
    if data is None and source.kind != "file":
        detail = f"could not tell: {source} is not given to this process"
        return Finding("keys", Status.WARNING, detail, "ask where the service gets its keys, or rely on its start")
    if data is None:
        remedy = "put the file back from your backup: without it nobody can read the stored mail"
        return Finding("keys", Status.BAD, f"{source} is missing, and the store was sealed with it", remedy)
    try:
        return Kek(parse_key(data))
    except ValueError as error:
        return Finding("keys", Status.BAD, f"{source}: {error}", "put the right file there")


def _keks_before_the_first_start(settings: Settings) -> Iterator[Finding]:
    """Keys that are never made by us must be there before the first start."""
    for position, source in enumerate(settings.store.keys):
        if position and source.kind == "file" and not source.path(settings.data_dir).exists():
            remedy = "put the file there, or take it out of store.keys"
            yield Finding("keys", Status.BAD, f"{source} is not there; only the first key is ever made", remedy)
