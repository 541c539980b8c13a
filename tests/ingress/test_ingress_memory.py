"""What messages on their way in hold together is bounded, whoever sends what, and all of it comes back."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.shares import Share
from gateway.errors import Refusal
from gateway.ingress.data import DataScanner
from gateway.ingress.memory import LEAST, MOST, Hold, MemoryBudget, need
from gateway.ingress.reader import CHUNK
from gateway.testing import FakeClock, poll
from tests.ingress.ingress_harness import HEADER, Running, Talker, running, settings_of
from tests.store.store_world import new_id, opened

BODY = HEADER + b"\r\nhello\r\n"
LARGE = HEADER + b"\r\n" + (b"y" * 76 + b"\r\n") * 5000  # 390 KB: holds all that a message can


@given(
    st.integers(1, 5),
    st.integers(1_000_000, 20_000_000),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10**9)), max_size=60),
)
def test_the_sum_is_bounded_and_comes_back(processes: int, limit: int, steps: list[tuple[int, int]]) -> None:
    budget = MemoryBudget(Share(1, processes))
    holds: dict[int, Hold] = {}
    for which, size in steps:
        try:
            if which not in holds:
                holds[which] = budget.hold(size, limit)
            elif size % 3:
                holds[which].cover(size)
            else:
                holds.pop(which).release()
        except Refusal:
            assert holds
        assert LEAST * len(holds) <= budget.held <= max(-(-limit // processes), MOST)
    for hold in holds.values():
        hold.release()
        hold.release()
    assert budget.held == 0


def test_what_a_message_needs_grows_with_it_up_to_a_bound() -> None:
    assert [need(size) for size in (0, 4096, 100_000, 10**6, 10**9)] == [
        LEAST,
        LEAST + 20_480,
        LEAST + 500_000,
        MOST,
        MOST,
    ]


@pytest.mark.parametrize("size", [40_000, 250_000, 8_000_000])
async def test_a_message_holds_no_more_than_is_counted(tmp_path: Path, size: int) -> None:
    lines = (b"y" * 126 + b"\r\n") * (CHUNK // 128)
    async with opened(tmp_path) as store:
        first = store.spool(new_id(FakeClock()))  # what is made once is there already
        await first.write(lines * 8)
        await first.finish()
        tracemalloc.start()
        scanner, spool = DataScanner(), store.spool(new_id(FakeClock()))
        left = size
        while left > 0:
            await spool.write(scanner.feed(lines[: min(left, CHUNK)]))
            left -= CHUNK
        await spool.finish()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await spool.abort()
        # What arrives and waits to be read stands beside it, a chunk at most; what the process does beside, does not.
        assert peak + min(size, CHUNK) <= need(size) + 32 * 1024


def small(folder: Path, **changes: Any) -> Any:
    return settings_of(folder, limits={"memory": 2 * MOST}, **changes)


async def began(run: Running, size: int = 0) -> Talker:
    """A client within DATA."""
    client = await run.client()
    await client.hello()
    await client.expect(f"MAIL FROM:<ann@clinic.example>{f' SIZE={size}' if size else ''}", 250)
    await client.expect("RCPT TO:<bob@b.example>", 250)
    await client.expect("DATA", 354)
    return client


@pytest.mark.parametrize("end", ["accepted", "refused", "void", "left"])
async def test_a_message_that_finds_no_room_is_refused_before_it_comes(tmp_path: Path, end: str) -> None:
    async with running(small(tmp_path)) as run:
        first = [await began(run, 10_000_000) for _ in range(2)]
        late = await run.client()
        await late.hello()
        await late.envelope()
        assert "4.3.1" in await late.expect("DATA", 452)
        late.send(b"BDAT %d\r\n%sBDAT 0 LAST\r\n" % (len(BODY), BODY))
        assert [(await late.reply())[0] for _ in range(2)] == [452, 452]
        assert run.metrics.reasons == ["memory"] * 3
        match end:
            case "accepted":
                first[0].send(BODY + b".\r\n")
                assert (await first[0].reply())[0] == 250
            case "refused":
                first[0].send(b"From: eve@evil.example\r\n\r\n.\r\n")
                assert (await first[0].reply())[0] == 550
            case "void":
                first[0].send(BODY + b"\n")  # void already; its end is still to come
            case "left":
                await first[0].close()
        await poll(lambda: run.server.services.memory.held == MOST)
        await late.envelope()
        assert (await late.data(BODY))[0] == 250
        for client in (*first, late):
            await client.close()
        await poll(lambda: run.server.services.memory.held == 0)


async def test_who_does_not_say_how_much_comes_is_refused_when_it_is_too_much(tmp_path: Path) -> None:
    async with running(small(tmp_path)) as run:
        first = [await began(run, 10_000_000), await began(run, 250_000)]
        late = await began(run)
        late.send(LARGE + b".\r\n")
        assert await late.reply() == (452, "4.3.1 Too many messages at a time, please try again later")
        assert all(spool.aborted for spool in run.intake.spools)
        await late.expect("NOOP", 250)
        await late.envelope()  # a small one has room
        assert (await late.data(BODY))[0] == 250
        await late.envelope()
        late.send(b"".join(b"BDAT 100000\r\n%s" % (LARGE[at : at + 100_000]) for at in (0, 100_000, 200_000)))
        late.send(b"BDAT %d LAST\r\n%s" % (len(LARGE) - 300_000, LARGE[300_000:]))
        codes = [(await late.reply())[0] for _ in range(4)]
        assert codes == sorted(codes)
        assert codes[-1] == 452
        await late.expect("NOOP", 250)
        for client in first:
            client.send(BODY + b".\r\n")
            assert (await client.reply())[0] == 250
        await late.envelope()
        assert (await late.data(LARGE))[0] == 250
        assert run.intake.accepted[-1].data == LARGE
        assert run.server.services.memory.held == 0
        for client in (*first, late):
            await client.close()


async def test_a_single_message_always_finds_room(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, limits={"memory": "1MB"})) as run:
        client = await began(run, 100_000_000)
        client.send(LARGE + b".\r\n")
        assert (await client.reply())[0] == 250
        await client.close()
