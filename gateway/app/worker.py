"""One process that the supervisor forked, around its rooms: a worker, or the web process.

1. start the rooms; say ``ready``, or ``failed`` and why
2. each second: a heartbeat to the supervisor and a report to the board - from the event loop, so that one which hangs
   shows
3. a reload in two steps: ``prepare`` does all that can fail, then ``adopt`` or ``forget``
4. SIGTERM, or the end of the channel: drain and end. A supervisor that dies takes us along (PR_SET_PDEATHSIG): nobody
   would restart us, and a second gateway may already be starting.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import structlog
import uvloop

from gateway.app.channel import MAX_TEXT, Channel, Message
from gateway.app.gateway import Gateway
from gateway.app.seat import Seat, drain
from gateway.errors import ConfigError, GatewayError
from gateway.observe.aggregate import Snapshot, lasting, merge, snapshot
from gateway.observe.metrics import Metrics
from gateway.policy.bundle import Loaded, load_all

__all__ = ["BEAT", "HasDigest", "Once", "Rooms", "Sockets", "Worker", "run_worker"]

_log = structlog.get_logger()

#: Seconds between heartbeats.
BEAT = 1.0
#: Seconds that looking for problems may take before a report goes out without.
_LOOK = 0.25

Sockets = Mapping[str, Sequence[socket.socket]]


class HasDigest(Protocol):
    """A prepared configuration, which tells from which files."""

    @property
    def digest(self) -> str:
        """The digest of the files."""


P = TypeVar("P", bound=HasDigest)


class Rooms(Protocol[P]):
    """What runs in the process: the mail path (``Gateway``), or web faces."""

    metrics: Metrics

    async def start(self) -> None:
        """Bring everything up. Raises ``GatewayError``, ``OSError``; then nothing runs."""

    async def stop(self) -> None:
        """End what is under way, then close."""

    async def problems(self) -> list[str]:
        """Why it cannot do its work."""

    def warnings(self) -> list[str]:
        """What needs a person all the same."""

    @property
    def store_failed(self) -> str:
        """Why the store takes nothing more; "" while it works."""

    def fail_store(self, reason: str) -> None:
        """Another process met what makes the store of all doubtful."""

    def alarm(self, kind: str) -> None:
        """Something outside needs a person."""

    async def prepare(self) -> P:
        """Read everything again and do all that can fail; nothing changes. Raises ``GatewayError``, ``OSError``."""

    async def adopt(self, prepared: P, sockets: Sockets | None = None) -> None:
        """Work by this from now on."""


def run_worker(seat: Seat, channel: Channel, loaded: Loaded, config: Path, sockets: Sockets) -> int:
    """Be a worker until told to end; the exit status. ``loaded`` is the configuration in force."""
    # Few of the objects of a message are in cycles, so the collector may wait for many of them.
    gc.set_threshold(50_000, 20, 20)
    rooms = Gateway(config, load=Once(loaded), share=seat.share, sockets=sockets)
    return uvloop.run(Worker("worker", seat, channel, rooms).run())


@dataclass(slots=True)
class Once:
    """Gives the configuration that was in force at the fork; then what the files say."""

    loaded: Loaded | None

    def __call__(self, config: Path) -> Loaded:
        """See :func:`load_all`."""
        loaded, self.loaded = self.loaded, None
        return loaded if loaded is not None else load_all(config)


@dataclass(slots=True)
class Worker(Generic[P]):
    """See the module. ``name`` is ``worker`` or ``web``: events in the log begin with it."""

    name: str
    seat: Seat
    channel: Channel
    rooms: Rooms[P]
    _before: Snapshot = field(default_factory=list)
    _prepared: P | None = None
    _new_sockets: dict[str, list[socket.socket]] = field(default_factory=dict)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _acting: set[asyncio.Task[None]] = field(default_factory=set)
    _up: bool = False

    async def run(self) -> int:
        """Start, serve, stop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        report = self.seat.read()
        self._before = lasting(report["metrics"]) if report is not None else []
        drain(self.seat.worker_end)
        beating = asyncio.create_task(self._beat())
        loop.add_reader(self.channel.fileno(), self._hear)
        loop.add_reader(self.seat.worker_end.fileno(), self._rung)
        try:
            await self.rooms.start()
        except (GatewayError, OSError) as error:
            self.channel.send({"failed": str(error)[:MAX_TEXT]})
            return 1
        self._up = True
        _log.info(f"{self.name}_ready", pid=os.getpid())
        await self._report()
        self.channel.send({"ready": True})
        await self._stop.wait()
        _log.info(f"{self.name}_stopping")
        await self.rooms.stop()
        self._up = False
        beating.cancel()
        await self._report()
        _log.info(f"{self.name}_stopped")
        return 0

    # -- signs of life ------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            failed = self.rooms.store_failed if self._up else ""
            self.channel.send({"beat": True, "store_failed": failed[:MAX_TEXT]})
            with suppress(Exception):  # the next one may work; a heartbeat is no reason to end
                await self._report()
            await asyncio.sleep(BEAT)

    async def _report(self) -> None:
        problems = ["not started, or stopping"]
        if self._up:
            try:
                async with asyncio.timeout(_LOOK):
                    problems = await self.rooms.problems()
            except TimeoutError:
                problems = ["the store does not answer in time"]
        metrics = merge([self._before, snapshot(self.rooms.metrics.registry)])
        self.seat.report(os.getpid(), problems, metrics, self.rooms.warnings() if self._up else ())

    def _rung(self) -> None:
        if drain(self.seat.worker_end):
            self._act(self._answer())

    async def _answer(self) -> None:
        await self._report()
        with suppress(OSError):
            self.seat.worker_end.send(b".")

    # -- what the supervisor says -------------------------------------------------------------------------------------

    def _hear(self) -> None:
        while True:
            try:
                heard = self.channel.receive()
            except BlockingIOError:
                return
            if heard is None:
                asyncio.get_running_loop().remove_reader(self.channel.fileno())
                self._stop.set()
                return
            message, sockets = heard
            self._act(self._obey(message, sockets))

    def _act(self, work: asyncio.Future[None] | object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.create_task(work)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def _obey(self, message: Message, sockets: list[socket.socket]) -> None:
        match message["do"]:
            case "prepare":
                await self._prepare(message, sockets)
            case "adopt":
                await self._adopt()
            case "forget":
                self._forget()
            case "fail_store":
                if not self.rooms.store_failed:
                    self.rooms.fail_store(message["reason"])
            case "alarm":
                self.rooms.alarm(message["alarm"])

    async def _prepare(self, message: Message, sockets: list[socket.socket]) -> None:
        self._forget()
        for key, each in zip(message["keys"], sockets, strict=True):
            self._new_sockets.setdefault(key, []).append(each)
        faults: list[str] = []
        try:
            self._prepared = await self.rooms.prepare()
        except ConfigError as error:
            faults = [str(fault) for fault in error.faults]
        except (GatewayError, OSError) as error:
            faults = [str(error)]
        else:
            if self._prepared.digest != message["digest"]:
                faults = ["the files changed while they were read: reload again"]
        self.channel.send({"prepared": message["reload"], "faults": [fault[:MAX_TEXT] for fault in faults[:3]]})

    async def _adopt(self) -> None:
        prepared, self._prepared = self._prepared, None
        assert prepared is not None, "adopt follows prepare"
        sockets, self._new_sockets = self._new_sockets, {}
        try:
            await self.rooms.adopt(prepared, sockets)
        except Exception:  # noqa: BLE001  whatever it is
            # The others have the new configuration; who cannot take it over begins anew, with it.
            _log.exception("adopt_failed")
            os._exit(1)

    def _forget(self) -> None:
        self._prepared = None
        for sockets in self._new_sockets.values():
            for each in sockets:
                each.close()
        self._new_sockets = {}
