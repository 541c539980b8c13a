"""Prometheus metrics, by the names of the interface contract.

Every label value is from a closed set or bounded by the configuration:

``connector``  names in the configuration, ``none`` before one is known, ``system`` for mail of our own
``method``     plain, tls, smime, pgp, pdf, portal, none
``outcome``    delivered, bounced, rejected, cancelled, expired, dropped, picked_up, recalled
``state``      the live states of ``gateway.queue.states``
``result``     of a message: accepted, client_gone, or a reason of ``gateway.ingress.refusals``;
               of a TLS session: ok, or the verdict (definite, assurance, temporary)
``event``      of the portal: see ``gateway.portal.observer``
``reason``     of a method passed over: definite, fallback_after; of a fallback: the same
``kind``       of an alarm: see :data:`ALARMS`
``face``       portal
``route``      names of routes in the code, ``none`` where there is no such page; ``status``: HTTP's
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.observe.alarms import ALARMS

__all__ = ["ALARMS", "Metrics", "QueueCollector", "QueueGauges", "ReadyCollector"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_LONG = (60, 300, 900, 3600, 4 * 3600, 86400, 2 * 86400, 7 * 86400, 14 * 86400, 30 * 86400)
_FAST = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1, 5)


@dataclass(frozen=True, slots=True)
class QueueGauges:
    """What the queue's counter rows say at one moment. ``oldest`` in seconds, 0 where nothing waits."""

    states: dict[str, int]
    oldest: float
    free_bytes: int


class QueueCollector(Collector):
    """The gauges of the queue: of the whole gateway, so they are read once and not by each worker."""

    def __init__(self, gauges: QueueGauges) -> None:
        self._gauges = gauges

    def describe(self) -> list[Metric]:
        """Nothing is read at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges of now."""
        gauges = self._gauges
        family = GaugeMetricFamily("gateway_queue_recipients", "Recipients by live state", labels=["state"])
        for state, value in sorted(gauges.states.items()):
            family.add_metric([state], value)
        yield family
        yield GaugeMetricFamily("gateway_queue_oldest_seconds", "Age of the oldest in the queue", value=gauges.oldest)
        yield GaugeMetricFamily("gateway_store_free_bytes", "Free space under data_dir", value=gauges.free_bytes)


class ReadyCollector(Collector):
    """Whether ``/readyz`` answers 200, for those who watch by metrics alone: of the whole gateway, like the queue's."""

    def __init__(self, *, ready: bool) -> None:
        self._ready = ready

    def describe(self) -> list[Metric]:
        """Nothing is asked at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """1 or 0."""
        yield GaugeMetricFamily("gateway_ready", "1 while every worker can take mail, as /readyz", value=self._ready)


class Metrics:
    """All metrics of one gateway, in a registry of their own."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each counter: not wanted
        self.registry = CollectorRegistry()
        own = self.registry
        self.messages_received = Counter(
            "gateway_messages_received", "Messages at the end of DATA", ["connector", "result"], registry=own
        )
        self.refusals = Counter("gateway_smtp_refusals", "Answers other than success", ["reason"], registry=own)
        self.recipients = Counter(
            "gateway_recipients", "Recipients that reached a terminal state", ["method", "outcome"], registry=own
        )
        self.possible_duplicates = Counter(
            "gateway_possible_duplicates", "Recipients that may get a message twice", registry=own
        )
        self.delivery_seconds = Histogram(
            "gateway_delivery_seconds", "Seconds per delivery attempt", ["method"], buckets=_SECONDS, registry=own
        )
        self.rule_matches = Counter("gateway_policy_rule_matches", "Rules that matched", ["rule"], registry=own)
        self.policy_seconds = Histogram(
            "gateway_policy_seconds", "Seconds per policy evaluation of a message", buckets=_FAST, registry=own
        )
        self.tls_sessions = Counter(
            "gateway_tls_sessions", "Outbound sessions judged", ["version", "assurance", "result"], registry=own
        )
        self.passed_over = Counter(
            "gateway_method_passed_over", "Methods passed over", ["method", "reason"], registry=own
        )
        self.fallbacks = Counter(
            "gateway_fallbacks", "Another method was tried", ["from", "to", "reason"], registry=own
        )
        self.connections = Gauge("gateway_smtp_connections", "Open inbound connections", ["listener"], registry=own)
        self.commit_seconds = Histogram(
            "gateway_store_commit_seconds", "Seconds per commit", buckets=_FAST, registry=own
        )
        self.batch_size = Histogram(
            "gateway_store_batch_size", "Jobs per commit", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=own
        )
        self.certificate_expiry = Gauge(
            "gateway_certificate_expiry_timestamp_seconds", "End of our certificates", ["use"], registry=own
        )
        self.clock_in_doubt = Gauge(
            "gateway_clock_in_doubt", "1 while the wall clock is not believed: nothing expires", registry=own
        )
        self.alarms = Counter("gateway_alarms", "Things that need a person", ["kind"], registry=own)
        for kind in ALARMS:
            self.alarms.labels(kind)
        Gauge("gateway_build_info", "Constant 1", ["version"], registry=own).labels(version).set(1)
        self.observed_connectors = Gauge(
            "gateway_connectors_observing", "Connectors in stage observe: their mail is not protected", registry=own
        )

        self.portal_messages = Counter(
            "gateway_portal_messages", "What happens to messages in the portal", ["event"], registry=own
        )
        self.portal_time_to_open = Histogram(
            "gateway_portal_time_to_open_seconds",
            "Seconds from the deposit to the first reading",
            buckets=_LONG,
            registry=own,
        )
        self.web_requests = Counter(
            "gateway_web_requests", "Answers to browsers", ["face", "route", "status"], registry=own
        )
        self.web_seconds = Histogram(
            "gateway_web_request_seconds", "Seconds per answer", ["face", "route"], buckets=_SECONDS, registry=own
        )

    def visited(self, face: str, route: str, status: int, seconds: float) -> None:
        """A browser was answered; status 0 where it went away before."""
        self.web_requests.labels(face, route, str(status)).inc()
        self.web_seconds.labels(face, route).observe(seconds)

    def committed(self, seconds: float, jobs: int) -> None:
        """A batch was committed (called on the writer's thread; the client library locks)."""
        self.commit_seconds.observe(seconds)
        self.batch_size.observe(jobs)
