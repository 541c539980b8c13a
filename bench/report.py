"""Results as a table for people and as JSON for later comparison."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import ssl
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gateway import __version__

__all__ = ["Memory", "Rate", "Scenario", "show", "surroundings", "write"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is sent: ``size`` octets a message, so many messages on so many connections at a time."""

    size: int
    messages: int
    per_connection: int
    connections: int

    @property
    def label(self) -> str:
        """For the table's first column."""
        size = f"{self.size // 1_000_000} MB" if self.size >= 1_000_000 else f"{self.size // 1024} KB"
        return f"{size}, {self.per_connection} a connection, {self.connections} at a time"


@dataclass(frozen=True, slots=True)
class Rate:
    """One scenario through one relay: messages a second from the first connection to the last arrival at the sink.

    ``delivered`` are different messages; ``cpu`` are milliseconds of CPU for one of them, ``cpu_relay`` over all
    processes of the relay (``None``: there is none).
    """

    relay: str
    scenario: Scenario
    delivered: int
    duplicates: int
    refused: int
    per_second: float
    cpu_relay: float | None
    cpu_generator: float
    cpu_sink: float
    accepted_per_second: float
    wait_p50: float
    wait_p99: float
    sessions_out: int
    errors: list[str]

    @property
    def complete(self) -> bool:
        """Did everything that was sent arrive, once?"""
        return self.delivered == self.scenario.messages and not self.refused and not self.duplicates


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


def surroundings() -> dict[str, str | int]:
    """The machine and the versions, as far as figures depend on them."""
    found: dict[str, str | int] = {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "gateway": __version__,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release(),
        "cores": os.cpu_count() or 1,
        "processor": _processor(),
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


def show(rates: list[Rate], memories: list[Memory], *, console: Console) -> None:
    """Print both tables."""
    relays = list(dict.fromkeys(rate.relay for rate in rates))
    table = Table(
        title="Messages a second, end to end, TLS on both sides (CPU of the relay, ms a message)", title_justify="left"
    )
    table.add_column("scenario")
    for relay in relays:
        table.add_column(relay, justify="right")
    for scenario in dict.fromkeys(rate.scenario for rate in rates):
        cells = []
        for relay in relays:
            found = [rate for rate in rates if rate.relay == relay and rate.scenario == scenario]
            cells.append(" / ".join(_cell(rate) for rate in found) or "-")
        table.add_row(scenario.label, *cells)
    console.print(table)
    console.print(f"CPU, ms a message, least and most: {_instruments(rates)}")
    for rate in rates:
        if not rate.complete:
            console.print(
                f"{rate.relay}, {rate.scenario.label}: {rate.delivered} of {rate.scenario.messages} arrived, "
                f"{rate.duplicates} twice, {rate.refused} refused {rate.errors}"
            )
    if memories:
        table = Table(title="Memory of all processes while one message passes, MB", title_justify="left")
        for column in ("relay", "message", "RSS before", "RSS peak", "PSS before", "PSS peak", "PSS growth"):
            table.add_column(column, justify="left" if column == "relay" else "right")
        for memory in memories:
            values = (memory.size, memory.rss_before, memory.rss_peak, memory.pss_before, memory.pss_peak)
            growth = memory.pss_peak - memory.pss_before
            cells = [f"{value / 1e6:.1f}" for value in (*values, growth)]
            table.add_row(memory.relay + ("" if memory.delivered else " (not delivered)"), *cells)
        console.print(table)


def _instruments(rates: list[Rate]) -> str:
    """What generator and sink themselves cost at the smallest message over the longest connections."""
    best = min((rate.scenario for rate in rates), key=lambda one: (one.size, -one.per_connection))
    found = [rate for rate in rates if rate.scenario == best]
    parts = {"generator": [rate.cpu_generator for rate in found], "sink": [rate.cpu_sink for rate in found]}
    return ", ".join(f"{name} {min(values):.2f} to {max(values):.2f}" for name, values in parts.items())


def _cell(rate: Rate) -> str:
    number = f"{rate.per_second:.0f}" if rate.per_second >= 10 else f"{rate.per_second:.1f}"
    cpu = "" if rate.cpu_relay is None else f" ({rate.cpu_relay:.2f})"
    return f"{number}{'' if rate.complete else '!'}{cpu}"


def write(directory: Path, rates: list[Rate], memories: list[Memory]) -> Path:
    """Write all figures as JSON, named by the time; returns the path."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "surroundings": surroundings(),
        "rates": [asdict(rate) for rate in rates],
        "memory": [asdict(memory) for memory in memories],
    }
    path = directory / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path
