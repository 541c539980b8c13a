"""``python -m bench``: scenarios through every relay that can run here, one after the other, in turn."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib.util
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.measure import measure, measure_crowd, measure_memory, measure_slow
from bench.plot import bars, plot
from bench.relays import Relay, Sink, direct, gateway_relay, postfix_relay, sink
from bench.report import Results, show, surroundings, write
from bench.scenarios import SPECIAL, STREAMS, Scenario
from gateway.testing.ca import CA, Certificate
from tests.peers import postfix

_ROOT: Final = Path(__file__).parents[1]
_RELAYS: Final = ("direct", "postfix", "postfix-reuse", "gateway", "healthcare")
_WARM_UP: Final = Scenario("warm-up", size=4096, messages=100, per_connection=20, connections=5)
_CROWD: Final = Scenario("crowd", size=4096, messages=2000, per_connection=20, connections=200, rate=100)
_HEALTHY: Final = Scenario("slow", size=4096, messages=1000, per_connection=20, connections=20, rate=50)


@dataclass(frozen=True, slots=True)
class Bench:
    """What was asked for, and where it is measured."""

    options: argparse.Namespace
    console: Console
    directory: Path
    ca: CA
    target: Sink
    certificate: Certificate
    results: Results

    @contextmanager
    def relays(self, *, tls: bool) -> Iterator[list[Relay]]:
        """All relays that were asked for, running and warm."""
        with contextlib.ExitStack() as stack:
            found: list[Relay] = []
            for name in self.options.relays:
                match name:
                    case "direct":
                        found.append(direct(self.target, tls=tls))
                    case "gateway":
                        made = gateway_relay(self.target, self.certificate, self.ca, tls=tls)
                        found.append(stack.enter_context(made))
                    case "healthcare" if tls:  # the sample policy asks for verified TLS, and for no plain
                        made = gateway_relay(self.target, self.certificate, self.ca, sample="healthcare.yaml")
                        found.append(stack.enter_context(made))
                    case "healthcare":
                        continue
                    case "postfix":
                        made = postfix_relay(self.target, self.certificate, reuse=False, tls=tls)
                        found.append(stack.enter_context(made))
                    case _ if tls:  # without TLS there is no TLS connection to use again
                        made = postfix_relay(self.target, self.certificate, reuse=True)
                        found.append(stack.enter_context(made))
            for relay in found:
                measure(relay, self.target, replace(_WARM_UP, tls=tls))
            yield found

    def special(self, relays: Sequence[Relay], names: Sequence[str]) -> None:
        """What is not a stream alone; memory first, while the processes are as small as they will ever be."""
        quick = self.options.quick
        relays = [relay for relay in relays if relay.name != "direct"]
        for relay in relays if "memory" in names else ():
            size = self.options.memory_size // (10 if quick else 1)
            self.say(relay, "memory")
            self.results.memories.append(measure_memory(relay, self.target, size))
        for relay in relays if "crowd" in names else ():
            stream = replace(_CROWD.quick(), connections=20) if quick else _CROWD
            self.say(relay, "crowd")
            crowd = measure_crowd(relay, self.target, idle=100 if quick else 1000, stream=stream)
            self.results.crowds.append(crowd)
        for relay in relays if "slow" in names else ():
            stream = _HEALTHY.quick() if quick else _HEALTHY
            self.say(relay, "slow")
            slowed = measure_slow(relay, self.target, slow=100 if quick else 1000, stream=stream)
            self.results.slowed.append(slowed)

    def streams(self, relays: Sequence[Relay], scenarios: Sequence[Scenario]) -> None:
        """Every stream through every relay, in turn, so that a slow moment of the machine does not hit one alone."""
        for scenario in scenarios:
            for _ in range(self.options.rounds):
                for relay in relays:
                    rate = measure(relay, self.target, scenario)
                    self.results.rates.append(rate)
                    cpu = "-" if rate.cpu_relay is None else f"{rate.cpu_relay:.2f}"
                    self.console.print(
                        f"{scenario.name:8} {relay.name:14} {rate.per_second:7.1f} messages/s, CPU ms a message: "
                        f"relay {cpu}, generator {rate.cpu_generator:.2f}, sink {rate.cpu_sink:.2f}",
                        highlight=False,
                    )

    def say(self, relay: Relay, what: str) -> None:
        """Tell what begins now."""
        self.console.print(f"{what:8} {relay.name}", highlight=False)


def _options() -> argparse.Namespace:
    names = [*(one.name for one in STREAMS), *SPECIAL]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--relays", nargs="+", choices=_RELAYS, default=_RELAYS)
    parser.add_argument("--scenarios", nargs="+", choices=names, help="default: all but backlog", metavar="NAME",
                        default=[name for name in names if name != "backlog"])  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1, help="how often each stream runs (default 1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: to see that it works")
    parser.add_argument("--memory-size", type=int, default=150_000_000, metavar="OCTETS")
    parser.add_argument("--results", type=Path, default=_ROOT / "bench" / "results")
    return parser.parse_args()


def _open_files() -> None:
    """As many as may be, for relays and peers alike: a service's unit sets it the same way."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    """Measure, print, write; 0 where every message of every stream arrived."""
    options = _options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # a file: tables as wide as they are
    _open_files()
    why = postfix.missing()
    if why is not None:
        options.relays = [name for name in options.relays if not name.startswith("postfix")]
        console.print(f"without Postfix: {why}")
    streams = [one.quick() if options.quick else one for one in STREAMS if one.name in options.scenarios]
    results = Results(scenarios=streams)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        facts = surroundings(directory)
        ca = CA()
        target = stack.enter_context(sink(directory, ca.issue("sink.example", "127.0.0.51")))
        bench = Bench(options, console, directory, ca, target, ca.issue("relay.example"), results)
        over_tls = [one for one in streams if one.tls]
        special = [name for name in options.scenarios if name in {"memory", "crowd", "slow"}]
        if over_tls or special:
            with bench.relays(tls=True) as relays:
                bench.special(relays, special)
                bench.streams(relays, over_tls)
        plain = [one for one in streams if not one.tls]
        if plain:
            with bench.relays(tls=False) as relays:
                bench.streams(relays, plain)
    show(results, console)
    bars(results, console)
    stem = options.results / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
    write(stem.with_suffix(".json"), results, facts)
    plot(stem.with_suffix(".svg"), results, facts)
    console.print(f"\nwritten to {stem}.json and .svg", highlight=False)
    if "backlog" in options.scenarios:
        return _backlog(console) or not results.complete
    return 0 if results.complete else 1


def _backlog(console: Console) -> int:
    """How figures change with what waits in the queue: a program of its own."""
    if importlib.util.find_spec("bench.backlog") is None:
        console.print("backlog: this version has no such program")
        return 1
    return subprocess.run([sys.executable, "-m", "bench.backlog"], cwd=_ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
