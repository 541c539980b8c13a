"""The streams as bars: an SVG written by hand, and a few lines for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from rich.console import Console

from bench.measure import Rate
from bench.report import Results
from bench.scenarios import Scenario

__all__ = ["bars", "plot"]

_COLOURS: Final = {
    "direct": "#b8b8b8",
    "postfix": "#8fb3d9",
    "postfix-reuse": "#3f78b5",
    "gateway": "#d9822b",
    "healthcare": "#a65a12",
}
_WIDTH: Final = 460  # of one panel
_ROW: Final = 22
_LABELS: Final = 110
_BARS: Final = 230
_HEAD: Final = 34


def _per_second(rate: Rate) -> float | None:
    return None if rate.relay == "direct" else rate.per_second


def _cpu(rate: Rate) -> float | None:
    return rate.cpu_relay


def _wait(rate: Rate) -> float | None:
    return None if rate.relay == "direct" else rate.wait_p99 * 1e3


_PANELS: Final[tuple[tuple[str, Callable[[Rate], float | None]], ...]] = (
    ("messages a second (more is better)", _per_second),
    ("CPU, ms a message (less is better)", _cpu),
)
_LATENCY: Final[tuple[tuple[str, Callable[[Rate], float | None]], ...]] = (
    ("250 after the final dot, p99, ms (less is better)", _wait),
    ("CPU, ms a message (less is better)", _cpu),
)


def plot(path: Path, results: Results, facts: dict[str, str | int | float]) -> None:
    """One row a stream, two panels each; a thin line reaches from the least to the greatest of the rounds."""
    parts: list[str] = []
    top = 60
    for scenario in results.scenarios:
        relays = [relay for relay in results.relays(scenario) if relay != "direct"]
        if not relays:
            continue
        parts.append(_text(16, top + 14, f"{scenario.name}: {scenario.label}", weight="bold"))
        panels = _PANELS if scenario.rate is None else _LATENCY
        for column, (title, value) in enumerate(panels):
            parts += _panel(
                16 + column * _WIDTH,
                top + 20,
                title,
                [(relay, _values(results, scenario, relay, value)) for relay in relays],
            )
        top += _HEAD + 20 + _ROW * len(relays)
    told = ("cores", "processor", "kernel", "file_system", "python", "openssl", "postfix")
    machine = ", ".join(f"{name.replace('_', ' ')} {facts[name]}" for name in told if name in facts)
    width, height = 2 * _WIDTH + 32, top + 20
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>'
    )
    heading = [
        _text(16, 24, "generator - relay - sink, one machine", size=16, weight="bold"),
        _text(16, 42, machine, size=10),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *heading, *parts, "</svg>"]) + "\n", encoding="utf-8")


def _values(results: Results, scenario: Scenario, relay: str, value: Callable[[Rate], float | None]) -> list[float]:
    return [found for rate in results.of(scenario, relay) if (found := value(rate)) is not None]


def _panel(left: int, top: int, title: str, rows: Sequence[tuple[str, list[float]]]) -> list[str]:
    parts = [_text(left + _LABELS, top + 12, title, size=10)]
    most = max((max(values) for _, values in rows if values), default=0.0) or 1.0
    for number, (relay, values) in enumerate(rows):
        if not values:
            continue
        y = top + 18 + number * _ROW
        middle = statistics.median(values)
        low, high = (left + _LABELS + _BARS * edge / most for edge in (min(values), max(values)))
        parts += [
            _text(left + _LABELS - 6, y + 13, relay, anchor="end"),
            _bar(left + _LABELS, y, _BARS * middle / most, _COLOURS.get(relay, "#888888")),
            f'<path d="M{low:.1f} {y + 8}H{high:.1f}" stroke="black"/>',
            _text(round(max(high, left + _LABELS)) + 6, y + 13, f"{middle:.{0 if middle >= 100 else 2}f}"),
        ]
    return parts


def _bar(x: int, y: int, width: float, colour: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{_ROW - 6}" fill="{colour}"/>'


def _text(x: int, y: int, text: str, *, size: int = 12, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def bars(results: Results, console: Console) -> None:
    """The same for the terminal: messages a second, and where a rate was given the wait for 250."""
    for scenario in results.scenarios:
        relays = [relay for relay in results.relays(scenario) if relay != "direct"]
        title, value = (_PANELS if scenario.rate is None else _LATENCY)[0]
        middles = {relay: statistics.median(_values(results, scenario, relay, value)) for relay in relays}
        if not middles:
            continue
        console.print(f"\n{scenario.name}: {title}", highlight=False)
        most = max(middles.values()) or 1.0
        for relay, middle in middles.items():
            console.print(f"  {relay:14} {'█' * max(1, round(40 * middle / most))} {middle:.4g}", highlight=False)
