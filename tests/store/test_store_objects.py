"""Bodies in S3-compatible storage: whole before a row names them, a part at a time in memory, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from gateway.config.model import Settings
from gateway.config.storage import S3, Bucket
from gateway.config.values import Secret
from gateway.errors import StoreCorrupt, StoreError
from gateway.store.blob_objects import open_bucket
from gateway.store.bodies import INLINE_LIMIT, ORPHAN_AGE
from gateway.store.store import Store
from gateway.testing import FakeClock, poll
from tests.object_server import ObjectServer
from tests.store.store_world import keep, new_id, read_body, settings, spooled

#: The spool hands over at least so many sealed octets at a time.
PART = 512 * 1024


@pytest.fixture
def bucket(object_server: ObjectServer) -> str:
    """A bucket for this test alone."""
    return object_server.create_bucket()


def access(server: ObjectServer, endpoint: str = "") -> S3:
    return S3(
        endpoint=endpoint or server.endpoint, region="us-east-1", access_key=Secret(b"key"), secret_key=Secret(b"hush")
    )


def with_bucket(data_dir: Path, server: ObjectServer, bucket: str, endpoint: str = "") -> Settings:
    base = settings(data_dir)
    store = base.store.model_copy(update={"blobs": f"s3://{bucket}/mail", "s3": access(server, endpoint)})
    return base.model_copy(update={"store": store})


@asynccontextmanager
async def opened(given: Settings, clock: FakeClock | None = None) -> AsyncGenerator[Store, None]:
    store = Store.open(given, clock or FakeClock(), environ={})
    try:
        yield store
    finally:
        await store.close()


def objects(server: ObjectServer, bucket: str) -> list[str]:
    """The names of all objects, and whether they are under the prefix."""
    found = obstore.list(client(server, bucket)).collect()
    assert all(entry["path"].startswith("mail/") for entry in found)
    return sorted(entry["path"] for entry in found)


def client(server: ObjectServer, bucket: str) -> S3Store:
    return open_bucket(Bucket(bucket, ""), access(server))


@pytest.mark.parametrize("size", [0, INLINE_LIMIT, INLINE_LIMIT + 1, 700_000, PART - 2000, 2 * PART + 5])
async def test_every_size_comes_back_from_its_place(
    tmp_path: Path, object_server: ObjectServer, bucket: str, size: int
) -> None:
    data = os.urandom(size)
    async with opened(with_bucket(tmp_path, object_server, bucket)) as store:
        body = await keep(store, data)
        assert (body.blob is None) is (size <= INLINE_LIMIT)
        assert await read_body(store, body.message) == data
        found = objects(object_server, bucket)
        assert len(found) <= size // PART + 1
        assert bool(found) is (size > INLINE_LIMIT)
        assert not (tmp_path / "blobs").exists() or not any((tmp_path / "blobs").rglob("*"))
        assert not any(data[100:140] in obstore.get(client(object_server, bucket), name).bytes() for name in found)


async def test_any_range_equals_the_slice(tmp_path: Path, object_server: ObjectServer, bucket: str) -> None:
    size = 2 * PART + 70_000
    data = os.urandom(size)
    async with opened(with_bucket(tmp_path, object_server, bucket)) as store:
        body = await keep(store, data)
        assert len(objects(object_server, bucket)) > 1
        for start, end in [
            (0, 1),
            (0, size),
            (PART - 10, PART + 10),
            (2 * PART + 9, size),
            (size - 1, size),
            (70_000, PART),
        ]:
            found = b"".join([piece async for piece in store.body_range(body.message, start, end)])
            assert found == data[start:end]


async def test_a_body_is_whole_before_anybody_hears_of_it(
    tmp_path: Path, object_server: ObjectServer, bucket: str
) -> None:
    async with opened(with_bucket(tmp_path, object_server, bucket)) as store:
        data = os.urandom(3 * PART)
        spool = store.spool(new_id(FakeClock()))
        for start in range(0, len(data), 200_000):
            await spool.write(data[start : start + 200_000])
        before = len(objects(object_server, bucket))
        await spool.finish()
        assert 0 < before < len(objects(object_server, bucket))


@pytest.mark.parametrize("finish", [False, True])
async def test_a_body_that_was_given_up_leaves_nothing(
    tmp_path: Path,
    object_server: ObjectServer,
    bucket: str,
    finish: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    async with opened(with_bucket(tmp_path, object_server, bucket)) as store:
        spool = store.spool(new_id(FakeClock()))
        await spool.write(os.urandom(2 * PART))
        if finish:
            await spool.finish()
        assert objects(object_server, bucket) != []
        await spool.abort()
        assert objects(object_server, bucket) == []


async def test_shredding_takes_all_parts_without_holding_up_the_writer(
    tmp_path: Path, object_server: ObjectServer, bucket: str
) -> None:
    async with opened(with_bucket(tmp_path, object_server, bucket)) as store:
        body = await keep(store, os.urandom(2 * PART))
        await store.write(lambda tx: store.delete_body(tx, body.message))
        await poll(lambda: objects(object_server, bucket) == [])
        with pytest.raises(StoreCorrupt):
            await read_body(store, body.message)


async def test_what_waits_to_be_removed_is_removed_at_the_end(
    tmp_path: Path, object_server: ObjectServer, bucket: str
) -> None:
    async with opened(with_bucket(tmp_path, object_server, bucket)) as store:
        bodies = [await keep(store, os.urandom(150_000)) for _ in range(5)]
        for body in bodies:
            await store.write(lambda tx, body=body: store.delete_body(tx, body.message))  # type: ignore[misc]  # bound at once
    assert objects(object_server, bucket) == []


@pytest.mark.sqlite  # two stores, each with a database of its own
async def test_orphans_go_by_age_only_and_known_bodies_and_other_stores_never(
    tmp_path: Path, object_server: ObjectServer, bucket: str
) -> None:
    clock = FakeClock(datetime.now(UTC).timestamp())
    async with (
        opened(with_bucket(tmp_path / "one", object_server, bucket), clock) as store,
        opened(with_bucket(tmp_path / "two", object_server, bucket), clock) as other,
    ):
        known, foreign = await keep(store, os.urandom(3 * PART)), await keep(other, os.urandom(150_000))
        orphan = await spooled(store, os.urandom(2 * PART))
        cut_off = store.spool(new_id(clock))
        await cut_off.write(os.urandom(2 * PART))  # as after a kill: some parts are there, the last one is not
        assert await store.sweep_orphans() == []
        await clock.advance(ORPHAN_AGE + 60)
        assert set(await store.sweep_orphans()) == {orphan.message, cut_off.message}
        assert len(await read_body(store, known.message)) == 3 * PART
        assert len(await read_body(other, foreign.message)) == 150_000


@pytest.mark.parametrize("change", ["gone", "last gone", "cut", "bit", "empty"])
async def test_a_changed_body_is_corruption(
    tmp_path: Path, object_server: ObjectServer, bucket: str, change: str
) -> None:
    async with opened(with_bucket(tmp_path, object_server, bucket)) as store:
        body = await keep(store, os.urandom(700_000))
        raw = client(object_server, bucket)
        first, last = objects(object_server, bucket)
        data = bytearray(obstore.get(raw, first).bytes())
        data[1000] ^= 1
        if change == "gone":
            obstore.delete(raw, [first, last])
        elif change == "last gone":
            obstore.delete(raw, last)
        else:
            changed = {"cut": bytes(data[:-1]), "bit": bytes(data), "empty": b""}[change]
            obstore.put(raw, first, changed, use_multipart=False)
        with pytest.raises(StoreCorrupt):
            await read_body(store, body.message)


async def test_what_is_handed_over_is_kept_nowhere(tmp_path: Path, object_server: ObjectServer, bucket: str) -> None:
    """However large the message is: its parts are in the storage, and what is left is what the spool gathers."""
    async with opened(with_bucket(tmp_path, object_server, bucket)) as store:
        spool = store.spool(new_id(FakeClock()))
        for _ in range(12):
            await spool.write(bytes(1_000_000))
            assert len(spool._sealed) < PART
            stored = sum(entry["size"] for entry in obstore.list(client(object_server, bucket)).collect())
            assert stored + len(spool._sealed) + 200_000 > spool.size
        await spool.abort()


# -- storage that does not work ---------------------------------------------------------------------------------------


async def test_storage_that_went_away_is_our_fault_for_now_and_heals(
    tmp_path: Path, object_server: ObjectServer, bucket: str
) -> None:
    with relay(object_server) as wire:
        async with opened(with_bucket(tmp_path, object_server, bucket, wire.endpoint)) as store:
            body = await keep(store, b"x" * 200_000)
            wire.cut = True
            with pytest.raises(StoreError, match="object storage") as told:
                await keep(store, b"y" * 200_000)
            assert type(told.value) is StoreError
            assert "hush" not in str(told.value)
            assert len(str(told.value).splitlines()) == 1
            with pytest.raises(StoreError, match="object storage") as told:
                await read_body(store, body.message)
            assert type(told.value) is StoreError  # not corrupt: it is only out of reach
            await keep(store, b"small mail needs no object storage")
            assert store.writer.failed == ""
            wire.cut = False
            assert await read_body(store, body.message) == b"x" * 200_000
            await keep(store, b"y" * 200_000)


class Relay:
    """A way to the object storage that can be closed."""

    def __init__(self, server: ObjectServer) -> None:
        self._target = server.port
        self._listener: asyncio.AbstractServer | None = None
        self.cut = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._listener = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._socket))
        self._loop.run_forever()
        self._listener.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while (data := await source.read(65536)) and not self.cut:
                target.write(data)
                await target.drain()
        except OSError:
            pass
        target.close()


@contextmanager
def relay(server: ObjectServer) -> Iterator[Relay]:
    """The way, open at first."""
    made = Relay(server)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(10)


def test_a_bucket_that_is_not_there_keeps_the_gateway_from_starting(
    tmp_path: Path, object_server: ObjectServer
) -> None:
    with pytest.raises(StoreError, match="no such bucket"):
        Store.open(with_bucket(tmp_path, object_server, "nowhere"), FakeClock(), environ={})


async def test_another_place_is_only_taken_while_nothing_is_lost_by_it(
    tmp_path: Path, object_server: ObjectServer, bucket: str
) -> None:
    clock = FakeClock()
    given = with_bucket(tmp_path, object_server, bucket)
    async with opened(given, clock) as store:
        body = await keep(store, b"x" * 200_000)
    other = with_bucket(tmp_path, object_server, object_server.create_bucket())
    with pytest.raises(StoreError, match="need one place"):
        Store.open(other, clock, environ={})
    async with opened(given, clock) as store:
        await store.write(lambda tx: store.delete_body(tx, body.message))
    async with opened(other, clock) as store:
        await keep(store, b"x" * 200_000)


def test_credentials_are_not_shown(object_server: ObjectServer) -> None:
    given = access(object_server)
    assert "hush" not in repr(given) + repr(open_bucket(Bucket("b", "p"), given))
