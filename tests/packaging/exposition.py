"""What a gateway exposes under ``/metrics``: every sample's name, and the labels that its selectors may use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from prometheus_client.registry import Collector

from gateway.observe.metrics import Metrics, QueueCollector, QueueGauges, ReadyCollector

__all__ = ["exposed", "named_in", "selectors"]

#: What Prometheus itself puts on every series.
_OF_PROMETHEUS = frozenset({"instance", "job"})


def exposed() -> Mapping[str, frozenset[str]]:
    """The labels of each sample, by its name."""
    made = Metrics("0")
    collectors: list[Collector] = [QueueCollector(QueueGauges({"queued": 0}, 0.0, 0)), ReadyCollector(ready=True)]
    families = [*made.registry.collect(), *(family for each in collectors for family in each.collect())]
    labels = {
        child._name: frozenset(child._labelnames)
        for child in vars(made).values()
        if hasattr(child, "_labelnames") and hasattr(child, "_name")
    }
    found: dict[str, frozenset[str]] = {"up": _OF_PROMETHEUS}
    for family in families:
        own = labels.get(family.name, frozenset()) | {name for each in family.samples for name in each.labels} - {"le"}
        match family.type:
            case "counter":
                found[f"{family.name}_total"] = own | _OF_PROMETHEUS
            case "histogram":
                found[f"{family.name}_bucket"] = own | _OF_PROMETHEUS | {"le"}
                found[f"{family.name}_sum"] = found[f"{family.name}_count"] = own | _OF_PROMETHEUS
            case _:
                found[family.name] = own | _OF_PROMETHEUS
    return found


def named_in(expression: str) -> set[str]:
    """The metrics of ours that an expression names."""
    return set(re.findall(r"\bgateway_[a-z0-9_]+", re.sub(r'"[^"]*"', "", expression)))


def selectors(expression: str) -> Iterator[tuple[str, str]]:
    """Each metric of ours with each label that its selector asks for."""
    for name, inside in re.findall(r"\b(gateway_[a-z0-9_]+|up)\{([^}]*)\}", expression):
        for label in re.findall(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"', inside):
            yield name, label
