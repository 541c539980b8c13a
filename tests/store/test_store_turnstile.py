"""Writers of several processes take turns: no one starves, none waits for ever, the dead hold nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import StoreBusy
from gateway.store.store import Store
from gateway.store.turnstile import Turnstile
from gateway.testing import FakeClock
from tests.store.store_world import settings

pytestmark = pytest.mark.sqlite

ROOT = Path(__file__).parents[2]

#: Opens the store, waits for a line, then writes one transaction after the other for a second; prints how many.
WRITER = """
import asyncio, sys, time
from pathlib import Path
from gateway.clock import SystemClock
from gateway.store.store import Store
from tests.store.store_world import settings

async def main():
    store = await asyncio.to_thread(Store.open, settings(Path(sys.argv[1])), SystemClock())
    print("open", flush=True)
    sys.stdin.readline()
    count, end = 0, time.monotonic() + 1
    while time.monotonic() < end:
        await store.write(lambda transaction: transaction.event("counted", {"n": count}))
        count += 1
    print(count, flush=True)
    await store.close()

asyncio.run(main())
"""

#: Takes a turn, says so, and keeps it.
HOLDER = """
import sys, time
from pathlib import Path
from gateway.store.turnstile import Turnstile

with Turnstile(Path(sys.argv[1])).turn():
    print("mine", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def program(text: str, directory: Path, first_word: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", text, str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert first_word in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.slow
def test_two_processes_that_write_all_the_time_get_their_share_each(tmp_path: Path) -> None:
    Store.open(settings(tmp_path), FakeClock(), environ={}).writer.close()  # so that nobody has to make it
    with program(WRITER, tmp_path, "open") as one, program(WRITER, tmp_path, "open") as other:
        counts = []
        for each in (one, other):
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        for each in (one, other):
            assert each.stdout is not None
            counts.append(int(each.stdout.readline()))
    assert min(counts) >= 0.3 * sum(counts), counts


def test_a_process_that_keeps_its_turn_makes_others_busy_and_not_wait_for_ever(tmp_path: Path) -> None:
    with program(HOLDER, tmp_path, "mine") as holder:
        mine = Turnstile(tmp_path, patience=0.2)
        for _ in range(2):  # whoever gave up can ask again
            with pytest.raises(StoreBusy), mine.turn():
                pytest.fail("it is another one's turn")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        begun = time.monotonic()
        with mine.turn():
            assert time.monotonic() - begun < 5
        mine.close()


def test_who_gave_up_does_not_keep_the_lock_that_it_gets_too_late(tmp_path: Path) -> None:
    with program(HOLDER, tmp_path, "mine") as holder:
        impatient, patient = Turnstile(tmp_path, patience=0.1), Turnstile(tmp_path, patience=10)
        with pytest.raises(StoreBusy), impatient.turn():
            pytest.fail("it is another one's turn")
        holder.kill()
        holder.wait()
        for _ in range(3):
            with patient.turn():
                pass
            with impatient.turn():
                pass
        impatient.close()
        patient.close()


def test_a_turn_is_given_back_when_the_work_in_it_fails(tmp_path: Path) -> None:
    mine, other = Turnstile(tmp_path), Turnstile(tmp_path, patience=0.2)
    with pytest.raises(ZeroDivisionError), mine.turn():
        _ = 1 / 0
    with other.turn():
        assert {path.name for path in tmp_path.iterdir()} == {"write-next.lock", "write.lock"}
    mine.close()
    other.close()
