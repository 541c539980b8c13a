"""Large messages are examined in a process of their own, within limits; what is not known for it is unknown."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.policy.content import ContentFacts, Questions
from gateway.policy.detect import BUILT_IN, Detector
from gateway.policy.examine import Examiner
from gateway.scanning import ScanBusy, Scanners
from gateway.scanning.child import MESSAGE_LIMIT
from gateway.scanning.scanners import AT_ONCE_LIMIT
from gateway.testing import poll
from tests.scanning.detectors import Curious, Deadly, Greedy, Sleepy

SSN = b"SSN 536-22-8726 of the patient\r\n"
HEAD = b"From: a@clinic.example\r\nSubject: Results\r\nContent-Type: text/plain\r\n\r\n"
LINE = b"nothing to see here, a line of seventy characters as people write them\r\n"


def message(size: int, end: bytes = SSN) -> bytes:
    """A message of about this size, with its secret at the end."""
    return HEAD + LINE * ((size - len(HEAD) - len(end)) // len(LINE) + 1) + end


def wanted(*detectors: Detector, contains: frozenset[str] = frozenset()) -> Examiner:
    names = frozenset(detector.name for detector in detectors)
    return Examiner(Questions(contains=contains, detectors=names, structure=True), detectors)


SSNS = wanted(BUILT_IN["us_ssn"], contains=frozenset({"patient"}))


@asynccontextmanager
async def scanners(**given: float) -> AsyncIterator[Scanners]:
    made = Scanners(**given)  # type: ignore[arg-type]  # numbers for numbers
    try:
        yield made
    finally:
        pids = [scanner.process.pid for scanner in made._all]
        await made.close()
        assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]  # noqa: ASYNC240, PTH110  never blocks


async def streamed(data: bytes, step: int = 100_000) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), step):
        yield data[start : start + step]


@pytest.mark.parametrize("size", [1000, AT_ONCE_LIMIT - 1000, AT_ONCE_LIMIT + 1000, 3_000_000])
async def test_every_size_gives_the_same_answer(size: int) -> None:
    async with scanners() as made:
        facts = await made.examine(SSNS, message(size))
        assert facts.counts == {"us_ssn": 1}
        assert facts.contains == {"patient"}
        assert facts.unread == ()
        assert bool(made._all) is (size > AT_ONCE_LIMIT)


async def test_a_stream_is_examined_like_the_whole() -> None:
    async with scanners() as made:
        for size in (1000, 1_000_000):
            assert (await made.examine(SSNS, streamed(message(size)))).counts == {"us_ssn": 1}
            assert bool(made._all) is (size > AT_ONCE_LIMIT)


async def test_nothing_is_read_where_nothing_is_asked() -> None:
    read: list[bytes] = []

    async def body() -> AsyncGenerator[bytes, None]:
        read.append(SSN)
        yield SSN

    async with scanners() as made:
        assert await made.examine(Examiner(), body()) == ContentFacts()
        assert not read


async def test_what_takes_too_long_is_unknown_and_the_next_message_is_examined() -> None:
    async with scanners(budget=1.5) as made:
        facts = await made.examine(wanted(Sleepy()), message(300_000))
        assert facts.unread == ("examining it took longer than 1.5 s",)
        assert facts.attachments is None
        made.budget = 60.0  # a process takes its time to start on a busy machine
        assert (await made.examine(SSNS, message(300_000))).counts == {"us_ssn": 1}


@pytest.mark.parametrize("detector", [Deadly(), Greedy()])
async def test_what_the_process_does_not_survive_or_cannot_hold_is_unknown(detector: Detector) -> None:
    async with scanners() as made:
        facts = await made.examine(wanted(detector), message(300_000))
        assert facts.unread
        assert facts.attachments is None
        assert (await made.examine(SSNS, message(300_000))).counts == {"us_ssn": 1}


async def test_a_process_knows_no_secret_of_the_gateway() -> None:
    os.environ["GATEWAY_TEST_SECRET"] = "x"
    try:
        async with scanners() as made:
            assert (await made.examine(wanted(Curious()), message(300_000))).counts == {"curious": 0}
    finally:
        del os.environ["GATEWAY_TEST_SECRET"]


async def test_beyond_the_limit_it_is_unknown_and_what_lies_before_it_is_known() -> None:
    async def endless() -> AsyncGenerator[bytes, None]:
        yield HEAD + SSN
        for _ in range(MESSAGE_LIMIT // len(LINE * 10_000) + 10):
            yield LINE * 10_000

    async with scanners(budget=60.0) as made:
        facts = await made.examine(wanted(), endless())
        assert "the message is larger than 64 MiB" in facts.unread
        assert facts.attachments is None


async def test_who_waits_too_long_for_a_process_is_told_to_come_later() -> None:
    async with scanners(patience=0.2, budget=4.0) as made:
        first = asyncio.create_task(made.examine(wanted(Sleepy(seconds=2.0)), message(300_000)))
        await poll(lambda: made._all, what="the process to be busy")
        with pytest.raises(ScanBusy):
            await made.examine(SSNS, message(300_000))
        await first
        assert (await made.examine(SSNS, message(300_000))).counts == {"us_ssn": 1}


async def test_a_process_that_is_not_needed_ends() -> None:
    async with scanners(idle=0.3) as made:
        await made.examine(SSNS, message(300_000))
        (scanner,) = made._all
        await poll(lambda: scanner.process.returncode is not None, what="the process to end")
        assert not made._all
        assert (await made.examine(SSNS, message(300_000))).counts == {"us_ssn": 1}


async def test_whoever_gives_up_takes_the_process_along() -> None:
    async with scanners() as made:
        task = asyncio.create_task(made.examine(wanted(Sleepy()), message(300_000)))
        await poll(lambda: made._all, what="the process")
        (scanner,) = made._all
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await poll(lambda: scanner.process.returncode is not None, what="the process to end")


async def test_what_reading_the_message_raises_is_heard() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield HEAD
        raise LookupError("the body is gone")

    async with scanners() as made:
        with pytest.raises(LookupError):
            await made.examine(SSNS, broken())
        assert (await made.examine(SSNS, message(300_000))).counts == {"us_ssn": 1}
