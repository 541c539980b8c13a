"""P1, P2, P3 through the portal over ``kill -9``: what was answered 250 lies there once, and its recipient was told.

As the ledger (``test_crash_ledger``), but no method is allowed except the portal: what arrives at the peer are notices.
In the end every message answered 250 lies in the portal exactly once, ``deposited``, with a key and a body that opens;
its notice has arrived, and where one arrived twice that was counted.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from gateway.testing.net import free_port
from tests.crash.ledger import Load
from tests.crash.scene import Scene, budget, scene
from tests.crash.test_crash_ledger import drain, kill_again_and_again, marks, recipients

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(3600)]

POLICY = {"version": 1, "protection": {"methods": ["portal"]}}


def test_what_lies_in_the_portal_survives_kills_at_random_moments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, seed = int(budget("PORTAL_KILLS", 6)), int(budget("SEED", 20260301))
    begun = time.monotonic()
    place = f"127.0.0.1:{free_port()}"
    settings = {"workers": 2, "portal": {"url": f"http://{place}", "listen": place}}
    with scene(tmp_path, share=0.2, seed=seed, settings=settings, policy=POLICY) as stage:
        stage.gateway.start()
        load = Load(stage.gateway.address, stage.gateway.port, clients=3, large_share=0.15, pace=0.03, seed=seed)
        load.start()
        try:
            kills = kill_again_and_again(stage, load, wanted, random.Random(seed))
        finally:
            load.stop()
        taken = load.accepted
        drain(stage, set(taken))
        told = recipients(stage)
        arrived = Counter(token for token, _ in stage.record.deliveries())
        listed = stage.gateway.portal_list()
        marked = possible_duplicates(stage)
        stage.gateway.stop()
    lying = {entry["recipient"].partition("@")[0]: entry for entry in listed}
    twice = {token: copies - 1 for token, copies in arrived.items() if copies > 1}
    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\nportal: seed {seed}, {wanted} kills ({kills.workers} of a worker, {kills.trees} of the tree), "
            f"{len(taken)} answered 250, {len(lying)} in the portal, {len(arrived)} told, "
            f"{sum(twice.values())} notices too many, {time.monotonic() - begun:.0f} s"
        )
    assert len(taken) >= wanted, "the load was too small to prove anything"
    assert len(listed) == len(lying), "one deposit for each recipient"
    assert set(taken) <= set(lying) <= set(taken) | load.unknown
    assert {told[token]["state"] for token in taken} == {"deposited"}
    assert {token for token in taken if not lying[token]["content"]} == set()
    assert set(taken) <= set(arrived), "in the portal, and nobody was told"
    assert {token: (more, marked[token]) for token, more in twice.items() if more > marked[token]} == {}, (
        "told twice, and nobody counted it (P3)"
    )


def possible_duplicates(stage: Scene) -> Counter[str]:
    """How often each token's notices may have arrived once more, by what the trace says of all messages."""
    found: Counter[str] = Counter()
    for message in stage.gateway.trace("--since", "1h"):
        for entry in message["recipients"]:
            found[entry["recipient"].partition("@")[0]] += marks(entry)
    return found
