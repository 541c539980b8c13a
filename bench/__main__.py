"""``python -m bench``: all scenarios through every relay that can run here, one after the other, in turn."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.memory import watching
from bench.processes import settle
from bench.relays import Relay, Sink, direct, gateway_relay, postfix_relay, sink
from bench.report import Memory, Rate, Scenario, show, write
from gateway.testing.ca import CA
from tests.peers import postfix

_ROOT: Final = Path(__file__).parents[1]
_RELAYS: Final = ("direct", "postfix", "postfix-reuse", "gateway")
_STALLED: Final = 20.0  # seconds without a message at the sink: what is missing will not come in time
_SCENARIOS: Final = (
    Scenario(size=4096, messages=2000, per_connection=20, connections=20),
    Scenario(size=4096, messages=1000, per_connection=1, connections=20),
    Scenario(size=65536, messages=600, per_connection=20, connections=20),
    Scenario(size=65536, messages=400, per_connection=1, connections=20),
    Scenario(size=5_000_000, messages=40, per_connection=20, connections=4),
    Scenario(size=5_000_000, messages=40, per_connection=1, connections=4),
)


def generate(relay: Relay, scenario: Scenario, run: str) -> dict[str, float]:
    """Run the generator against the relay to its end; returns what it tells."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.generator", "--address", relay.address, "--port", str(relay.port)),
            *("--connections", str(scenario.connections), "--per-connection", str(scenario.per_connection)),
            *("--messages", str(scenario.messages), "--size", str(scenario.size), "--run", run),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        timeout=300,
        check=True,
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


def measure(relay: Relay, target: Sink, scenario: Scenario) -> Rate:
    """One scenario through one relay."""
    run = uuid.uuid4().hex[:12]
    worked = settle(relay.pids)
    target.reset(run)
    told = generate(relay, scenario, run)
    counted = target.wait(int(told["accepted"]), _STALLED)
    worked = settle(relay.pids) - worked
    counted = target.count()  # what came twice came later
    each = 1000 / max(counted.distinct, 1)
    return Rate(
        relay=relay.name,
        scenario=scenario,
        delivered=counted.distinct,
        duplicates=counted.duplicates,
        refused=int(told["refused"]),
        per_second=counted.distinct / max(counted.last - told["begun"], 1e-9),
        cpu_relay=worked * each if relay.pids() else None,
        cpu_generator=told["cpu"] * each,
        cpu_sink=counted.cpu * each,
        accepted_per_second=told["accepted"] / max(told["ended"] - told["begun"], 1e-9),
        wait_p50=told["waits_p50"],
        wait_p99=told["waits_p99"],
        sessions_out=counted.sessions,
        errors=list(told["errors"]),  # type: ignore[call-overload]  # the only value that is not a number
    )


def measure_memory(relay: Relay, target: Sink, size: int) -> Memory:
    """One message of ``size`` through the relay, its processes watched."""
    run = uuid.uuid4().hex[:12]
    target.reset(run)
    with watching(relay.pids) as watch:
        told = generate(relay, Scenario(size=size, messages=1, per_connection=1, connections=1), run)
        counted = target.wait(int(told["accepted"]), _STALLED)
    return Memory(
        relay=relay.name,
        size=size,
        rss_before=watch.before.rss,
        rss_peak=watch.peak.rss,
        pss_before=watch.before.pss,
        pss_peak=watch.peak.pss,
        delivered=counted.distinct == 1,
    )


def main() -> int:
    """Measure, print, write; 0 where every message of every scenario arrived."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--relays", nargs="+", choices=_RELAYS, default=_RELAYS)
    parser.add_argument("--rounds", type=int, default=1, help="how often each scenario runs (default 1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages: to see that it works")
    parser.add_argument("--memory-size", type=int, default=50_000_000, metavar="OCTETS")
    parser.add_argument("--results", type=Path, default=_ROOT / "bench" / "results")
    options = parser.parse_args()
    console = Console()
    scenarios = [
        Scenario(one.size, max(4, one.messages // 10) if options.quick else one.messages, one.per_connection,
                 one.connections)
        for one in _SCENARIOS
    ]  # fmt: skip
    why = postfix.missing()
    wanted = [name for name in options.relays if why is None or not name.startswith("postfix")]
    if why is not None:
        console.print(f"without Postfix: {why}")
    rates: list[Rate] = []
    memories: list[Memory] = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ca = CA()
        target = stack.enter_context(sink(directory, ca.issue("sink.example", "127.0.0.51")))
        certificate = ca.issue("relay.example")
        relays: list[Relay] = []
        for name in wanted:
            match name:
                case "direct":
                    relays.append(direct(target))
                case "gateway":
                    relays.append(stack.enter_context(gateway_relay(target, certificate, ca)))
                case _:
                    reuse = name == "postfix-reuse"
                    relays.append(stack.enter_context(postfix_relay(target, certificate, reuse=reuse)))
        warm_up = Scenario(size=4096, messages=40, per_connection=20, connections=2)
        for relay in relays:
            measure(relay, target, warm_up)
        # Memory first, while the processes are as small as they will ever be.
        memories = [measure_memory(relay, target, options.memory_size) for relay in relays if relay.name != "direct"]
        for scenario in scenarios:
            for _ in range(options.rounds):
                # In turn, so that a slow moment of the machine does not hit one relay alone.
                for relay in relays:
                    rate = measure(relay, target, scenario)
                    console.print(
                        f"{rate.relay:15} {scenario.label:40} {rate.per_second:8.1f} a second, CPU ms a message: "
                        f"relay {rate.cpu_relay or 0:.2f}, generator {rate.cpu_generator:.2f}, sink {rate.cpu_sink:.2f}"
                    )
                    rates.append(rate)
    show(rates, memories, console=console)
    console.print(f"written to {write(options.results, rates, memories)}")
    return 0 if all(rate.complete for rate in rates) and all(memory.delivered for memory in memories) else 1


if __name__ == "__main__":
    sys.exit(main())
