"""P6 in numbers: a crowd that stands and peers that crawl cost what they may cost, and the others are served meanwhile.

By default a tenth of it, against bounds that hold on a busy machine; a wait is compared with what it was moments
before, taken with the same instruments. ``GATEWAY_NUMBERS=full`` runs the numbers of the promise: 1,000 idle and 200
active connections in 300 MB with a banner within a second, and 1,000 slow peers beside which the healthy ones wait at
most twice as long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.measure import measure_crowd, measure_slow
from bench.relays import Relay, Sink, gateway_relay, sink
from bench.scenarios import Scenario
from gateway.testing.ca import CA

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("bench"), pytest.mark.timeout(900)]

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Numbers:
    """How many, and what is allowed: octets over all processes, seconds, times as long as without them."""

    idle: int
    active: Scenario
    pss: int
    slow: int
    healthy: Scenario
    banner: float
    times: float
    always_allowed: float
    """Seconds that a healthy peer may wait, however little it was without the others: the machine is busy, too."""


FULL = Numbers(
    idle=1000,
    active=Scenario("crowd", size=4096, messages=2000, per_connection=20, connections=200, rate=100),
    pss=300 * MEGABYTE,
    slow=1000,
    healthy=Scenario("slow", size=4096, messages=1000, per_connection=20, connections=20, rate=50),
    banner=1.0,
    times=2.0,
    always_allowed=0.0,
)
#: Memory: what the processes themselves hold, and a share of what a full crowd may add.
SCALED = Numbers(
    idle=100,
    active=Scenario("crowd", size=4096, messages=60, per_connection=5, connections=20, rate=20),
    pss=220 * MEGABYTE,
    slow=100,
    healthy=Scenario("slow", size=4096, messages=60, per_connection=20, connections=5, rate=20),
    banner=3.0,
    times=4.0,
    always_allowed=3.0,
)
NUMBERS = FULL if os.environ.get("GATEWAY_NUMBERS") == "full" else SCALED


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Sink]]:
    """The gateway as the bench sets it up, and what it delivers to."""
    directory: Path = tmp_path_factory.mktemp("numbers")
    ca = CA()
    with (
        sink(directory, ca.issue("sink.example")) as target,
        gateway_relay(target, ca.issue("gw.sender.example"), ca) as relay,
    ):
        yield relay, target


def test_a_crowd_that_stands_costs_little_and_new_connections_are_greeted(
    through: tuple[Relay, Sink], capsys: pytest.CaptureFixture[str]
) -> None:
    relay, target = through
    alone = measure_crowd(relay, target, idle=0, stream=NUMBERS.active)
    crowd = measure_crowd(relay, target, idle=NUMBERS.idle, stream=NUMBERS.active)
    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\ncrowd: {crowd.stand} idle and {crowd.active} active, {crowd.pss_peak / MEGABYTE:.0f} MB PSS "
            f"({alone.pss_peak / MEGABYTE:.0f} MB without the idle ones), banner p99 {crowd.banner_p99:.3f} s "
            f"({alone.banner_p99:.3f} s without them)"
        )
    assert crowd.stand == NUMBERS.idle, "not all could stand, or some were sent away"
    assert crowd.delivered == crowd.sent
    assert crowd.pss_peak <= NUMBERS.pss
    assert crowd.banner_p99 <= NUMBERS.banner


def test_healthy_peers_are_served_beside_those_that_send_a_byte_a_second(
    through: tuple[Relay, Sink], capsys: pytest.CaptureFixture[str]
) -> None:
    relay, target = through
    slowed = measure_slow(relay, target, slow=NUMBERS.slow, stream=NUMBERS.healthy)
    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\nslow peers: {slowed.stand} of {slowed.slow}, the healthy ones' wait p99 {slowed.beside.wait_p99:.3f} s "
            f"({slowed.alone.wait_p99:.3f} s without them), banner p99 {slowed.banner_p99:.3f} s"
        )
    assert slowed.alone.complete
    assert slowed.beside.complete, slowed.beside.errors
    assert slowed.beside.wait_p99 <= max(NUMBERS.always_allowed, NUMBERS.times * slowed.alone.wait_p99)
