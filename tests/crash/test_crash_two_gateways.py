"""P1, P2, P3 with two gateways on one PostgreSQL queue and one bucket: one falls, the other does its work.

They have different data directories, so that neither sees the other's locks, as on two hosts: only the lease tells.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.testing import PostgresServer
from tests.crash.ledger import Load
from tests.crash.scene import Scene, scene
from tests.object_server import ObjectServer
from tests.peers.gateway_process import GatewayProcess, wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(600)]

LEASE = 6


@contextmanager
def pair(directory: Path, server: PostgresServer, objects: ObjectServer) -> Iterator[tuple[Scene, GatewayProcess]]:
    """Two gateways, not started yet; what they deliver goes to one record."""
    key = directory / "shared.key"
    key.write_text("11" * 32)
    database = server.create_database()
    store: dict[str, Any] = {
        "url": server.url(database),
        "lease": f"{LEASE}s",
        "keys": [f"file:{key}"],
        "blobs": f"s3://{objects.create_bucket()}/mail",
        "s3": {"endpoint": objects.endpoint, "region": "us-east-1", "access_key": "key", "secret_key": "secret"},
    }
    places = [directory / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
    with scene(places[0], share=0.2, seed=7, settings={"store": store}) as stage:
        settings = yaml.safe_load(stage.gateway.config.read_text())
        other = GatewayProcess(
            places[1],
            resolver=settings["dns"]["resolvers"][0],
            settings={name: settings[name] for name in ("delivery", "connectors", "store")},
        )
        try:
            yield stage, other
        finally:
            other.kill9()
    server.drop_database(database)


def metric(gateway: GatewayProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_what_a_gateway_had_is_delivered_by_the_other_one(
    tmp_path: Path,
    postgres_server: PostgresServer,
    object_server: ObjectServer,
    how: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pair(tmp_path.resolve(), postgres_server, object_server) as (stage, other):
        one = stage.gateway
        one.start()
        other.start()
        loads = [
            Load(gateway.address, gateway.port, clients=3, large_share=0.1, pace=0.01, seed=seed, name=name)
            for seed, (name, gateway) in enumerate((("a", one), ("b", other)))
        ]
        for load in loads:
            load.start()
        try:
            wait_for("both take mail", lambda: all(load.count() > 150 for load in loads), seconds=60)
            # With no answer to its dots, what it accepts now stays claimed: there is something to take over.
            stage.gate.touch()
            before = loads[0].count()
            wait_for("it takes mail that it cannot deliver", lambda: loads[0].count() > before + 20, seconds=60)
            fallen = time.monotonic()
            if how == "killed":
                one.kill9()
            else:
                for pid in one.pids():
                    os.kill(pid, signal.SIGSTOP)
            stage.gate.unlink()
            after = loads[1].count()
            wait_for("the other one goes on taking mail", lambda: loads[1].count() > after + 100, seconds=60)
            wait_for("its claims are taken over", lambda: recovered(other), seconds=LEASE + 60)
            if how == "frozen":
                for pid in one.pids():
                    os.kill(pid, signal.SIGCONT)
        finally:
            for load in loads:
                load.stop()
        taken = loads[0].accepted | loads[1].accepted
        wait_for("everything arrives", lambda: set(taken) <= stage.record.tokens(), seconds=120)
        took = time.monotonic() - fallen
        wait_for("nothing waits any more", lambda: not other.queue_list(), seconds=LEASE + 60)
        claims = recovered(other)
        counted = metric(other, "gateway_possible_duplicates_total")
        if how == "frozen":
            counted += metric(one, "gateway_possible_duplicates_total")
        duplicates = stage.record.duplicates()
        deliveries = stage.record.deliveries()
    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\n{how}: {len(taken)} answered 250, {sum(len(load.unknown) for load in loads)} without an answer, "
            f"{claims} claims taken over, {duplicates} duplicates of {counted:g} counted as possible, "
            f"all there {took:.1f} s after the fall"
        )
    assert duplicates <= counted
    assert [token for token, digest in deliveries if taken.get(token, digest) != digest] == []
    strangers = {token for token, _ in deliveries} - set(taken) - loads[0].unknown - loads[1].unknown
    assert strangers == set()


def recovered(gateway: GatewayProcess) -> int:
    return sum(event["recipients"] for event in gateway.events() if event.get("event") == "claims_recovered")
