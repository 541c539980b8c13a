"""The writer: what shares a commit shares nothing else, and nobody hears of what did not happen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update

from gateway.errors import StoreError, StoreFailed, StoreFull
from gateway.store.counting import counted
from gateway.store.database import open_engine
from gateway.store.schema import events, meta, streams
from gateway.store.store import Store
from gateway.store.writer import Transaction
from gateway.testing import FakeClock
from tests.both_databases import database_of
from tests.store.store_world import kill, opened, settings, stream_faults

Job = Callable[[Transaction], Any]


async def in_one_batch(store: Store, jobs: Sequence[Job]) -> list[Any]:
    """The results, or errors, of jobs that share a transaction."""
    entered, go_on = threading.Event(), threading.Event()

    def block(_: Transaction) -> None:
        entered.set()
        assert go_on.wait(10)

    first = asyncio.create_task(store.write(block))
    await asyncio.to_thread(entered.wait, 10)
    tasks = [asyncio.create_task(store.write(job)) for job in jobs]
    await asyncio.sleep(0)  # each has submitted its job
    go_on.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def put(key: str, *, fail: bool = False) -> Job:
    def job(transaction: Transaction) -> str:
        transaction.connection.execute(insert(meta).values(key=key, value=b"x"))
        transaction.event("put", {"key": key})
        transaction.count("recipients.queued", 1)
        if fail:
            raise ValueError(key)
        return key

    return job


async def keys(store: Store) -> set[str]:
    own = meta.c.key.in_(["loop-secret", "bodies-place", "store-id"]) | meta.c.key.like("clock.%")
    return await store.read(lambda c: set(c.scalars(select(meta.c.key).where(~own))))


async def kinds(store: Store, kind: str) -> int:
    return await store.read(lambda c: len(c.execute(select(events).where(events.c.kinds.contains(f" {kind} "))).all()))


async def counter(store: Store) -> int:
    return await store.read(lambda c: counted(c)["recipients.queued"])


async def test_jobs_that_come_together_share_one_commit(tmp_path: Path) -> None:
    batches: list[int] = []

    def observer(seconds: float, jobs: int) -> None:
        batches.append(jobs)

    store = Store.open(settings(tmp_path), FakeClock(), environ={}, on_commit=observer)
    assert await in_one_batch(store, [put(f"k{n}") for n in range(20)]) == [f"k{n}" for n in range(20)]
    assert batches == [1, 20]
    assert await keys(store) == {f"k{n}" for n in range(20)}
    await store.close()


async def test_a_job_that_fails_takes_nothing_of_its_neighbours(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        results = await in_one_batch(store, [put("a"), put("b", fail=True), put("c"), put("a"), put("d")])
        assert [type(result) for result in results] == [str, ValueError, str, StoreError, str]
        assert await keys(store) == {"a", "c", "d"}
        assert await kinds(store, "put") == 3
        assert await counter(store) == 3
        assert set((await stream_faults(store)).values()) == {""}


async def test_a_job_that_fails_alone_is_undone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(ValueError, match="a"):
            await store.write(put("a", fail=True))
        with pytest.raises(TypeError, match="serializable"):
            await store.write(lambda tx: tx.event("bad", {"no": object()}))
        assert (await keys(store), await kinds(store, "put"), await counter(store)) == (set(), 0, 0)
        await store.write(put("a"))
        assert (await keys(store), await kinds(store, "put"), await counter(store)) == ({"a"}, 1, 1)


def fill(transaction: Transaction) -> None:
    """Run into the end of the room, as on a full disk: SQLite says ``database or disk is full``."""
    transaction.connection.execute(insert(meta).values(key="big", value=bytes(4_000_000)))


async def limit_pages(store: Store, pages: int) -> None:
    await store.write(lambda tx: tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar())


@pytest.mark.sqlite
async def test_a_full_disk_is_told_to_the_whole_batch_and_heals(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await limit_pages(store, 200)
        results = await in_one_batch(store, [put("a"), fill, put("b", fail=True)])
        assert [type(result) for result in results] == [StoreFull] * 3
        assert (await keys(store), await kinds(store, "put"), await counter(store)) == (set(), 0, 0)
        assert store.writer.failed == ""
        await store.write(put("a"))
        await limit_pages(store, 1_000_000)
        await store.write(fill)
        assert await keys(store) == {"a", "big"}
        assert set((await stream_faults(store)).values()) == {""}


@pytest.mark.sqlite
async def test_nobody_believes_a_neighbour_whose_commit_failed(tmp_path: Path) -> None:
    """A repeated submission, told "accepted already" by the sight of a row that was never committed, is lost mail."""

    class AlreadyThere(Exception):
        pass

    def ask(transaction: Transaction) -> None:
        if transaction.connection.execute(select(meta).where(meta.c.key == "a")).first():
            raise AlreadyThere

    async with opened(tmp_path) as store:
        assert [type(r) for r in await in_one_batch(store, [put("a"), ask])] == [str, AlreadyThere]
        await store.write(lambda tx: tx.connection.execute(delete(meta).where(meta.c.key == "a")) and None)
        await limit_pages(store, 200)
        assert [type(r) for r in await in_one_batch(store, [put("a"), ask, fill])] == [StoreFull] * 3


async def test_whoever_stops_waiting_does_not_undo_the_job(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        entered, go_on = threading.Event(), threading.Event()

        def job(transaction: Transaction) -> None:
            entered.set()
            assert go_on.wait(10)
            put("a")(transaction)

        waiting = asyncio.create_task(store.write(job))
        await asyncio.to_thread(entered.wait, 10)
        waiting.cancel()
        await asyncio.wait({waiting})
        go_on.set()
        await store.write(put("b"))
        assert await keys(store) == {"a", "b"}


async def test_actions_follow_the_commit_and_cannot_end_the_writer(tmp_path: Path) -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError("a file")

    def job(transaction: Transaction) -> None:
        transaction.after_commit(lambda: done.append("first"))
        transaction.after_commit(fail)
        transaction.after_commit(lambda: done.append("last"))

    def failing(transaction: Transaction) -> None:
        transaction.after_commit(lambda: done.append("never"))
        raise ValueError("no")

    async with opened(tmp_path) as store:
        await store.write(job)
        with pytest.raises(ValueError, match="no"):
            await store.write(failing)
        await store.write(put("a"))
        assert done == ["first", "last"]


async def test_an_observer_that_fails_does_not_end_the_writer(tmp_path: Path) -> None:
    def observer(seconds: float, jobs: int) -> None:
        raise RuntimeError("a metric")

    store = Store.open(settings(tmp_path), FakeClock(), environ={}, on_commit=observer)
    await store.write(put("a"))
    await store.write(put("b"))
    await store.close()


async def test_a_closed_store_says_so_and_leaves_nobody_waiting(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.write(put("a"))
    with pytest.raises(StoreError, match="closed"):
        await store.write(put("b"))
    with pytest.raises(StoreError, match="closed"):
        await store.writer.checkpoint()
    await store.close()


async def test_what_was_submitted_before_the_end_is_committed(tmp_path: Path) -> None:
    store = Store.open(settings(tmp_path), FakeClock(), environ={})
    tasks = [asyncio.create_task(store.write(put(f"k{n}"))) for n in range(300)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*tasks) == [f"k{n}" for n in range(300)]


async def test_after_a_failed_sync_the_store_takes_nothing_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        store.writer.fail("syncing a body failed")
        store.writer.fail("something else later")
        with pytest.raises(StoreFailed, match="syncing a body"):
            await store.write(put("a"))
        with pytest.raises(StoreFailed):
            await store.writer.checkpoint()
        assert await keys(store) == set()


@examples(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=8), max_size=6))
async def test_the_chain_and_the_counters_hold_over_any_batches(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, bool]]]
) -> None:
    expected: set[str] = set()
    async with opened(tmp_path_factory.mktemp("store")) as store:
        for batch in batches:
            results = await in_one_batch(store, [put(f"k{number}", fail=fail) for number, fail in batch])
            for (number, fail), result in zip(batch, results, strict=True):
                name = f"k{number}"
                if result == name:
                    assert name not in expected
                    assert not fail
                    expected.add(name)
                else:
                    assert fail or name in expected
        assert await keys(store) == expected
        assert await counter(store) == await kinds(store, "put") == len(expected)
        assert set((await stream_faults(store)).values()) == {""}


@pytest.mark.parametrize("change", ["data", "time", "kinds", "removed", "last", "swapped", "hash"])
async def test_a_change_to_the_events_is_found(tmp_path: Path, change: str) -> None:
    async with opened(tmp_path) as store:
        stream = store.writer.stream
        for n in range(6):
            await store.write(put(f"k{n}"))
    script = {
        "data": 'update events set data = \'{"key":"other"}\' where seq = 4',
        "time": "update events set time = time + 0.001 where seq = 4",
        "kinds": "update events set kinds = ' pot ' where seq = 4",
        "removed": "delete from events where seq = 4",
        "last": "delete from events where seq = (select max(seq) from events where stream = :stream)",
        "swapped": "update events set seq = 109 - seq where seq > 100",
        "hash": "update events set hash = :zeros where seq = 4",
    }[change]
    engine = open_engine(database_of(tmp_path).reveal(), tmp_path, writes=True)
    with engine.connect() as connection, connection.begin():
        values = {"stream": stream, "zeros": bytes(32)}
        if change == "swapped":
            first = text("update events set seq = 100 + seq where seq in (4, 5) and stream = :stream")
            connection.execute(first, values)
        assert connection.execute(text(f"{script} and stream = :stream"), values).rowcount in (1, 2)
    engine.dispose()
    async with opened(tmp_path) as store:
        faults = await stream_faults(store)
        assert faults.pop(stream) != ""
        assert set(faults.values()) == {""}


async def links(store: Store) -> dict[str, str | None]:
    return await store.read(lambda c: {row.id: row.linked_by for row in c.execute(select(streams))})


async def test_each_start_links_the_ends_that_nobody_linked(tmp_path: Path) -> None:
    names = []
    for n in range(3):
        async with opened(tmp_path) as store:
            names.append(store.writer.stream)
            await store.write(put(f"k{n}"))
            assert set((await stream_faults(store)).values()) == {""}
            assert await links(store) == dict(zip(names, [*names[1:], None], strict=True))
    store = Store.open(settings(tmp_path), FakeClock(), environ={})
    await store.write(put("before the kill"))
    kill(store)
    async with opened(tmp_path) as after:
        assert (await links(after))[store.writer.stream] == after.writer.stream
        assert set((await stream_faults(after)).values()) == {""}


async def test_a_stream_that_grew_after_it_was_linked_is_linked_again(tmp_path: Path) -> None:
    """An operator's command links the daemon's stream in passing; what the daemon writes later needs a link too."""
    async with opened(tmp_path) as daemon:
        async with opened(tmp_path) as command:
            assert (await links(command))[daemon.writer.stream] == command.writer.stream
        await daemon.write(put("later"))
        assert (await links(daemon))[daemon.writer.stream] is None
    async with opened(tmp_path) as following:
        assert (await links(following))[daemon.writer.stream] == following.writer.stream


async def test_two_processes_write_by_turns(tmp_path: Path) -> None:
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        jobs = [store.write(put(f"{name}{n}")) for n in range(30) for name, store in (("a", first), ("b", second))]
        await asyncio.gather(*jobs)
        assert len(await keys(first)) == 60
        assert await counter(second) == 60
        assert set((await stream_faults(first)).values()) == {""}


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(StoreError):
            await store.read(lambda c: c.execute(update(meta).values(value=b"")))
