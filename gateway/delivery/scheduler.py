"""When what is due is taken: claims while there are free slots, sleeps until the next one is due.

Work per step grows with what is due, not with what waits. Another process (a sibling, an operator's command) may make
something due; so the sleep is never longer than a second, and what it ends with is one look at an index.

No domain and no origin (a sender of a connector, see ``queue.turns``) may have all slots (``queue.shares``): there are
always some for the next one. New mail for somebody whose older mail waits for a slot does not pass it by: it goes
behind it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

import structlog

from gateway.clock import Clock
from gateway.config.shares import WHOLE, Share
from gateway.delivery.deliver import Deliverer
from gateway.errors import StoreError
from gateway.queue.outcomes import LeaseLost
from gateway.queue.queue import Queue
from gateway.queue.records import Claim, Outcome
from gateway.queue.shares import Shares
from gateway.queue.states import StateEvent
from gateway.scanning import ScanBusy

__all__ = ["Scheduler"]

_log = structlog.get_logger()

#: Recipients in delivery at once, in the whole gateway; a process has its share of this, and of what follows.
MAX_ACTIVE = 400
#: Recipients of one domain in delivery at once; fewer when slots run short.
MAX_PER_DOMAIN = 100
#: Recipients claimed in one transaction.
_CLAIM_BATCH = 100
#: Bytes of bodies that may be in memory for their first delivery (architecture: 32 MiB a worker).
MEMORY_BUDGET = 32 * 1024 * 1024
_LONGEST_SLEEP = 1.0
_AFTER_ERROR = 5.0
_AGAIN = 0.05
#: Between two parts of a look, where what is due is more than one look may seek through.
_NEXT_PART = 0.001
#: How long stopping waits for a claim that is being made.
_LAST_CLAIM = 2.0
#: When mail whose time is over is looked at again after a fault of our own: its schedule has nothing left to say.
_AFTER_FAULT = 300.0


class Scheduler:
    """Runs deliveries until told to stop, in its ``share`` of the gateway's limits."""

    def __init__(self, queue: Queue, deliverer: Deliverer, clock: Clock, share: Share = WHOLE) -> None:
        self._queue = queue
        self._deliverer = deliverer
        self._clock = clock
        self._shares = Shares(share.of(MAX_ACTIVE), share.of(MAX_PER_DOMAIN))
        self._budget = share.of(MEMORY_BUDGET)
        self._memory: Counter[int] = Counter()  # bytes, by origin
        self._tasks: dict[asyncio.Task[None], Claim] = {}
        self._stopping = False
        # At the last look: what ends then makes room for what waits.
        self._short_of_slots = False
        self._freed = False
        self._waiting_domains: frozenset[str] = frozenset()
        self._waiting_origins: frozenset[int] = frozenset()
        self._running = asyncio.Lock()

    @property
    def active(self) -> int:
        """Recipients in delivery now."""
        return self._shares.taken

    def has_room(self, origin: int, domains: Iterable[str], size: int) -> bool:
        """Whether a message may begin as claimed: slots are free, and memory for its bytes, for it among others."""
        if self._stopping:
            return False
        if size and self._memory[origin] + size > (self._budget - self._memory.total()) // 2:
            return False
        wanted = Counter(domains)
        if origin in self._waiting_origins or not self._waiting_domains.isdisjoint(wanted):
            return False
        shares = self._shares
        return wanted.total() <= shares.left_for(origin) and all(
            number <= shares.left_at(origin, domain) for domain, number in wanted.items()
        )

    def start(self, claims: Iterable[Claim]) -> None:
        """Deliver these claims, each in a task of its own."""
        for claim in claims:
            self._shares.take(claim.origin, claim.domain, len(claim.recipients))
            self._memory[claim.origin] += 0 if claim.plain is None else len(claim.plain)
            # What was accepted in the last moment is given back: the next start delivers it at once.
            work = self._give_back(claim) if self._stopping else self._deliver(claim)
            task = asyncio.create_task(work, name=f"deliver {claim.message.id}")
            self._tasks[task] = claim
            task.add_done_callback(self._ended)

    async def run(self) -> None:
        """Claim and deliver until :meth:`stop`. Whatever goes wrong, waiting mail is looked at again."""
        async with self._running:
            while not self._stopping:
                self._queue.wake.clear()
                try:
                    wait = await self._claim()
                except StoreError as error:
                    _log.error("claim_failed", error=str(error))
                    wait = _AFTER_ERROR
                except Exception:  # noqa: BLE001  a fault of ours must not end delivery while mail is accepted
                    _log.exception("claim_failed")
                    wait = _AFTER_ERROR
                if wait:
                    await self._pause(wait)

    async def _claim(self) -> float:
        """Claim what is due, as far as there are slots; how many seconds until it is worth looking again."""
        free = self._shares.free
        if free <= 0:
            self._short_of_slots = True
            return _LONGEST_SLEEP
        self._freed = False
        room = min(max(free // 4, 1), _CLAIM_BATCH)  # they may all be of one domain
        taken = await self._queue.take(room, self._shares)
        look = taken.look
        self._waiting_domains, self._waiting_origins = look.passed_domains, look.passed_origins
        self._short_of_slots = bool(look.passed_domains or look.passed_origins)
        self.start(taken.claims)
        if taken.claims:
            return 0.0
        if look.turns:
            return _AGAIN  # somebody else was faster
        if self._short_of_slots and self._freed:
            return _NEXT_PART  # what ended during the look could not wake us yet
        return _NEXT_PART if taken.again else self._until(look.first_waiting)

    def _until(self, due: float | None) -> float:
        """Seconds until it is worth looking again."""
        if due is None:
            return _LONGEST_SLEEP
        return min(max(due - self._clock.time(), 0.01), _LONGEST_SLEEP)

    async def _pause(self, wait: float) -> None:
        """Wait that long, or until the queue wakes us."""
        waker = asyncio.ensure_future(self._queue.wake.wait())
        timer = asyncio.ensure_future(self._clock.sleep(wait))
        try:
            await asyncio.wait({waker, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waker.cancel()
            timer.cancel()

    async def stop(self, grace: float) -> None:
        """Claim nothing more; wait up to ``grace`` seconds, then give back what is on no connection."""
        self._stopping = True
        self._queue.wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(grace, _LAST_CLAIM)), self._running:
                pass  # the claim that was being made has been made
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=grace)
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError):
                await task

    async def _deliver(self, claim: Claim) -> None:
        try:
            await self._deliverer.deliver(claim)
        except asyncio.CancelledError:
            await self._give_back(claim)
            raise
        except LeaseLost as error:
            _log.warning("lease_lost", message=claim.message.id, error=str(error))
            await self._defer(claim, "the lease was not renewed in time")
        except StoreError as error:
            # How far it came is not known, so it counts as a possible duplicate (promise P3).
            _log.error("outcome_not_recorded", message=claim.message.id, error=str(error))
            await self._defer(claim, "the store did not work", possible_duplicate=True)
        except ScanBusy as error:
            await self._defer(claim, str(error))
        except Exception:  # noqa: BLE001  a fault of our own must not take the claim with it
            _log.exception("delivery_failed", message=claim.message.id)
            await self._defer(claim, "a fault of our own; the log has it under this message id")

    async def _give_back(self, claim: Claim) -> None:
        """Stopping: what is on a connection may have arrived, so its lease is left for recovery to judge."""
        if self._queue.flights.is_flying(claim.message.id):
            return
        with suppress(StoreError, LeaseLost):
            outcomes = [Outcome(recipient.n, StateEvent.UNCLAIM) for recipient in claim.recipients]
            await self._queue.record(claim, outcomes)

    async def _defer(self, claim: Claim, error: str, *, possible_duplicate: bool = False) -> None:
        """The recipients wait for their next attempt, which the claim has set already.

        Where even this cannot be written, the claim stays ours until this process ends, and is recovered then.
        """
        with suppress(StoreError, LeaseLost):
            now = self._clock.time()
            outcomes = [
                Outcome(
                    recipient.n,
                    StateEvent.DEFER,
                    error=error,
                    next_attempt=now + _AFTER_FAULT if recipient.expires <= now else None,
                    possible_duplicate=possible_duplicate,
                )
                for recipient in claim.recipients
            ]
            await self._queue.record(claim, outcomes)

    def _ended(self, task: asyncio.Task[None]) -> None:
        claim = self._tasks.pop(task)
        self._shares.give_back(claim.origin, claim.domain, len(claim.recipients))
        self._memory[claim.origin] -= 0 if claim.plain is None else len(claim.plain)
        if self._memory[claim.origin] <= 0:
            del self._memory[claim.origin]
        self._freed = True
        if self._short_of_slots:
            self._queue.wake.set()
