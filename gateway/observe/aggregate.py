"""The metrics of several processes as those of one gateway.

1. :func:`snapshot` - what a process's registry says now, as plain values that can be written as JSON
2. :func:`lasting` - what of it stays true when the process ends: counters and histograms, never gauges
3. :func:`merge` - several snapshots as one: counters and histograms summed, gauges as :data:`GAUGES` declares
4. :class:`Merged` - the result as a collector, for the exposition

A counter must never go down. So a worker that succeeds one that died begins with what that one had counted last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypedDict

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

__all__ = ["GAUGES", "Family", "Merged", "Snapshot", "lasting", "merge", "snapshot"]

#: How a gauge of several processes becomes one: summed, or the largest where each says the same of all.
GAUGES: Final[Mapping[str, Callable[[float, float], float]]] = MappingProxyType(
    {
        "gateway_smtp_connections": lambda a, b: a + b,
        "gateway_certificate_expiry_timestamp_seconds": min,  # the one that ends first needs the person
        "gateway_connectors_observing": max,
        "gateway_clock_in_doubt": max,
        "gateway_build_info": max,
    }
)


class Family(TypedDict):
    """A metric: its samples are name, labels (sorted pairs) and value."""

    name: str
    help: str
    type: str
    samples: list[tuple[str, list[tuple[str, str]], float]]


Snapshot = list[Family]


def snapshot(registry: CollectorRegistry) -> Snapshot:
    """What the registry says now."""
    return [
        Family(
            name=metric.name,
            help=metric.documentation,
            type=metric.type,
            samples=[(each.name, sorted(each.labels.items()), float(each.value)) for each in metric.samples],
        )
        for metric in registry.collect()
    ]


def lasting(families: Snapshot) -> Snapshot:
    """Counters and histograms only."""
    return [family for family in families if family["type"] in {"counter", "histogram"}]


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot out of many. A metric or label that only some have counts as far as it goes."""
    merged: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in snapshots:
        for family in families:
            name = family["name"]
            merged.setdefault(name, Family(name=name, help=family["help"], type=family["type"], samples=[]))
            known = values.setdefault(name, {})
            join = GAUGES.get(name, max) if family["type"] == "gauge" else _add
            for sample, labels, value in family["samples"]:
                key = (sample, tuple((str(label), str(text)) for label, text in labels))
                known[key] = join(known[key], value) if key in known else value
    for name, family in merged.items():
        family["samples"] = [(sample, list(labels), value) for (sample, labels), value in values[name].items()]
    return list(merged.values())


def _add(one: float, other: float) -> float:
    return one + other


class Merged(Collector):
    """A snapshot, to be exposed."""

    def __init__(self, families: Snapshot) -> None:
        self._families = families

    def describe(self) -> list[Metric]:
        """Nothing is known at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families of the snapshot."""
        for family in self._families:
            metric = Metric(family["name"], family["help"], family["type"])
            for name, labels, value in family["samples"]:
                metric.add_sample(name, dict(labels), value)
            yield metric
