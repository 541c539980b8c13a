"""One scenario through one relay, and what was seen."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.memory import watching
from bench.processes import settle
from bench.relays import Relay, Sink
from bench.scenarios import Scenario

__all__ = [
    "Crowded",
    "Memory",
    "Rate",
    "Slowed",
    "generate",
    "measure",
    "measure_crowd",
    "measure_memory",
    "measure_slow",
]

_ROOT: Final = Path(__file__).parents[1]
_STALLED: Final = 20.0  # seconds without a message at the sink: what is missing will not come in time
_LIMIT: Final = 600.0


@dataclass(frozen=True, slots=True)
class Rate:
    """A stream: messages a second from the first connection to the last arrival at the sink.

    ``delivered`` are different messages; ``cpu`` are milliseconds of CPU for one of them, ``cpu_relay`` over all
    processes of the relay (``None``: there is none). ``wait``: seconds from the final dot to its answer, ``late``: how
    much later than due messages began, ``banner``: from connecting to the banner.
    """

    relay: str
    scenario: str
    sent: int
    delivered: int
    duplicates: int
    refused: int
    per_second: float
    accepted_per_second: float
    cpu_relay: float | None
    cpu_generator: float
    cpu_sink: float
    wait_p50: float
    wait_p99: float
    late_p99: float
    banner_p99: float
    sessions_out: int
    errors: list[str]

    @property
    def complete(self) -> bool:
        """Did everything that was sent arrive, once?"""
        return self.delivered == self.sent and not self.refused and not self.duplicates


@dataclass(frozen=True, slots=True)
class Memory:
    """Sums over a relay's processes, octets, before and at the peak while one message of ``size`` passed."""

    relay: str
    size: int
    rss_before: int
    rss_peak: int
    pss_before: int
    pss_peak: int
    delivered: bool


@dataclass(frozen=True, slots=True)
class Crowded:
    """Memory and banner while ``stand`` of ``idle`` connections stood, and ``active`` ones sent."""

    relay: str
    idle: int
    stand: int
    active: int
    pss_before: int
    pss_idle: int
    pss_peak: int
    banner_p50: float
    banner_p99: float
    unanswered: int
    delivered: int
    sent: int


@dataclass(frozen=True, slots=True)
class Slowed:
    """Healthy peers alone, and beside ``stand`` of ``slow`` peers that send a byte a second."""

    relay: str
    slow: int
    stand: int
    alone: Rate
    beside: Rate
    banner_p99: float
    unanswered: int


def generate(relay: Relay, scenario: Scenario, run: str, *, patience: float = 60.0) -> dict[str, float]:
    """Run the generator against the relay to its end; returns what it tells."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.generator", "--address", relay.address, "--port", str(relay.port)),
            *("--connections", str(scenario.connections), "--per-connection", str(scenario.per_connection)),
            *("--messages", str(scenario.messages), "--size", str(scenario.size), "--run", run),
            *("--patience", str(patience)),
            *(() if scenario.tls else ("--plain",)),
            *(() if scenario.rate is None else ("--rate", str(scenario.rate))),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        timeout=_LIMIT,
        check=True,
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


def measure(relay: Relay, target: Sink, scenario: Scenario, *, patience: float = 60.0) -> Rate:
    """One stream."""
    run = uuid.uuid4().hex[:12]
    worked = settle(relay.pids)
    target.reset(run)
    told = generate(relay, scenario, run, patience=patience)
    target.wait(int(told["accepted"]), _STALLED)
    worked = settle(relay.pids) - worked
    counted = target.count()  # what comes twice comes later
    each = 1000 / max(counted.distinct, 1)
    return Rate(
        relay=relay.name,
        scenario=scenario.name,
        sent=scenario.messages,
        delivered=counted.distinct,
        duplicates=counted.duplicates,
        refused=int(told["refused"]),
        per_second=counted.distinct / max(counted.last - told["begun"], 1e-9),
        accepted_per_second=told["accepted"] / max(told["ended"] - told["begun"], 1e-9),
        cpu_relay=worked * each if relay.pids() else None,
        cpu_generator=told["cpu"] * each,
        cpu_sink=counted.cpu * each,
        wait_p50=told["waits_p50"],
        wait_p99=told["waits_p99"],
        late_p99=told["late_p99"],
        banner_p99=told["banners_p99"],
        sessions_out=counted.sessions,
        errors=list(told["errors"]),  # type: ignore[call-overload]  # the only value that is not a number
    )


def measure_memory(relay: Relay, target: Sink, size: int) -> Memory:
    """One message of ``size``, the relay's processes watched."""
    one = Scenario("memory", size=size, messages=1, per_connection=1, connections=1, tls=relay.tls)
    with watching(relay.pids) as watch:
        rate = measure(relay, target, one)
    return Memory(
        relay=relay.name,
        size=size,
        rss_before=watch.before.rss,
        rss_peak=watch.peak.rss,
        pss_before=watch.before.pss,
        pss_peak=watch.peak.pss,
        delivered=rate.complete,
    )


class _Crowd:
    """A running :mod:`bench.crowd`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.stand = int(self._line()["stand"])
        self.told: dict[str, float] = {}

    def _line(self) -> dict[str, float]:
        assert self._process.stdout is not None
        told: dict[str, float] = json.loads(self._process.stdout.readline())
        return told

    def dismiss(self) -> None:
        """Let it go, and hear what it saw."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.told = self._line()
        self._process.wait(10)


@contextmanager
def _crowd(relay: Relay, *, idle: int = 0, slow: int = 0) -> Iterator[_Crowd]:
    """Connections that stand; ``told`` is filled after the block."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "bench.crowd", "--address", relay.address, "--port", str(relay.port)),
            *("--idle", str(idle), "--slow", str(slow), "--probes", "20"),
            *(() if relay.tls else ("--plain",)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    with process:
        try:
            crowd = _Crowd(process)
            yield crowd
            crowd.dismiss()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def measure_crowd(relay: Relay, target: Sink, *, idle: int, stream: Scenario) -> Crowded:
    """``idle`` connections that stand, and a stream beside them."""
    settle(relay.pids)
    with watching(relay.pids) as watch, _crowd(relay, idle=idle) as crowd:
        watch.look()
        pss_idle = watch.peak.pss
        rate = measure(relay, target, stream, patience=15.0)
    return Crowded(
        relay=relay.name,
        idle=idle,
        stand=crowd.stand,
        active=stream.connections,
        pss_before=watch.before.pss,
        pss_idle=pss_idle,
        pss_peak=watch.peak.pss,
        banner_p50=crowd.told["banner_p50"],
        banner_p99=crowd.told["banner_p99"],
        unanswered=int(crowd.told["unanswered"]),
        delivered=rate.delivered,
        sent=rate.sent,
    )


def measure_slow(relay: Relay, target: Sink, *, slow: int, stream: Scenario) -> Slowed:
    """A stream of healthy peers alone, then beside the slow ones."""
    alone = measure(relay, target, stream)
    with _crowd(relay, slow=slow) as crowd:
        beside = measure(relay, target, stream, patience=15.0)
    return Slowed(
        relay=relay.name,
        slow=slow,
        stand=crowd.stand,
        alone=alone,
        beside=beside,
        banner_p99=crowd.told["banner_p99"],
        unanswered=int(crowd.told["unanswered"]),
    )
