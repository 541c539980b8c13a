"""Real stores for tests: real files, real sealing, a clock that stands still; and a way for one to die."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, insert, select

from gateway.audit.chain import Record, verify
from gateway.config.model import Settings
from gateway.config.model import Store as StoreSettings
from gateway.config.values import KeySource
from gateway.mail.ids import uuid7
from gateway.store.blobs import BlobFiles
from gateway.store.bodies import SealedBody
from gateway.store.schema import events, messages, streams
from gateway.store.store import Store
from gateway.store.writer import Transaction
from gateway.testing import FakeClock
from tests.both_databases import database_of

KEY = "11" * 32


def settings(data_dir: Path, *keys: str) -> Settings:
    """Settings of a small gateway."""
    sources = tuple(KeySource.parse(key) for key in keys or ("file:kek.key",))
    store = StoreSettings(url=database_of(data_dir), keys=sources)
    return Settings(
        hostname="gw.clinic.example", postmaster="postmaster@clinic.example", data_dir=data_dir, store=store
    )


@asynccontextmanager
async def opened(
    data_dir: Path, clock: FakeClock | None = None, *keys: str, environ: Mapping[str, str] | None = None
) -> AsyncGenerator[Store, None]:
    """A store that is closed in order at the end."""
    store = Store.open(settings(data_dir, *keys), clock or FakeClock(), environ=environ or {})
    try:
        yield store
    finally:
        await store.close()


def kill(store: Store) -> None:
    """What a ``kill -9`` leaves behind: nothing is written any more, the kernel gives the lock up."""
    store.writer.close()
    store.reader.close()
    os.close(store.incarnation._handle)
    store.incarnation._handle = -1


def new_id(clock: FakeClock) -> str:
    """A fresh message id."""
    return uuid7(clock.time(), os.urandom(10))


async def spooled(store: Store, data: bytes, message: str | None = None, piece: int = 40_000) -> SealedBody:
    """A finished body with these bytes."""
    spool = store.spool(message or new_id(FakeClock()))
    for start in range(0, len(data), piece):
        await spool.write(data[start : start + piece])
    return await spool.finish()


def message_row(store: Store, body: SealedBody, **values: Any) -> dict[str, Any]:
    """The row of a message with one live recipient."""
    return {
        "id": body.message,
        "received": 0.0,
        "connector": "c",
        "client": "192.0.2.1",
        "sender": None,
        "size": body.size,
        "digest": body.digest,
        "kind": "ordinary",
        "observed": False,
        "system": False,
        "parent": None,
        "envelope": "{}",
        "live": 1,
        **store.wrapped_key(body),
        **values,
    }


async def keep(store: Store, data: bytes, **values: Any) -> SealedBody:
    """A body whose rows are durable."""
    body = await spooled(store, data)

    def job(transaction: Transaction) -> None:
        transaction.connection.execute(insert(messages).values(message_row(store, body, **values)))
        store.insert_body(transaction, body)

    await store.write(job)
    return body


async def read_body(store: Store, message: str) -> bytes:
    """All plain bytes of a kept body."""
    return b"".join([piece async for piece in store.body(message)])


def files_of(store: Store) -> BlobFiles:
    """The body files of a store that has files."""
    assert isinstance(store.files, BlobFiles)
    return store.files


def body_files(data_dir: Path) -> list[Path]:
    """Every file below the directory of bodies."""
    return sorted(path for path in (data_dir / "blobs").rglob("*") if path.is_file() and path.name != "ID")


async def count(store: Store, table: Table) -> int:
    """How many rows a table has."""
    return await store.read(lambda c: int(c.execute(select(func.count()).select_from(table)).scalar_one()))


async def stream_faults(store: Store) -> dict[str, str]:
    """Every stream with what is wrong with it, "" where it holds up to its recorded end."""

    def load(connection: Any) -> dict[str, str]:
        found = {}
        for stream in connection.execute(select(streams)):
            rows = connection.execute(select(events).where(events.c.stream == stream.id).order_by(events.c.seq))
            number, fault = verify(stream.id, (Record(*row) for row in rows))
            found[stream.id] = fault or ("" if number == stream.seq else f"{number} of {stream.seq} records")
        return found

    return await store.read(load)


def database_bytes(data_dir: Path) -> bytes:
    """What is on the medium: the database and its write-ahead log."""
    return b"".join(path.read_bytes() for path in sorted(data_dir.glob("queue.db*")))


def every_file(data_dir: Path) -> Iterator[Path]:
    """All files of a data directory."""
    return (path for path in data_dir.rglob("*") if path.is_file())
