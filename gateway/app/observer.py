"""What the rooms say, as metrics and alarms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import structlog

from gateway.delivery.deliver import DeliveryObserver
from gateway.ingress.intake import IntakeObserver
from gateway.mail.attempt import TlsEvidence
from gateway.mail.protection import Method
from gateway.observe.metrics import Metrics
from gateway.portal.observer import PortalObserver
from gateway.queue.queue import QueueObserver
from gateway.queue.states import State

__all__ = ["Observer"]

_log = structlog.get_logger()


class Observer(IntakeObserver, DeliveryObserver, QueueObserver, PortalObserver):
    """Listens to intake, delivery, queue, outbound sessions and ingress at once."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._raised: Counter[str] = Counter()
        # A label set is looked up under a lock, anew at each use; there are few of them (see ``observe.metrics``).
        self._received = cache(metrics.messages_received.labels)
        self._recipients = cache(metrics.recipients.labels)
        self._delivery = cache(metrics.delivery_seconds.labels)

    def take_raised(self) -> dict[str, int]:
        """The alarms since the last call, each with how often: they become events (``watch``)."""
        raised, self._raised = self._raised, Counter()
        return dict(raised)

    # intake
    def evaluated(self, seconds: float, rules: Iterable[str]) -> None:
        """A message was judged."""
        self._metrics.policy_seconds.observe(seconds)
        for rule in rules:
            self._metrics.rule_matches.labels(rule).inc()

    # delivery
    def passed_over(self, method: Method, reason: str) -> None:
        """A method was passed over."""
        self._metrics.passed_over.labels(str(method), reason).inc()

    def fallback(self, before: Method, after: Method, reason: str) -> None:
        """Another method was tried instead."""
        self._metrics.fallbacks.labels(str(before), str(after), reason).inc()

    def finished(self, method: Method, outcome: str, seconds: float) -> None:  # noqa: ARG002  the seam's shape
        """A recipient's attempt ended."""
        self._delivery(str(method)).observe(seconds)

    # both
    def alarm(self, kind: str) -> None:
        """Something needs a person."""
        self._metrics.alarms.labels(kind).inc()
        self._raised[kind] += 1
        _log.warning("alarm", alarm=kind)

    # queue
    def terminal(self, method: str, state: str) -> None:
        """A recipient ended; one that was dropped needs a look."""
        self._recipients(method or "none", state).inc()
        if state == State.DROPPED:
            self.alarm("dropped")

    def letter_lost(self) -> None:
        """A letter about an alarm was not delivered: counted and logged, and no letter tells of it."""
        self._recipients("none", str(State.DROPPED)).inc()
        self._metrics.alarms.labels("dropped").inc()
        _log.warning("letter_lost", meaning="a letter to notify.alerts could not be delivered")

    def possible_duplicates(self, number: int) -> None:
        """Recipients that may get a message twice."""
        if number:
            self._metrics.possible_duplicates.inc(number)

    def poisoned(self, number: int) -> None:
        """Recipients held because their workers died."""
        self._metrics.alarms.labels("poison").inc(number)  # the recovery has written the event, with its message

    # sessions
    def session(self, evidence: TlsEvidence | None, result: str) -> None:
        """An outbound session was judged."""
        version = "none" if evidence is None else evidence.version
        assurance = "none" if evidence is None else str(evidence.assurance)
        self._metrics.tls_sessions.labels(version, assurance, result).inc()

    # ingress
    def received(self, connector: str, result: str) -> None:
        """The end of one DATA."""
        self._received(connector or "none", result).inc()

    def connections(self, listener: str, change: int) -> None:
        """A connection came or went."""
        self._metrics.connections.labels(listener).inc(change)

    def refused(self, reason: str) -> None:
        """An answer other than success."""
        self._metrics.refusals.labels(reason).inc()

    def softened(self) -> None:
        """A refusal that only its connector's stage made temporary."""
        self.alarm("soft_refusal")

    # the portal
    def deposited(self) -> None:
        """A recipient's message lies in the portal from now on."""
        self.happened("deposited")

    def happened(self, event: str) -> None:
        """Something happened in the portal."""
        self._metrics.portal_messages.labels(event).inc()

    def opened(self, seconds: float) -> None:
        """A message was read for the first time."""
        self._metrics.portal_time_to_open.observe(seconds)
