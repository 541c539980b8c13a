"""Bodies: in the row or in a file, whole or corrupt, and nothing left behind of what was given up."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, update

from gateway.errors import StoreCorrupt, StoreError, StoreFailed, StoreFull
from gateway.store.blobs import BlobFiles
from gateway.store.bodies import INLINE_LIMIT, MEMORY_LIMIT, ORPHAN_AGE
from gateway.store.database import translated
from gateway.store.schema import bodies, messages
from gateway.testing import FakeClock
from tests.store.store_world import body_files, files_of, keep, new_id, opened, read_body, spooled


@pytest.mark.parametrize("size", [0, 1, INLINE_LIMIT - 1, INLINE_LIMIT, INLINE_LIMIT + 1, 65536, 700_000])
async def test_every_size_comes_back_from_its_place(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    async with opened(tmp_path) as store:
        body = await keep(store, data)
        assert (body.size, body.digest) == (size, hashlib.sha256(data).hexdigest())
        assert (body.blob is None) is (size <= INLINE_LIMIT)
        assert (body.inline is None) is (size > INLINE_LIMIT)
        assert body.plain == (data if size <= MEMORY_LIMIT else None)
        assert await read_body(store, body.message) == data
        assert len(body_files(tmp_path)) == (0 if size <= INLINE_LIMIT else 1)


async def test_a_file_stands_under_its_name_for_us_only_and_no_temporary_one_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, os.urandom(900_000))
        (path,) = body_files(tmp_path)
        assert path == tmp_path / "blobs" / body.message[-2:] / body.message
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_every_directory_is_there_before_the_first_body(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        found = {path.name for path in (tmp_path / "blobs").iterdir() if path.is_dir()}
        assert found == {*(f"{n:02x}" for n in range(256)), "aside"}
        assert len(files_of(store).directories()) == 256


@pytest.mark.parametrize("size", [0, 100, INLINE_LIMIT + 1, 2_000_000])
@pytest.mark.parametrize("finish", [False, True])
async def test_a_body_that_was_given_up_leaves_nothing(tmp_path: Path, size: int, finish: bool) -> None:  # noqa: FBT001  a parameter of the test
    async with opened(tmp_path) as store:
        spool = store.spool(new_id(FakeClock()))
        await spool.write(os.urandom(size))
        if finish:
            await spool.finish()
        await spool.abort()
        await spool.abort()
        assert body_files(tmp_path) == []


async def test_finishing_twice_gives_the_same_body(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        spool = store.spool(new_id(FakeClock()))
        await spool.write(os.urandom(200_000))
        assert await spool.finish() is await spool.finish()


async def test_a_body_that_a_row_names_is_not_removed_by_giving_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        spool = store.spool(new_id(FakeClock()))
        await spool.write(os.urandom(200_000))
        await spool.finish()
        spool.disown()
        await spool.abort()
        assert len(body_files(tmp_path)) == 1


class SlowFiles(BlobFiles):
    """Real files whose writes wait until they may go on; they report where a file was closed under them."""

    def __init__(self, root: Path) -> None:
        self.failures: list[str] = []
        super().__init__(root, self.failures.append)
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.faults: list[OSError] = []

    def write(self, handle: int, data: bytes | bytearray) -> None:
        self.entered.set()
        assert self.go_on.wait(10)
        try:
            os.fstat(handle)
        except OSError as error:
            self.faults.append(error)
        super().write(handle, data)


async def test_a_cancelled_write_ends_before_its_file_is_closed(tmp_path: Path) -> None:
    files = SlowFiles(tmp_path / "blobs")
    files.prepare()
    async with opened(tmp_path / "data") as store:
        spool = store.spool(new_id(FakeClock()))
        spool._files = files
        writing = asyncio.create_task(spool.write(os.urandom(600_000)))
        await asyncio.to_thread(files.entered.wait, 10)
        writing.cancel()
        await asyncio.wait({writing})
        assert writing.cancelled()
        giving_up = asyncio.create_task(spool.abort())
        await asyncio.sleep(0)
        files.go_on.set()
        await giving_up
    assert files.faults == []
    assert body_files(tmp_path) == []


async def test_a_cancelled_commit_leaves_nothing_either(tmp_path: Path) -> None:
    files = SlowFiles(tmp_path / "blobs")
    files.prepare()
    async with opened(tmp_path / "data") as store:
        spool = store.spool(new_id(FakeClock()))
        spool._files = files
        await spool.write(os.urandom(200_000))
        finishing = asyncio.create_task(spool.finish())
        await asyncio.to_thread(files.entered.wait, 10)
        finishing.cancel()
        await asyncio.wait({finishing})
        files.go_on.set()
        await spool.abort()
    assert files.faults == []
    assert body_files(tmp_path) == []


async def test_orphans_go_by_age_only_and_known_files_never(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as store:
        known = await keep(store, os.urandom(150_000))
        old, young = await spooled(store, os.urandom(150_000)), await spooled(store, os.urandom(150_000))
        spool = store.spool(new_id(clock))
        await spool.write(os.urandom(600_000))  # its temporary file stays, as after a crash
        now = clock.time()
        for path in body_files(tmp_path):
            age = 10.0 if path.name == young.message else ORPHAN_AGE + 10
            os.utime(path, (now - age, now - age))
        removed = await store.sweep_orphans()
        assert sorted(removed) == sorted([str(old.blob), f"{spool.message}.tmp"])
        assert {path.name for path in body_files(tmp_path)} == {known.blob, young.blob}
        assert len(await read_body(store, known.message)) == 150_000
        await spool.abort()


async def test_a_row_without_its_file_is_corruption_and_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, os.urandom(200_000))
        files_of(store).path(body.message).unlink()
        with pytest.raises(StoreCorrupt, match="gone"):
            await read_body(store, body.message)
        with pytest.raises(StoreCorrupt, match="not in the store"):
            await read_body(store, new_id(FakeClock()))


@pytest.mark.parametrize("change", ["cut", "bit", "longer", "empty"])
async def test_a_changed_file_is_corruption(tmp_path: Path, change: str) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, os.urandom(200_000))
        path = files_of(store).path(body.message)
        data = bytearray(path.read_bytes())
        if change == "bit":
            data[200_000] ^= 1
        changed = {"cut": data[:-1], "bit": data, "longer": data + b"x", "empty": b""}[change]
        path.write_bytes(bytes(changed))
        with pytest.raises(StoreCorrupt):
            await read_body(store, body.message)


@pytest.mark.parametrize("column", ["size", "digest"])
async def test_another_length_or_digest_than_was_accepted_is_corruption(tmp_path: Path, column: str) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, b"hello", **({"size": 4} if column == "size" else {"digest": "0" * 64}))
        with pytest.raises(StoreCorrupt, match="another length or digest"):
            await read_body(store, body.message)


async def test_who_stops_reading_early_leaves_no_file_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, os.urandom(3_000_000))
        pieces = store.body(body.message)
        await anext(pieces)
        name = str(files_of(store).path(body.message))
        assert name in open_files()
        await pieces.aclose()
        assert name not in open_files()


def open_files() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return found


async def test_shredding_takes_key_row_and_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, os.urandom(200_000))
        await store.write(lambda tx: store.delete_body(tx, body.message))
        await store.write(lambda tx: store.delete_body(tx, body.message))  # again: nothing to do
        assert body_files(tmp_path) == []
        row = await store.read(lambda c: c.execute(select(messages.c.ring_key, messages.c.data_key)).one())
        assert tuple(row) == (None, None)
        assert await store.read(lambda c: c.execute(select(bodies)).all()) == []
        with pytest.raises(StoreCorrupt):
            await read_body(store, body.message)


async def test_a_shredding_that_was_undone_keeps_the_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, b"x" * 200_000)

        def job(transaction: object) -> None:
            store.delete_body(transaction, body.message)  # type: ignore[arg-type]  # what a job gets
            raise ValueError("changed my mind")

        with pytest.raises(ValueError, match="mind"):
            await store.write(job)
        assert await read_body(store, body.message) == b"x" * 200_000


async def test_a_live_row_without_its_key_is_corruption(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, b"x")
        await store.write(lambda tx: tx.connection.execute(update(messages).values(data_key=None)))
        with pytest.raises(StoreCorrupt):
            await read_body(store, body.message)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EFBIG, StoreFull),
        (errno.EIO, StoreFailed),
        (errno.EROFS, StoreFailed),
        (errno.EMFILE, StoreError),
    ],
)
def test_what_the_system_says_has_a_meaning(code: int, kind: type[StoreError]) -> None:
    assert type(translated(OSError(code, os.strerror(code)))) is kind


async def test_a_body_whose_directory_is_gone_is_an_error_of_ours_and_heals(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        spool = store.spool(new_id(FakeClock()))
        directory = files_of(store).path(spool.message).parent
        directory.rmdir()
        await spool.write(b"x" * 200_000)
        with pytest.raises(StoreError):
            await spool.finish()
        await spool.abort()
        directory.mkdir()
        assert store.writer.failed == ""
        await spooled(store, b"x" * 200_000, spool.message)
