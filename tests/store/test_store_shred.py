"""A deleted key is gone from the medium once the checkpoint came back, and nobody says so before."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.audit.chain import happenings
from gateway.store.bodies import SealedBody
from gateway.store.schema import events, messages
from gateway.store.shred import INTERVAL, LIMIT, Shredder
from gateway.store.store import Store
from gateway.testing import FakeClock
from tests.both_databases import is_sqlite
from tests.store.store_world import database_bytes, keep, kill, opened, settings


def is_overdue(shredder: Shredder) -> bool:
    return shredder.overdue


async def wrapped(store: Store, body: SealedBody) -> bytes:
    query = select(messages.c.data_key).where(messages.c.id == body.message)
    return await store.read(lambda c: bytes(c.execute(query).scalar_one()))


async def shredded(store: Store, kind: str = "shredded") -> list[dict[str, object]]:
    query = select(events.c.data).where(events.c.kinds.contains(f" {kind} "))
    records = await store.read(lambda c: list(c.scalars(query)))
    return [event.data for data in records for event in happenings(data) if event.kind == kind]


@pytest.mark.sqlite
async def test_after_deletion_and_checkpoint_key_and_body_are_nowhere(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        shredder = Shredder(store)
        kept, gone = await keep(store, b"k" * 9000), await keep(store, b"g" * 9000)
        keys = [await wrapped(store, kept), await wrapped(store, gone)]
        assert all(key in database_bytes(tmp_path) for key in keys)
        await store.write(lambda tx: store.delete_body(tx, gone.message))
        assert keys[1] in database_bytes(tmp_path)  # deleted, not shredded: the log still has it
        assert await shredder.step()
        data = database_bytes(tmp_path)
        assert keys[0] in data
        assert keys[1] not in data
        assert gone.inline is not None
        assert kept.inline is not None
        assert gone.inline[16:80] not in data
        assert kept.inline[16:80] in data
        assert await shredded(store) == [{"deletions": 1}]


@pytest.mark.sqlite
@pytest.mark.parametrize("seed", range(4))
async def test_no_copy_of_a_key_stays_behind_in_pages_that_were_merged(tmp_path: Path, seed: int) -> None:
    """SQLite leaves what it moved in the unused middle of a page: so keys stand in rows that are never moved."""
    chance = random.Random(seed)
    async with opened(tmp_path) as store:
        live: dict[str, bytes] = {}
        dead: list[bytes] = []
        for _ in range(25):
            jobs = [
                keep(store, bytes(chance.choice([10, 300, 900, 2500, 9000]))) for _ in range(chance.randrange(1, 12))
            ]
            for body in await asyncio.gather(*jobs):
                live[body.message] = await wrapped(store, body)
            for message in chance.sample(sorted(live), min(len(live), chance.randrange(12))):
                dead.append(live.pop(message))
                await store.write(lambda tx, message=message: store.delete_body(tx, message))  # type: ignore[misc]  # bound at once
        assert await Shredder(store).step()
        data = database_bytes(tmp_path)
        assert [key for key in dead if key in data] == []
        assert all(key in data for key in live.values())
        assert len(dead) > 50


@pytest.mark.sqlite
async def test_with_a_reader_open_it_is_busy_and_says_so_without_holding_everyone_up(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as store:
        shredder = Shredder(store)
        body = await keep(store, b"x")
        key = await wrapped(store, body)
        reader = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        await store.write(lambda tx: store.delete_body(tx, body.message))
        started = time.monotonic()
        assert not await shredder.step()
        assert time.monotonic() - started < 5  # SQLite's own patience would be ten seconds, all commits behind it
        assert key in database_bytes(tmp_path)
        assert await shredded(store) == []
        assert not is_overdue(shredder)
        while clock.monotonic() <= LIMIT:
            await clock.advance(INTERVAL)
            assert not await shredder.step()
        assert is_overdue(shredder)
        reader.close()
        await clock.advance(INTERVAL)
        assert await shredder.step()
        assert not is_overdue(shredder)
        assert key not in database_bytes(tmp_path)


@pytest.mark.sqlite
async def test_one_checkpoint_covers_all_and_there_is_at_most_one_a_minute(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as store:
        shredder = Shredder(store)
        assert await shredder.step()
        assert await shredded(store) == []  # nothing was deleted: no checkpoint, no event
        for count in (3, 2):
            for _ in range(count):
                body = await keep(store, b"x")
                await store.write(lambda tx, body=body: store.delete_body(tx, body.message))  # type: ignore[misc]  # bound at once
            if count == 2:
                await clock.advance(INTERVAL - 1)
                assert not await shredder.step()
                await clock.advance(1)
            assert await shredder.step()
        assert await shredded(store) == [{"deletions": 3}, {"deletions": 2}]
        assert len(await shredded(store, "deleted")) == 5


@pytest.mark.sqlite
async def test_what_a_dead_process_deleted_is_shredded_by_the_next(tmp_path: Path) -> None:
    store = Store.open(settings(tmp_path), FakeClock(), environ={})
    body = await keep(store, b"x")
    key = await wrapped(store, body)
    keeper = sqlite3.connect(tmp_path / "queue.db")  # keeps the log from being tidied by the last one to close
    keeper.execute("SELECT count(*) FROM messages").fetchall()
    await store.write(lambda tx: store.delete_body(tx, body.message))
    kill(store)
    assert key in database_bytes(tmp_path)
    async with opened(tmp_path) as after:
        assert await Shredder(after).step()
        assert key not in database_bytes(tmp_path)
        assert await shredded(after) == [{"deletions": 1}]
    keeper.close()


@pytest.mark.sqlite
async def test_what_another_process_deletes_is_shredded_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as daemon:
        shredder = Shredder(daemon)
        body = await keep(daemon, b"x")
        key = await wrapped(daemon, body)
        async with opened(tmp_path) as command:
            await command.write(lambda tx: command.delete_body(tx, body.message))
        assert await shredder.step()
        assert key not in database_bytes(tmp_path)


async def test_where_nothing_can_be_shredded_nobody_says_so(tmp_path: Path) -> None:
    """PostgreSQL: the key's value is gone from its row, which is all that anybody can promise there."""
    clock = FakeClock()
    async with opened(tmp_path, clock) as store:
        shredder = Shredder(store)
        body = await keep(store, b"x")
        await store.write(lambda tx: store.delete_body(tx, body.message))
        assert await store.read(lambda c: c.execute(select(messages.c.data_key)).scalar_one()) is None
        await clock.advance(LIMIT + INTERVAL)
        assert await shredder.step()
        assert not is_overdue(shredder)
        assert len(await shredded(store, "deleted")) == 1
        assert len(await shredded(store)) == (1 if is_sqlite(tmp_path) else 0)


async def test_an_undone_deletion_is_not_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, b"x")

        def job(transaction: object) -> None:
            store.delete_body(transaction, body.message)  # type: ignore[arg-type]  # what a job gets
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await store.write(job)
        assert await Shredder(store).step()
        assert await shredded(store) == []
