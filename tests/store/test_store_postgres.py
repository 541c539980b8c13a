"""PostgreSQL: what is not known is called neither good nor lost, and what was away comes back without a restart."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from gateway.config.storage import DatabaseUrl
from gateway.errors import StoreAway, StoreBusy, StoreError
from gateway.store.counting import counted
from gateway.store.database import open_engine
from gateway.store.postgres import settings_of, unfit
from gateway.store.schema import counters, incarnations, meta, ring_keys, streams
from gateway.store.store import Store
from gateway.store.writer import Transaction
from gateway.testing import FakeClock, PostgresServer
from tests.both_databases import database_of, use_database
from tests.store.store_world import KEY, count, keep, opened, read_body, settings, stream_faults

pytestmark = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


def put(key: str) -> Callable[[Transaction], None]:
    def job(transaction: Transaction) -> None:
        transaction.connection.execute(insert(meta).values(key=key, value=b"x"))
        transaction.event("put", {"key": key})
        transaction.count("recipients.queued", 1)

    return job


async def keys(store: Store) -> set[str]:
    return await store.read(lambda c: set(c.scalars(select(meta.c.key).where(meta.c.key.like("k%")))))


# -- the server goes and comes ----------------------------------------------------------------------------------------


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that only this test stops and starts."""
    with PostgresServer() as server:
        use_database(tmp_path, server.url(server.create_database()))
        yield server


async def until_back(store: Store, key: str) -> None:
    """Read, then write, as soon as the server answers again and the pauses between attempts to connect are over."""

    async def attempt() -> bool:
        try:
            await keys(store)
            await store.write(put(key))
        except StoreAway:
            return False
        return True

    for _ in range(200):
        if await attempt():
            return
        await asyncio.sleep(0.05)  # between two attempts; the count above ends it
    raise AssertionError("the store did not come back")


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_server_that_went_away_is_told_and_comes_back_without_a_restart(
    tmp_path: Path, own_server: PostgresServer, how: str
) -> None:
    async with opened(tmp_path) as store:
        await store.write(put("k1"))
        await store.read(lambda c: c.execute(select(meta.c.key)).all())
        (own_server.stop if how == "stopped" else own_server.kill)()
        with pytest.raises(StoreAway):
            await store.write(put("k2"))
        assert store.writer.away
        assert store.writer.failed == ""  # nothing to restart for
        with pytest.raises(StoreAway):
            await store.read(lambda c: c.execute(select(meta.c.key)).all())
        own_server.start()
        await until_back(store, "k3")
        assert store.writer.away == ""
        assert await keys(store) == {"k1", "k3"}
        assert await store.read(lambda c: counted(c)["recipients.queued"]) == 2
        assert set((await stream_faults(store)).values()) == {""}


async def test_a_restart_between_two_batches_is_not_even_noticed(tmp_path: Path, own_server: PostgresServer) -> None:
    async with opened(tmp_path) as store:
        await store.write(put("k1"))
        await store.read(lambda c: c.execute(select(meta.c.key)).all())
        own_server.stop()
        own_server.start()
        await store.write(put("k2"))
        assert await keys(store) == {"k1", "k2"}
        assert set((await stream_faults(store)).values()) == {""}


async def test_a_server_that_is_away_is_not_asked_at_every_message(tmp_path: Path, own_server: PostgresServer) -> None:
    async with opened(tmp_path) as store:
        own_server.stop()
        failures = await asyncio.gather(*(store.write(put(f"k{n}")) for n in range(300)), return_exceptions=True)
        assert {type(failure) for failure in failures} == {StoreAway}
        own_server.start()
        await until_back(store, "k")


class Cut:
    """A wire to the server that can be cut when the client asks for a commit: before it arrives, or behind it."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.armed = ""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server.port))
            silenced = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, silenced), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client, silenced), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, silenced: threading.Event) -> None:
        try:
            while data := client.recv(65536):
                if self.armed and b"COMMIT" in data:
                    where, self.armed = self.armed, ""
                    silenced.set()
                    if where == "behind":
                        server.sendall(data)
                        server.recv(65536)  # the server has answered: it is committed
                    break
                server.sendall(data)
        except OSError:
            pass
        for end in (client, server):
            end.close()

    def _back(self, server: socket.socket, client: socket.socket, silenced: threading.Event) -> None:
        try:
            while data := server.recv(65536):
                if silenced.is_set():
                    return
                client.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.close()


@contextmanager
def wire(server: PostgresServer, directory: Path) -> Iterator[Cut]:
    """The stores below this directory reach their database by a wire that can be cut."""
    cut = Cut(server)
    name = database_of(directory).reveal().partition("///")[2].partition("?")[0]
    use_database(directory, f"postgresql://gateway@127.0.0.1:{cut.port}/{name}?sslmode=disable&gssencmode=disable")
    try:
        yield cut
    finally:
        cut.close()


@pytest.mark.parametrize("where", ["before", "behind"])
async def test_a_commit_whose_answer_was_lost_is_not_called_good_and_the_stream_goes_on(
    tmp_path: Path, postgres_server: PostgresServer, where: str
) -> None:
    with wire(postgres_server, tmp_path) as cut:
        async with opened(tmp_path) as store:
            await store.write(put("k1"))
            cut.armed = where
            with pytest.raises(StoreAway):
                await store.write(put("k2"))
            await until_back(store, "k3")
            await store.write(put("k4"))
            found = await keys(store)
            assert found >= {"k1", "k3", "k4"}
            assert await store.read(lambda c: counted(c)["recipients.queued"]) == len(found)
            assert set((await stream_faults(store)).values()) == {""}
            if where == "before":
                assert "k2" not in found


# -- what it must be like ---------------------------------------------------------------------------------------------


def test_a_server_without_fsync_is_refused(tmp_path: Path) -> None:
    with PostgresServer({"fsync": "off"}) as server:
        use_database(tmp_path, server.url(server.create_database()))
        with pytest.raises(StoreError, match="fsync = off"):
            Store.open(settings(tmp_path), FakeClock(), environ={})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (("on", "on", "UTF8", 150000, False), ""),
        (("on", "remote_apply", "UTF8", 150000, False), ""),
        (("off", "on", "UTF8", 150000, False), "fsync"),
        (("on", "off", "UTF8", 150000, False), "synchronous_commit"),
        (("on", "on", "SQL_ASCII", 150000, False), "encoding"),
        (("on", "on", "UTF8", 120005, False), "too old"),
        (("on", "on", "UTF8", 150000, True), "standby"),
    ],
)
def test_what_a_server_must_be_like(tmp_path: Path, found: tuple[object, ...], words: str) -> None:
    assert words in unfit(found)
    assert bool(unfit(found)) is bool(words)


@pytest.mark.parametrize("default", ["off", "local", "on", "remote_apply"])
async def test_whatever_the_default_is_commits_wait_for_the_disk(
    tmp_path: Path, postgres_server: PostgresServer, default: str
) -> None:
    name = database_of(tmp_path).reveal().partition("///")[2].partition("?")[0]
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = {default}")
    async with opened(tmp_path) as store:
        found = await store.write(lambda tx: settings_of(tx.connection))
        assert found[1] == ("remote_apply" if default == "remote_apply" else "on")

        def limits(transaction: Transaction) -> list[str]:
            names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
            return [str(transaction.connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in names]

        assert await store.write(limits) == ["30s", "10s", "30s"]


# -- several gateways -------------------------------------------------------------------------------------------------


def share_bodies(shared: Path, data_dir: Path) -> None:
    """Let the body files of this host lie on a file system that others see too."""
    shared.mkdir(exist_ok=True)
    data_dir.mkdir()
    (data_dir / "blobs").symlink_to(shared)


async def test_a_gateway_with_body_files_of_its_own_does_not_join(tmp_path: Path) -> None:
    """It would take the bodies that others wrote for lost."""
    clock = FakeClock()
    async with opened(tmp_path / "one", clock, "${KEK}", environ={"KEK": KEY}) as store:
        with pytest.raises(StoreError, match="need one place"):
            Store.open(settings(tmp_path / "two", "${KEK}"), clock, environ={"KEK": KEY})
        body = await keep(store, b"x" * 200_000)
    with pytest.raises(StoreError, match="need one place"):
        Store.open(settings(tmp_path / "two", "${KEK}"), clock, environ={"KEK": KEY})
    async with opened(tmp_path / "one", clock, "${KEK}", environ={"KEK": KEY}) as store:
        await store.write(lambda tx: store.delete_body(tx, body.message))
    async with opened(tmp_path / "two", clock, "${KEK}", environ={"KEK": KEY}):
        pass  # nobody is there, and nothing: it may be another place from now on


async def test_gateways_that_start_at_once_agree_about_tables_and_keys(tmp_path: Path) -> None:
    places = [tmp_path / f"host{n}" for n in range(4)]
    for place in places:
        share_bodies(tmp_path / "shared", place)

    def start(place: Path) -> Store:
        return Store.open(settings(place, "${KEK}"), FakeClock(), environ={"KEK": KEY})

    stores = await asyncio.gather(*(asyncio.to_thread(start, place) for place in places))
    assert len({store.loop_secret for store in stores}) == 1
    assert await count(stores[0], ring_keys) == 1
    loose = select(streams.c.id).where(streams.c.linked_by.is_(None))
    assert len(await stores[0].read(lambda c: c.execute(loose).all())) == 1
    body = await keep(stores[0], b"for all")
    assert [await read_body(store, body.message) for store in stores] == [b"for all"] * 4
    for store in stores:
        await store.close()


async def test_a_quarters_ring_key_is_made_once(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as first, opened(tmp_path, clock) as second:
        await clock.advance(100 * 86400.0)
        made = await asyncio.gather(first.renew_ring_key(), second.renew_ring_key())
        assert sorted(made) == [False, True]
        assert first.ring.current == second.ring.current == 2


async def test_who_waits_for_each_other_is_told_to_come_again(tmp_path: Path) -> None:
    """A deadlock is neither a failed store nor a lost server: the batch is undone, and nothing else happened."""
    both = threading.Barrier(2, timeout=10)

    def move(first: str, second: str) -> Callable[[Transaction], None]:
        def job(transaction: Transaction) -> None:
            change = update(meta).values(value=b"y")
            transaction.connection.execute(change.where(meta.c.key == first))
            both.wait()
            transaction.connection.execute(change.where(meta.c.key == second))

        return job

    async with opened(tmp_path) as one, opened(tmp_path) as two:
        await one.write(put("k1"))
        await one.write(put("k2"))
        jobs = (one.write(move("k1", "k2")), two.write(move("k2", "k1")))
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(result) for result in results if result is not None] == [StoreBusy]
        assert (one.writer.failed, two.writer.failed) == ("", "")
        await asyncio.gather(one.write(put("k3")), two.write(put("k4")))
        assert set((await stream_faults(one)).values()) == {""}


async def test_each_gateway_counts_for_itself_and_for_those_that_are_gone(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as stays:
        async with opened(tmp_path, clock) as goes:
            await asyncio.gather(
                *(store.write(put(f"k{n}{i}")) for n in range(9) for i, store in enumerate((stays, goes)))
            )
            gone = goes.writer.stream
            assert await stays.read(lambda c: counted(c)["recipients.queued"]) == 18
            await stays.adopt_counters()
            assert gone in await writers(stays)
        await stays.adopt_counters()
        assert await writers(stays) == {"", stays.writer.stream}
        assert await stays.read(lambda c: counted(c)["recipients.queued"]) == 18


async def test_a_gateway_that_was_given_up_too_early_goes_on_counting(tmp_path: Path) -> None:
    async with opened(tmp_path) as stays, opened(tmp_path) as slow:
        await slow.write(put("k1"))
        old = update(incarnations).where(incarnations.c.id == slow.incarnation.id).values(heartbeat=0.0)
        await stays.write(lambda tx: tx.connection.execute(old) and None)
        await stays.adopt_counters()
        await slow.write(put("k2"))
        assert await writers(stays) == {"", stays.writer.stream, slow.writer.stream}
        assert await stays.read(lambda c: counted(c)["recipients.queued"]) == 2


async def writers(store: Store) -> set[str]:
    return await store.read(lambda c: set(c.scalars(select(counters.c.writer))))


# -- values and words -------------------------------------------------------------------------------------------------


async def test_a_value_that_a_text_cannot_hold_is_the_fault_of_its_job_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        bad = (put("k\0"), put("k" * 65))
        results = await asyncio.gather(
            *(store.write(job) for job in (put("k1"), *bad, put("k2"))), return_exceptions=True
        )
        assert [isinstance(result, StoreError) for result in results] == [False, True, True, False]
        assert await keys(store) == {"k1", "k2"}
        assert store.writer.away == ""


def test_a_wrong_password_or_address_is_told_without_the_password(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    url = f"postgresql://gateway:hush-hush@127.0.0.1:{postgres_server.port}/nowhere"
    engine = open_engine(url, tmp_path, writes=True)
    with pytest.raises(StoreAway, match="nowhere") as told:
        engine.connect()
    assert "hush-hush" not in str(told.value) + repr(engine) + repr(DatabaseUrl.parse(url)) + str(
        DatabaseUrl.parse(url)
    )
    engine.dispose()
