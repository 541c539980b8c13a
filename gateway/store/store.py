"""The store as the rooms above see it: opened once, in the right order, closed in the reverse.

1. the data directory and the store's lock
2. tables at the version that this code expects
3. the operator's keys; the first one is made while nothing can be lost
4. the ring keys
5. this process's incarnation, whose id is also the name of its event stream
6. the writer's thread and the readers
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, bindparam, delete, func, insert, null, select, update
from sqlalchemy.exc import DBAPIError

from gateway.clock import Clock, SteadyClock
from gateway.config.model import Settings
from gateway.errors import StoreCorrupt, StoreError
from gateway.store import bootstrap, migrate, timekeeping
from gateway.store.backup_lock import is_backing_up
from gateway.store.blob_objects import BlobObjects, open_bucket
from gateway.store.blobs import BlobFiles, Blobs
from gateway.store.bodies import ORPHAN_AGE, SealedBody, Spool, data_key_purpose, open_range, open_sealed, seal_small
from gateway.store.counting import adopt, has_abandoned
from gateway.store.database import Reader, committing, open_engine, translated
from gateway.store.incarnation import Incarnation, Lives
from gateway.store.keyring import Kek, KeyRing, Rotation
from gateway.store.postgres import alone
from gateway.store.prepared import Prepared
from gateway.store.schema import ENDING, bodies, counters, deposit_keys, deposits, messages, meta, ring_keys
from gateway.store.sealing import KEY_SIZE
from gateway.store.space import SpaceWatch
from gateway.store.timekeeping import ClockRecord
from gateway.store.turnstile import OpenDoor, Turnstile
from gateway.store.whereabouts import id_of_store, place_of_files, require_same_place
from gateway.store.writer import CommitObserver, Transaction, Writer

__all__ = ["COUNTED_STATES", "DELETED", "RING_KEY_OVERLAP", "SHREDDED", "Store"]

T = TypeVar("T")

#: The states with a counter row (see ``gateway.queue.states``).
COUNTED_STATES = ("queued", "delivering", "deferred", "held", "noticing", "deposited")
#: Counter rows: keys that were deleted so far, and how many of them a truncating checkpoint has covered since.
DELETED, SHREDDED = "keys.deleted", "keys.shredded"
#: Seconds that a ring key stays though it wraps nothing, behind a newer one: longer than any process takes to notice.
RING_KEY_OVERLAP = 3600.0
#: Names asked for in one query.
_SWEEP_PAGE = 500
_LOOP_SECRET = "loop-secret"  # noqa: S105  the name of a row, not a secret


_INSERT_BODY = Prepared(insert(bodies))
#: Whether the portal needs the body.
_DEPOSITED = select(deposits.c.n).where(deposits.c.message == bindparam("m"), ENDING).exists()
#: A body in its row goes with it, one in a file needs a second look.
_DELETE_INLINE = Prepared(
    delete(bodies).where(bodies.c.message == bindparam("m"), bodies.c.blob.is_(None), ~_DEPOSITED)
)
_BLOB_OF = Prepared(select(bodies.c.blob, _DEPOSITED).where(bodies.c.message == bindparam("m")))
_DELETE_BODY = Prepared(delete(bodies).where(bodies.c.message == bindparam("m")))
_FORGET_KEY = Prepared(
    update(messages).where(messages.c.id == bindparam("m")).values(live=0, ring_key=null(), data_key=null())
)
_KEY_OF = select(messages.c.ring_key, messages.c.data_key).where(messages.c.id == bindparam("m"))
_FORGET_DEPOSIT_KEY = (
    update(deposit_keys)
    .where(deposit_keys.c.message == bindparam("m"), deposit_keys.c.n == bindparam("r"))
    .values(ring_key=null(), data_key=null())
)
_END_DEPOSIT = (
    update(deposits)
    .where(deposits.c.message == bindparam("m"), deposits.c.n == bindparam("r"), ENDING)
    .values(ends=null())
)


@dataclass(slots=True)
class Store:
    """Database, bodies, keys and the identity of this process. Make one with :meth:`open`."""

    data_dir: Path
    clock: Clock
    writer: Writer
    reader: Reader
    files: Blobs
    ring: KeyRing
    incarnation: Incarnation
    space: SpaceWatch
    loop_secret: bytes
    clock_record: ClockRecord
    lives: Lives
    #: Whether a checkpoint can promise that what was deleted is gone from the medium: PostgreSQL has no such thing.
    can_shred: bool

    @classmethod
    def open(
        cls,
        settings: Settings,
        clock: Clock,
        *,
        on_commit: CommitObserver | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Store:
        """Open the store of these settings. Blocks; raises :class:`StoreError`."""
        data_dir = settings.data_dir
        environ = os.environ if environ is None else environ
        bootstrap.prepare_data_dir(data_dir)
        with ExitStack() as undo:
            try:
                incarnation = Incarnation.begin(data_dir / "run", settings.store.lease)
                undo.callback(incarnation.release)
                place = _place(settings)
                with bootstrap.store_lock(data_dir):
                    engine = open_engine(settings.store.database, data_dir, writes=True)
                    undo.callback(engine.dispose)
                    migrate.require_current(engine)
                    ring, loop_secret, clock_record, store_id = _open_keys(
                        engine, settings, clock, environ, incarnation, place
                    )
                turnstile = Turnstile(data_dir / "run") if settings.store.url.is_sqlite else OpenDoor()
                undo.callback(turnstile.close)
                writer = Writer(engine, incarnation.id, clock, turnstile, on_commit)
                files = _open_blobs(settings, store_id, writer)
                undo.callback(files.close)
                space = SpaceWatch(data_dir, settings.limits.free_space)
                space.look()
                reader = Reader(open_engine(settings.store.database, data_dir, writes=False))
                writer.open()
            except (DBAPIError, OSError) as error:
                raise translated(error) from error
            undo.pop_all()
        embedded = settings.store.url.is_sqlite
        lives = Lives(data_dir / "run", clock, together=embedded)
        return cls(
            data_dir,
            clock,
            writer,
            reader,
            files,
            ring,
            incarnation,
            space,
            loop_secret,
            clock_record,
            lives,
            can_shred=embedded,
        )

    @property
    def run_dir(self) -> Path:
        """Where locks and flight records of running processes live."""
        return self.data_dir / "run"

    async def write(self, job: Callable[[Transaction], T]) -> T:
        """See :meth:`Writer.run`."""
        return await self.writer.run(job)

    async def read(self, job: Callable[[Connection], T]) -> T:
        """See :meth:`Reader.run`."""
        return await self.reader.run(job)

    def spool(self, message_id: str) -> Spool:
        """A body in the making, under a data key of its own."""
        return Spool(self.files, message_id, os.urandom(KEY_SIZE))

    def sealed(self, message_id: str, data: bytes) -> SealedBody:
        """A small body of our own, sealed at once under a data key of its own."""
        return seal_small(message_id, data, os.urandom(KEY_SIZE))

    def wrapped_key(self, body: SealedBody) -> dict[str, Any]:
        """The body's data key for its message's row: columns ``ring_key`` and ``data_key``."""
        ring_key, wrapped = self.ring.wrap(body.key, data_key_purpose(body.message))
        return {"ring_key": ring_key, "data_key": wrapped}

    def insert_body(self, transaction: Transaction, body: SealedBody) -> None:
        """Name a finished body in a row; its message's row, with the key, stands already."""
        transaction.run(_INSERT_BODY, {"message": body.message, "inline": body.inline, "blob": body.blob})

    def delete_body(self, transaction: Transaction, message_id: str) -> bool:
        """Shred: no recipient is in the queue; the wrapped key and the body's row go now, the file after the commit.

        What lies in the portal keeps the body, under keys of its own: then only the message's key goes. Whether the
        body went.
        """
        which = {"m": message_id}
        name: str | None = None
        forgotten = False
        if not transaction.run(_DELETE_INLINE, which).rowcount:
            row = transaction.run(_BLOB_OF, which).fetchone()
            if row is None:
                return False
            name, deposited = row
            if deposited:
                transaction.run(_FORGET_KEY, which)
                # Who withdrew the last deposit meanwhile, on PostgreSQL, saw us still in the queue: now we see that.
                forgotten, deposited = True, transaction.run(_BLOB_OF, which).fetchone()[1]
            if deposited:
                return False
            transaction.run(_DELETE_BODY, which)
        if not forgotten:
            transaction.run(_FORGET_KEY, which)
        transaction.event("deleted", message=message_id)
        transaction.count(DELETED, 1)
        if name is not None:
            transaction.after_commit(partial(self.files.remove, name))
        return True

    def keep_for_portal(self, transaction: Transaction, message_id: str, n: int) -> None:
        """Wrap the body's key for one recipient in the portal; its row in ``deposits`` is the caller's.

        Raises :class:`StoreCorrupt` where the message's own key is gone.
        """
        connection = transaction.connection
        row = connection.execute(_KEY_OF, {"m": message_id}).first()
        if row is None or row.data_key is None:
            raise StoreCorrupt(f"the key of {message_id} is not in the store")
        if self.ring.missing(row.ring_key):
            self.ring.load(connection)
        key = self.ring.unwrap(row.ring_key, row.data_key, data_key_purpose(message_id))
        ring_key, wrapped = self.ring.wrap(key, _deposit_purpose(message_id, n))
        connection.execute(insert(deposit_keys).values(message=message_id, n=n, ring_key=ring_key, data_key=wrapped))

    def withdraw(self, transaction: Transaction, message_id: str, n: int) -> bool:
        """Shred what lies in the portal for one recipient; with the last one that needs it, the body. Whether it lay.

        Its row in ``deposits`` stays, with ``ends`` empty.
        """
        which = {"m": message_id, "r": n}
        live = select(messages.c.live).where(messages.c.id == message_id).with_for_update()
        in_queue = transaction.connection.execute(live).scalar()
        if not transaction.connection.execute(_END_DEPOSIT, which).rowcount:
            return False
        transaction.connection.execute(_FORGET_DEPOSIT_KEY, which)
        transaction.event("deleted", message=message_id, n=n)
        transaction.count(DELETED, 1)
        if not in_queue:
            self.delete_body(transaction, message_id)
        return True

    async def body(self, message_id: str, deposit: int | None = None) -> AsyncGenerator[bytes, None]:
        """The accepted bytes of a message, in chunks; with ``deposit`` by the key of that recipient in the portal.

        Raises :class:`StoreCorrupt` (see ``open_sealed``), also where the content is gone.
        """
        row, key = await self._opened(message_id, deposit)
        pieces = open_sealed(
            self.files,
            message=message_id,
            key=key,
            inline=row.inline,
            blob=row.blob,
            size=row.size,
            digest=row.digest,
        )
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _opened(self, message_id: str, deposit: int | None) -> tuple[Any, bytes]:
        """Where the body is, and its key. Raises :class:`StoreCorrupt` where there is none."""
        query = (
            select(bodies, messages.c.size, messages.c.digest, messages.c.ring_key, messages.c.data_key)
            .join(messages, messages.c.id == bodies.c.message)
            .where(bodies.c.message == message_id)
        )
        purpose = data_key_purpose(message_id)
        if deposit is not None:
            query = (
                select(bodies, messages.c.size, messages.c.digest, deposit_keys.c.ring_key, deposit_keys.c.data_key)
                .join(messages, messages.c.id == bodies.c.message)
                .join(deposit_keys, deposit_keys.c.message == bodies.c.message)
                .where(
                    bodies.c.message == message_id, deposit_keys.c.n == deposit, deposit_keys.c.data_key.is_not(None)
                )
            )
            purpose = _deposit_purpose(message_id, deposit)
        row = await self.read(lambda connection: connection.execute(query).first())
        if row is None or row.data_key is None:
            raise StoreCorrupt(f"the body of {message_id} is not in the store")
        if self.ring.missing(row.ring_key):
            await self.read(self.ring.load)
        return row, self.ring.unwrap(row.ring_key, row.data_key, purpose)

    async def body_range(
        self, message_id: str, start: int, end: int, deposit: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The accepted bytes ``start`` to ``end`` of a message, like :meth:`body` (see ``open_range``).

        Each chunk is authenticated in its place; the digest of the whole is not looked at.
        """
        row, key = await self._opened(message_id, deposit)
        pieces = open_range(
            self.files,
            message=message_id,
            key=key,
            inline=row.inline,
            blob=row.blob,
            size=row.size,
            start=start,
            end=end,
        )
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def renew_ring_key(self) -> bool:
        """Make this quarter's ring key where it is due, and no other process has yet; whether one was made.

        In a transaction of its own: a ring key may only be used once its row is durable.
        """
        if not self.ring.is_due(self.clock.time()):
            return False

        def make(transaction: Transaction) -> tuple[int, bytes, float] | None:
            alone(transaction.connection)
            self.ring.load(transaction.connection)  # another gateway may have made it by now
            if not self.ring.is_due(transaction.now):
                return None
            return self.ring.make(transaction.connection, transaction.now)

        fresh = await self.write(make)
        if fresh is None:
            return False
        self.ring.adopt(fresh)
        await self.write(self._move_loop_secret)
        return True

    async def rotate_key(self, operator: str) -> Rotation:
        """Wrap all ring keys under the first of ``store.keys``, in one transaction.

        What they were wrapped in before counts as deleted: the next checkpoint takes it out of the write-ahead log.
        """

        def job(transaction: Transaction) -> Rotation:
            alone(transaction.connection)
            done = self.ring.rotate(transaction.connection)
            if done.ring_keys:
                facts = {"to": done.to, "from": list(done.before), "ring_keys": list(done.ring_keys)}
                transaction.event("key_rotated", {**facts, "operator": operator})
                transaction.count(DELETED, len(done.ring_keys))
            return done

        return await self.write(job)

    def read_keks(self, settings: Settings, environ: Mapping[str, str] | None = None) -> list[Kek]:
        """The key-encryption keys of other settings, as far as they open this store. Blocks.

        Raises :class:`~gateway.errors.KeyMissing` or another :class:`StoreError`.
        """
        found = os.environ if environ is None else environ
        keks = bootstrap.load_keks(settings.store.keys, settings.data_dir, found, store_is_new=False)
        self.reader.run_blocking(KeyRing(keks).load)
        return keks

    def other_keks(self, old: Settings, fresh: Settings) -> list[Kek] | None:
        """For a reload: see :meth:`read_keks`; None where the settings name the same ones as before."""
        return self.read_keks(fresh) if old.store.keys != fresh.store.keys else None

    def use_keks(self, keks: Sequence[Kek] | None) -> None:
        """Take over what :meth:`other_keks` gave."""
        if keks is not None:
            self.ring.use(keks)

    def _move_loop_secret(self, transaction: Transaction) -> None:
        number, wrapped = self.ring.wrap(self.loop_secret, _LOOP_SECRET)
        value = number.to_bytes(4, "big") + wrapped
        transaction.connection.execute(update(meta).where(meta.c.key == _LOOP_SECRET).values(value=value))

    async def adopt_counters(self) -> None:
        """Count on for gateways that are gone (see ``counting``)."""
        now = self.clock.time()
        if await self.read(lambda connection: has_abandoned(connection, now)):

            def job(transaction: Transaction) -> None:
                for name, value in adopt(transaction.connection, transaction.now).items():
                    transaction.count(name, value)

            await self.write(job)

    async def drop_unused_ring_keys(self) -> int:
        """Delete the rows of ring keys that wrap nothing any more; how many.

        None goes before the newest is an hour old: until then another process may still wrap with the one before.
        """
        latest = self.clock.time() - RING_KEY_OVERLAP

        def job(transaction: Transaction) -> int:
            in_use = (
                select(messages.c.ring_key).where(messages.c.ring_key == ring_keys.c.id).exists()
                | select(deposit_keys.c.ring_key).where(deposit_keys.c.ring_key == ring_keys.c.id).exists()
            )
            stored = transaction.connection.execute(select(meta.c.value).where(meta.c.key == _LOOP_SECRET)).scalar_one()
            newest = select(func.max(ring_keys.c.id)).where(ring_keys.c.created <= latest).scalar_subquery()
            unused = ~in_use & (ring_keys.c.id != int.from_bytes(stored[:4], "big")) & (ring_keys.c.id < newest)
            numbers = list(transaction.connection.scalars(select(ring_keys.c.id).where(unused)))
            if numbers:
                transaction.connection.execute(delete(ring_keys).where(ring_keys.c.id.in_(numbers)))
                transaction.event("ring_keys_deleted", {"ring_keys": numbers})
                transaction.count(DELETED, len(numbers))
            return len(numbers)

        return await self.write(job)

    async def sweep_orphans(self) -> list[str]:
        """Remove bodies that no row names and that are older than a day; their names."""
        oldest = self.clock.time() - ORPHAN_AGE
        removed: list[str] = []
        loop, executor = asyncio.get_running_loop(), self.files.executor
        await loop.run_in_executor(executor, self.files.remove_aside)
        parts = self.files.old(oldest)  # a part at a time: nothing here grows with the backlog
        while (names := await loop.run_in_executor(executor, next, parts, None)) is not None:
            if names:
                known = await self.read(partial(_known_blobs, names=names))
                removed += await loop.run_in_executor(executor, self.files.sweep, names, known.__contains__)
        return removed

    async def close(self) -> None:
        """End in order: what was submitted is committed, the incarnation is marked as ended."""
        with suppress(StoreError):  # the lock file tells the same
            await self.write(lambda tx: self.incarnation.end(tx.connection, tx.now))
        await asyncio.to_thread(self.writer.close)
        await asyncio.to_thread(self.reader.close)
        await asyncio.to_thread(self.files.close)
        self.incarnation.release()


def _deposit_purpose(message_id: str, n: int) -> str:
    return f"deposit/{message_id}/{n}"


def _known_blobs(connection: Connection, names: Sequence[str]) -> set[str]:
    """Those of these body files that a row names; a body file has the name of its message."""
    known: set[str] = set()
    for start in range(0, len(names), _SWEEP_PAGE):
        page = names[start : start + _SWEEP_PAGE]
        found = connection.scalars(select(bodies.c.blob).where(bodies.c.message.in_(page), bodies.c.blob.is_not(None)))
        known.update(name for name in found if name is not None)
    return known


def _place(settings: Settings) -> str:
    """Where large bodies lie. Files beside SQLite are at the one place that there can be."""
    bucket = settings.store.bucket
    if bucket is not None:
        return str(bucket)
    return "file" if settings.store.url.is_sqlite else place_of_files(settings.data_dir / "blobs")


def _open_blobs(settings: Settings, store_id: str, writer: Writer) -> Blobs:
    """The place for large bodies. Raises :class:`StoreError` where it cannot be used."""
    bucket = settings.store.bucket
    backing_up = partial(is_backing_up, settings.data_dir / "run")
    if bucket is None:
        files = BlobFiles(settings.data_dir / "blobs", writer.fail, backing_up)
        files.prepare()
        return files
    objects = BlobObjects(open_bucket(bucket, settings.store.s3), store_id, backing_up)
    try:
        objects.require_access()
    except StoreError:
        objects.close()
        raise
    return objects


def _open_keys(
    engine: Engine, settings: Settings, clock: Clock, environ: Mapping[str, str], incarnation: Incarnation, place: str
) -> tuple[KeyRing, bytes, ClockRecord, str]:
    """Keys, counters, loop secret, trust in the clock, our row: one transaction under the store's lock."""
    with committing(engine) as connection:
        alone(connection)
        require_same_place(connection, place, clock.time())
        is_new = not connection.execute(select(func.count()).select_from(ring_keys)).scalar()
        keks = bootstrap.load_keks(settings.store.keys, settings.data_dir, environ, store_is_new=is_new)
        ring = KeyRing(keks)
        ring.load(connection)
        if ring.is_due(clock.time()):
            ring.adopt(ring.make(connection, clock.time()))
        known = set(connection.scalars(select(counters.c.name)))
        wanted = [*(f"recipients.{state}" for state in COUNTED_STATES), DELETED, SHREDDED]
        missing = [{"name": name, "writer": "", "value": 0} for name in wanted if name not in known]
        if missing:
            connection.execute(insert(counters), missing)
        secret = _loop_secret(connection, ring)
        wall = clock.wall() if isinstance(clock, SteadyClock) else clock.time()
        clock_record = timekeeping.begin(connection, wall, clock.monotonic())
        incarnation.register(connection, clock)
        store_id = id_of_store(connection)
    return ring, secret, clock_record, store_id


def _loop_secret(connection: Connection, ring: KeyRing) -> bytes:
    """The secret behind the loop mark: made once, kept across rotation (interfaces: Headers)."""
    stored = connection.execute(select(meta.c.value).where(meta.c.key == _LOOP_SECRET)).scalar()
    if stored is not None:
        number, wrapped = int.from_bytes(stored[:4], "big"), stored[4:]
        return ring.unwrap(number, wrapped, _LOOP_SECRET)
    secret = os.urandom(KEY_SIZE)
    number, wrapped = ring.wrap(secret, _LOOP_SECRET)
    connection.execute(insert(meta).values(key=_LOOP_SECRET, value=number.to_bytes(4, "big") + wrapped))
    return secret
