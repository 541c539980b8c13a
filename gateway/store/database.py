"""Opening the database: engines, the settings that durability hangs on, and errors in our own words.

SQLite: WAL with ``synchronous=FULL`` on every connection (it does not stick; with NORMAL a power cut loses what was
answered 250), ``secure_delete`` so that a deleted key is overwritten, and transactions begun by us: IMMEDIATE for the
writer, so that a lock is met at its beginning and never in the middle. PostgreSQL: see ``postgres``.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from gateway.errors import StoreBusy, StoreError, StoreFailed, StoreFull
from gateway.store.postgres import open_postgres, translated_postgres

__all__ = ["BUSY_TIMEOUT_MS", "DATABASE_NAME", "Reader", "committing", "database_path", "open_engine", "translated"]

T = TypeVar("T")

DATABASE_NAME = "queue.db"

#: How long a connection waits for another process's lock before it gives up (SQLite polls).
BUSY_TIMEOUT_MS = 10_000
#: Most that the WAL keeps of its size after a checkpoint.
_WAL_KEEP = 16 * 1024 * 1024

_PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -8000",
    f"PRAGMA journal_size_limit = {_WAL_KEEP}",
)


def database_path(data_dir: Path) -> Path:
    """Where the embedded database lives."""
    return data_dir / DATABASE_NAME


def open_engine(url: str, data_dir: Path, *, writes: bool) -> Engine:
    """An engine for a database: ``sqlite``, or the URL of PostgreSQL. Raises :class:`StoreError`."""
    if url != "sqlite":
        return open_postgres(url, writes=writes)
    path = database_path(data_dir)
    if not path.exists():
        # Made before SQLite does, so that nobody but the daemon's user can ever read it.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.close(handle)
    engine = create_engine(URL.create("sqlite+pysqlite", database=str(path)), pool_size=4, max_overflow=4)
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        try:
            for pragma in _PRAGMAS:
                cursor.execute(pragma)
            if not writes:
                cursor.execute("PRAGMA query_only = ON")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def translated(error: Exception) -> StoreError:
    """A database driver's or the system's error as one of ours: full, busy, or failed for good."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    known = translated_postgres(original)
    if known is not None:
        return known
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    if isinstance(error, OSError):
        import errno

        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return StoreFull(f"no room: {error.strerror}")
        if error.errno in (errno.EIO, errno.EROFS):
            return StoreFailed(f"the file system failed: {error.strerror}")
        return StoreError(f"the system said: {error.strerror}")
    lowered = text.lower()
    if "disk is full" in lowered or "no space" in lowered:
        return StoreFull(text)
    if "locked" in lowered or "busy" in lowered:
        return StoreBusy(text)
    if "disk i/o error" in lowered or "malformed" in lowered or "readonly" in lowered or "not a database" in lowered:
        return StoreFailed(text)
    return StoreError(text)


@contextmanager
def committing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes: committed at the end, undone where anything fails.

    A connection to a server on which the database failed is thrown away, so that nothing of it can come later.
    """
    with engine.connect() as connection:
        begun = connection.begin()
        try:
            yield connection
            begun.commit()
        except BaseException as error:
            by_server = isinstance(error, DBAPIError) or translated_postgres(error) is not None
            if by_server and connection.dialect.name != "sqlite":
                connection.invalidate()
            else:
                begun.rollback()
            raise


class Reader:
    """Short read transactions on a thread of their own. None may outlive 100 ms: page what is long."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="store-read")

    async def run(self, job: Callable[[Connection], T]) -> T:
        """``job`` with a read-only connection. Raises :class:`StoreError`."""
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(self._pool, self.run_blocking, job)

    def run_blocking(self, job: Callable[[Connection], T]) -> T:
        """The same on the calling thread."""
        try:
            with self._engine.connect() as connection, connection.begin():
                return job(connection)
        except DBAPIError as error:
            raise translated(error) from error

    def close(self) -> None:
        """Wait for running reads and close the connections."""
        self._pool.shutdown(wait=True)
        self._engine.dispose()
