"""The queue as the other rooms see it: every method is one durable step.

``wake`` is set whenever something may have fallen due; the scheduler waits on it with a timer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection, select

from gateway.clock import Clock
from gateway.config.model import Settings
from gateway.errors import QueueError, StoreAway, StoreBusy, StoreError, StoreFull
from gateway.mail.dsn import Action
from gateway.mail.headers import split_message
from gateway.queue.accept import insert_message
from gateway.queue.announce import (
    held_by_decision,
    is_worth_telling,
    summarise,
    tell_accepted,
    tell_alarm,
    tell_held,
)
from gateway.queue.claims import DUE_BATCH, bring_forward, claim_turns, last_waiting, make_due
from gateway.queue.flights import Flights
from gateway.queue.notices import NoticeEntry, make_notice, read_header
from gateway.queue.outcomes import Recorded, change_state, finish_message, record_outcomes
from gateway.queue.records import Claim, NewMessage, Outcome, message_from_row, recipient_from_row, silent_kinds
from gateway.queue.recovery import Recovered, recover, strange_owners, sweep_run_dir
from gateway.queue.retry import RetrySchedule
from gateway.queue.shares import Shares
from gateway.queue.states import TERMINAL, State, StateEvent
from gateway.queue.telling import due
from gateway.queue.timekeeping import Timekeeper
from gateway.queue.turns import Look, Place, look_for_turns
from gateway.store.schema import HELD, messages, recipients
from gateway.store.shred import Shredder
from gateway.store.store import RING_KEY_OVERLAP, Store
from gateway.store.writer import Transaction

__all__ = ["Aftermath", "Queue", "QueueObserver", "Taken", "schedule_of"]

_log = structlog.get_logger()

#: Seconds between looks for dead incarnations; with the lock file a death is taken over within two seconds.
RECOVERY_INTERVAL = 1.0
#: Held recipients that expire in one step.
_HOLD_BATCH = 50
#: What the sender of a hold that ended is told, by its reason; other reasons are those of policy and operators.
_HELD_WORDS = {
    "poison": "It was set aside because of repeated faults while it was processed, and was not released in time.",
    "corrupt": "It was set aside because it was damaged in our storage. Please send it again.",
    "restored": "The mail gateway was restored from a backup while it waited. It may have been delivered before.",
}
_HELD_BY_POLICY = "It was held for approval by your organisation, and nobody approved it in time."
#: What no retry ever waits above its longest wait.
_SLACK = 600.0
#: Seconds before an outcome that found the store busy or full is written again.
_AGAIN = 2.0


def schedule_of(settings: Settings) -> RetrySchedule:
    """The retry schedule of these settings."""
    retry = settings.delivery.retry
    return RetrySchedule(retry.first, retry.max, retry.expire, retry.delay_notice)


class QueueObserver:
    """Hears what became of recipients, for metrics; this one listens to nothing."""

    def terminal(self, method: str, state: str) -> None:
        """A recipient ended in this state; ``method`` is "" where none was used."""

    def possible_duplicates(self, number: int) -> None:
        """That many recipients may get their message twice (promise P3)."""

    def letter_lost(self) -> None:
        """A letter to the people who look after the gateway could not be delivered: it must not cause another one."""

    def deposited(self) -> None:
        """A recipient's message lies in the portal from now on."""

    def poisoned(self, number: int) -> None:
        """That many recipients were held because their workers died."""


class Aftermath(Protocol):
    """Follows up on mail of our own that people outside get (see ``gateway.portal.aftermath``)."""

    async def after(self, claim: Claim, outcomes: Sequence[Outcome]) -> Callable[[Transaction, Recorded], None] | None:
        """What belongs into the transaction that writes these outcomes; None where nothing does."""


def _is_over(row: Any, now: float) -> bool:
    return row.hold_until is not None and bool(row.hold_until <= now)


@dataclass(frozen=True, slots=True)
class Taken:
    """What :meth:`Queue.take` claimed, and what it saw. ``again``: there may be more that is due now."""

    claims: tuple[Claim, ...]
    look: Look
    again: bool


@dataclass(slots=True)
class Queue:
    """Durable steps over a :class:`Store`. ``settings`` gives the current settings at each use."""

    store: Store
    settings: Callable[[], Settings]
    clock: Clock
    chance: random.Random
    wake: asyncio.Event
    flights: Flights
    shredder: Shredder
    observer: QueueObserver
    timekeeper: Timekeeper
    place: Place = field(default_factory=Place)
    ring_keys_seen_at: float = 0.0
    aftermath: Aftermath | None = None

    @classmethod
    def over(
        cls,
        store: Store,
        settings: Callable[[], Settings],
        clock: Clock,
        *,
        chance: random.Random | None = None,
        observer: QueueObserver | None = None,
    ) -> Queue:
        """A queue over an open store."""
        flights = Flights(store.run_dir, store.incarnation.id)
        chance = chance or random.Random()  # noqa: S311  jitter, not a secret
        return cls(
            store,
            settings,
            clock,
            chance,
            asyncio.Event(),
            flights,
            Shredder(store),
            observer or QueueObserver(),
            Timekeeper(store, clock),
            Place(chance.getrandbits(56)),  # processes that share a store begin at different places
            clock.monotonic(),
        )

    async def accept(
        self,
        new: NewMessage,
        *,
        also: Sequence[NewMessage] = (),
        claim: bool = False,
        header: bytes | None = None,
        then: Callable[[Transaction], None] | None = None,
    ) -> tuple[Claim, ...]:
        """Make a message durable, with the notices that it causes at once; the claims, where ``claim`` was asked.

        ``then`` is done in the same transaction.

        With its ``header`` block people are told that it is held, or which rules matched, as ``announce`` says.
        Raises what :func:`insert_message` raises, and :class:`StoreError`.
        """
        settings = self.settings()
        schedule = schedule_of(settings)
        telling = header is not None and is_worth_telling(new)

        def claim_until(now: float) -> float:
            return now + schedule.wait(1, self.chance.random())

        def job(transaction: Any) -> tuple[Claim, ...]:
            claims = insert_message(
                transaction, self.store, new, expire=schedule.expire, claim_until=claim_until if claim else None
            )
            for notice in also:
                insert_message(transaction, self.store, notice, expire=schedule.expire)
            if telling:
                tell_accepted(transaction, self.store, settings, new, header)
            if then is not None:
                then(transaction)
            return claims

        claims = await self.store.write(job)
        for recipient in new.recipients:
            if recipient.state not in (State.QUEUED, State.HELD):
                self.observer.terminal("", str(recipient.state))
        if not claim or also or telling:
            self.wake.set()
        return claims

    async def take(self, most: int, shares: Shares) -> Taken:
        """Claim at most so many recipients of what is due, in turn, within everybody's share of the slots.

        Where recipients' time has come, a batch of them is made due in the same transaction: ``again`` says that there
        may be more.
        """
        known = shares.copy()

        def look_now(connection: Connection) -> Look:
            return look_for_turns(connection, most, known, self.place)

        look = await self.store.read(look_now)
        overdue = look.first_waiting is not None and look.first_waiting <= self.clock.time()
        if not look.turns and overdue:
            made = await self.store.write(make_due)
            look = await self.store.read(look_now)
            overdue = made >= DUE_BATCH
        if not look.turns:
            return Taken((), look, again=overdue or not look.whole)
        schedule = schedule_of(self.settings())
        owner = self.store.incarnation.id

        def job(transaction: Any) -> tuple[Claim, ...]:
            if overdue:
                make_due(transaction)
            return claim_turns(transaction, owner, schedule, self.chance, look.turns, ageless=self.timekeeper.in_doubt)

        return Taken(await self.store.write(job), look, again=True)

    async def record(self, claim: Claim, outcomes: Sequence[Outcome], notices: Sequence[NewMessage] = ()) -> Recorded:
        """Write how an attempt ended.

        Tries again while the database is busy or away, or the disk full: what happened must not be forgotten for want
        of room. Where a try whose end nobody heard of stands after all, the next one finds the claim gone.
        Raises :class:`LeaseLost`, and :class:`StoreError` where the store failed.
        """
        settings = self.settings()
        held = held_by_decision(claim, outcomes)
        header = await self._header_of(claim) if held else None
        follow_up = None
        if claim.system and self.aftermath is not None:
            follow_up = await self.aftermath.after(claim, outcomes)

        def job(transaction: Any) -> Recorded:
            recorded = record_outcomes(
                transaction,
                self.store,
                claim.message.id,
                outcomes,
                can_tell=claim.can_tell,
                notices=notices,
                notice_expire=settings.delivery.retry.expire,
            )
            if held:
                tell_held(transaction, self.store, settings, claim.message, held, header, whole=False)
            if follow_up is not None:
                follow_up(transaction, recorded)
            return recorded

        while True:
            try:
                recorded = await self.store.write(job)
                break
            except (StoreAway, StoreBusy, StoreFull) as error:
                _log.warning("outcome_waits", message=claim.message.id, error=str(error))
                await self.clock.sleep(_AGAIN)
        self.observer.possible_duplicates(sum(outcome.possible_duplicate for outcome in outcomes))
        if follow_up is None:  # else what became of the message that it tells of is what counts
            self._tell_ends(claim, outcomes, recorded)
        deposited = any(outcome.also is not None for outcome in outcomes)
        if (
            notices
            or held
            or deposited
            or follow_up is not None
            or State.QUEUED in recorded.states.values()
            or State.DEFERRED in recorded.states.values()
        ):
            self.wake.set()
        return recorded

    def _tell_ends(self, claim: Claim, outcomes: Sequence[Outcome], recorded: Recorded) -> None:
        for outcome in outcomes:
            state = recorded.states[outcome.n]
            if state is State.DROPPED and claim.system and claim.parent is None:
                self.observer.letter_lost()
            elif state is State.NOTICING:
                self.observer.deposited()
            elif state in TERMINAL:
                self.observer.terminal(outcome.method or "", str(state))

    async def _header_of(self, claim: Claim) -> bytes:
        if claim.plain is not None:
            return split_message(claim.plain)[0]
        return await read_header(self.store, claim.message.id)

    async def sweep_run_dir(self) -> int:
        """Remove what dead processes without claims left behind; how many processes."""
        owners = await self.store.read(partial(strange_owners, own=self.store.incarnation.id))
        known = {*owners, self.store.incarnation.id}
        return await asyncio.to_thread(sweep_run_dir, self.store.run_dir, known)

    async def recover(self) -> Recovered:
        """Take over what dead incarnations had claimed."""
        own, lives = self.store.incarnation.id, self.store.lives

        def dead(connection: Connection) -> list[str]:
            owners = strange_owners(connection, own)
            lives.forget_all_but(owners)
            return [owner for owner in owners if lives.is_dead(connection, owner)]

        total = Recovered()
        for owner in await self.store.read(dead):
            found = await self.store.write(partial(self._take_over, owner=owner))
            if found.recipients:
                self.observer.possible_duplicates(found.possible_duplicates)
                self.observer.poisoned(found.poisoned)
                _log.warning(
                    "claims_recovered",
                    owner=owner,
                    recipients=found.recipients,
                    possible_duplicates=found.possible_duplicates,
                    poisoned=found.poisoned,
                )
                self.wake.set()
            total = Recovered(
                total.recipients + found.recipients,
                total.possible_duplicates + found.possible_duplicates,
                total.poisoned + found.poisoned,
            )
        return total

    def _take_over(self, transaction: Any, owner: str) -> Recovered:
        found = recover(transaction, self.store, owner)
        if found.poisoned:
            tell_alarm(transaction, self.store, self.settings(), "poison", times=found.poisoned)
        return found

    async def heartbeat(self) -> None:
        """Keep our leases alive."""
        before = self.clock.monotonic()
        await self.store.write(lambda tx: self.store.incarnation.beat(tx.connection, tx.now))
        self.store.incarnation.heartbeat_at = before

    def holds_lease(self) -> bool:
        """Whether our claims are certainly still ours: asked before MAIL FROM."""
        return self.store.incarnation.holds_lease(self.clock.monotonic())

    async def expire_holds(self) -> int:
        """End what nobody released in time; how many recipients. None while the clock is in doubt."""
        if self.timekeeper.in_doubt:
            return 0
        now = self.clock.time()

        def load(connection: Connection) -> list[Any]:
            query = (
                select(recipients)
                .where(HELD, recipients.c.hold_until <= now)
                .order_by(recipients.c.hold_until)
                .limit(_HOLD_BATCH)
            )
            return list(connection.execute(query))

        rows = await self.store.read(load)
        ended = 0
        for row in rows:
            entry = NoticeEntry(recipient_from_row(row), "5.7.1", _HELD_WORDS.get(row.hold_reason, _HELD_BY_POLICY))
            with suppress(QueueError):  # released, cancelled or held anew since it was read
                await self.end_by_operator_or_time(row.message, row.n, StateEvent.HOLD_EXPIRE, entry)
                ended += 1
        return ended

    async def tell_rest(self) -> int:
        """Tell people what came in the hour since they were told last; how many messages of ours that made."""
        keys = await self.store.read(partial(due, now=self.clock.time()))
        told = 0
        for key in keys:
            told += await self.store.write(partial(summarise, store=self.store, settings=self.settings(), key=key))
        if told:
            self.wake.set()
        return told

    async def bring_forward(self) -> int:
        """Make what was put off by a clock that was wrong wait no longer than a retry does; how many, a batch at most.

        The index of what waits is asked for its last entry: nothing else is looked at.
        """
        schedule = schedule_of(self.settings())
        latest = self.clock.time() + schedule.max * 1.2 + _SLACK
        last = await self.store.read(last_waiting)
        if last is None or last <= latest:
            return 0
        return await self.store.write(partial(bring_forward, latest=latest, wait=schedule.first))

    async def end_by_operator_or_time(
        self, message_id: str, n: int, event: StateEvent, entry: NoticeEntry, facts: dict[str, Any] | None = None
    ) -> State:
        """End a recipient outside a delivery attempt, its sender told in the same transaction.

        Raises :class:`~gateway.errors.QueueError` where its state does not allow it.
        """
        row = await self.store.read(
            lambda connection: connection.execute(select(messages).where(messages.c.id == message_id)).one()
        )
        message, _ = message_from_row(row, (entry.recipient,))
        can_tell = message.envelope.sender is not None and message.kind not in silent_kinds
        settings = self.settings()
        notice = None
        if can_tell:
            notice = await make_notice(self.store, settings, self.clock, message, Action.FAILED, [entry])

        def job(transaction: Any) -> State:
            fresh = transaction.connection.execute(
                select(recipients).where(recipients.c.message == message_id, recipients.c.n == n).with_for_update()
            ).one()
            if event is StateEvent.HOLD_EXPIRE and not _is_over(fresh, transaction.now):
                raise QueueError(f"the hold of {message_id}.{n} was changed meanwhile")
            if event is StateEvent.REJECT and fresh.state == State.DELIVERING:
                raise QueueError(f"{message_id}.{n} is being delivered right now; try again in a moment")
            after = change_state(
                transaction, fresh, event, can_tell=can_tell, facts={"error": entry.explanation, **(facts or {})}
            )
            if notice is not None:
                insert_message(transaction, self.store, notice, expire=schedule_of(settings).expire)
            finish_message(transaction, self.store, message_id, 1)
            return after

        state = await self.store.write(job)
        self.observer.terminal("", str(state))
        self.wake.set()
        return state

    async def maintain(self) -> None:
        """The clockwork: heartbeat, recovery, holds, shredding, ring key; runs until cancelled.

        Each wheel turns by itself: one that is stuck does not stop the others, least of all the heartbeat.
        """
        steps = (
            self.timekeeper.step,
            self._look_at_space,
            self._beat,
            self.recover,
            self.expire_holds,
            self.tell_rest,
            self.bring_forward,
            self.shredder.step,
        )
        while True:
            for step in steps:
                try:
                    await step()
                except StoreAway as error:
                    _log.warning("store_away", step=step.__name__, error=str(error))
                    break  # the others would say the same
                except StoreError as error:
                    _log.error("maintenance_failed", step=step.__name__, error=str(error))
                except Exception:  # noqa: BLE001  a fault of our own must not stop the clockwork
                    _log.exception("maintenance_failed", step=step.__name__)
            await self.clock.sleep(RECOVERY_INTERVAL)

    async def _look_at_space(self) -> None:
        await asyncio.to_thread(self.store.space.look)

    async def _beat(self) -> None:
        if self.store.incarnation.is_beat_due(self.clock.monotonic()):
            await self.heartbeat()
            await self.store.adopt_counters()
            await self.store.renew_ring_key()
        if self.clock.monotonic() - self.ring_keys_seen_at >= RING_KEY_OVERLAP:
            self.ring_keys_seen_at = self.clock.monotonic()
            await self.store.drop_unused_ring_keys()

    def close(self) -> None:
        """Nothing is in the air any more."""
        with suppress(ValueError):
            self.flights.close()
