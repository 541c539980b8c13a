"""A backup is the store as of one moment, made while others write; what is shredded meanwhile is shredded in time."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.chain import happenings
from gateway.clock import SystemClock
from gateway.config.model import Settings
from gateway.errors import KeyMissing, StoreBusy, StoreCorrupt, StoreError, StoreFull
from gateway.store.backup import Plan, make_backup
from gateway.store.backup_lock import backing_up, is_backing_up
from gateway.store.hotcopy import HotCopy, Pace, require_whole
from gateway.store.keyring import Kek
from gateway.store.manifest import Manifest, read_manifest
from gateway.store.shred import Shredder
from gateway.store.store import Store
from gateway.testing import FakeClock, poll
from tests.peers.gateway_process import wait_for
from tests.store.page_writer import ROWS, make_table
from tests.store.store_world import KEY, body_files, keep, kill, opened, read_body, settings

pytestmark = [pytest.mark.sqlite]

_ROOT = Path(__file__).parents[2]

# -- copying pages ----------------------------------------------------------------------------------------------------


@contextmanager
def writers(data_dir: Path, *, in_turn: bool) -> Iterator[None]:
    """Two other processes that write all the time."""
    how = "turn" if in_turn else "free"
    command = [sys.executable, "-m", "tests.store.page_writer", str(data_dir)]
    started = [subprocess.Popen([*command, str(n), how], stdin=subprocess.PIPE, cwd=_ROOT) for n in range(2)]
    try:
        wait_for("the writers have begun", lambda: newest(data_dir) > 50)
        yield
    finally:
        for process in started:
            process.communicate(timeout=30)


def copied(data_dir: Path, name: str, rate: int | None = None) -> tuple[int, int]:
    """Copy once; the newest entry of the log in the copy, and how many looks it took. The invariants are checked."""
    target = data_dir / name
    copy = HotCopy(data_dir, target, Pace(rate, threading.Event()), SystemClock())
    assert copy.run().size == target.stat().st_size
    require_whole(target)
    with closing(sqlite3.connect(f"file:{target}?immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT sum(v), count(*) FROM t").fetchone() == (0, ROWS)
        number, first, last = connection.execute("SELECT count(*), min(n), max(n) FROM log").fetchone()
        assert number == 0 or number == last - first + 1
    return last or 0, copy._looks


def newest(data_dir: Path) -> int:
    with closing(sqlite3.connect(data_dir / "queue.db", timeout=30)) as connection:
        return int(connection.execute("SELECT coalesce(max(n), 0) FROM log").fetchone()[0])


@pytest.mark.parametrize("in_turn", [True, False], ids=["in turn", "out of turn"])
def test_a_copy_among_writers_of_other_processes_is_one_moment(tmp_path: Path, *, in_turn: bool) -> None:
    """Out of turn: nothing in our programs writes so, but what does must not spoil a copy."""
    make_table(tmp_path)
    with writers(tmp_path, in_turn=in_turn):
        for number in range(3):
            before = newest(tmp_path)
            last, _ = copied(tmp_path, f"copy{number}")
            assert before <= last <= newest(tmp_path)


def test_a_slow_copy_sees_many_changes_and_is_still_one_moment(tmp_path: Path) -> None:
    make_table(tmp_path)
    with writers(tmp_path, in_turn=True):
        before = newest(tmp_path)
        last, looks = copied(tmp_path, "copy", rate=4_000_000)
        assert last > before
        assert looks > 3


def test_a_quiet_copy_is_the_database_to_the_byte(tmp_path: Path) -> None:
    make_table(tmp_path)
    copied(tmp_path, "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "queue.db").read_bytes()


def test_a_copy_that_is_stopped_ends_at_once(tmp_path: Path) -> None:
    make_table(tmp_path)
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoreError, match="stopped"):
        HotCopy(tmp_path, tmp_path / "copy", Pace(1, stop), SystemClock()).run()


def test_a_copy_with_a_byte_changed_is_noticed(tmp_path: Path) -> None:
    make_table(tmp_path)
    copied(tmp_path, "copy")
    with (tmp_path / "copy").open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 64)
    with pytest.raises(StoreCorrupt, match="not whole"):
        require_whole(tmp_path / "copy")


# -- the whole backup -------------------------------------------------------------------------------------------------


def sealed_with_key(data_dir: Path) -> Settings:
    data_dir.mkdir(exist_ok=True)
    (data_dir / "kek.key").write_text(KEY)
    return settings(data_dir)


async def backed_up(given: Settings, directory: Path, **wanted: Any) -> Manifest:
    return await make_backup(given, Plan(directory, "ops", **wanted), SystemClock(), {})


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


async def test_a_backup_holds_database_and_bodies_and_proves_itself(tmp_path: Path) -> None:
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir) as store:
        small, large = await keep(store, b"s" * 900), await keep(store, b"l" * 300_000)
        manifest = await backed_up(given, tmp_path / "backup")
        assert names(tmp_path / "backup") == {
            "manifest.json",
            "queue.db",
            "bodies.jsonl",
            f"blobs/{large.message[-2:]}/{large.message}",
        }
        assert (manifest.bodies["count"], manifest.counts["messages"], manifest.has_keys) == (1, 2, False)
        assert [(tmp_path / "backup").stat().st_mode & 0o777] == [0o700]
        assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "backup").rglob("*"))
        assert read_manifest(tmp_path / "backup", [Kek(bytes.fromhex(KEY))]) == manifest
        assert small.inline is not None
        assert small.inline in (tmp_path / "backup/queue.db").read_bytes()
        assert bytes.fromhex(KEY) not in b"".join(
            (tmp_path / "backup" / name).read_bytes() for name in names(tmp_path / "backup")
        )
        events = await told(store, "backup_begun", "backup_made")
        assert [event["backup"] for event in events] == [manifest.id, manifest.id]
        assert [event["by"] for event in events] == ["ops", "ops"]


async def told(store: Store, *kinds: str) -> list[dict[str, Any]]:
    def load(connection: Any) -> list[str]:
        return [row.data for row in connection.exec_driver_sql("SELECT data FROM events ORDER BY time, stream, seq")]

    records = await store.read(load)
    return [event.data for data in records for event in happenings(data) if event.kind in kinds]


async def test_a_changed_manifest_and_a_foreign_key_are_refused(tmp_path: Path) -> None:
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir):
        await backed_up(given, tmp_path / "backup")
    path = tmp_path / "backup/manifest.json"
    with pytest.raises(KeyMissing, match="does not give"):
        read_manifest(tmp_path / "backup", [Kek(b"x" * 32)])
    data = json.loads(path.read_text())
    data["manifest"]["counts"]["messages"] = 7
    path.write_text(json.dumps(data))
    with pytest.raises(StoreCorrupt, match="was changed"):
        read_manifest(tmp_path / "backup", [Kek(bytes.fromhex(KEY))])
    path.write_text("{}")
    with pytest.raises(StoreCorrupt, match="no manifest"):
        read_manifest(tmp_path / "backup", [Kek(bytes.fromhex(KEY))])


async def test_what_ends_while_the_backup_is_made_is_still_in_it(tmp_path: Path) -> None:
    """Its row went behind the moment of the backup; the body waits aside until the backup has it."""
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir) as store:
        bodies = [await keep(store, os.urandom(200_000)) for _ in range(4)]
        with backing_up(store.run_dir):
            for body in bodies:
                await store.write(lambda tx, body=body: store.delete_body(tx, body.message))  # type: ignore[misc]  # bound at once
            await poll(
                lambda: {path.parent.name for path in body_files(given.data_dir)} == {"aside"}, what="putting aside"
            )
            reader = store.files.open(bodies[0].message, 0)
            assert reader.read()[:8] == b"SEGWBDY1"
            reader.close()
            store.files.remove_aside()
            assert len(body_files(given.data_dir)) == 4
        store.files.remove_aside()
        assert body_files(given.data_dir) == []


async def test_a_body_that_ends_between_database_and_files_is_in_the_backup(tmp_path: Path) -> None:
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir) as store:
        body = await keep(store, os.urandom(3_000_000))
        making = asyncio.create_task(backed_up(given, tmp_path / "backup", rate=1_500_000))
        await poll((tmp_path / "backup.partial/blobs").exists, 20, what="the bodies' turn")
        await store.write(lambda tx: store.delete_body(tx, body.message))
        manifest = await making
        assert manifest.bodies["count"] == 1
        assert manifest.missing == []
        copy = tmp_path / "backup/blobs" / body.message[-2:] / body.message
        assert copy.stat().st_size > 3_000_000
        assert body_files(given.data_dir) == []


async def test_a_body_that_was_gone_before_is_named(tmp_path: Path) -> None:
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir) as store:
        body = await keep(store, os.urandom(200_000))
        body_files(given.data_dir)[0].unlink()
        manifest = await backed_up(given, tmp_path / "backup")
        assert manifest.missing == [body.message]
        assert manifest.bodies["count"] == 0


async def test_shredding_goes_on_while_a_backup_is_made(tmp_path: Path) -> None:
    """The backup does it for the gateway, whose own look finds nothing left to do, and no alarm rings."""
    given = sealed_with_key(tmp_path / "data")
    clock = FakeClock()
    async with opened(given.data_dir, clock) as store:
        shredder = Shredder(store)
        for _ in range(12):
            await keep(store, os.urandom(100_000))
        body = await keep(store, b"g" * 9000)
        key = await store.read(
            lambda c: c.exec_driver_sql("SELECT data_key FROM messages WHERE id = ?", (body.message,)).scalar_one()
        )
        making = asyncio.create_task(backed_up(given, tmp_path / "backup", rate=400_000))
        await poll(lambda: is_backing_up(store.run_dir), 10, what="the backup's beginning")
        await store.write(lambda tx: store.delete_body(tx, body.message))
        assert not await shredder.step()  # not ours to do now
        await poll_shredded(store, 1)
        assert not making.done()
        assert key not in b"".join(path.read_bytes() for path in given.data_dir.glob("queue.db*"))
        await clock.advance(3600)
        assert await shredder.step()
        assert not shredder.overdue
        await making


async def poll_shredded(store: Store, number: int) -> None:
    async def enough() -> bool:
        done = [int(event["deletions"]) for event in await told(store, "shredded")]
        return sum(done) >= number

    await poll(enough, 30, interval=0.05, what="the event")


def test_a_key_that_was_deleted_before_the_moment_is_not_in_the_backup(tmp_path: Path) -> None:
    """Pages that were copied early hold it; each of them was written since, and so copied again."""

    async def run() -> None:
        given = sealed_with_key(tmp_path / "data")
        async with opened(given.data_dir) as store:
            bodies = [await keep(store, b"x" * 3000) for _ in range(40)]
            keys = await store.read(lambda c: list(c.exec_driver_sql("SELECT data_key FROM messages").scalars()))
            for body in bodies:
                await store.write(lambda tx, body=body: store.delete_body(tx, body.message))  # type: ignore[misc]  # bound at once
            await backed_up(given, tmp_path / "backup")
            data = (tmp_path / "backup/queue.db").read_bytes()
            assert [key for key in keys if key in data] == []
            assert all(body.inline is not None and body.inline[16:80] not in data for body in bodies)

    asyncio.run(run())


async def test_a_backup_is_a_new_directory_and_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir) as store:
        await keep(store, os.urandom(400_000))
        (tmp_path / "full").mkdir()
        (tmp_path / "full/file").write_text("mine")
        with pytest.raises(StoreError, match="there already"):
            await backed_up(given, tmp_path / "full")
        with pytest.raises(StoreError, match="make it"):
            await backed_up(given, tmp_path / "no/where")
        (tmp_path / "empty").mkdir(mode=0o755)
        await backed_up(given, tmp_path / "empty")
        making = asyncio.create_task(backed_up(given, tmp_path / "late", rate=200_000))
        await poll((tmp_path / "late.partial/queue.db").exists, 10, what="its beginning")
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert not (tmp_path / "late").exists()
        assert not (tmp_path / "late.partial").exists()
        (tmp_path / "again.partial").mkdir()  # of one that was killed
        (tmp_path / "again.partial/queue.db").write_text("half")
        await backed_up(given, tmp_path / "again")
        assert not (tmp_path / "again.partial").exists()


async def test_keys_go_only_where_nobody_else_reads(tmp_path: Path) -> None:
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir):
        (tmp_path / "open").mkdir(mode=0o755)
        with pytest.raises(StoreError, match="0700"):
            await backed_up(given, tmp_path / "open", with_keys=True)
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(0o777)
        with pytest.raises(StoreError, match="written by others"):
            await backed_up(given, tmp_path / "shared/backup", with_keys=True)
        (tmp_path / "mine").mkdir(mode=0o700)
        manifest = await backed_up(given, tmp_path / "mine", with_keys=True)
        assert manifest.has_keys
        assert (tmp_path / f"mine/keys/{manifest.keks[0]}.key").read_text().strip() == KEY


async def test_one_backup_at_a_time(tmp_path: Path) -> None:
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir) as store:
        with backing_up(store.run_dir), pytest.raises(StoreBusy, match="another backup"):
            await backed_up(given, tmp_path / "second")
        assert not is_backing_up(store.run_dir)


async def test_no_room_is_said_before_the_gateway_runs_out_of_it(tmp_path: Path) -> None:
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir):
        free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
        tight = given.model_copy(update={"limits": given.limits.model_copy(update={"free_space": 2 * free})})
        with pytest.raises(StoreFull, match="free_space"):
            await backed_up(tight, tmp_path / "backup")
    assert not (tmp_path / "backup.partial").exists()


async def test_a_backup_that_stands_still_leaves_the_log_to_be_truncated(tmp_path: Path) -> None:
    """A target that hangs (a network that is away) must not stop the gateway: looks go on by themselves."""
    given = sealed_with_key(tmp_path / "data")
    async with opened(given.data_dir) as store:
        for _ in range(10):
            await keep(store, os.urandom(100_000))
        making = asyncio.create_task(backed_up(given, tmp_path / "backup", rate=1))
        await poll(lambda: is_backing_up(store.run_dir), 10, what="the backup's beginning")
        log = given.data_dir / "queue.db-wal"
        for _ in range(120):
            await keep(store, os.urandom(100_000))
            assert log.stat().st_size < 16_000_000
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making


async def test_what_a_killed_backup_leaves_behind_ends_with_the_next(tmp_path: Path) -> None:
    given = sealed_with_key(tmp_path / "data")
    store = Store.open(given, FakeClock(), environ={})
    body = await keep(store, os.urandom(200_000))
    with backing_up(store.run_dir):
        await store.write(lambda tx: store.delete_body(tx, body.message))
        await poll(lambda: [path.parent.name for path in body_files(given.data_dir)] == ["aside"], what="putting aside")
    kill(store)
    async with opened(given.data_dir) as after:
        await after.sweep_orphans()
        assert body_files(given.data_dir) == []
        kept = await keep(after, b"z" * 200_000)
        assert await read_body(after, kept.message) == b"z" * 200_000
