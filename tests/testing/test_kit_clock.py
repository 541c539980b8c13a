"""The fake clock moves only when told, and wakes sleepers as the real one would."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import Clock
from gateway.testing import FakeClock


async def test_sleepers_wake_in_order_of_their_deadlines_each_at_its_own_moment() -> None:
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper(n, s)) for n, s in [("c", 30), ("a", 10), ("b", 20), ("b2", 20)]]
    await clock.advance(25)
    assert list(woken) == [("a", 10), ("b", 20), ("b2", 20)]
    assert (clock.monotonic(), clock.time()) == (25, 1_767_225_625)
    assert (clock.sleepers, clock.next_wake) == (1, 5)
    await clock.advance(5)
    await asyncio.gather(*tasks)
    assert woken[-1] == ("c", 30)


async def test_a_task_that_sleeps_again_is_woken_again_within_one_advance() -> None:
    clock = FakeClock()
    ticks: list[float] = []

    async def ticker() -> None:
        while True:
            await clock.sleep(60)
            ticks.append(clock.monotonic())

    task = asyncio.create_task(ticker())
    await clock.advance(3600)
    assert ticks == [60.0 * n for n in range(1, 61)]
    task.cancel()


async def test_what_a_woken_task_hands_over_is_done_before_the_next_one_wakes() -> None:
    clock = FakeClock()
    queue: asyncio.Queue[str] = asyncio.Queue()
    seen: list[tuple[str, float]] = []

    async def producer(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        await queue.put(name)

    async def consumer() -> None:
        while True:
            seen.append((await queue.get(), clock.monotonic()))

    tasks = [asyncio.create_task(work) for work in (producer("x", 1), producer("y", 2), consumer())]
    await clock.advance(10)
    assert seen == [("x", 1), ("y", 2)]
    tasks[-1].cancel()


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.advance(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (clock.sleepers, clock.next_wake) == (0, None)
    await clock.advance(100)


async def test_a_jump_moves_the_wall_clock_only() -> None:
    clock = FakeClock(start=1_000.0)
    task = asyncio.create_task(clock.sleep(5))
    await clock.advance(1)
    clock.jump(-500)
    assert (clock.time(), clock.monotonic()) == (501.0, 1.0)
    clock.jump(86_400)
    await clock.advance(3)
    assert not task.done()
    await clock.advance(1)
    assert task.done()


async def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="jump"):
        await FakeClock().advance(-1)


async def test_sleeping_for_nothing_gives_a_turn_and_returns() -> None:
    clock: Clock = FakeClock()
    await asyncio.wait_for(clock.sleep(0), 1)
    await asyncio.wait_for(clock.sleep(-3), 1)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=12), st.lists(st.floats(0.001, 500), max_size=6))
def test_everyone_wakes_in_order_however_the_time_is_cut(deadlines: list[float], steps: list[float]) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        woken: list[float] = []

        async def sleeper(seconds: float) -> None:
            await clock.sleep(seconds)
            assert clock.monotonic() >= seconds
            woken.append(seconds)

        tasks = [asyncio.create_task(sleeper(seconds)) for seconds in deadlines]
        for step in steps:
            await clock.advance(step)
        assert sorted(woken) == sorted(s for s in deadlines if s <= clock.monotonic())
        await clock.advance(1001)
        await asyncio.gather(*tasks)
        assert woken == sorted(deadlines)

    asyncio.run(scenario())
