"""Where the gateway's time goes: ``python -m bench.profile``.

1. Run the scenario, and take from ``/proc/PID/task/TID/stat`` what each thread of each process has worked: exact.
2. Run it again while py-spy samples every process (without stopping it), and find each sample's stage.
3. Share each thread's time out over the stages, by its samples.

So sampling says only how a thread's time divides, never how much it is. Raw stacks stay with the results.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.measure import Rate, measure
from bench.processes import settle, threads
from bench.relays import gateway_relay, sink
from bench.scenarios import STREAMS, Scenario
from bench.stages import STAGES, parse, stage_of
from gateway.testing.ca import CA

_ROOT: Final = Path(__file__).parents[1]
_WARM_UP: Final = Scenario("warm-up", size=4096, messages=200, per_connection=20, connections=10)
_GROUPS: Final = ("event loop", "writer", "others")


def _py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


@contextmanager
def _sampling(program: str, pids: list[int], rate: int, directory: Path) -> Iterator[None]:
    """py-spy on each of these processes; a file of raw stacks each at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    running = [
        subprocess.Popen(
            [
                *(program, "record", "--pid", str(pid), "--format", "raw", "--threads", "--nonblocking"),
                *("--rate", str(rate), "--output", str(directory / f"{number}.txt"), "--duration", "600"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number, pid in enumerate(pids, 1)
    ]
    try:
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Samples:
    """What was sampled: by thread, how often in which stage."""

    def __init__(self, directory: Path) -> None:
        self.stages: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self.names: dict[int, str] = {}
        for path in sorted(directory.glob("*.txt")):
            for line in path.read_text(encoding="utf-8").splitlines():
                thread, name, frames, count = parse(line)
                stage = stage_of(frames)
                self.names[thread] = name
                if stage is not None:
                    self.stages[thread][stage] += count

    def group(self, thread: int) -> str:
        """Which of the groups a thread belongs to."""
        name = self.names.get(thread, "")
        return "event loop" if name == "MainThread" else "writer" if name.startswith("store-write") else "others"


def divided(worked: dict[int, float], samples: Samples) -> dict[str, defaultdict[str, float]]:
    """Each group's time by stage: every thread's own time, in the proportions of its samples."""
    found: dict[str, defaultdict[str, float]] = {group: defaultdict(float) for group in _GROUPS}
    for thread, seconds in worked.items():
        stages = samples.stages[thread] or Counter({"other": 1})
        for stage, count in stages.items():
            found[samples.group(thread)][stage] += seconds * count / stages.total()
    return found


def main() -> int:
    """Measure, sample, tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__.partition("\n")[0])
    parser.add_argument("--scenario", choices=[one.name for one in STREAMS], default="4k20")
    parser.add_argument("--sample", default="", metavar="FILE", help="with this shipped policy: healthcare.yaml")
    parser.add_argument("--messages", type=int, help="instead of the scenario's own number")
    parser.add_argument("--rate", type=int, default=200, help="samples a second of each process (default 200)")
    parser.add_argument("--results", type=Path, default=_ROOT / "bench" / "results")
    options = parser.parse_args()
    program = _py_spy()
    if program is None:
        print("py-spy is not installed: pip install -e '.[bench]'", file=sys.stderr)
        return 2
    scenario = next(one for one in STREAMS if one.name == options.scenario)
    if options.messages:
        scenario = replace(scenario, messages=options.messages)
    raw = options.results / f"profile-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ca = CA()
        target = stack.enter_context(sink(directory, ca.issue("sink.example", "127.0.0.51")))
        made = gateway_relay(target, ca.issue("relay.example"), ca, tls=scenario.tls, sample=options.sample)
        relay = stack.enter_context(made)
        measure(relay, target, replace(_WARM_UP, tls=scenario.tls))
        settle(relay.pids)
        before = threads(relay.pids())
        rate = measure(relay, target, scenario)
        worked = {thread: seconds - before.get(thread, 0.0) for thread, seconds in threads(relay.pids()).items()}
        processes = [sum(worked.get(thread, 0.0) for thread in threads([pid])) for pid in relay.pids()]
        with _sampling(program, relay.pids(), options.rate, raw):
            sampled = measure(relay, target, scenario)
    samples = Samples(raw)
    if not samples.stages:
        print(
            "py-spy has seen nothing: may it trace other processes (ptrace_scope, a container's rights)?",
            file=sys.stderr,
        )
        return 2
    _show(Console(), scenario, (rate, sampled), worked, samples)
    parts = ", ".join(f"{1000 * seconds / max(rate.delivered, 1):.2f}" for seconds in processes)
    print(f"by process, from the one that was started on: {parts}\nraw stacks: {raw}")
    return 0


def _show(
    console: Console, scenario: Scenario, rates: tuple[Rate, Rate], worked: dict[int, float], samples: Samples
) -> None:
    rate, sampled = rates
    each = 1000 / max(rate.delivered, 1)
    parts = divided(worked, samples)
    table = Table(title=f"gateway, {scenario.label}: CPU, ms a message", title_justify="left")
    table.add_column("stage")
    for group in _GROUPS:
        table.add_column(group, justify="right")
    table.add_column("all", justify="right")
    table.add_column("share", justify="right")
    everything = sum(worked.values()) or 1.0
    for stage in STAGES:
        row = [parts[group][stage] for group in _GROUPS]
        cells = [f"{seconds * each:.3f}" if seconds else "" for seconds in row]
        table.add_row(stage, *cells, f"{sum(row) * each:.3f}", f"{100 * sum(row) / everything:.0f} %")
    totals = [sum(parts[group].values()) for group in _GROUPS]
    table.add_section()
    table.add_row("all", *(f"{total * each:.3f}" for total in totals), f"{everything * each:.3f}", "")
    console.print(table)
    counts = Counter(dict.fromkeys(_GROUPS, 0))
    for thread, stages in samples.stages.items():
        counts[samples.group(thread)] += stages.total()
    console.print(
        f"{rate.per_second:.0f} messages/s and {rate.cpu_relay or 0:.2f} ms a message unwatched, "
        f"{sampled.per_second:.0f} and {sampled.cpu_relay or 0:.2f} while sampled; samples: "
        + ", ".join(f"{group} {counts[group]}" for group in _GROUPS),
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
