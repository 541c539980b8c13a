"""One running gateway."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from dns.rdtypes.ANY.TXT import TXT

from gateway import __version__
from gateway.app.current import Current, CurrentResolver
from gateway.app.observer import Observer
from gateway.app.watch import Watch
from gateway.clock import Clock, SystemClock
from gateway.config.inbound import Stage
from gateway.config.model import Settings
from gateway.delivery.contexts import ClientContexts
from gateway.delivery.deliver import Deliverer
from gateway.delivery.nexthop import guard_of
from gateway.delivery.peer import require_peer_chain
from gateway.delivery.scheduler import Scheduler
from gateway.delivery.sites import SiteLimits, Sites
from gateway.delivery.target import Environment
from gateway.delivery.trust import Trust
from gateway.directory import DnsError, DnsResolver, ipv6_usable
from gateway.directory.addresses import Family
from gateway.errors import ConfigError, GatewayError, StoreError
from gateway.ingress.intake import QueueIntake
from gateway.ingress.seams import LookupFailed
from gateway.ingress.server import IngressServer
from gateway.observe.http import HealthServer
from gateway.observe.metrics import Metrics
from gateway.observe.service import ServiceNotifier
from gateway.policy.bundle import Loaded, load_all
from gateway.queue.queue import Queue
from gateway.store.store import Store

__all__ = ["Gateway", "loop_key"]

_log = structlog.get_logger()

#: Seconds that deliveries under way get when the daemon stops; systemd's own limit is longer.
DRAIN = 20.0


def loop_key(secret: bytes) -> bytes:
    """The key of the loop mark, derived from the store's loop secret."""
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"loop-mark").derive(secret)


@dataclass(slots=True)
class Gateway:
    """One running gateway. :meth:`start`, then :meth:`serve` until a signal, or :meth:`stop` by hand (tests).

    ``config`` is the path of the settings; ``ready`` is filled with the bound addresses once everything listens.
    """

    config: Path
    clock: Clock = field(default_factory=SystemClock)
    load: Callable[[Path], Loaded] = load_all
    ready: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=lambda: Metrics(__version__))
    _current: Current = field(init=False)
    _store: Store = field(init=False)
    _queue: Queue = field(init=False)
    _intake: QueueIntake = field(init=False)
    _resolver: CurrentResolver = field(init=False)
    _sites: Sites = field(init=False)
    _scheduler: Scheduler = field(init=False)
    _ingress: IngressServer = field(init=False)
    _health: HealthServer = field(init=False)
    _contexts: ClientContexts = field(default_factory=ClientContexts)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _watch: Watch = field(init=False)
    _started: bool = False

    # -- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up. Raises :class:`GatewayError`; then nothing runs."""
        require_peer_chain()
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
        observer = Observer(self.metrics)
        settings = self._settings()
        chance = random.Random()  # noqa: S311  jitter and the order of equal hosts
        self._queue = Queue.over(self._store, self._settings, self.clock, chance=chance, observer=observer)
        self._resolver = CurrentResolver(DnsResolver(settings.dns, self.clock))
        families: tuple[Family, ...] = ("ipv6", "ipv4") if ipv6_usable() else ("ipv4",)
        self._sites = Sites(
            self._resolver,
            self._environment,
            lambda: guard_of(self._settings()),
            self._site_limits,
            families=lambda: families,
            on_session=observer.session,
        )
        key = loop_key(self._store.loop_secret)
        deliverer = Deliverer(
            self._queue,
            self._sites,
            self._resolver,
            self._settings,
            lambda: self._current.policy,
            self.clock,
            chance,
            key,
            observer,
        )
        self._scheduler = Scheduler(self._queue, deliverer, self.clock)
        self._intake = QueueIntake(
            self._queue, self._settings, lambda: self._current.policy, self._scheduler, self.clock, observer
        )
        recovered = await self._queue.recover()
        await self._queue.sweep_run_dir()
        if recovered.recipients:
            _log.info("recovered", recipients=recovered.recipients)
        self._spawn(self._queue.maintain(), "maintain")
        self._spawn(self._sweep_orphans(), "orphans")  # it looks at every body file: nobody waits for it
        self._spawn(self._scheduler.run(), "schedule")
        self._watch = Watch(self._queue, self.metrics, self.clock, observer.take_raised)
        await self._watch.refresh()
        self._spawn(self._watch.run(), "watch")
        self.metrics.watch_queue(lambda: self._watch.gauges)
        self._health = HealthServer(self.metrics.registry, self.problems)
        listen = settings.metrics.listen
        bound = ""
        if listen is not None:
            try:
                host, port = await self._health.start(listen.host, listen.port)
            except OSError as error:
                raise GatewayError(f"metrics.listen {listen}: {error.strerror}") from error
            bound = f"{host}:{port}"
        self._ingress = IngressServer(
            settings,
            self._intake,
            self.clock,
            observer,
            structlog.get_logger(),
            lookup_txt=self._lookup_txt,
            loop_key=key,
        )
        addresses = await self._ingress.start()
        self._watch.ingress = self._ingress
        self._note_stages(settings)
        self.ready = {
            "listeners": [f"{address}" for address in addresses],
            "metrics": bound,
            "policy": self._current.policy.digest,
            "config": self._current.loaded.digest,
        }
        _log.info("ready", version=__version__, **self.ready)

    async def _sweep_orphans(self) -> None:
        try:
            orphans = await self._store.sweep_orphans()
        except StoreError as error:
            _log.error("orphans_not_swept", error=str(error))
            return
        if orphans:
            _log.info("orphans_swept", orphans=len(orphans))

    def _settings(self) -> Settings:
        return self._current.settings

    def _environment(self) -> Environment:
        settings = self._current.settings
        return Environment(
            settings.hostname, self.clock, self._current.trust, self._contexts, settings.delivery.timeouts
        )

    def _site_limits(self) -> SiteLimits:
        delivery = self._current.settings.delivery
        connections = delivery.connections
        rest = min(delivery.retry.first * 0.75, 45.0)  # below the shortest wait for a next try, jitter included
        return SiteLimits(connections.per_site, connections.idle, connections.lifetime, rest)

    async def _lookup_txt(self, name: str) -> Sequence[bytes]:
        try:
            answer = await self._resolver.query(name, "TXT")
        except DnsError as error:
            raise LookupFailed(str(error)) from error
        return [b"".join(record.strings) for record in answer.records if isinstance(record, TXT)]

    def _note_stages(self, settings: Settings) -> None:
        observing = [connector.name for connector in settings.connectors if connector.stage is Stage.OBSERVE]
        self.metrics.observed_connectors.set(len(observing))
        if observing:
            self.metrics.alarms.labels("observe_stage").inc()
            _log.warning("observe_stage", connectors=observing, meaning="their mail leaves unprotected")

    # -- run ----------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT; SIGHUP reloads."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        hangup = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        service = ServiceNotifier()
        await self.start()
        service.ready("taking mail")
        if service.watchdog_interval:
            self._spawn(self._watchdog(service, service.watchdog_interval), "watchdog")
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                reload = asyncio.ensure_future(hangup.wait())
                await asyncio.wait({stopping, reload}, return_when=asyncio.FIRST_COMPLETED)
                reload.cancel()
                if hangup.is_set() and not stop.is_set():
                    hangup.clear()
                    service.reloading()
                    await self.reload()
                    service.ready("taking mail")
        finally:
            stopping.cancel()
            service.stopping()
            await self.stop()

    async def reload(self) -> bool:
        """Read everything again and take it over, all or nothing; whether it was taken over."""
        try:
            loaded = await asyncio.to_thread(self.load, self.config)
            trust = await asyncio.to_thread(Trust.load, loaded.settings.tls.trust)
            resolver = DnsResolver(loaded.settings.dns, self.clock)
            self._refuse_unchangeable(loaded.settings)
            await self._ingress.reload(loaded.settings)
        except (GatewayError, OSError) as error:
            faults = [str(fault) for fault in error.faults] if isinstance(error, ConfigError) else [str(error)]
            _log.error("reload_failed", faults=faults, meaning="the running configuration stays")
            self.metrics.alarms.labels("reload_failed").inc()
            return False
        self._current = Current(loaded, trust)
        self._store.space.floor = loaded.settings.limits.free_space
        self._resolver.use(resolver)
        self._note_stages(loaded.settings)
        _log.info("reloaded", policy=loaded.policy.digest, config=loaded.digest)
        return True

    def _refuse_unchangeable(self, fresh: Settings) -> None:
        old = self._current.settings
        changed = [
            name
            for name, before, after in (
                ("data_dir", old.data_dir, fresh.data_dir),
                ("store", old.store, fresh.store),
                ("metrics", old.metrics, fresh.metrics),
                ("hostname", old.hostname, fresh.hostname),
            )
            if before != after
        ]
        if changed:
            raise GatewayError(f"{', '.join(changed)} cannot change while the gateway runs: restart it")

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

    async def _watchdog(self, service: ServiceNotifier, interval: float) -> None:
        while True:
            service.watchdog()
            await self.clock.sleep(interval)

    # -- stop ---------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """No new mail, then end what is under way, then close the store."""
        if not self._started:
            return
        self._started = False
        _log.info("stopping")
        self._intake.stopping = True
        await self._ingress.stop_accepting()
        await self._ingress.drain(DRAIN / 2)
        await self._close_rooms()
        _log.info("stopped")

    async def _close_rooms(self) -> None:
        if hasattr(self, "_scheduler"):
            await self._scheduler.stop(DRAIN / 2)
        if hasattr(self, "_sites"):
            await self._sites.close()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError, Exception):  # one that failed has told the log already
                await task
        if hasattr(self, "_health"):
            await self._health.stop()
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
