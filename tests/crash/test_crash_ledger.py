"""P1, P2, P3 over ``kill -9``: what was answered 250 is delivered, whenever the kill came and whomever it hit.

Two workers; half of the kills hit one of them, the others the whole tree at once, a quarter of these while it starts.
In the end every message answered 250 has arrived whole, the trace has it as delivered, and whatever arrived twice was
counted: for each arrival too many the trace has an event that says so (``possible_duplicate``).

``GATEWAY_CRASH_KILLS`` and ``GATEWAY_CRASH_SEED`` in the environment make it longer or different; the long form has
200 kills (docs/reliability-proofs.md).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.crash.ledger import Load
from tests.crash.scene import Scene, budget, scene
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(7200)]

ENDED = frozenset({"delivered", "bounced", "expired", "rejected", "dropped", "cancelled"})


@dataclass
class Kills:
    """How many, by what they hit."""

    trees: int = 0
    starts: int = 0
    workers: int = 0


def test_nothing_answered_250_is_lost_over_kills_at_random_moments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, seed = int(budget("KILLS", 18)), int(budget("SEED", 20260229))
    chance = random.Random(seed)
    begun = time.monotonic()
    with scene(tmp_path, share=0.3, seed=seed, settings={"workers": 2}) as stage:
        stage.gateway.start()  # the first start makes the store: how long a start takes is not learnt from it
        load = Load(stage.gateway.address, stage.gateway.port, clients=3, large_share=0.15, pace=0.02, seed=seed)
        load.start()
        try:
            kills = kill_again_and_again(stage, load, wanted, chance)
        finally:
            load.stop()
        taken = load.accepted
        released = drain(stage, set(taken))
        told = recipients(stage)
        deliveries = stage.record.deliveries()
        stage.gateway.stop()

    arrived = Counter(token for token, _ in deliveries)
    marked = {token: marks(entry) for token, entry in told.items()}
    twice = {token: copies - 1 for token, copies in arrived.items() if copies > 1}
    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\nledger: seed {seed}, {wanted} kills ({kills.workers} of a worker, {kills.trees} of the tree, "
            f"{kills.starts} of these while starting), {len(taken)} answered 250, {len(load.unknown)} without an "
            f"answer, {len(arrived)} arrived, {len(set(taken) - set(arrived))} lost, {sum(twice.values())} duplicates, "
            f"{sum(marked.values())} possible duplicates counted, {released} held as poison and released, "
            f"{time.monotonic() - begun:.0f} s, answers {load.answers}"
        )
    assert len(taken) >= wanted, "the load was too small to prove anything"
    assert [token for token in taken if token not in arrived] == [], "answered 250, and lost"
    assert [token for token, digest in deliveries if taken.get(token, digest) != digest] == [], "not whole"
    assert set(arrived) - set(taken) - load.unknown == set(), "delivered, though it was refused"
    assert {token: told[token]["state"] for token in taken if told[token]["state"] != "delivered"} == {}
    assert {token: ends(told[token]) for token in taken if ends(told[token]) != 1} == {}, "one end each (P2)"
    assert {token: (copies, marked[token]) for token, copies in twice.items() if copies > marked[token]} == {}, (
        "arrived twice, and nobody counted it (P3)"
    )


def kill_again_and_again(stage: Scene, load: Load, wanted: int, chance: random.Random) -> Kills:
    """Kill, and let it come again on the same store; what comes again may be killed before it is there."""
    moment = threading.Event()  # never set: its wait is the random time until the kill
    kills = Kills()
    start_took = 1.0
    while kills.workers + kills.trees < wanted:
        moment.wait(chance.uniform(0.02, 0.8))
        before = load.count()
        if chance.random() < 0.5 and kill_one_worker(stage, chance):
            kills.workers += 1
        else:
            kills.trees += 1
            stage.gateway.kill9()
            if chance.random() < 0.25 and kills.workers + kills.trees < wanted:
                kills.trees += 1
                kills.starts += 1
                stage.gateway.launch()
                moment.wait(chance.uniform(0.1, 1.0) * start_took)
                stage.gateway.kill9()
            begun = time.monotonic()
            stage.gateway.start(seconds=120)
            start_took = time.monotonic() - begun
        if (kills.workers + kills.trees) % 5 == 4:
            # A gateway that starts but takes nothing would make every later kill meaningless.
            takes_mail_again(load, before)
    return kills


def kill_one_worker(stage: Scene, chance: random.Random) -> bool:
    """One of the two at random; the other one where that one has not come again yet; False where neither has."""
    for number in chance.sample((1, 2), 2):
        try:
            stage.gateway.kill_worker(number)
        except ProcessLookupError:
            continue
        return True
    return False


def takes_mail_again(load: Load, before: int) -> None:
    # A worker that was killed again and again waits up to 30 s, and a client may wait at its socket meanwhile.
    wait_for("mail is taken again after a kill", lambda: load.count() > before, seconds=90)


def drain(stage: Scene, taken: set[str]) -> int:
    """Until all of it has ended. What lost its worker three times is held, and released here; how many were."""
    released = 0

    def done() -> bool:
        nonlocal released
        waiting = stage.gateway.queue_list()
        held = [row["id"] for row in waiting if row["state"] == "held"]
        if held:
            assert stage.gateway.command("queue", "release", "--yes", *held).returncode == 0
            released += len(held)
        return not waiting and taken <= stage.record.tokens()

    wait_for("the backlog is delivered", done, seconds=budget("DRAIN", 240))
    return released


def recipients(stage: Scene) -> dict[str, dict[str, Any]]:
    """What the trace tells of each recipient, by its token; one message each, or the trace is wrong."""
    found: dict[str, dict[str, Any]] = {}
    for message in stage.gateway.trace("--from", "app@sender.example"):
        for entry in message["recipients"]:
            token, _, domain = entry["recipient"].partition("@")
            if domain == "flaky.example":
                assert token not in found, f"{token} is in the store twice"
                found[token] = entry
    return found


def marks(entry: dict[str, Any]) -> int:
    """How often the gateway counted that this recipient may get its message once more."""
    return sum(event["data"].get("possible_duplicate") is True for event in entry["events"])


def ends(entry: dict[str, Any]) -> int:
    """How many terminal states the trace tells of."""
    return sum(event["kind"] in ENDED for event in entry["events"])
