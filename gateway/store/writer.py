"""The writer: one thread, one connection, group commit.

1. Jobs are functions from a :class:`Transaction` to a result; they run on the writer's thread in the order that they
   came.
2. While one batch is committed, the next gathers. A batch is one database transaction and one sync. Where a job of it
   fails, all is rolled back and the batch runs again, each job under a savepoint of its own: so one that fails takes
   nothing of its neighbours with it, and what does not fail - nearly all - does not pay for that. A job may therefore
   run twice, and must touch nothing but its transaction.
3. At the end of a batch the events of its jobs are hashed into this writer's stream and the counters are brought up
   to date; then the commit; only then does anybody hear that a job succeeded.
4. A commit that failed because of the medium is never repeated and called good (promise P8): the writer takes nothing
   more, and says so to everyone. Where a database server is lost, nobody knows whether the batch stands: its jobs fail
   (``StoreAway``), the next batch begins with a look at what the database has of this stream, and goes on from there.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import structlog
from sqlalchemy import Connection, Engine, bindparam, insert, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from gateway.audit.chain import canonical, first_link, kinds_of, link
from gateway.clock import Clock
from gateway.errors import StoreAway, StoreError, StoreFailed
from gateway.store.counting import ADD
from gateway.store.database import BUSY_TIMEOUT_MS, committing, translated
from gateway.store.postgres import alone
from gateway.store.prepared import Prepared
from gateway.store.schema import events, streams
from gateway.store.turnstile import Turns

__all__ = ["CommitObserver", "Transaction", "Writer"]

T = TypeVar("T")

#: Most jobs that share one commit; beyond it latency grows faster than the gain.
MAX_BATCH = 128
#: How long a checkpoint waits for readers. Every commit waits behind it, and no read may last longer than 100 ms.
_CHECKPOINT_PATIENCE_MS = 250

_log = structlog.get_logger()

_INSERT_RECORD = Prepared(insert(events))
#: A stream that another one linked while it was still growing has a new end, which nobody linked yet.
_MOVE_HEAD = Prepared(
    update(streams)
    .where(streams.c.id == bindparam("stream"))
    .values(seq=bindparam("last"), hash=bindparam("head"), linked_by=bindparam("nobody"))
)


class CommitObserver(Protocol):
    """Told about every commit, on the writer's thread."""

    def __call__(self, seconds: float, jobs: int) -> None:
        """A batch of ``jobs`` took ``seconds`` to commit."""
        ...


class Transaction:
    """What a job sees: the connection, the time, and a way to leave evidence in the same transaction."""

    __slots__ = ("_after", "_counts", "_cursor", "_dialect", "_events", "_records", "connection", "now")

    def __init__(self, connection: Connection, cursor: Any, now: float) -> None:
        self.connection = connection
        self.now = now
        self._cursor = cursor
        self._dialect = connection.dialect
        self._events: dict[str | None, list[tuple[str, int | None, dict[str, Any]]]] = {}
        self._records: list[tuple[str | None, str, str]] = []
        self._counts: dict[str, int] = {}
        self._after: list[Callable[[], None]] = []

    def run(self, statement: Prepared, values: Mapping[str, Any]) -> Any:
        """Execute a statement of the hot path; the driver's cursor, to be read before the next one."""
        return statement.run(self._cursor, self._dialect, values)

    def run_many(self, statement: Prepared, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute a statement of the hot path for each row."""
        statement.run_many(self._cursor, self._dialect, rows)

    def event(
        self, kind: str, data: dict[str, Any] | None = None, *, message: str | None = None, n: int | None = None
    ) -> None:
        """Append an event with its ``data``; it stands or falls with this job."""
        self._events.setdefault(message, []).append((kind, n, data or {}))

    def count(self, counter: str, delta: int) -> None:
        """Change a counter row."""
        self._counts[counter] = self._counts.get(counter, 0) + delta

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run on the writer's thread once the commit stands, such as the removal of a file that no row names."""
        self._after.append(action)

    def seal(self) -> None:
        """The job is over: its events become records. Raises ``TypeError`` for data that is no JSON."""
        self._records = [(message, kinds_of(found), canonical(found)) for message, found in self._events.items()]


class _JobFailed(Exception):
    """A job raised; its error stands in it."""


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Callable[[Transaction], T]
    done: asyncio.Future[T]
    loop: asyncio.AbstractEventLoop
    result: T | None = None
    error: BaseException | None = None
    transaction: Transaction | None = field(default=None)
    checkpoint: bool = False


class Writer:
    """Runs jobs durably. :meth:`open` before the first, :meth:`close` at the end.

    ``failed`` tells why the store takes nothing more, "" while it works; ``away`` why the database server was out of
    reach at the last batch, "" where it was not.
    """

    def __init__(
        self, engine: Engine, stream: str, clock: Clock, turnstile: Turns, on_commit: CommitObserver | None = None
    ) -> None:
        self.stream = stream
        self.failed = ""
        self.away = ""
        self._engine = engine
        driver: Any = engine.dialect.loaded_dbapi
        self._driver = driver
        #: A fault of one job's own values: the database undoes the statement, its neighbours need not suffer.
        self._own_faults = (IntegrityError, DataError, driver.IntegrityError, driver.DataError)
        self._counts_as = "" if engine.dialect.name == "sqlite" else stream
        self._clock = clock
        self._turnstile = turnstile
        self._on_commit = on_commit
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-write", daemon=True)
        self._gate = threading.Lock()  # nothing is submitted behind the end
        self._closed = False
        self._stopping = False
        self._checkpoints: list[_Job[Any]] = []
        self._seq = 0
        self._head = first_link(stream)
        self._head_is_sure = True

    def open(self) -> None:
        """Register the stream, linking the heads that no later stream has linked, and start the thread."""
        with self._turnstile.turn(), committing(self._engine) as connection:
            alone(connection)
            loose = connection.execute(
                select(streams.c.id, streams.c.seq, streams.c.hash)
                .where(streams.c.linked_by.is_(None))
                .order_by(streams.c.id)
                .with_for_update()
            ).all()
            connection.execute(insert(streams).values(id=self.stream, seq=0, hash=self._head))
            connection.execute(
                update(streams)
                .where(streams.c.linked_by.is_(None), streams.c.id != self.stream)
                .values(linked_by=self.stream)
            )
            with closing(connection.connection.cursor()) as cursor:
                opening = Transaction(connection, cursor, self._clock.time())
                opening.event(
                    "stream_opened",
                    {"links": [{"stream": row.id, "seq": row.seq, "hash": row.hash.hex()} for row in loose]},
                )
                opening.seal()
                self._seq, self._head = self._flush(opening, [opening])
        self._thread.start()

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """The result of ``work``, durable when this returns.

        Once submitted it runs to its end: cancelling the waiting task does not undo it. Raises what ``work`` raised
        (its changes undone), or :class:`StoreError`.
        """
        loop = asyncio.get_running_loop()
        return await self._submit(_Job(work, loop.create_future(), loop))

    def _submit(self, job: _Job[T]) -> asyncio.Future[T]:
        self._require_working()
        with self._gate:
            if self._closed:
                raise StoreError("the store is closed")
            self._jobs.put(job)
        return job.done

    def _require_working(self) -> None:
        if self.failed:
            raise StoreFailed(self.failed)

    def fail(self, reason: str) -> None:
        """Take nothing more: a sync outside the database failed (promise P8)."""
        self.failed = self.failed or reason

    async def checkpoint(self) -> bool:
        """Move the write-ahead log into the database and truncate it; False where a reader kept it from that.

        Runs between two batches. What was deleted before it began is on the medium nowhere but in free pages that
        ``secure_delete`` overwrote.
        """
        loop = asyncio.get_running_loop()
        return await self._submit(_Job(lambda _: False, loop.create_future(), loop, checkpoint=True))

    def close(self) -> None:
        """Finish what was submitted and stop the thread; who comes later hears that the store is closed."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._engine.dispose()
        self._turnstile.close()

    def _run(self) -> None:
        while not self._stopping:
            first = self._jobs.get()
            if first is None:
                return
            if first.checkpoint:
                self._run_checkpoint(first)
            else:
                self._run_batch([first])
            while self._checkpoints:
                self._run_checkpoint(self._checkpoints.pop())

    def _gather(self, batch: list[_Job[Any]]) -> None:
        """Add what came meanwhile; a checkpoint waits for the end of the batch."""
        while len(batch) < MAX_BATCH and not self._stopping:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._stopping = True
            elif job.checkpoint:
                self._checkpoints.append(job)
            else:
                batch.append(job)

    def _run_checkpoint(self, job: _Job[Any]) -> None:
        try:
            with self._turnstile.turn():
                job.result = self._checkpoint()
        except Exception as error:  # noqa: BLE001  told to whoever asked
            job.error = translated(error)
            if isinstance(job.error, StoreFailed):
                self.fail(str(job.error))
        self._tell([job])

    def _checkpoint(self) -> bool:
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_PATIENCE_MS}")
            try:
                busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        finally:
            connection.close()
        return not busy

    def _run_batch(self, batch: list[_Job[Any]]) -> None:
        started = self._clock.monotonic()
        try:
            self._require_working()
            try:
                self._commit(batch, apart=False)
            except _JobFailed:
                if len(batch) > 1:
                    self._commit(batch, apart=True)
        except Exception as error:  # noqa: BLE001  the whole batch failed: everyone in it hears why
            self._gather(batch)  # who waited for the same turn need not wait for another one
            failure = error if isinstance(error, StoreError) else translated(error)
            if isinstance(failure, StoreFailed):
                self.fail(str(failure))
            self.away = str(failure) if isinstance(failure, StoreAway) else ""
            self._head_is_sure = False
            for job in batch:
                job.error = failure  # also where it failed by itself: what it saw of its neighbours did not happen
            self._tell(batch)
            return
        self.away = ""
        if self._on_commit is not None:
            self._guarded(partial(self._on_commit, self._clock.monotonic() - started, len(batch)))
        self._tell(batch)
        for job in batch:
            for action in () if job.transaction is None else job.transaction._after:  # noqa: SLF001  one concept
                self._guarded(action)

    def _commit(self, batch: list[_Job[Any]], *, apart: bool) -> None:
        """One transaction. Not ``apart``: all jobs, or :class:`_JobFailed` with nothing written."""
        # One cursor for all, closed here: one that another thread's garbage collection finalises resets a statement
        # that this thread may be executing by then.
        with (
            self._turnstile.turn(),
            committing(self._engine) as connection,
            closing(connection.connection.cursor()) as cursor,
        ):
            if not apart:
                self._gather(batch)  # also those who came while we waited for our turn
            if not self._head_is_sure:
                self._find_head(connection)
            for job in batch:
                self._run_job(connection, cursor, job, apart=apart)
            done = [job.transaction for job in batch if job.transaction is not None]
            seq, head = self._flush(Transaction(connection, cursor, self._clock.time()), done)
        self._seq, self._head = seq, head

    @staticmethod
    def _guarded(action: Callable[[], None]) -> None:
        """What follows a commit cannot undo it, and must not end the thread."""
        try:
            action()
        except Exception:  # noqa: BLE001  it is told to the log; nobody waits for it
            _log.exception("after_commit_failed")

    def _run_job(self, connection: Connection, cursor: Any, job: _Job[Any], *, apart: bool) -> None:
        transaction = Transaction(connection, cursor, self._clock.time())
        job.transaction = job.error = None
        if apart:
            cursor.execute("SAVEPOINT job")
        try:
            job.result = job.work(transaction)
            transaction.seal()
        except Exception as error:
            conflict = isinstance(error, self._own_faults)
            if isinstance(error, (DBAPIError, self._driver.Error)) and not conflict:
                raise  # the database may have rolled the transaction back already: nothing of this batch stands
            job.error = translated(error) if conflict else error
            if not apart:
                raise _JobFailed from error
            cursor.execute("ROLLBACK TO job")
        else:
            job.transaction = transaction
        if apart:
            cursor.execute("RELEASE job")

    def _find_head(self, connection: Connection) -> None:
        """Where our stream ends by what was committed; waits for a lost batch of ours that may still be about to be."""
        query = select(streams.c.seq, streams.c.hash).where(streams.c.id == self.stream).with_for_update()
        self._seq, self._head = connection.execute(query).one()
        self._head_is_sure = True

    def _flush(self, own: Transaction, done: list[Transaction]) -> tuple[int, bytes]:
        """Write records and counters of the jobs that succeeded; the new end of the stream."""
        seq, head, stream = self._seq, self._head, self.stream
        rows: list[dict[str, Any]] = []
        counts: dict[str, int] = {}
        for transaction in done:
            for name, delta in transaction._counts.items():  # noqa: SLF001
                counts[name] = counts.get(name, 0) + delta
            for message, kinds, data in transaction._records:  # noqa: SLF001
                seq += 1
                head = link(head, stream, seq, transaction.now, message, kinds, data)
                rows.append(
                    {
                        "stream": stream,
                        "seq": seq,
                        "time": transaction.now,
                        "message": message,
                        "kinds": kinds,
                        "data": data,
                        "hash": head,
                    }
                )
        if rows:
            own.run_many(_INSERT_RECORD, rows)
            own.run(_MOVE_HEAD, {"stream": stream, "last": seq, "head": head, "nobody": None})
        changed = [
            {"counter": name, "writer": self._counts_as, "delta": delta}
            for name, delta in sorted(counts.items())
            if delta
        ]
        if changed:
            own.run_many(ADD, changed)
        return seq, head

    @staticmethod
    def _tell(batch: list[_Job[Any]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job[Any]]] = {}
        for job in batch:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, jobs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, jobs)
            except RuntimeError:  # the loop is closed: its daemon is gone, what was committed stands
                continue


def _resolve(jobs: list[_Job[Any]]) -> None:
    for job in jobs:
        if job.done.done():
            continue
        if job.error is not None:
            job.done.set_exception(job.error)
        else:
            job.done.set_result(job.result)
