"""Owning workers: each holds one connection to a site and takes mail for it until nothing comes for a moment.

A site is the set of hosts, the TLS policy and the source address together (:attr:`NextHop.key`). There is no pool to
check connections in and out of: a worker owns its connection from the handshake to QUIT, so no two tasks can ever use
one at the same time, and none is left behind. It is limited by time, not by count: a slow host must not attract most
of the sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice

import structlog

from gateway.delivery.candidates import MAX_ADDRESSES, certificate_unreadable, find_candidates, not_tried
from gateway.delivery.carried import Carried, Failed, HostFailure
from gateway.delivery.contexts import ClientCertificateError
from gateway.delivery.joint import Job, Load
from gateway.delivery.nexthop import Hop, NextHop
from gateway.delivery.session import Session, SessionFailed
from gateway.delivery.sighting import Sighting
from gateway.delivery.target import Environment, Target
from gateway.delivery.transaction import NeedsSevenBit, StaleSession, Transaction, TransactionResult
from gateway.delivery.turns import TurnLine
from gateway.delivery.window import FIRST, Window
from gateway.directory.addresses import Family
from gateway.directory.destinations import DestinationGuard
from gateway.directory.resolver import Resolver
from gateway.mail.attempt import Stage, TlsEvidence, Verdict
from gateway.mail.edits import Change

__all__ = ["SiteLimits", "Sites"]

_log = structlog.get_logger()

#: Sites that are remembered though nothing is on its way to them, because they are dead.
_MAX_DEAD = 10_000


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """Per site: connections at once; seconds of idleness and of age after which one is ended.

    ``rest``: seconds that a dead site is left alone at most: shorter than a message waits for its next try. ``first``:
    connections to a site that nothing is known about.
    """

    connections: int = 20
    idle: float = 2.0
    lifetime: float = 300.0
    rest: float = 45.0
    first: float = FIRST


@dataclass(slots=True)
class _Site:
    """``window``: how many connections there may be. ``last``: why nobody could connect, and when (monotonic)."""

    key: tuple[object, ...]
    hop: NextHop
    window: Window
    waiting: TurnLine[Job] = field(default_factory=TurnLine)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    workers: int = 0
    idle: int = 0
    last: tuple[float, Failed] | None = None


class Sites:
    """All sites that mail is on its way to.

    ``on_session`` hears of every session that was judged: version, attained level and result, for the metrics.
    ``on_seen`` hears of every try to open one, for those who preview; nothing here listens to them.
    """

    def __init__(
        self,
        resolver: Resolver,
        environment: Callable[[], Environment],
        guard: Callable[[], DestinationGuard],
        limits: Callable[[], SiteLimits],
        families: Callable[[], Sequence[Family]] = lambda: ("ipv4",),
        on_session: Callable[[TlsEvidence | None, str], None] = lambda _evidence, _result: None,
        *,
        on_seen: Callable[[Sighting], None] = lambda _seen: None,
    ) -> None:
        self._resolver = resolver
        self._environment = environment
        self._guard = guard
        self._limits = limits
        self._families = families
        self._on_session = on_session
        self._on_seen = on_seen
        self._sites: dict[tuple[object, ...], _Site] = {}
        self._resting: dict[tuple[object, ...], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(
        self,
        hop: NextHop,
        transaction: Transaction,
        seven_bit: Callable[[Transaction], Awaitable[Transaction]],
        *,
        origin: int = 0,
    ) -> Carried | Failed:
        """Send one transaction to the site; waits for a connection where all of the site's are in use.

        Those of different ``origin`` take turns. A site that is dead (``window``) is not dialled. Raises what
        :meth:`Session.send` raises beyond a stale connection, and what ``seven_bit`` raises.
        """
        # New roots after a reload make a new site: what the old ones vouched for is not taken on trust.
        key = (hop.key, self._environment().trust)
        site = self._sites.setdefault(key, _Site(key, hop, Window(self._limits().first)))
        site.hop = hop  # the newest order of hosts
        now = self._environment().clock.monotonic()
        if site.last is not None and not site.workers and site.window.is_dead(now):
            since, failed = site.last
            return _from_memory(failed, now - since)
        done: asyncio.Future[Carried | Failed] = asyncio.get_running_loop().create_future()
        job = Job(origin, transaction, seven_bit, done)
        site.waiting.push(origin, job)
        site.arrived.set()
        self._staff(site)
        try:
            return await done
        except asyncio.CancelledError:
            site.waiting.discard(origin, job)
            raise

    async def close(self) -> None:
        """End idle connections and wait for the workers; jobs that still wait are cancelled by their owners."""
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError):
                await task

    # -- a worker -------------------------------------------------------------------------------------------------

    def _staff(self, site: _Site) -> None:
        """One worker more, where mail waits for which there is no idle one and the window has room."""
        if site.idle >= len(site.waiting) or site.workers >= site.window.room(self._limits().connections):
            return
        site.workers += 1
        hops = site.hop.hops
        task = asyncio.create_task(self._work(site), name=f"site {hops[0].host if hops else '-'}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, site: _Site) -> None:
        session: Session | None = None
        try:
            while True:
                job = await self._next_job(site, wait=session is not None)
                if job is None:
                    break
                session = await self._serve(site, job, session)
                if session is None and site.workers > site.window.size:
                    break  # connecting fails: fewer try, and there are others for what waits
                if session is not None and session.age > self._limits().lifetime:
                    await session.quit()
                    session = None
        finally:
            site.workers -= 1
            if not site.workers and not site.waiting:
                self._forget(site)
            if session is not None:
                await _end(session)

    async def _next_job(self, site: _Site, *, wait: bool) -> Job | None:
        """The next job; None once none came for the idle time (at once for a worker without a connection)."""
        if wait and not site.waiting:
            site.idle += 1
            try:
                # One limit over all wakings: mail that another worker was quicker to take does not prolong it.
                async with asyncio.timeout(self._limits().idle):
                    while not site.waiting:
                        site.arrived.clear()
                        await site.arrived.wait()
            except TimeoutError:
                pass  # what arrived at this very moment counted on us, and is taken
            finally:
                site.idle -= 1
        return site.waiting.pop() if site.waiting else None

    async def _serve(self, site: _Site, job: Job, session: Session | None) -> Session | None:
        """Carry one job, and those that can share its transaction; the session to go on with, if it is still good."""
        load = Load(job)
        load.gather(site.waiting)
        try:
            session, before = await self._carry(site, load, session)
            if session is None:
                failed = Failed(before)
                self._note_failure(site, failed)
                load.failed(failed)
                self._fail_waiting(site, failed)
        except asyncio.CancelledError:
            load.cancel()
            raise
        except Exception as error:  # noqa: BLE001  the worker lives on
            load.broken(error)
        return session if session is not None and session.alive else None

    async def _carry(
        self, site: _Site, load: Load, session: Session | None
    ) -> tuple[Session | None, tuple[HostFailure, ...]]:
        """One transaction over ``session`` or a new one, settled; None and what failed where nobody could connect."""
        before: tuple[HostFailure, ...] = ()
        while True:
            if session is None or not session.alive:
                session, before = await self._connect(site.hop)
                load.gather(site.waiting)  # also those who came while we connected
            if session is None:
                return None, before
            try:
                result, notes = await self._send(session, load)
            except StaleSession:
                session = None
                continue
            except Exception as error:  # noqa: BLE001  it belongs to the jobs; the session may be as good as before
                load.broken(error)
                return session, before
            target = session.target
            load.carried(
                Carried(target.host, target.address, session.evidence, session.attained, result, before, notes)
            )
            self._learn(site, result)
            return session, before

    def _learn(self, site: _Site, result: TransactionResult) -> None:
        """Success opens the window, a peer that is closing shrinks it; what it thinks of a message does neither."""
        replies = [recipient.reply for recipient in result.recipients]
        if any(reply is not None and reply.code == 421 for reply in replies):
            site.window.failed(self._environment().clock.monotonic(), self._limits().rest, away=True)
        elif result.reply is not None and result.reply.positive:
            site.window.succeeded(self._limits().connections)
            site.last = None
            self._staff(site)

    @staticmethod
    async def _send(session: Session, load: Load) -> tuple[TransactionResult, tuple[Change, ...]]:
        transaction = load.transaction()
        finished = await _finished(transaction)
        try:
            return await session.send(finished), finished.notes
        except NeedsSevenBit:
            finished = await _finished(await load.seven_bit(transaction))
            return await session.send(finished), finished.notes

    @staticmethod
    def _fail_waiting(site: _Site, failed: Failed) -> None:
        """Nobody could connect just now: those who wait for the same hear the same, unless others are connected."""
        if site.workers > 1:
            return
        while site.waiting:
            site.waiting.pop().settle(failed)

    def _note_failure(self, site: _Site, failed: Failed) -> None:
        """Nobody could connect. What speaks of protection is not remembered: it must be seen each time."""
        now = self._environment().clock.monotonic()
        away = all(failure.failure.verdict is Verdict.TEMPORARY for failure in failed.failures)
        site.window.failed(now, self._limits().rest, away=away)
        site.last = (now, failed) if away else None

    def _forget(self, site: _Site) -> None:
        """Nothing is on its way there any more; a dead one is remembered while it is, as far as there is room."""
        now = self._environment().clock.monotonic()
        if site.window.is_dead(now) and len(self._resting) < _MAX_DEAD:
            self._resting.pop(site.key, None)
            self._resting[site.key] = None
        else:
            self._sites.pop(site.key, None)
        for key in list(islice(self._resting, 2)):  # oldest first: two for each that comes keep them few
            old = self._sites.get(key)
            if old is None or not old.window.is_dead(now):
                del self._resting[key]
                if old is not None and not old.workers and not old.waiting:
                    del self._sites[key]

    # -- connecting -----------------------------------------------------------------------------------------------

    async def _connect(self, hop: NextHop) -> tuple[Session | None, tuple[HostFailure, ...]]:
        """The first session that is good enough, in the order of hosts and addresses; and what failed before it."""
        failures = [HostFailure(host, "", failure) for host, failure in hop.excluded]
        dialled = 0
        for candidate in hop.hops:
            found = await find_candidates(candidate, self._resolver, self._guard(), self._families())
            failures.extend(found.failures)
            for address in found.addresses:
                if dialled >= MAX_ADDRESSES:
                    failures.append(not_tried(candidate.host, address))
                    return None, tuple(failures)
                dialled += 1
                session = await self._open(hop, candidate, address, failures)
                if session is not None:
                    return session, tuple(failures)
        return None, tuple(failures)

    async def _open(self, next_hop: NextHop, hop: Hop, address: str, failures: list[HostFailure]) -> Session | None:
        target = Target(hop.host, address, hop.port, hop.names, next_hop.source)
        policy = next_hop.policy
        while True:
            try:
                session = await Session.open(target, policy, self._environment(), next_hop.credentials)
            except SessionFailed as error:
                if error.failure.stage not in (Stage.CONNECT, Stage.GREETING, Stage.EHLO):
                    self._on_session(error.evidence, str(error.failure.verdict))
                failures.append(HostFailure(hop.host, address, error.failure, error.evidence))
                self._on_seen(Sighting(hop.host, hop.port, address, error.evidence, error.failure))
                if policy.starttls == "try" and error.failure.verdict is Verdict.ASSURANCE:
                    # Opportunistic TLS that broke: policy allows this mail in clear, so it may go (RFC 7435).
                    policy = replace(policy, starttls="never")
                    continue
                return None
            except ClientCertificateError as error:
                _log.error("client_certificate", host=hop.host, error=str(error))
                failures.append(certificate_unreadable(hop.host, address))
                return None
            self._on_session(session.evidence, "ok")
            self._on_seen(Sighting(hop.host, hop.port, address, session.evidence, None))
            return session


async def _finished(transaction: Transaction) -> Transaction:
    return transaction if transaction.finish is None else await transaction.finish(transaction)


async def _end(session: Session) -> None:
    """QUIT - or drop the connection where the worker itself is being ended."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        session.abort()
    else:
        await session.quit()


def _from_memory(failed: Failed, seconds: float) -> Failed:
    """What was seen before, said as such."""
    note = f" (seen {seconds:.0f} s ago; not dialled again yet)"
    return Failed(
        tuple(
            replace(entry, failure=replace(entry.failure, reason=f"{entry.failure.reason}{note}"), evidence=None)
            for entry in failed.failures
        )
    )
