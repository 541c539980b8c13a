"""P1 at every crash point of one accept: killed at the N-th call of a kind, N = 1, 2, 3..., until it is not reached.

After each kill the gateway starts again on the same store. Had the client its 250, the message arrives whole; had it
none, nothing that is half there stops the start. ``GATEWAY_CRASH_SECONDS`` gives it more time: by default the long
tails (the pages of a transaction) are sampled. strace counts calls by thread: where several threads share the work, N
grows until none of them reaches it, and what lies between is left to the ledger's random kills.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.crash import tracer
from tests.crash.ledger import Client, message
from tests.crash.scene import Scene, budget, scene
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(3600)]

SMALL_CALLS = ("fsync", "fdatasync", "pwrite64")
LARGE_CALLS = ("fsync", "rename", "write", "openat", "fdatasync", "pwrite64", "renameat2", "linkat", "mkdir", "unlink")
_ONE_BY_ONE = 6


@pytest.fixture(autouse=True)
def _strace() -> None:
    if (why := tracer.missing()) is not None:
        pytest.skip(why)


@dataclass
class Tally:
    """What the enumeration did, for its last line."""

    accepted: dict[str, str] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)


def points(*, all_of_them: bool) -> Iterator[int]:
    """1, 2, 3...; sampled beyond the first few where time is short."""
    if all_of_them:
        yield from itertools.count(1)
    yield from range(1, _ONE_BY_ONE + 1)
    step, point = 2, _ONE_BY_ONE
    while True:
        point += step
        step += step // 2
        yield point


@pytest.mark.parametrize(("large", "kinds"), [(False, SMALL_CALLS), (True, LARGE_CALLS)], ids=["small", "200 KB"])
def test_at_every_crash_point_of_the_accept_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kinds: tuple[str, ...], *, large: bool
) -> None:
    seconds = budget("SECONDS", 60)
    deadline = time.monotonic() + seconds
    tally = Tally()
    with scene(tmp_path, settings={"workers": 2}) as stage:
        stage.gateway.start()
        quiet(stage, tally, "warm", large=large)
        for kind in kinds:
            if time.monotonic() > deadline:
                tally.unfinished.append(kind)
                continue
            enumerate_one(stage, tally, kind, large=large, deadline=deadline, all_of_them=seconds > 600)
        restart(stage)
        wait_for("everything answered 250 arrives", lambda: set(tally.accepted) <= stage.record.tokens(), seconds=60)
        stage.gateway.stop()
    deliveries = stage.record.deliveries()
    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\ncrash points ({'200 KB' if large else 'small'}): kills {tally.kills}, {len(tally.accepted)} answered "
            f"250, {stage.record.duplicates()} duplicates, out of time in {tally.unfinished or 'none'}"
        )
    assert [token for token, digest in deliveries if tally.accepted.get(token, digest) != digest] == []
    assert sum(tally.kills.values()) > 0, "nothing was killed: the injection does not work"


def enumerate_one(stage: Scene, tally: Tally, kind: str, *, large: bool, deadline: float, all_of_them: bool) -> None:
    """Kill at the N-th call of one kind for growing N, until an accept ends before it is reached."""
    tally.kills[kind] = 0
    for point in points(all_of_them=all_of_them):
        if time.monotonic() > deadline:
            tally.unfinished.append(f"{kind} from {point}")
            return
        settle(stage, set(tally.accepted))
        if not killed_at(stage, tally, kind, point, large=large):
            return
        tally.kills[kind] += 1
        restart(stage)


def killed_at(stage: Scene, tally: Tally, kind: str, point: int, *, large: bool) -> bool:
    """One accept with that kill set; was the gateway dead before or right behind its answer?"""
    one = message(f"{kind}-{point}-{'large' if large else 'small'}", large=large)
    log = stage.gateway.directory / "strace.log"
    options = ("-e", f"trace={kind}", "-e", f"inject={kind}:signal=KILL:when={point}")
    with tracer.attached(stage.gateway.pids(), log, *options) as strace:
        try:
            client = Client(stage.gateway.address, stage.gateway.port)
        except OSError:
            return True
        try:
            answer = client.send(one)
        except OSError:
            return True
        finally:
            client.close()
        killed = dies_soon(
            # A worker that was killed and replaced by its supervisor shows in the log, not in the leader's life.
            lambda: (
                not stage.gateway.alive()
                or strace.poll() is not None
                or "killed by SIGKILL" in log.read_text(errors="replace")
            ),
            lambda: not answer.accepted or one.token in stage.record.tokens(),
        )
    if answer.accepted:
        tally.accepted[one.token] = one.digest
    elif not killed:
        pytest.fail(f"{kind} {point}: not killed, and yet refused: {answer}")
    return killed


def dies_soon(dead: Callable[[], bool], done: Callable[[], bool]) -> bool:
    """Whether the gateway dies before its work is done, or right behind it.

    The call that kills may come after the answer, and the tracer's word about it later still: half a second is more
    than either takes.
    """
    deadline = time.monotonic() + 30
    over: float | None = None
    while not dead():
        now = time.monotonic()
        if over is None and done():
            over = now + 0.5
        if now > (deadline if over is None else over):
            return False
        time.sleep(0.01)  # between two looks
    return True


def settle(stage: Scene, accepted: set[str]) -> None:
    """Until all is delivered and the log has stood still for a moment, so that calls counted are the accept's own.

    The moment is short and waited for a second at most: a heartbeat of the gateway's own may come in between.
    """
    wait_for("nothing is under way", lambda: accepted <= stage.record.tokens(), seconds=30)
    log = next(iter(stage.gateway.data_dir.rglob("*-wal")), stage.gateway.data_dir)
    deadline = time.monotonic() + 1.0
    since, last = time.monotonic(), log.stat()
    while time.monotonic() < min(since + 0.15, deadline):
        time.sleep(0.01)  # between two looks
        now = log.stat()
        if (now.st_mtime_ns, now.st_size) != (last.st_mtime_ns, last.st_size):
            since, last = time.monotonic(), now


def quiet(stage: Scene, tally: Tally, token: str, *, large: bool) -> None:
    """One accept without any fault, so that directories and caches exist; the enumeration is about the rest."""
    one = message(token, large=large)
    client = Client(stage.gateway.address, stage.gateway.port)
    try:
        assert client.send(one).accepted
    finally:
        client.close()
    tally.accepted[one.token] = one.digest


def restart(stage: Scene) -> None:
    """Whatever is left is killed; the next start has to manage with what lies there."""
    stage.gateway.kill9()
    stage.gateway.start()
