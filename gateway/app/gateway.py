"""The rooms of one process, from the listener to the way out."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from dns.rdtypes.ANY.TXT import TXT

from gateway import __version__
from gateway.app.current import Current, CurrentResolver
from gateway.app.observer import Observer
from gateway.app.watch import Watch
from gateway.clock import Clock, SteadyClock, SystemClock
from gateway.config.inbound import Stage
from gateway.config.model import Settings
from gateway.config.shares import WHOLE, Share
from gateway.delivery.contexts import ClientContexts
from gateway.delivery.deliver import Deliverer
from gateway.delivery.nexthop import guard_of
from gateway.delivery.peer import require_peer_chain
from gateway.delivery.prospects import Prospects
from gateway.delivery.scheduler import Scheduler
from gateway.delivery.sites import SiteLimits, Sites
from gateway.delivery.target import Environment
from gateway.delivery.trust import Trust
from gateway.delivery.window import FIRST
from gateway.directory import DnsError, DnsResolver, ipv6_usable
from gateway.directory.addresses import Family
from gateway.errors import ConfigError, GatewayError, StoreError
from gateway.ingress.intake import QueueIntake
from gateway.ingress.seams import LookupFailed
from gateway.ingress.server import Bound, IngressServer
from gateway.ingress.terms import Terms
from gateway.observe.metrics import Metrics
from gateway.policy.bundle import Loaded, load_all
from gateway.portal.aftermath import Aftermath
from gateway.portal.keeper import Keeper
from gateway.queue.queue import Queue
from gateway.scanning import Scanners
from gateway.store.keyring import Kek
from gateway.store.store import Store

__all__ = ["DRAIN", "Gateway", "Prepared", "loop_key", "refuse_unchangeable"]

_log = structlog.get_logger()

#: Seconds that deliveries under way get when the daemon stops; systemd's own limit is longer.
DRAIN = 20.0


def loop_key(secret: bytes) -> bytes:
    """The key of the loop mark, derived from the store's loop secret."""
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"loop-mark").derive(secret)


def refuse_unchangeable(old: Settings, fresh: Settings) -> None:
    """Raise :class:`GatewayError` where a reload would change what only a restart can."""
    store = old.store.model_copy(update={"keys": fresh.store.keys})  # these may come and go
    changed = [
        name
        for name, before, after in (
            ("data_dir", old.data_dir, fresh.data_dir),
            ("store", store, fresh.store),
            ("metrics", old.metrics, fresh.metrics),
            ("hostname", old.hostname, fresh.hostname),
            ("workers", old.workers, fresh.workers),
            ("portal.listen", old.portal.listen, fresh.portal.listen),
            ("whether there is a portal (portal.url)", old.portal.url is None, fresh.portal.url is None),
        )
        if before != after
    ]
    if changed:
        raise GatewayError(f"{', '.join(changed)} cannot change while the gateway runs: restart it")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A new configuration with all that could go wrong behind it."""

    current: Current
    resolver: DnsResolver
    terms: Terms
    keks: Sequence[Kek] | None  #: where the configuration names others than before

    @property
    def digest(self) -> str:
        """Of the files that it was made from."""
        return self.current.loaded.digest


@dataclass(slots=True)
class Gateway:
    """The rooms of one process: :meth:`start`, then :meth:`stop`.

    ``config`` is the path of the settings. A worker is told its ``share`` of the gateway's limits and given bound
    ``sockets`` (see ``IngressServer``); without, this is the whole gateway, and binds them itself.
    """

    config: Path
    clock: Clock = field(default_factory=SystemClock)
    load: Callable[[Path], Loaded] = load_all
    share: Share = WHOLE
    sockets: Mapping[str, Sequence[socket.socket]] | None = None
    metrics: Metrics = field(default_factory=lambda: Metrics(__version__))
    #: What was last seen of recipients' hosts: for previews, never for a decision.
    prospects: Prospects = field(init=False)
    _current: Current = field(init=False)
    _store: Store = field(init=False)
    _queue: Queue = field(init=False)
    _intake: QueueIntake = field(init=False)
    _resolver: CurrentResolver = field(init=False)
    _sites: Sites = field(init=False)
    _scheduler: Scheduler = field(init=False)
    _ingress: IngressServer = field(init=False)
    _contexts: ClientContexts = field(default_factory=ClientContexts)
    _scanners: Scanners = field(default_factory=Scanners)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _watch: Watch = field(init=False)
    _observer: Observer = field(init=False)
    _known_terms: tuple[Current, Environment, SiteLimits] | None = None
    _started: bool = False

    # -- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up. Raises :class:`GatewayError`; then nothing runs."""
        require_peer_chain()
        if not isinstance(self.clock, SteadyClock):
            self.clock = SteadyClock(self.clock)  # everything in here goes on steadily when somebody sets the clock
        loaded = self.load(self.config)
        self._current = Current(loaded, Trust.load(loaded.settings.tls.trust))
        self._store = await asyncio.to_thread(Store.open, loaded.settings, self.clock, on_commit=self.metrics.committed)
        try:
            await self._build()
        except BaseException:
            await self._close_rooms()
            raise
        self._started = True

    async def _build(self) -> None:
        observer = self._observer = Observer(self.metrics)
        settings = self._settings()
        chance = random.Random()  # noqa: S311  jitter and the order of equal hosts
        self._queue = Queue.over(self._store, self._settings, self.clock, chance=chance, observer=observer)
        self._queue.aftermath = Aftermath.over(self._store, self._settings, observer)
        self._resolver = CurrentResolver(DnsResolver(settings.dns, self.clock))
        families: tuple[Family, ...] = ("ipv6", "ipv4") if ipv6_usable() else ("ipv4",)
        self.prospects = Prospects(self.clock)
        self._sites = Sites(
            self._resolver,
            self._environment,
            lambda: guard_of(self._settings()),
            self._site_limits,
            families=lambda: families,
            on_session=observer.session,
            on_seen=self.prospects.saw,
        )
        key = loop_key(self._store.loop_secret)
        deliverer = Deliverer(
            self._queue,
            self._sites,
            self._resolver,
            self._settings,
            lambda: self._current.policy,
            self._scanners,
            self.clock,
            chance,
            key,
            observer,
        )
        self._scheduler = Scheduler(self._queue, deliverer, self.clock, self.share)
        self._intake = QueueIntake(
            self._queue,
            self._settings,
            lambda: self._current.policy,
            self._scheduler,
            self.clock,
            observer,
            self._scanners,
        )
        await self._queue.timekeeper.step()
        recovered = await self._queue.recover()
        await self._queue.sweep_run_dir()
        if recovered.recipients:
            _log.info("recovered", recipients=recovered.recipients)
        self._spawn(self._queue.maintain(), "maintain")
        self._spawn(self._sweep_orphans(), "orphans")  # it looks at every body file: nobody waits for it
        self._spawn(self._scheduler.run(), "schedule")
        if self.share.is_first:
            self._spawn(Keeper(self._queue, observer).run(), "portal")
        self._watch = Watch(self._queue, self.metrics, self.clock, observer.take_raised, speaks=self.share.is_first)
        self._spawn(self._watch.run(), "watch")
        self._ingress = IngressServer(
            settings,
            self._intake,
            self.clock,
            observer,
            structlog.get_logger(),
            lookup_txt=self._lookup_txt,
            loop_key=key,
            share=self.share,
            sockets=self.sockets,
        )
        await self._ingress.start()
        self._watch.ingress = self._ingress
        self._note_stages(settings)

    async def _sweep_orphans(self) -> None:
        if self._queue.timekeeper.in_doubt:
            return  # how old a file is, is not known
        try:
            orphans = await self._store.sweep_orphans()
        except (StoreError, OSError) as error:  # the next start looks again
            _log.error("orphans_not_swept", error=str(error))
            return
        if orphans:
            _log.info("orphans_swept", orphans=len(orphans))

    def _settings(self) -> Settings:
        return self._current.settings

    def _environment(self) -> Environment:
        return self._terms()[1]

    def _site_limits(self) -> SiteLimits:
        return self._terms()[2]

    def _terms(self) -> tuple[Current, Environment, SiteLimits]:
        """What deliveries ask for many times a message, made once from the configuration in force."""
        current, known = self._current, self._known_terms
        if known is not None and known[0] is current:
            return known
        settings = current.settings
        delivery = settings.delivery
        connections = delivery.connections
        environment = Environment(settings.hostname, self.clock, current.trust, self._contexts, delivery.timeouts)
        rest = min(delivery.retry.first * 0.75, 45.0)  # below the shortest wait for a next try, jitter included
        most, first = self.share.of(connections.per_site), self.share.of(int(FIRST))
        known = current, environment, SiteLimits(most, connections.idle, connections.lifetime, rest, first)
        self._known_terms = known
        return known

    async def _lookup_txt(self, name: str) -> Sequence[bytes]:
        try:
            answer = await self._resolver.query(name, "TXT")
        except DnsError as error:
            raise LookupFailed(str(error)) from error
        return [b"".join(record.strings) for record in answer.records if isinstance(record, TXT)]

    def _note_stages(self, settings: Settings) -> None:
        observing = [connector.name for connector in settings.connectors if connector.stage is Stage.OBSERVE]
        self.metrics.observed_connectors.set(len(observing))
        if observing and self.share.is_first:
            self._observer.alarm("observe_stage")
            _log.warning("observe_stage", connectors=observing, meaning="their mail leaves unprotected")

    # -- run ----------------------------------------------------------------------------------------------------------

    @property
    def listening(self) -> Sequence[Bound]:
        """The addresses that take mail."""
        return self._ingress.bound

    @property
    def store_failed(self) -> str:
        """Why the store takes nothing more; "" while it works."""
        return self._store.writer.failed if self._started else ""

    def fail_store(self, reason: str) -> None:
        """Take nothing more: another process met what makes the store of all of us doubtful."""
        self._store.writer.fail(reason)

    def alarm(self, kind: str) -> None:
        """Something outside needs a person: as metric, log line and event, like the alarms of the rooms."""
        self._observer.alarm(kind)

    async def reload(self) -> bool:
        """Read everything again and take it over, all or nothing; whether it was taken over."""
        try:
            prepared = await self.prepare()
            await self.adopt(prepared)
        except (GatewayError, OSError) as error:
            faults = [str(fault) for fault in error.faults] if isinstance(error, ConfigError) else [str(error)]
            _log.error("reload_failed", faults=faults, meaning="the running configuration stays")
            self._observer.alarm("reload_failed")
            return False
        loaded = prepared.current.loaded
        _log.info("reloaded", policy=loaded.policy.digest, config=loaded.digest)
        return True

    async def prepare(self) -> Prepared:
        """Read everything again and do all that can fail; nothing changes. Raises ``GatewayError``, ``OSError``."""
        loaded = await asyncio.to_thread(self.load, self.config)
        trust = await asyncio.to_thread(Trust.load, loaded.settings.tls.trust)
        refuse_unchangeable(self._current.settings, loaded.settings)
        keks = await asyncio.to_thread(self._store.other_keks, self._current.settings, loaded.settings)
        return Prepared(
            Current(loaded, trust),
            DnsResolver(loaded.settings.dns, self.clock),
            self._ingress.prepare(loaded.settings),
            keks,
        )

    async def adopt(self, prepared: Prepared, sockets: Mapping[str, Sequence[socket.socket]] | None = None) -> None:
        """Work by this from now on; ``sockets`` are those of new listeners, where this process does not bind itself.

        Raises what :meth:`IngressServer.reload` does where it binds itself; then nothing has changed.
        """
        settings = prepared.current.settings
        await self._ingress.adopt(settings, prepared.terms, sockets)
        self._current = prepared.current
        self._store.use_keks(prepared.keks)
        self._store.space.floor = settings.limits.free_space
        self._resolver.use(prepared.resolver)
        self._note_stages(settings)

    async def problems(self) -> list[str]:
        """Why the gateway is not ready; empty when it can take mail."""
        found: list[str] = []
        if not self._started:
            found.append("not started, or stopping")
        found.extend(
            f"the task {task.get_name()!r} has failed"
            for task in self._tasks
            if task.done() and not task.cancelled() and task.exception() is not None
        )
        refusal = self._intake.ready()
        if refusal is not None:
            found.append(refusal.detail or refusal.text)
        if self._started and not self._ingress.bound:
            found.append("no listener is open")
        try:
            await self._store.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
        except StoreError as error:
            found.append(str(error))
        return found

    def warnings(self) -> list[str]:
        """What needs a person though mail can be taken."""
        doubt = self._queue.timekeeper.problem
        return [doubt] if doubt else []

    # -- stop ---------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """No new mail, then end what is under way, then close the store."""
        if not self._started:
            return
        self._started = False
        self._intake.stopping = True
        await self._ingress.stop_accepting()
        await self._ingress.drain(DRAIN / 2)
        await self._close_rooms()

    async def _close_rooms(self) -> None:
        if hasattr(self, "_scheduler"):
            await self._scheduler.stop(DRAIN / 2)
        if hasattr(self, "_sites"):
            await self._sites.close()
        await self._scanners.close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError, Exception):  # one that failed has told the log already
                await task
        if hasattr(self, "_queue"):
            self._queue.close()
        await self._store.close()

    def _spawn(self, work: Awaitable[None], name: str) -> None:
        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception:
                _log.exception("task_failed", task=name)
                raise

        self._tasks.append(asyncio.create_task(guarded(), name=name))
