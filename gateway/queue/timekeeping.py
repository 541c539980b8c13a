"""The queue's trust in the clock: a doubt suspends what judges lifetimes, and nothing else.

Suspended while in doubt: the end of holds, the end of tries, delay notices, the sweep of old body files. Tries go on:
their times are by :class:`~gateway.clock.SteadyClock`, which a jump does not move. The record is shared through the
store (``store.timekeeping``), so that every process of the host sees the same, and what an operator accepted.
"""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from gateway.clock import Clock, SteadyClock
from gateway.errors import QueueError
from gateway.store.incarnation import boot_id
from gateway.store.store import Store
from gateway.store.timekeeping import ClockRecord, judged, load, save
from gateway.store.writer import Transaction

__all__ = ["Timekeeper"]

_log = structlog.get_logger()


class Timekeeper:
    """Looks at the clocks each second (:meth:`step`). ``record`` is what it knew at the last look."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock if isinstance(clock, SteadyClock) else SteadyClock(clock)
        self._boot = boot_id()
        self.record = store.clock_record
        self._believe()

    @property
    def in_doubt(self) -> bool:
        """Whether nothing may end now for its age. Asks the clocks: a jump is seen at once."""
        return bool(self.record.doubt) or self._clock.jumped

    @property
    def problem(self) -> str:
        """The doubt in words, "" where there is none."""
        if not self.record.doubt:
            return ""
        record, remedy = self.record, "nothing expires until it agrees, or `gateway queue clock accept`"
        wall = _words(self._clock.wall())
        match record.doubt:
            case "jump":
                steady = _words(self._clock.monotonic() + record.offset)
                return f"the clock was set to {wall} where it should show {steady}; {remedy}"
            case "start":
                last = "an unknown time" if record.last is None else _words(record.last)
                return f"the clock showed {wall} at the start, more than a week from the last event at {last}; {remedy}"
            case "reboot":
                return f"the clock shows {wall}; it was set before the machine was restarted; {remedy}"
        return ""

    def _believe(self) -> None:
        if self.record.boot == self._boot:
            self._clock.believe(self.record.offset)

    def _judged(self, record: ClockRecord) -> ClockRecord:
        return judged(record, self._boot, self._clock.wall(), self._clock.monotonic())

    async def step(self) -> None:
        """Look at the clocks and at what other processes saw. Raises :class:`~gateway.errors.StoreError`."""
        known = await self._store.read(load) or self.record
        fresh = self._judged(known)
        if fresh != known:
            fresh = await self._store.write(self._update)
        if fresh.doubt != self.record.doubt:
            _log.warning("clock_judged", doubt=fresh.doubt, before=self.record.doubt)
        self.record = fresh
        self._believe()

    def _update(self, transaction: Transaction) -> ClockRecord:
        known = load(transaction.connection) or self.record
        fresh = self._judged(known)
        if fresh != known:
            save(transaction.connection, fresh)
            if fresh.doubt != known.doubt:
                facts = {"doubt": fresh.doubt, "before": known.doubt, "wall": self._clock.wall()}
                transaction.event("clock_doubted" if fresh.doubt else "clock_agrees", facts)
        return fresh

    async def accept(self, *, operator: str, reason: str = "") -> None:
        """A person says that the clock is right as it is. Raises :class:`QueueError` where it is not in doubt."""
        offset = self._clock.wall() - self._clock.monotonic()
        fresh = ClockRecord(self._boot, offset)

        def job(transaction: Transaction) -> None:
            known = self._judged(load(transaction.connection) or self.record)
            if not known.doubt:
                raise QueueError("the clock is not in doubt: there is nothing to accept")
            save(transaction.connection, fresh)
            facts = {"operator": operator, "reason": reason, "doubt": known.doubt, "wall": self._clock.wall()}
            transaction.event("clock_accepted", {key: value for key, value in facts.items() if value})

        await self._store.write(job)
        self.record = fresh
        self._believe()


def _words(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
