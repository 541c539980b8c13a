"""``gateway run``: a small process that starts the others, watches them, and does nothing else.

1. bind every address (``sockets``); import all that the others need, so that they share its pages
2. fork the health process and the first worker; when that one has opened the store and listens, the others; then the
   web process, where there is a portal
3. ``ready``: once, when all listen
4. one that dies is started again, at once the first time, then later and later; one whose event loop does not turn for
   a minute is killed
5. SIGHUP: read and check everything here, then let all prepare, then all take over - or nobody does (``reloading``)
6. SIGTERM: all drain; who is not done in time is killed

One thread and no event loop of a library: it forks at any time.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from gateway import __version__
from gateway.app.board import Board
from gateway.app.channel import Channel, Message
from gateway.app.children import Child, describe_status, fork, kill
from gateway.app.gateway import DRAIN
from gateway.app.health import Roll, run_health, write_roll
from gateway.app.preloading import preload
from gateway.app.reloading import reload_all
from gateway.app.seat import Seat
from gateway.app.signals import Signals
from gateway.app.sockets import Activated, Listening, activated
from gateway.app.worker import run_worker
from gateway.config.model import Settings
from gateway.config.shares import WHOLE, Share
from gateway.delivery.peer import require_peer_chain
from gateway.errors import ConfigError, GatewayError
from gateway.observe.lines import LineOutput
from gateway.observe.log import set_up
from gateway.observe.service import ServiceNotifier
from gateway.policy.bundle import Loaded

__all__ = ["HANG", "Supervisor", "worker_count"]

_log = structlog.get_logger()

#: Seconds without a heartbeat after which a worker is killed.
HANG: Final = 60.0
#: Seconds that a worker gets to become ready at the start; recovery of a large store is part of it.
_START: Final = 110.0
#: Seconds beyond the drain before a worker that does not end is killed.
_GRACE: Final = 10.0
#: Most seconds between two looks at clocks.
_LOOK: Final = 1.0
#: SQLite has one writer at a time: more processes than this mostly wait for each other.
_MOST_ON_SQLITE: Final = 2


def worker_count(settings: Settings) -> int:
    """How many workers these settings ask for."""
    if isinstance(settings.workers, int):
        return settings.workers
    cores = len(os.sched_getaffinity(0))
    return min(cores, _MOST_ON_SQLITE) if settings.store.url.is_sqlite else cores


class Supervisor:
    """The parent of all processes. ``environ`` tells what the service manager says."""

    def __init__(self, config: Path, loaded: Loaded, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._config = config
        self._loaded = loaded
        self._output = LineOutput(2)
        self._service = ServiceNotifier()
        workers = worker_count(loaded.settings)
        self._listening = Listening(workers, activated(environ))
        self._roll = Board("roll")
        self._workers = [
            Child(f"worker {number}", Seat(Share(number, workers)), takes_mail=True, alarm="worker_died")
            for number in range(1, workers + 1)
        ]
        self._web = Child("web", Seat(WHOLE), alarm="web_died") if loaded.settings.portal.url is not None else None
        self._health = Child("health")
        self._selector = selectors.DefaultSelector()
        self._signals = Signals()
        self._stopping = False
        self._reloads = 0
        self._alarms: list[str] = []
        self._store_failed = ""
        self._fed = 0.0
        self._looked = time.monotonic()

    # -- life ---------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit status. Raises :class:`GatewayError` where the start fails."""
        self._set_up_log(None)
        require_peer_chain()
        self._bind()
        preload(web=self._web is not None, detectors=bool(self._loaded.policy.questions.detectors))
        self._signals.listen()
        self._selector.register(self._signals, selectors.EVENT_READ, None)
        try:
            self._start()
            while not self._asked_to_stop():
                self._turn()
                if self._signals.take(signal.SIGHUP):
                    self._reload()
        finally:
            self._stop()
        return 0

    def _bind(self) -> None:
        settings = self._loaded.settings
        self._listening.open_missing(settings.listeners)
        self._listening.adopt(settings.listeners)
        if settings.metrics.listen is not None:
            self._listening.open_metrics(settings.metrics.listen)
        if self._web is not None:
            self._listening.open_web(settings.portal.listen)
        for stranger in self._listening.strangers:
            _log.warning(
                "socket_unused",
                name=stranger.name,
                address=_shown(stranger),
                remedy="no listener, portal or metrics has this address: correct the socket unit or the settings",
            )

    def _start(self) -> None:
        """Start all; raises :class:`GatewayError` where one cannot start."""
        if self._listening.metrics is not None:
            self._spawn(self._health)
        web = [] if self._web is None else [self._web]
        for wave in (self._workers[:1], self._workers[1:], web):  # the first one opens the store, or makes it
            for child in wave:
                self._spawn(child)
            self._wait_until_up(wave)
        if self._asked_to_stop():
            return
        if self._listening.metrics is not None:
            self._wait_until_up([self._health])
        metrics, portal = self._listening.metrics, self._listening.web
        _log.info(
            "ready",
            version=__version__,
            listeners=[str(address) for address in self._listening.bound],
            metrics=_name_of(metrics),
            portal=_name_of(portal),
            policy=self._loaded.policy.digest,
            config=self._loaded.digest,
            workers=len(self._workers),
        )
        self._service.ready("taking mail")

    def _wait_until_up(self, wanted: Sequence[Child]) -> None:
        deadline = time.monotonic() + _START
        while not all(child.ready for child in wanted) and not self._asked_to_stop():
            self._turn(restart=False)
            for child in wanted:
                if child.failed:
                    raise GatewayError(child.failed)
                if not child.pid:
                    raise GatewayError(f"{child.name} ended before it was ready; the log says why")
            if time.monotonic() > deadline:
                late = ", ".join(child.name for child in wanted if not child.ready)
                raise GatewayError(f"{late} did not become ready in time")

    def _stop(self) -> None:
        """No new mail, drain, end; kill what does not."""
        running = [child for child in self.sitting() if child.pid]
        self._service.stopping()
        if any(child.ready for child in running):
            _log.info("stopping")
        self._stopping = True
        self._tell_roll()
        self._listening.close()
        for child in running:
            kill(child, signal.SIGTERM)
        self._wait_until_gone(running, DRAIN + _GRACE)
        if self._health.pid:
            kill(self._health, signal.SIGTERM)
            self._wait_until_gone([self._health], _GRACE)
        if running:
            _log.info("stopped")

    def _wait_until_gone(self, children: Sequence[Child], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(child.pid for child in children):
            if time.monotonic() > deadline:
                for child in children:
                    if child.pid:
                        _log.error("process_killed", process=child.name, reason="it did not end in time")
                        kill(child, signal.SIGKILL)
                deadline += _GRACE
            self._turn(restart=False)

    def _asked_to_stop(self) -> bool:
        return self._signals.has(signal.SIGTERM, signal.SIGINT)

    # -- one turn -----------------------------------------------------------------------------------------------------

    def _turn(self, *, restart: bool = True) -> None:
        """Wait a moment for something to happen, and see to it."""
        now = time.monotonic()
        due = [child.due - now for child in self._all() if not child.pid] if restart else []
        for key, _ in self._selector.select(max(min([_LOOK, *due]), 0.0)):
            if isinstance(key.data, Child):
                self._hear(key.data)
            else:
                self._signals.collect()
        self._reap()
        now = time.monotonic()
        self._kill_hung(now)
        if restart:
            for child in self._all():
                if not child.pid and child.due <= now:
                    self._spawn(child)
        self._feed_watchdog(now)

    def _all(self) -> list[Child]:
        return [*self.sitting(), *([self._health] if self._listening.metrics is not None else [])]

    def sitting(self) -> list[Child]:
        """All but health: those that read the configuration and have the store open."""
        return [*self._workers, *([self._web] if self._web is not None else [])]

    def up(self) -> Iterator[tuple[Child, Channel]]:
        """Those of them that are ready."""
        for child in self.sitting():
            if child.ready and child.channel is not None:
                yield child, child.channel

    def _hear(self, child: Child) -> None:
        assert child.channel is not None
        while True:
            try:
                heard = child.channel.receive()
            except BlockingIOError:
                return
            if heard is None:
                self._selector.unregister(child.channel)
                child.channel.close()
                child.channel = None
                return
            self._note(child, heard[0])

    def _note(self, child: Child, message: Message) -> None:
        child.beat = time.monotonic()
        match message:
            case {"ready": True}:
                child.ready = True
                self._tell_roll()
                if self._store_failed and child.channel is not None:
                    child.channel.send({"do": "fail_store", "reason": self._store_failed})
                self._tell_alarms()
            case {"failed": str(reason)}:
                child.failed = reason
                _log.error("process_failed", process=child.name, error=reason)
            case {"store_failed": str(reason)} if reason and not self._store_failed:
                # One store: what one has seen fail, nobody may go on with until all begin anew.
                self._store_failed = reason
                for _, channel in self.up():
                    channel.send({"do": "fail_store", "reason": reason})
            case {"alarm": str(kind)}:
                self._alarms.append(kind)
                self._tell_alarms()
            case {"prepared": int(number), "faults": list(faults)}:
                child.answer = (number, [str(fault) for fault in faults])

    def _reap(self) -> None:
        for child in self._all():
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                if child.channel is not None:
                    self._hear(child)  # its last words
                self._gone(child, status)

    def _gone(self, child: Child, status: int) -> None:
        now = time.monotonic()
        ran = now - child.started
        pid, child.pid = child.pid, 0
        was_ready, child.ready = child.ready, False
        if child.channel is not None:
            self._selector.unregister(child.channel)
            child.channel.close()
            child.channel = None
        if self._stopping or self._asked_to_stop():
            return
        wait = child.backoff.died(ran)
        child.due = now + wait
        self._tell_roll()
        facts = {"process": child.name, "pid": pid, "status": describe_status(status), "ran": round(ran, 1)}
        if status == 0 and was_ready:
            _log.info("process_ended", **facts, again_in=wait)
            return
        _log.error("process_died", **facts, again_in=wait)
        if child.alarm:
            self._alarms.append(child.alarm)
            self._tell_alarms()

    def _kill_hung(self, now: float) -> None:
        away, self._looked = now - self._looked, now
        if away > HANG / 2:  # it was us who stood still, or the whole machine: the others get their time
            for child in self.sitting():
                child.beat = now
        for child in self.sitting():
            if child.pid and now - child.beat > HANG:
                _log.error(
                    "worker_hangs" if child.takes_mail else "web_hangs",
                    process=child.name,
                    pid=child.pid,
                    silent=round(now - child.beat),
                )
                kill(child, signal.SIGKILL)
                child.beat = now

    def _feed_watchdog(self, now: float) -> None:
        """While a heartbeat arrives. One worker that hangs is for us to see to; when none lives, for the manager."""
        interval = self._service.watchdog_interval
        if interval and now - self._fed >= interval and any(now - child.beat < HANG for child in self._workers):
            self._fed = now
            self._service.watchdog()

    def _tell_alarms(self) -> None:
        """Alarms are counted, logged and kept by a worker, which has the store open."""
        for child, channel in self.up():
            if not child.takes_mail:
                continue
            while self._alarms and channel.send({"do": "alarm", "alarm": self._alarms[0]}):
                del self._alarms[0]
            return

    def _tell_roll(self) -> None:
        workers = [(child.pid, child.state) for child in self._workers]
        web = None if self._web is None else (self._web.pid, self._web.state)
        write_roll(self._roll, Roll(stopping=self._stopping, workers=workers, web=web))

    # -- children -----------------------------------------------------------------------------------------------------

    def _spawn(self, child: Child) -> None:
        ours, theirs = Channel.pair()
        work = self._work_of(child, theirs)
        now = time.monotonic()
        child.pid, child.channel, child.started, child.beat = fork(self._child_of(ours, work)), ours, now, now
        child.ready, child.failed = False, ""
        theirs.close()
        self._selector.register(ours, selectors.EVENT_READ, child)
        self._tell_roll()

    def _work_of(self, child: Child, channel: Channel) -> Callable[[], int]:
        seat = child.seat
        if seat is None:
            return lambda: self._be_health(channel)
        if child.takes_mail:
            return lambda: self._be_worker(seat, channel)
        return lambda: self._be_web(seat, channel)

    def _child_of(self, ours: Channel, work: Callable[[], int]) -> Callable[[], int]:
        def child() -> int:
            """Let go of what is the supervisor's."""
            ours.close()
            self._selector.close()
            self._signals.close()
            for other in self._all():
                if other.channel is not None:
                    other.channel.close()
            return work()

        return child

    def _be_worker(self, seat: Seat, channel: Channel) -> int:
        self._set_up_log(seat.number)
        sockets: Mapping[str, Sequence[socket.socket]] = self._listening.keep_only(seat.number)
        return run_worker(seat, channel, self._loaded, self._config, sockets)

    def _be_web(self, seat: Seat, channel: Channel) -> int:
        from gateway.app.web import run_web  # where there is no portal nobody pays for its libraries

        self._set_up_log(None)
        listening = self._listening.web
        assert listening is not None
        self._listening.keep_only(other=listening)
        return run_web(seat, channel, self._loaded, self._config, listening)

    def _be_health(self, channel: Channel) -> int:
        metrics = self._listening.metrics
        assert metrics is not None
        self._listening.keep_only(other=metrics)
        seats = [child.seat for child in self._workers if child.seat is not None]
        web = None if self._web is None else self._web.seat
        return run_health(self._loaded.settings, seats, web, self._roll, metrics, channel)

    # -- reload -------------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """All or nothing, in every process."""
        self._service.reloading()
        self._reloads += 1
        try:
            loaded = reload_all(self, self._config, self._loaded, self._listening, self._reloads)
        except (GatewayError, OSError) as error:
            faults = [str(fault) for fault in error.faults] if isinstance(error, ConfigError) else [str(error)]
            _log.error("reload_failed", faults=faults, meaning="the running configuration stays")
            self._alarms.append("reload_failed")
            self._tell_alarms()
        else:
            self._loaded = loaded
            _log.info("reloaded", policy=loaded.policy.digest, config=loaded.digest)
        self._service.ready("taking mail")

    def wait_for(self, condition: Callable[[], bool], deadline: float, late: Callable[[], str]) -> None:
        """See ``reloading.Family``."""
        while not condition():
            if time.monotonic() > deadline or self._asked_to_stop():
                raise GatewayError(f"{late()} did not answer in time")
            self._turn(restart=False)

    # -- the log ------------------------------------------------------------------------------------------------------

    def _set_up_log(self, worker: int | None) -> None:
        log = self._loaded.settings.log
        set_up(
            level=str(log.level), output=str(log.format), addresses=log.addresses, stream=self._output, worker=worker
        )


def _name_of(listening: socket.socket | None) -> str:
    return "" if listening is None else "{}:{}".format(*listening.getsockname()[:2])


def _shown(stranger: Activated) -> str:
    host, port = stranger.address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
