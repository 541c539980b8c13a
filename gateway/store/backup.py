"""Making a backup while the gateway runs.

1. Take the lock that says so (``backup_lock``): from here on no body file goes that the backup may name.
2. Copy the database as of one moment (``hotcopy``), and let SQLite look through the copy.
3. Copy the body files that its rows name. Accepted bytes never change, and what was named at that moment is still
   there - in its place, or aside: so the copy is as whole as the store was.
4. Write and seal the manifest, sync everything, and give the directory its name. Before that there is only
   ``NAME.partial``, which has no manifest and which no restore takes.

What is shredded meanwhile is shredded by us, in the looks that the copy takes (``shred``). A store whose tables are
those of an earlier version is copied in the same way, with no gateway beside it: that is the backup before an upgrade.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Engine, insert, select, update

from gateway import __version__
from gateway.clock import Clock
from gateway.config.model import Settings
from gateway.errors import StoreCorrupt, StoreError, StoreFull
from gateway.store import bootstrap, migrate
from gateway.store.backup_lock import backing_up, is_backing_up
from gateway.store.blobs import BlobFiles, Blobs
from gateway.store.database import committing, database_path, open_engine, translated
from gateway.store.hotcopy import HotCopy, Pace, require_whole
from gateway.store.keyring import Kek, KeyRing
from gateway.store.manifest import (
    BODIES,
    DATABASE,
    KEYS,
    LIST,
    MANIFEST,
    Manifest,
    digest_of,
    sealed_manifest,
    sync_directory,
    write_file,
)
from gateway.store.schema import meta
from gateway.store.sealing import sealed_size
from gateway.store.shred import Shredder
from gateway.store.store import Store
from gateway.store.turnstile import Turnstile

__all__ = ["LastBackup", "Plan", "last_backup", "make_backup"]

T = TypeVar("T")

_ROW: Final = "last-backup"
#: Seconds between two steps of shredding.
_SHRED_STEP: Final = 1.0
#: Rows of the copy asked for at once.
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted: the directory to make, whether the keys go into it, most bytes a second, and who wants it."""

    directory: Path
    operator: str
    with_keys: bool = False
    rate: int | None = None


@dataclass(frozen=True, slots=True)
class LastBackup:
    """What the store itself knows of the last backup that became whole."""

    id: str
    made: float
    schema: str


@dataclass(frozen=True, slots=True)
class _Source:
    """What is backed up. ``store`` is None where its tables are those of an earlier version."""

    settings: Settings
    clock: Clock
    schema: str
    keks: list[Kek]
    files: Blobs
    store: Store | None


async def make_backup(
    settings: Settings, plan: Plan, clock: Clock, environ: Mapping[str, str] | None = None
) -> Manifest:
    """Back the store up into a new directory. Raises :class:`StoreError`; then there is none.

    Cancelled, it removes what it had begun. For a process that ends afterwards (see ``HotCopy``).
    """
    require_embedded(settings)
    try:
        work = _begin(plan)
        try:
            with backing_up(settings.data_dir / "run"):
                async with _opened(settings, clock, os.environ if environ is None else environ) as source:
                    manifest = await _make(source, plan, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)  # where it became whole it has another name
        await asyncio.to_thread(_body_files(settings).remove_aside)
    except (OSError, sqlite3.Error) as error:
        raise translated(error) from error
    return manifest


def require_embedded(settings: Settings) -> None:
    """Raise :class:`StoreError` for a store in PostgreSQL, which has tools of its own for that."""
    if not settings.store.url.is_sqlite:
        raise StoreError(
            "the queue is in PostgreSQL: back it up and restore it with PostgreSQL's own tools "
            "(pg_dump, or a base backup with WAL archiving), and the bodies beside it - see docs/postgresql.md"
        )


def last_backup(engine: Engine) -> LastBackup | None:
    """The last backup of this store that became whole; None where none is known."""
    with engine.connect() as connection:
        value = connection.execute(select(meta.c.value).where(meta.c.key == _ROW)).scalar()
    return None if value is None else LastBackup(**json.loads(value))


# -- the directory ----------------------------------------------------------------------------------------------------


def _begin(plan: Plan) -> Path:
    """The directory to work in, beside the one that it becomes. Raises :class:`StoreError`, ``OSError``."""
    directory = plan.directory
    if directory.exists() or directory.is_symlink():
        if not directory.is_dir() or directory.is_symlink() or any(directory.iterdir()):
            raise StoreError(f"{directory} is there already: a backup is a new directory")
        if directory.stat().st_dev != directory.parent.stat().st_dev:
            raise StoreError(f"{directory} is where something is mounted: name a new directory below it")
        if plan.with_keys:
            _require_private(directory)
    elif not directory.parent.is_dir():
        raise StoreError(f"{directory.parent} is not there: make it, owned by the user that runs this")
    elif plan.with_keys and stat.S_IMODE(directory.parent.stat().st_mode) & 0o022:
        raise StoreError(
            f"{directory.parent} can be written by others, who could put another directory into its place: "
            f"with --with-keys make {directory} yourself, with mode 0700, or choose another place"
        )
    work = directory.with_name(f"{directory.name}.partial")
    if work.is_symlink():
        raise StoreError(f"{work} is a link: remove it")
    shutil.rmtree(work, ignore_errors=True)  # of one that was killed
    work.mkdir(mode=0o700)
    return work


def _require_private(directory: Path) -> None:
    status = directory.stat()
    if stat.S_IMODE(status.st_mode) != 0o700 or status.st_uid != os.geteuid():
        raise StoreError(
            f"with --with-keys {directory} must be yours alone (mode 0700): "
            "who reads keys and store together reads the mail"
        )


@asynccontextmanager
async def _opened(settings: Settings, clock: Clock, environ: Mapping[str, str]) -> AsyncIterator[_Source]:
    """The store, as the gateway of this version opens it, or as a directory of an earlier version's."""
    if not database_path(settings.data_dir).exists():
        raise StoreError(f"there is no store under {settings.data_dir}")
    engine = open_engine(settings.store.database, settings.data_dir, writes=True)
    try:
        schema = migrate.current_version(engine)
        migrate.require_known(schema)
        if schema is not None and schema != migrate.expected_version():
            keks = bootstrap.load_keks(settings.store.keys, settings.data_dir, environ, store_is_new=False)
            with engine.connect() as connection:
                KeyRing(keks).load(connection)
            yield _Source(settings, clock, schema, keks, _body_files(settings), None)
            return
    finally:
        engine.dispose()
    store = await asyncio.to_thread(Store.open, settings, clock, environ=environ)
    try:
        keks = await asyncio.to_thread(store.read_keks, settings, environ)
        yield _Source(settings, clock, migrate.expected_version(), keks, store.files, store)
    finally:
        await store.close()


def _body_files(settings: Settings) -> BlobFiles:
    data_dir = settings.data_dir
    return BlobFiles(data_dir / "blobs", lambda _: None, partial(is_backing_up, data_dir / "run"))


# -- the copy ---------------------------------------------------------------------------------------------------------


async def _make(source: _Source, plan: Plan, work: Path) -> Manifest:
    identity = str(uuid.uuid4())
    stop = threading.Event()
    pace = Pace(plan.rate, stop)
    await _note(source, "backup_begun", {"backup": identity, "directory": str(plan.directory), "by": plan.operator})
    data_dir = source.settings.data_dir
    _require_room(source.settings, work, database_path(data_dir).stat().st_size)
    copy = HotCopy(data_dir, work / DATABASE, pace, source.clock)
    async with _shredding(source, copy):
        copied = await _threaded(copy.run, stop)
        manifest = await _threaded(partial(_fill, source, plan, work, identity, copied.moment, pace), stop)
    kek = next(each for each in source.keks if each.id == manifest.keks[0])
    content = sealed_manifest(manifest, kek)
    await _threaded(partial(_finish, work, plan.directory, content), stop)
    facts = {
        "backup": identity,
        "made": manifest.made,
        "directory": str(plan.directory),
        "manifest": digest_of(plan.directory / MANIFEST),
        "with_keys": plan.with_keys,
        "by": plan.operator,
    }
    await _note(source, "backup_made", facts)
    await asyncio.to_thread(_remember, source, LastBackup(identity, manifest.made, manifest.schema))
    return manifest


async def _threaded(work: Callable[[], T], stop: threading.Event) -> T:
    """``work`` on a thread; who is cancelled waits until it has noticed."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except BaseException:
        stop.set()
        await asyncio.wait({running})
        raise


async def _note(source: _Source, kind: str, facts: dict[str, Any]) -> None:
    if source.store is not None:
        await source.store.write(lambda transaction: transaction.event(kind, facts))


def _remember(source: _Source, done: LastBackup) -> None:
    value = json.dumps({"id": done.id, "made": done.made, "schema": done.schema}).encode()
    settings = source.settings
    engine = open_engine(settings.store.database, settings.data_dir, writes=True)
    turnstile = Turnstile(settings.data_dir / "run")
    try:
        with turnstile.turn(), committing(engine) as connection:
            if not connection.execute(update(meta).where(meta.c.key == _ROW).values(value=value)).rowcount:
                connection.execute(insert(meta).values(key=_ROW, value=value))
    finally:
        turnstile.close()
        engine.dispose()


@asynccontextmanager
async def _shredding(source: _Source, copy: HotCopy) -> AsyncIterator[None]:
    """What the gateway's own shredding cannot do now goes on for the block."""
    store = source.store
    if store is None:
        yield
        return

    async def checkpoint() -> bool:
        if copy.ended:
            return await store.writer.checkpoint()
        return await asyncio.to_thread(copy.sweep)

    async def run() -> None:
        shredder = Shredder(store, checkpoint)
        while True:
            with suppress(StoreError):
                await shredder.step()
            await source.clock.sleep(_SHRED_STEP)

    running = asyncio.create_task(run(), name="backup-shred")
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})


def _fill(source: _Source, plan: Plan, work: Path, identity: str, moment: float, pace: Pace) -> Manifest:
    """Everything beside the database, by what stands in its copy."""
    database = work / DATABASE
    require_whole(database)
    with closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as copy:
        wanted = copy.execute("SELECT sum(size) FROM messages JOIN bodies ON message = id WHERE blob IS NOT NULL")
        _require_room(source.settings, work, wanted.fetchone()[0] or 0)
        missing: list[str] = []
        bodies = _copy_bodies(copy, source.files, work, pace, missing)
        store = copy.execute("SELECT value FROM meta WHERE key = 'store-id'").fetchone()
        live = copy.execute("SELECT name, sum(value) FROM counters WHERE name LIKE 'recipients.%' GROUP BY name")
        counts = {name.removeprefix("recipients."): value for name, value in live}
        counts["messages"] = copy.execute("SELECT count(*) FROM messages").fetchone()[0]
        ends = copy.execute("SELECT id, seq, hash FROM streams WHERE linked_by IS NULL ORDER BY id")
        heads = [{"stream": stream, "seq": seq, "hash": digest.hex()} for stream, seq, digest in ends]
        newest_first = copy.execute("SELECT kek FROM ring_keys GROUP BY kek ORDER BY max(id) DESC")
        keks = [kek for (kek,) in newest_first]
    if plan.with_keys:
        _write_keys(work / KEYS, [kek for kek in source.keks if kek.id in keks])
    return Manifest(
        id=identity,
        made=moment,
        gateway=__version__,
        schema=source.schema,
        store="" if store is None else bytes(store[0]).decode(),
        database={"size": database.stat().st_size, "sha256": digest_of(database)},
        bodies=bodies,
        counts=counts,
        heads=heads,
        keks=keks,
        has_keys=plan.with_keys,
        missing=missing,
    )


def _copy_bodies(copy: sqlite3.Connection, files: Blobs, work: Path, pace: Pace, missing: list[str]) -> dict[str, Any]:
    """The body files that rows of the copy name, and the list of them."""
    root = work / BODIES
    root.mkdir(mode=0o700)
    made: set[Path] = set()
    number = octets = 0

    def lines() -> Iterator[bytes]:
        nonlocal number, octets
        for message, name, size in _named_bodies(copy):
            directory = root / name[-2:]
            if directory not in made:
                directory.mkdir(mode=0o700, exist_ok=True)
                made.add(directory)
            try:
                pieces = _read_body(files, name, sealed_size(size), pace)
                length, digest = write_file(directory / name, pieces)
            except StoreCorrupt:  # it is gone in the store as well
                (directory / name).unlink(missing_ok=True)
                missing.append(message)
                continue
            number += 1
            octets += length
            yield json.dumps({"name": name, "size": length, "sha256": digest}).encode() + b"\n"

    size, digest = write_file(work / LIST, lines())
    for directory in (*made, root):
        sync_directory(directory)
    return {"count": number, "bytes": octets, "size": size, "sha256": digest}


def _named_bodies(copy: sqlite3.Connection) -> Iterator[tuple[str, str, int]]:
    """Message, name and plain size of each body that is not in its row."""
    after = ""
    while True:
        page = copy.execute(
            "SELECT message, blob, size FROM bodies JOIN messages ON id = message "
            "WHERE blob IS NOT NULL AND message > ? ORDER BY message LIMIT ?",
            (after, _PAGE),
        ).fetchall()
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1][0]


def _read_body(files: Blobs, name: str, size: int, pace: Pace) -> Iterator[bytes]:
    reader = files.open(name, size)
    try:
        while piece := reader.read():
            pace.passed(len(piece))
            yield piece
    finally:
        reader.close()


def _write_keys(directory: Path, keks: list[Kek]) -> None:
    directory.mkdir(mode=0o700)
    for kek in keks:
        write_file(directory / f"{kek.id}.key", iter([kek.key.hex().encode() + b"\n"]), 0o400)
    sync_directory(directory)


def _finish(work: Path, directory: Path, manifest: bytes) -> None:
    """The last file, then the name: who finds the directory finds all of it."""
    write_file(work / MANIFEST, iter([manifest]))
    sync_directory(work)
    work.rename(directory)
    sync_directory(directory.parent)


def _require_room(settings: Settings, target: Path, size: int) -> None:
    """Raise :class:`StoreFull` where so many bytes more do not fit, or would stop the gateway from taking mail."""
    status = os.statvfs(target)
    same = target.stat().st_dev == settings.data_dir.stat().st_dev
    room = status.f_bavail * status.f_frsize - (settings.limits.free_space if same else 0)
    if size > room:
        why = ", with what limits.free_space keeps free for mail," if same else ""
        raise StoreFull(f"there is no room for the backup in {target.parent}{why}: it needs {size} bytes more")
