"""A range of a body is the slice of it, wherever the body lies; nothing is given out that was not authenticated."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from gateway.errors import StoreCorrupt
from gateway.store.bodies import INLINE_LIMIT
from gateway.store.sealing import CHUNK, Opener, RangeOpener, Sealer, chunk_offset
from gateway.store.store import Store
from tests.store.store_world import files_of, keep, opened

KEY = bytes(range(32))
ID = "019b76da-a800-7000-8000-000000000000"


async def ranged(store: Store, message: str, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in store.body_range(message, start, end)])


def ranges(size: int) -> list[tuple[int, int]]:
    chance = Random(size)
    edges = {
        0,
        1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        2 * CHUNK,
        size - 1,
        size,
        *(chance.randrange(size + 1) for _ in range(6)),
    }
    inside = sorted(edge for edge in edges if 0 <= edge <= size)
    return [(start, end) for start in inside for end in inside if start <= end]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, INLINE_LIMIT, INLINE_LIMIT + 1, 1_300_000])
async def test_any_range_equals_the_slice(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    async with opened(tmp_path) as store:
        body = await keep(store, data)
        for start, end in ranges(size):
            assert await ranged(store, body.message, start, end) == data[start:end]
        with pytest.raises(ValueError, match="not in the body"):
            await ranged(store, body.message, 0, size + 1)


async def test_a_range_of_a_changed_or_cut_file_is_corrupt_and_its_other_chunks_are_not(tmp_path: Path) -> None:
    data = os.urandom(400_000)
    async with opened(tmp_path) as store:
        body = await keep(store, data)
        assert body.blob is not None
        path = files_of(store).path(body.blob)
        sealed = bytearray(path.read_bytes())
        sealed[chunk_offset(2) + 7] ^= 1
        path.write_bytes(sealed)
        assert await ranged(store, body.message, 0, 2 * CHUNK) == data[: 2 * CHUNK]
        with pytest.raises(StoreCorrupt):
            await ranged(store, body.message, 2 * CHUNK + 50_000, 2 * CHUNK + 50_001)
        path.write_bytes(bytes(sealed)[:-1])
        with pytest.raises(StoreCorrupt):
            await ranged(store, body.message, 399_999, 400_000)


def test_a_chunk_opens_only_in_its_place_and_the_last_only_as_the_last() -> None:
    data = os.urandom(3 * CHUNK)
    sealer = Sealer(KEY, ID)
    sealed = sealer.update(data) + sealer.finish()
    opener = Opener(KEY, ID)
    assert b"".join(opener.update(sealed)) + opener.finish() == data
    second = sealed[chunk_offset(1) : chunk_offset(2)]
    assert b"".join(RangeOpener(KEY, ID, size=len(data), first=1).update(second)) == data[CHUNK : 2 * CHUNK]
    with pytest.raises(StoreCorrupt):
        list(RangeOpener(KEY, ID, size=len(data), first=0).update(second))
    with pytest.raises(StoreCorrupt):  # a body said to be shorter than it is
        list(RangeOpener(KEY, ID, size=2 * CHUNK, first=1).update(second))
    with pytest.raises(StoreCorrupt):
        list(RangeOpener(KEY, ID.replace("0", "1"), size=len(data), first=1).update(second))
