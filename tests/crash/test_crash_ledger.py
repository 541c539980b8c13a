"""P1, P2, P3 over ``kill -9``: what was answered 250 is delivered or still queued, whenever the kill came.

``GATEWAY_CRASH_KILLS`` and ``GATEWAY_CRASH_SEED`` in the environment make it longer or different.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from pathlib import Path

import pytest

from tests.crash.ledger import Load
from tests.crash.scene import Scene, budget, scene
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(3600)]

LIVE = frozenset({"queued", "delivering", "deferred", "held", "noticing", "deposited"})


def test_nothing_answered_250_is_lost_over_kills_at_random_moments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kills, seed = int(budget("KILLS", 30)), int(budget("SEED", 20260229))
    chance = random.Random(seed)
    begun = time.monotonic()
    with scene(tmp_path, share=0.3, seed=seed, settings={"workers": 2}) as stage:
        stage.gateway.start()  # the first start makes the store: how long a start takes is not learnt from it
        load = Load(stage.gateway.address, stage.gateway.port, clients=3, large_share=0.15, pace=0.02, seed=seed)
        load.start()
        try:
            killed_starting = kill_again_and_again(stage, load, kills, chance)
        finally:
            load.stop()
        taken = load.accepted
        drain(stage, set(taken))
        live = {row["recipient"].partition("@")[0]: row["state"] for row in stage.gateway.queue_list()}
        held = sum(state == "held" for state in live.values())
        deliveries = stage.record.deliveries()
        arrived = stage.record.tokens()
        lost = [token for token in taken if token not in arrived and token not in live]
        lost = [token for token in lost if not kept(stage, token)]
        stage.gateway.stop()

    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\nledger: seed {seed}, {kills} kills ({killed_starting} while starting), {len(taken)} answered 250, "
            f"{len(load.unknown)} without an answer, {len(arrived)} arrived, {len(live)} still queued ({held} held), "
            f"{stage.record.duplicates()} duplicates, {time.monotonic() - begun:.0f} s, answers {load.answers}"
        )
    assert len(taken) >= kills, "the load was too small to prove anything"
    assert lost == []
    assert [token for token, digest in deliveries if taken.get(token, digest) != digest] == []
    assert set(live.values()) <= LIVE
    strangers = arrived - set(taken) - load.unknown
    assert strangers == set(), "messages were delivered that were refused"


def kill_again_and_again(stage: Scene, load: Load, kills: int, chance: random.Random) -> int:
    """Kill, restart on the same store, kill again; a quarter of the kills hit a start or a recovery."""
    moment = threading.Event()  # never set: its wait is the random time until the kill
    starting = 0
    start_took = 1.0
    for number in range(kills):
        moment.wait(chance.uniform(0.02, 0.8))
        stage.gateway.kill9()
        if chance.random() < 0.25:
            starting += 1
            stage.gateway.launch()
            moment.wait(chance.uniform(0.1, 1.0) * start_took)
            stage.gateway.kill9()
        begun, before = time.monotonic(), load.count()
        stage.gateway.start()
        start_took = time.monotonic() - begun
        if number % 5 == 4:
            # A gateway that starts but takes nothing would make every later kill meaningless.
            takes_mail_again(load, before)
    return starting


def takes_mail_again(load: Load, before: int) -> None:
    wait_for("mail is taken again after a kill", lambda: load.count() > before)


def drain(stage: Scene, taken: set[str]) -> None:
    """Give what is still queued its time; what is held (three lost workers: suspected poison) waits for an operator."""

    def done() -> bool:
        missing = taken - stage.record.tokens()
        if not missing:
            return True
        waiting = {row["recipient"].partition("@")[0]: row["state"] for row in stage.gateway.queue_list()}
        return all(waiting.get(token) == "held" for token in missing)

    # What is left after that must be in the queue, which the test looks at.
    with contextlib.suppress(TimeoutError):
        wait_for("the backlog is delivered", done, seconds=budget("DRAIN", 60))


def kept(stage: Scene, token: str) -> bool:
    """A listing may end after a page: what was on none is asked for by name."""
    row = stage.gateway.recipient(f"{token}@flaky.example")
    return row is not None and (row["state"] in LIVE or row["state"] == "delivered")
