"""The operator's key is made only while nothing can be lost, and what it protects opens with it alone."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from sqlalchemy import select, update

from gateway.errors import KeyMissing, StoreCorrupt, StoreError
from gateway.store.keyring import RING_KEY_AGE, Kek, KeyRing, parse_key, unwrap, wrap
from gateway.store.schema import messages, ring_keys
from gateway.store.store import RING_KEY_OVERLAP, Store
from gateway.testing import FakeClock
from tests.both_databases import is_sqlite
from tests.store.store_world import KEY, count, every_file, keep, kill, opened, read_body, settings


async def test_the_first_start_makes_a_key_file_that_only_we_can_read(tmp_path: Path) -> None:
    async with opened(tmp_path):
        path = tmp_path / "kek.key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert len(parse_key(path.read_bytes())) == 32
        if is_sqlite(tmp_path):
            assert stat.S_IMODE((tmp_path / "queue.db").stat().st_mode) == 0o600


async def test_the_key_file_is_kept_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, b"kept")
    key = (tmp_path / "kek.key").read_bytes()
    async with opened(tmp_path) as store:
        assert await read_body(store, body.message) == b"kept"
    assert (tmp_path / "kek.key").read_bytes() == key


async def test_a_key_file_that_waits_is_taken_and_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "kek.key").write_text(KEY)
    async with opened(tmp_path):
        assert (tmp_path / "kek.key").read_text() == KEY


@pytest.mark.parametrize("source", ["${GATEWAY_KEK}", "credential:kek"])
async def test_a_key_that_somebody_else_keeps_is_never_made(tmp_path: Path, source: str) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    data_dir = tmp_path / "data"
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    with pytest.raises(KeyMissing, match="never made"):
        Store.open(settings(data_dir, source), FakeClock(), environ=environ)
    assert not list(credentials.iterdir())
    (credentials / "kek").write_bytes(bytes(range(32)))
    async with opened(data_dir, FakeClock(), source, environ={**environ, "GATEWAY_KEK": KEY}):
        assert not list(data_dir.glob("*.key"))


async def test_rows_whose_key_is_gone_refuse_to_start_and_change_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, b"kept")
    key = (tmp_path / "kek.key").read_bytes()
    (tmp_path / "kek.key").unlink()
    before = {path: path.read_bytes() for path in every_file(tmp_path)}
    with pytest.raises(KeyMissing, match="put back the file"):
        Store.open(settings(tmp_path), FakeClock(), environ={})
    assert {path: path.read_bytes() for path in every_file(tmp_path)} == before
    (tmp_path / "kek.key").write_text("22" * 32)
    with pytest.raises(KeyMissing, match="does not give"):
        Store.open(settings(tmp_path), FakeClock(), environ={})
    (tmp_path / "kek.key").write_bytes(key)
    async with opened(tmp_path) as store:
        assert await read_body(store, body.message) == b"kept"


async def test_a_second_key_in_the_list_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(KeyMissing):
        Store.open(settings(tmp_path, "file:one.key", "file:two.key"), FakeClock(), environ={})
    assert not (tmp_path / "two.key").exists()


async def test_a_key_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "kek.key").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        Store.open(settings(tmp_path), FakeClock(), environ={})


async def test_what_an_older_key_wrapped_still_opens_behind_a_new_first_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        body = await keep(store, b"old")
    (tmp_path / "new.key").write_text(KEY)
    async with opened(tmp_path, FakeClock(), "file:new.key", "file:kek.key") as store:
        assert await read_body(store, body.message) == b"old"


@pytest.mark.parametrize(
    "text",
    [
        bytes(range(32)),
        KEY.encode(),
        (KEY + "\n").encode(),
        base64.b64encode(bytes(range(32))) + b"\n",
        KEY.upper().encode(),
    ],
)
def test_a_key_may_be_raw_hex_or_base64(text: bytes) -> None:
    assert len(parse_key(text)) == 32


@pytest.mark.parametrize("text", [b"", b"short", b"zz" * 32, b"11" * 31, b"11" * 33, bytes(33), b"\xff" * 64])
def test_anything_else_is_no_key(text: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        parse_key(text)


def test_a_wrapped_key_opens_for_its_purpose_under_its_key_only() -> None:
    key, secret = os.urandom(32), os.urandom(32)
    wrapped = wrap(key, secret, "data-key/a")
    assert unwrap(key, wrapped, "data-key/a") == secret
    assert wrapped != wrap(key, secret, "data-key/a")
    changed = bytes([*wrapped[:-1], wrapped[-1] ^ 1])
    for attempt in (
        (key, wrapped, "data-key/b"),
        (os.urandom(32), wrapped, "data-key/a"),
        (key, changed, "data-key/a"),
    ):
        with pytest.raises(StoreCorrupt):
            unwrap(*attempt)
    with pytest.raises(StoreCorrupt):
        unwrap(key, b"", "data-key/a")


def test_a_key_is_not_shown() -> None:
    kek = Kek(bytes.fromhex(KEY))
    assert "11" * 8 not in repr(kek)
    with pytest.raises(KeyMissing):
        KeyRing([])


async def test_a_new_ring_key_comes_each_quarter_and_old_bodies_still_open(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as store:
        old = await keep(store, b"old")
        assert not await store.renew_ring_key()
        await clock.advance(RING_KEY_AGE)
        assert await store.renew_ring_key()
        assert store.ring.current == 2
        new = await keep(store, b"new")
        assert await read_body(store, old.message) == b"old"
        assert await read_body(store, new.message) == b"new"
        rings = await store.read(lambda c: set(c.scalars(select(messages.c.ring_key))))
        assert rings == {1, 2}
        secret = store.loop_secret
    async with opened(tmp_path, clock) as store:
        assert store.ring.current == 2
        assert store.loop_secret == secret
        assert await read_body(store, old.message) == b"old"


async def test_a_ring_key_goes_when_it_wraps_nothing_any_more(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as store:
        body = await keep(store, b"old")
        await clock.advance(RING_KEY_AGE)
        await store.renew_ring_key()
        assert await store.drop_unused_ring_keys() == 0
        await store.write(lambda tx: store.delete_body(tx, body.message))
        assert await store.drop_unused_ring_keys() == 0  # another process may not know the new one yet
        await clock.advance(RING_KEY_OVERLAP)
        assert await store.drop_unused_ring_keys() == 1
        assert await store.read(lambda c: list(c.scalars(select(ring_keys.c.id)))) == [2]
        secret = store.loop_secret
    async with opened(tmp_path, clock) as store:
        assert store.loop_secret == secret


async def test_a_ring_key_that_another_process_made_is_fetched_when_it_is_met(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as first, opened(tmp_path, clock) as second:
        await clock.advance(RING_KEY_AGE)
        assert await second.renew_ring_key()
        body = await keep(second, b"by the other")
        assert await read_body(first, body.message) == b"by the other"
        assert first.ring.current == second.ring.current


async def test_of_two_processes_one_makes_the_ring_key_of_the_quarter(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as first, opened(tmp_path, clock) as second:
        await clock.advance(RING_KEY_AGE)
        assert await second.renew_ring_key()
        assert not await first.renew_ring_key()
        assert first.ring.current == second.ring.current == 2


async def test_a_body_cannot_be_read_under_the_name_of_another(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        one, two = await keep(store, b"one"), await keep(store, b"two")

        def swap(transaction: object) -> None:
            key = update(messages).where(messages.c.id == two.message)
            transaction.connection.execute(key.values(**store.wrapped_key(one)))  # type: ignore[attr-defined]

        await store.write(swap)
        with pytest.raises(StoreCorrupt):
            await read_body(store, two.message)


async def test_nothing_of_a_body_or_a_key_is_on_the_disk_in_clear(tmp_path: Path) -> None:
    marks = [b"a small secret body, inline", b"a large secret body " * 5000]
    store = Store.open(settings(tmp_path), FakeClock(), environ={})
    bodies = [await keep(store, mark) for mark in marks]
    kill(store)
    disk = b"".join(path.read_bytes() for path in every_file(tmp_path))
    for body, mark in zip(bodies, marks, strict=True):
        assert mark[:20] not in disk
        assert body.key not in disk


async def test_two_processes_that_start_at_once_make_one_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        assert await count(first, ring_keys) == 1
        body = await keep(first, b"x")
        assert await read_body(second, body.message) == b"x"
        assert first.loop_secret == second.loop_secret


async def test_a_data_directory_deep_down_is_made_for_us_only(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b?c=%20#d"
    async with opened(deep) as store:
        body = await keep(store, b"x")
        assert await read_body(store, body.message) == b"x"
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    assert (deep / "queue.db").exists() is is_sqlite(tmp_path)


async def test_a_new_first_key_wraps_nothing_before_a_rotation(tmp_path: Path) -> None:
    clock = FakeClock()
    (tmp_path / "new.key").write_text("33" * 32)
    async with opened(tmp_path, clock) as store:
        body = await keep(store, b"kept")
    old, new = (Kek(parse_key((tmp_path / name).read_bytes())).id for name in ("kek.key", "new.key"))
    both = ("file:new.key", "file:kek.key")

    async def wrapping(store: Store) -> list[str]:
        return await store.read(lambda c: list(c.scalars(select(ring_keys.c.kek).order_by(ring_keys.c.id))))

    async with opened(tmp_path, clock, *both) as store:
        await clock.advance(RING_KEY_AGE)
        assert await store.renew_ring_key()
        assert await wrapping(store) == [old, old]
        done = await store.rotate_key("ops")
        assert (done.to, done.before, done.ring_keys) == (new, (old,), (1, 2))
        assert await wrapping(store) == [new, new]
        assert (await store.rotate_key("ops")).ring_keys == ()
    async with opened(tmp_path, clock, "file:new.key") as store:
        assert await read_body(store, body.message) == b"kept"


async def test_who_has_not_heard_of_a_rotation_wraps_nothing_under_the_old_key(tmp_path: Path) -> None:
    clock = FakeClock()
    (tmp_path / "new.key").write_text("33" * 32)
    async with opened(tmp_path, clock) as stale:
        async with opened(tmp_path, clock, "file:new.key", "file:kek.key") as other:
            await other.rotate_key("ops")
        body = await keep(stale, b"goes on")
        assert await read_body(stale, body.message) == b"goes on"
        await clock.advance(RING_KEY_AGE)
        with pytest.raises(KeyMissing):
            await stale.renew_ring_key()
        with pytest.raises(KeyMissing):
            stale.other_keks(settings(tmp_path, "file:kek.key"), settings(tmp_path, "file:other.key"))
        keks = stale.other_keks(settings(tmp_path), settings(tmp_path, "file:new.key"))
        stale.use_keks(keks)
        assert await stale.renew_ring_key()
