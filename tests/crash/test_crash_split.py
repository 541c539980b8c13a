"""P5: a message to several recipients, each with a requirement of its own, is accepted for all of them or for none.

Killed at the N-th write and at the N-th sync of the accept, as in ``test_crash_points``: after the restart the trace
knows the message with every recipient, or not at all; and if the client had its 250, all of them get it.
``GATEWAY_CRASH_SECONDS`` gives it more time.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.crash import tracer
from tests.crash.ledger import Client, message
from tests.crash.scene import OTHER, Scene, budget, scene
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(3600)]

KINDS = ("fdatasync", "pwrite64")
#: Three claims: two domains, and in one of them two requirements.
POLICY = {
    "version": 1,
    "protection": {"methods": ["tls", "plain"]},
    "rules": [
        {"name": "other", "when": {"recipient_domain": OTHER}, "require": {"methods": ["tls"]}},
        {"name": "second", "when": {"recipient": "*-second@*"}, "require": {"methods": ["tls"]}},
    ],
}


def test_a_kill_leaves_all_recipients_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (why := tracer.missing()) is not None:
        pytest.skip(why)
    begun, seconds = time.monotonic(), budget("SECONDS", 25)
    deadlines = {kind: begun + seconds * number / len(KINDS) for number, kind in enumerate(KINDS, 1)}
    kills = dict.fromkeys(KINDS, 0)
    accepted: set[str] = set()
    with scene(tmp_path, policy=POLICY, settings={"workers": 2}) as stage:
        stage.gateway.start(seconds=90)
        for kind in KINDS:
            point = step = 0
            while time.monotonic() < deadlines[kind]:
                step += (
                    1 if kind == "pwrite64" else not step
                )  # the pages of a transaction are sampled, its syncs are not
                point += step
                token = f"{kind}{point}"
                killed, answered = accept(stage, token, kind, point)
                if answered:
                    accepted.add(token)
                if not killed:
                    break
                kills[kind] += 1
                stage.gateway.kill9()
                stage.gateway.start(seconds=90)
        assert send(stage, "whole")
        accepted.add("whole")
        wanted = {each.partition("@")[0] for token in accepted for each in recipients(token)}
        wait_for("everything answered 250 arrives", lambda: wanted <= stage.record.tokens(), seconds=60)
        found = stage.gateway.trace("--from", "app@sender.example")
        stage.gateway.stop()
    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\nsplit: kills {kills}, {len(accepted)} answered 250, {len(found)} in the store, each with 3 recipients"
        )
    for known in found:
        addresses = {entry["recipient"] for entry in known["recipients"]}
        token = min(addresses, key=len).partition("@")[0]
        assert addresses == set(recipients(token))
    assert sum(kills.values()) > 0, "nothing was killed: the injection does not work"


def recipients(token: str) -> tuple[str, str, str]:
    return f"{token}@flaky.example", f"{token}-second@flaky.example", f"{token}-third@{OTHER}"


def accept(stage: Scene, token: str, kind: str, point: int) -> tuple[bool, bool]:
    """One accept with that kill set: was a worker killed, and was it answered 250?"""
    log = stage.gateway.directory / "strace.log"
    options = ("-e", f"trace={kind}", "-e", f"inject={kind}:signal=KILL:when={point}")
    with tracer.attached(stage.gateway.pids(), log, *options):
        answered = send(stage, token)
        killed = "killed by SIGKILL" in log.read_text(errors="replace")
    return killed, answered


def send(stage: Scene, token: str) -> bool:
    """Hand it over; was it answered 250?"""
    try:
        client = Client(stage.gateway.address, stage.gateway.port)
        try:
            return client.send(message(token, large=False), *recipients(token)[1:]).accepted
        finally:
            client.close()
    except OSError:
        return False
