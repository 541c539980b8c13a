"""Putting a backup back where no store is.

1. Prove the manifest with the configured keys, and look whether they open the database of the backup.
2. Copy it below ``data_dir/restoring``, checking its digest; bring its tables to the version of now.
3. Copy the body files into their place, checking theirs.
4. Let the caller say what becomes of what waits (``gateway.queue.restored``), as a writer with a stream of events of
   its own, which links the ends of the chains in the backup.
5. Sync, and give the database its name. Before that there is no store: whatever ends it in the middle, it can be begun
   again, and a gateway that starts meanwhile waits for the store's lock.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, delete, update

from gateway.clock import Clock
from gateway.config.model import Settings
from gateway.errors import StoreCorrupt, StoreError, StoreFull
from gateway.store import bootstrap, migrate
from gateway.store.blob_objects import BlobObjects, open_bucket
from gateway.store.blobs import BlobFiles, Blobs
from gateway.store.database import Reader, committing, database_path, open_engine, translated
from gateway.store.hotcopy import require_whole
from gateway.store.incarnation import Incarnation, is_in_use
from gateway.store.keyring import Kek, KeyRing
from gateway.store.manifest import (
    BODIES,
    DATABASE,
    LIST,
    Manifest,
    pieces_of,
    read_manifest,
    sync_directory,
    write_file,
)
from gateway.store.schema import incarnations, portal_codes, portal_sessions
from gateway.store.turnstile import OpenDoor
from gateway.store.whereabouts import settle
from gateway.store.writer import Transaction, Writer

__all__ = ["Restoring", "restoring"]

T = TypeVar("T")

_STAGE: Final = "restoring"
_BODY_NAME: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
#: Longest line in the list of body files.
_LINE: Final = 1024
#: Sealed bytes handed on at once.
_PIECE: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class Restoring:
    """The store in the making: read it and write to it; it becomes the store where the block ends well."""

    manifest: Manifest
    _writer: Writer
    _reader: Reader

    async def write(self, job: Callable[[Transaction], T]) -> T:
        """See :meth:`Writer.run`."""
        return await self._writer.run(job)

    async def read(self, job: Callable[[Connection], T]) -> T:
        """See :meth:`Reader.run`."""
        return await self._reader.run(job)


@contextmanager
def restoring(
    settings: Settings, directory: Path, clock: Clock, environ: Mapping[str, str] | None = None
) -> Iterator[Restoring]:
    """Restore that backup into the empty data directory. Blocks at its beginning and end. Raises :class:`StoreError`.

    Where the block fails, nothing has been restored.
    """
    data_dir = settings.data_dir
    stage = data_dir / _STAGE
    try:
        bootstrap.prepare_data_dir(data_dir)
        with bootstrap.store_lock(data_dir):
            _require_empty(data_dir)
            sources = settings.store.keys
            found = os.environ if environ is None else environ
            keks = bootstrap.load_keks(sources, data_dir, found, store_is_new=False)
            manifest = read_manifest(directory, keks)
            migrate.require_known(manifest.schema)
            _require_room(settings, manifest)
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir(mode=0o700)
            try:
                _bring_database(directory, stage, manifest)
                with _as_writer(settings, stage, manifest, keks, clock) as opened:
                    _bring_bodies(settings, directory, manifest)
                    yield opened
                _put_in_place(stage, data_dir)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
    except (OSError, sqlite3.Error) as error:
        raise translated(error) from error


def _require_empty(data_dir: Path) -> None:
    if database_path(data_dir).exists():
        raise StoreError(
            f"there is a store under {data_dir}: restore into an empty data directory. "
            f"Stop the gateway and move {data_dir} away - do not delete it, its mail may be newer than the backup's"
        )
    if is_in_use(data_dir / "run"):
        raise StoreError(f"a gateway runs on {data_dir}: stop it first")


def _require_room(settings: Settings, manifest: Manifest) -> None:
    status = os.statvfs(settings.data_dir)
    room = status.f_bavail * status.f_frsize - settings.limits.free_space
    needed = int(manifest.database["size"])
    if settings.store.bucket is None:
        needed += int(manifest.bodies["bytes"])
    if needed > room:
        raise StoreFull(
            f"there is no room under {settings.data_dir}: the backup needs {needed} bytes beside limits.free_space"
        )


def _bring_database(directory: Path, stage: Path, manifest: Manifest) -> None:
    target = stage / DATABASE
    size, digest = write_file(target, pieces_of(directory / DATABASE))
    if size != manifest.database["size"] or digest != manifest.database["sha256"]:
        raise StoreCorrupt(f"{directory / DATABASE} is not what was backed up")
    require_whole(target)


@contextmanager
def _as_writer(
    settings: Settings, stage: Path, manifest: Manifest, keks: list[Kek], clock: Clock
) -> Iterator[Restoring]:
    """Keys, tables, whereabouts; then a writer with its own stream. At the end nothing is open any more."""
    run_dir = settings.data_dir / "run"
    with ExitStack() as undo:
        engine = open_engine("sqlite", stage, writes=True)
        undo.callback(engine.dispose)
        version = migrate.current_version(engine)
        if version != manifest.schema:
            raise StoreCorrupt(f"the database of the backup is at version {version}, not {manifest.schema}")
        with engine.connect() as connection:
            KeyRing(keks).load(connection)
        migrate.upgrade(engine)
        incarnation = Incarnation.begin(run_dir)
        undo.callback(incarnation.release)
        with committing(engine) as connection:
            now = clock.time()
            # Whoever wrote then does not any more: this is another store now.
            connection.execute(update(incarnations).where(incarnations.c.ended.is_(None)).values(ended=now))
            incarnation.register(connection, clock)
            settle(connection, str(settings.store.bucket or "file"))
            for over in (portal_codes, portal_sessions):  # who signed out since must not be signed in again
                connection.execute(delete(over))
        writer = Writer(engine, incarnation.id, clock, OpenDoor())
        reader = Reader(open_engine("sqlite", stage, writes=False))
        undo.callback(reader.close)
        writer.open()
        undo.callback(writer.close)
        yield Restoring(manifest, writer, reader)
        reader.close()
        writer.close()
        with committing(engine) as connection:
            incarnation.end(connection, clock.time())


def _bring_bodies(settings: Settings, directory: Path, manifest: Manifest) -> None:
    """Every body file into its place; one that is there already is of a try before."""
    with ExitStack() as undo:
        files = _place(settings, manifest)
        undo.callback(files.close)
        number = 0
        for name, size, digest in _listed(directory, manifest):
            files.abandon(name)
            seen, length = sha256(), 0
            writer = files.create(name)
            try:
                with (directory / BODIES / name[-2:] / name).open("rb") as source:
                    while piece := source.read(_PIECE):
                        seen.update(piece)
                        length += len(piece)
                        writer.write(piece)
                if length != size or seen.hexdigest() != digest:
                    raise StoreCorrupt(f"the body file {name} is not what was backed up")
                writer.commit()
            except FileNotFoundError:
                raise StoreCorrupt(f"the body file {name} is missing from the backup") from None
            finally:
                writer.close()
            number += 1
    if number != manifest.bodies["count"]:
        raise StoreCorrupt(f"{directory / LIST} names {number} body files, {manifest.bodies['count']} were backed up")


def _place(settings: Settings, manifest: Manifest) -> Blobs:
    bucket = settings.store.bucket
    if bucket is not None:
        return BlobObjects(open_bucket(bucket, settings.store.s3), manifest.store)

    def fail(reason: str) -> None:
        raise StoreError(reason)

    files = BlobFiles(settings.data_dir / "blobs", fail)
    files.prepare()
    return files


def _listed(directory: Path, manifest: Manifest) -> Iterator[tuple[str, int, str]]:
    """Name, size and digest of each body file. The list is read twice: what is used of it is what was checked."""
    path = directory / LIST
    first = sha256()
    for piece in pieces_of(path):
        first.update(piece)
    if first.hexdigest() != manifest.bodies["sha256"]:
        raise StoreCorrupt(f"{path} is not what was backed up")
    second = sha256()
    with path.open("rb") as file:
        while line := file.readline(_LINE):
            second.update(line)
            entry: dict[str, Any] = json.loads(line)
            if not _BODY_NAME.match(entry["name"]):
                raise StoreCorrupt(f"{path} names what is no body file")
            yield entry["name"], int(entry["size"]), str(entry["sha256"])
    if second.digest() != first.digest():
        raise StoreCorrupt(f"{path} was changed while it was read")


def _put_in_place(stage: Path, data_dir: Path) -> None:
    """The database is closed: no log beside it holds anything that it does not."""
    source = stage / DATABASE
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StoreError(f"{source} is in use by another program")
    handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    source.rename(database_path(data_dir))
    sync_directory(data_dir)
