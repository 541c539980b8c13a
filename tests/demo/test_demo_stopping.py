"""Whoever is told to stop, stops."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

import pytest

from gateway.demo.stopping import insistently, stoppable


async def test_a_cancellation_that_was_swallowed_is_said_again() -> None:
    heard = 0

    async def deaf() -> None:
        nonlocal heard
        while heard < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(insistently(deaf()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(10):
        with suppress(asyncio.CancelledError):
            await task
    assert task.cancelled()
    assert heard == 3


async def test_the_result_is_handed_on() -> None:
    async def work() -> int:
        return 7

    assert await insistently(work()) == 7


async def test_a_second_signal_does_not_break_off_the_cleaning_up() -> None:
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05)
            cleaned = True

    with stoppable(work()) as (task, told):
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert cleaned
    assert told == [signal.SIGINT, signal.SIGTERM]
