"""What is looked at every second: what needs a person, and a certificate that was renewed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.ingress.server import IngressServer
from gateway.observe.metrics import Metrics
from gateway.queue.announce import tell_alarm, tell_over
from gateway.queue.queue import Queue
from gateway.store.writer import Transaction

__all__ = ["Watch"]

_log = structlog.get_logger()

_INTERVAL = 1.0


class _Standing(NamedTuple):
    """An alarm that is not over: what was seen, and since when."""

    problem: str
    since: float


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
        self._alarmed: dict[str, _Standing] = {}
        self._unwritten: Counter[str] = Counter()

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
        self._unwritten.update(self._raised())
        raised = dict(self._unwritten)
        if not raised:
            return
        settings = self._queue.settings()

        def job(transaction: Transaction) -> int:
            told = 0
            for kind, times in sorted(raised.items()):
                transaction.event("alarm", {"alarm": kind, "times": times})
                told += tell_alarm(transaction, self._store, settings, kind, times=times)
            return told

        if await self._written(job):
            self._unwritten.clear()

    async def _written(self, job: Callable[[Transaction], int]) -> bool:
        """Whether the store took it; the letters that it made are due."""
        try:
            told = await self._store.write(job)
        except StoreError:
            return False
        if told:
            self._queue.wake.set()
        return True

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
        """An alarm is a metric, a log line, an event and a letter - the last two as far as the store takes them."""
        if not self._speaks:
            return
        if problem and kind not in self._alarmed:
            self._alarmed[kind] = _Standing(problem, self._clock.time())
            self._metrics.alarms.labels(kind).inc()
            _log.critical("alarm", alarm=kind, problem=problem)
            await self._written(partial(self._begin, kind=kind, problem=problem))
        elif not problem and kind in self._alarmed:
            standing = self._alarmed.pop(kind)
            _log.info("alarm_over", alarm=kind)
            await self._written(partial(self._end, kind=kind, standing=standing))

    def _begin(self, transaction: Transaction, kind: str, problem: str) -> int:
        transaction.event("alarm", {"alarm": kind, "problem": problem})
        return tell_alarm(transaction, self._store, self._queue.settings(), kind, problem=problem)

    def _end(self, transaction: Transaction, kind: str, standing: _Standing) -> int:
        """Whose beginning could not be told, because there was no store to write it to, is told of here."""
        problem, since = standing
        return tell_over(transaction, self._store, self._queue.settings(), kind, problem=problem, since=since)
