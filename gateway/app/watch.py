"""What is looked at every second: what needs a person, and a certificate that was renewed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import structlog

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.ingress.server import IngressServer
from gateway.observe.metrics import Metrics
from gateway.queue.queue import Queue
from gateway.store.writer import Transaction

__all__ = ["Watch"]

_log = structlog.get_logger()

_INTERVAL = 1.0


class Watch:
    """Raises each alarm once, until it is over. ``ingress`` is set once it listens.

    ``raised`` gives the alarms that the rooms raised since it was asked last. What all workers see alike is raised by
    the one that ``speaks``.
    """

    def __init__(
        self,
        queue: Queue,
        metrics: Metrics,
        clock: Clock,
        raised: Callable[[], dict[str, int]],
        *,
        speaks: bool = True,
    ) -> None:
        self.ingress: IngressServer | None = None
        self._queue = queue
        self._store = queue.store
        self._metrics = metrics
        self._clock = clock
        self._raised = raised
        self._speaks = speaks
        self._alarmed: set[str] = set()

    async def run(self) -> None:
        """Look, every second, until cancelled."""
        while True:
            await self._clock.sleep(_INTERVAL)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        await self._alarm("store_failed", self._store.writer.failed)
        await self._alarm("store_away", self._store.writer.away)
        await self._alarm("space", self._store.space.problem)
        overdue = "deleted keys could not be shredded in time" if self._queue.shredder.overdue else ""
        await self._alarm("shredding_overdue", overdue)
        doubt = self._queue.timekeeper.problem
        self._metrics.clock_in_doubt.set(bool(doubt))
        await self._alarm("clock", doubt)
        await self._keep_raised()
        if self.ingress is not None:
            await self._look_at_certificate(self.ingress)

    async def _keep_raised(self) -> None:
        """What the rooms raised since the last look, as one event a kind: a stranger cannot fill the store with it."""
        raised = self._raised()
        if not raised:
            return

        def job(transaction: Transaction) -> None:
            for kind, times in sorted(raised.items()):
                transaction.event("alarm", {"alarm": kind, "times": times})

        with suppress(StoreError):
            await self._store.write(job)

    async def _look_at_certificate(self, ingress: IngressServer) -> None:
        """Take a renewed certificate over; a bad new file keeps the old one, and alarms."""
        found = ingress.reload_certificate()
        if found is not None:
            if not found.error:
                _log.info("certificate_reloaded", expires=ingress.certificate_expires)
            await self._alarm("certificate", found.error)
        expires = ingress.certificate_expires
        if expires is not None:
            self._metrics.certificate_expiry.labels("listener").set(expires)

    async def _alarm(self, kind: str, problem: str) -> None:
        """An alarm is a metric, a log line, and an event - as far as the store still takes one."""
        if not self._speaks:
            return
        if problem and kind not in self._alarmed:
            self._alarmed.add(kind)
            self._metrics.alarms.labels(kind).inc()
            _log.critical("alarm", alarm=kind, problem=problem)
            with suppress(StoreError):
                await self._store.write(lambda tx: tx.event("alarm", {"alarm": kind, "problem": problem}))
        elif not problem and kind in self._alarmed:
            self._alarmed.discard(kind)
            _log.info("alarm_over", alarm=kind)
