"""Results as tables for people and as JSON for later comparison."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import ssl
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measure import Crowded, Memory, Rate, Slowed
from bench.scenarios import Scenario
from gateway import __version__

__all__ = ["Results", "show", "spread", "surroundings", "write"]


@dataclass
class Results:
    """Everything that one run has measured, in the order in which it was measured."""

    scenarios: list[Scenario] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    crowds: list[Crowded] = field(default_factory=list)
    slowed: list[Slowed] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Did every message of the streams and of the memory scenario arrive, once?"""
        return all(rate.complete for rate in self.rates) and all(memory.delivered for memory in self.memories)

    def of(self, scenario: Scenario, relay: str) -> list[Rate]:
        """The rounds of that stream through that relay."""
        return [rate for rate in self.rates if rate.scenario == scenario.name and rate.relay == relay]

    def relays(self, scenario: Scenario) -> list[str]:
        """Who ran that stream."""
        return list(dict.fromkeys(rate.relay for rate in self.rates if rate.scenario == scenario.name))


def surroundings(directory: Path) -> dict[str, str | int | float]:
    """The machine and the versions, as far as figures depend on them: no names, no paths.

    ``directory``: where the relays keep their mail, for its file system.
    """
    found: dict[str, str | int | float] = {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "gateway": __version__,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release().partition("-")[0],
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "file_system": _file_system(directory),
        "load_before": os.getloadavg()[0],
    }
    try:
        asked = subprocess.run(["postconf", "-h", "mail_version"], capture_output=True, text=True, check=True)
        found["postfix"] = asked.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found["postfix"] = "not installed"
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    """The type of the file system that holds this directory."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, this, *_ = line.split()
        if directory.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, this
    return kind


def spread(values: Sequence[float]) -> str:
    """The median, and from where to where where there are several."""
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def show(results: Results, console: Console) -> None:
    """Print all tables."""
    for scenario in results.scenarios:
        if results.relays(scenario):
            console.print(_stream(results, scenario))
    for rate in (rate for rate in results.rates if not rate.complete):
        console.print(
            f"{rate.relay}, {rate.scenario}: {rate.delivered} of {rate.sent} arrived, {rate.duplicates} twice, "
            f"{rate.refused} refused {rate.errors}"
        )
    if results.memories:
        console.print(_memory(results.memories))
    if results.crowds:
        console.print(_crowd(results.crowds))
    if results.slowed:
        console.print(_slow(results.slowed))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _stream(results: Results, scenario: Scenario) -> Table:
    columns = ("relay", "messages/s", "CPU ms relay", "generator", "sink", "250 after ms p50", "p99", "sessions out")
    table = _table(f"{scenario.name}: {scenario.label}", columns)
    for relay in results.relays(scenario):
        rates = results.of(scenario, relay)
        relays_cpu = [rate.cpu_relay for rate in rates if rate.cpu_relay is not None]
        table.add_row(
            relay,
            spread([rate.per_second for rate in rates]) + ("" if all(rate.complete for rate in rates) else "!"),
            spread(relays_cpu) if relays_cpu else "-",
            *_medians((rate.cpu_generator, rate.cpu_sink, rate.wait_p50 * 1e3, rate.wait_p99 * 1e3) for rate in rates),
            f"{statistics.median(rate.sessions_out for rate in rates):.0f}",
        )
    return table


def _medians(rows: Iterable[tuple[float, ...]]) -> list[str]:
    return [_number(statistics.median(column)) for column in zip(*rows, strict=True)]


def _waits(*seconds: float) -> list[str]:
    """Milliseconds; nothing was measured where nobody was served."""
    return [_number(value * 1e3) if value else "-" for value in seconds]


def _memory(memories: list[Memory]) -> Table:
    columns = ("relay", "message", "RSS before", "RSS peak", "PSS before", "PSS peak", "PSS growth")
    table = _table("memory: all processes while one message passes, MB", columns)
    for memory in memories:
        values = (memory.size, memory.rss_before, memory.rss_peak, memory.pss_before, memory.pss_peak)
        growth = memory.pss_peak - memory.pss_before
        cells = [f"{value / 1e6:.1f}" for value in (*values, growth)]
        table.add_row(memory.relay + ("" if memory.delivered else " (not delivered)"), *cells)
    return table


def _crowd(crowds: list[Crowded]) -> Table:
    columns = ("relay", "idle stand", "PSS before", "with idle", "peak", "banner ms p50", "p99", "none", "arrived")
    table = _table(
        "crowd: PSS, MB, and banner while connections stand idle and 200 more send 100 messages a second", columns
    )
    for crowd in crowds:
        table.add_row(
            crowd.relay,
            f"{crowd.stand} of {crowd.idle}",
            *(f"{value / 1e6:.1f}" for value in (crowd.pss_before, crowd.pss_idle, crowd.pss_peak)),
            *_waits(crowd.banner_p50, crowd.banner_p99),
            str(crowd.unanswered),
            f"{crowd.delivered} of {crowd.sent}",
        )
    return table


def _slow(slowed: list[Slowed]) -> Table:
    columns = (
        "relay",
        "slow stand",
        "p99 alone",
        "p99 beside",
        "times",
        "p50 alone",
        "beside",
        "banner p99",
        "arrived",
    )
    table = _table("slow: healthy peers' wait for 250, ms, beside peers that send a byte a second", columns)
    for slow in slowed:
        alone, beside = slow.alone, slow.beside
        times = beside.wait_p99 / alone.wait_p99 if alone.wait_p99 and beside.wait_p99 else 0.0
        table.add_row(
            slow.relay,
            f"{slow.stand} of {slow.slow}",
            *_waits(alone.wait_p99, beside.wait_p99),
            f"{times:.2f}" if times else "-",
            *_waits(alone.wait_p50, beside.wait_p50, slow.banner_p99),
            f"{beside.delivered} of {beside.sent}",
        )
    return table


def write(path: Path, results: Results, facts: dict[str, str | int | float]) -> None:
    """All figures, each round by itself, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"surroundings": facts, **asdict(results)}, indent=2) + "\n", encoding="utf-8")
