"""The health process: ``/metrics``, ``/healthz`` and ``/readyz`` of the whole gateway.

It answers whatever the workers do: it rings their bells, waits a moment for fresh reports, and takes the last ones
where none come. The queue's gauges are read from the counter rows here, once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TypedDict

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from gateway import __version__
from gateway.app.board import Board
from gateway.app.channel import Channel
from gateway.app.seat import Report, Seat, drain
from gateway.clock import SystemClock
from gateway.config.model import Settings
from gateway.errors import StoreError
from gateway.observe.aggregate import Merged, merge, snapshot
from gateway.observe.http import HealthServer
from gateway.observe.metrics import Metrics, QueueCollector, QueueGauges, ReadyCollector
from gateway.queue.views import counts, oldest_received
from gateway.store.database import Reader, database_path, open_engine

__all__ = ["Roll", "read_roll", "run_health", "write_roll"]

_log = structlog.get_logger()

#: Seconds that a worker gets to answer the bell before its last report has to do.
_PATIENCE = 0.4
#: Seconds after which a worker that reports nothing is not ready.
_SILENT = 5.0
#: Seconds for the queue's gauges.
_READ = 2.0


class Roll(TypedDict):
    """What the supervisor tells on its board: whether the gateway stops, and pid and state of each worker and of web.

    The state is "" where it runs.
    """

    stopping: bool
    workers: list[tuple[int, str]]
    web: tuple[int, str] | None


def write_roll(board: Board, roll: Roll) -> None:
    """For the supervisor."""
    board.write(json.dumps(roll).encode())


def read_roll(board: Board) -> Roll:
    """The last one."""
    text = board.read()
    roll: Roll = json.loads(text) if text else Roll(stopping=False, workers=[], web=None)
    return roll


def run_health(
    settings: Settings, seats: Sequence[Seat], web: Seat | None, roll: Board, listener: socket.socket, channel: Channel
) -> int:
    """Be the health process until told to end; the exit status. ``seats`` are the workers', ``web`` the web process's.

    Where web is down the gateway takes mail all the same: it is a warning of ``/readyz``, and an alarm, but no reason
    to keep mail away.
    """
    return uvloop.run(_Health(settings, seats, web, roll).run(listener, channel))


class _Health:
    def __init__(self, settings: Settings, seats: Sequence[Seat], web: Seat | None, roll: Board) -> None:
        self._seats = seats
        self._web = web
        self._roll = roll
        self._queue = _QueueReader(settings)
        self._asking = asyncio.Lock()

    async def run(self, listener: socket.socket, channel: Channel) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_reader(channel.fileno(), stop.set)  # nothing is said to us: it can only be the end
        server = HealthServer(self._registry, self._problems, self._warnings)
        await server.start(listener)
        channel.send({"ready": True})
        await stop.wait()
        loop.remove_reader(channel.fileno())
        await server.stop()
        self._queue.close()
        return 0

    async def _registry(self) -> CollectorRegistry:
        reports = await self._reports(self._all())
        registry = CollectorRegistry()
        # The names and the alarms at zero are there before any worker has told anything.
        own = snapshot(Metrics(__version__).registry)
        registry.register(Merged(merge([own, *(report["metrics"] for report in reports if report is not None)])))
        registry.register(ReadyCollector(ready=not self._found(reports[: len(self._seats)])))
        gauges = await self._queue.read()
        if gauges is not None:
            registry.register(QueueCollector(gauges))
        return registry

    async def _problems(self) -> list[str]:
        return self._found((await self._reports(self._all()))[: len(self._seats)])

    def _found(self, reports: Sequence[Report | None]) -> list[str]:
        """Why not every worker can take mail; by the reports of the workers."""
        roll = read_roll(self._roll)
        found = ["The service is stopping"] if roll["stopping"] else []
        for seat, report in zip(self._seats, reports, strict=True):
            pid, state = roll["workers"][seat.number - 1] if roll["workers"] else (0, "not started")
            found += [f"worker {seat.number}: {problem}" for problem in _of_worker(pid, state, report)]
        return found

    def _warnings(self) -> list[str]:
        """What the processes saw, each thing once, and what is wrong with web; by their last reports."""
        reports = [seat.read() for seat in self._all()]
        found = [text for report in reports if report is not None for text in report["warnings"]]
        web = read_roll(self._roll)["web"]
        if web is not None and self._web is not None:
            found += [f"web: {problem}" for problem in _of_worker(*web, self._web.read())]
        return list(dict.fromkeys(found))

    def _all(self) -> list[Seat]:
        return [*self._seats, *([self._web] if self._web is not None else [])]

    async def _reports(self, seats: Sequence[Seat]) -> list[Report | None]:
        """Their reports, fresh where the process answers in time."""
        async with self._asking:
            await asyncio.gather(*(self._ring(seat) for seat in seats))
        return [seat.read() for seat in seats]

    async def _ring(self, seat: Seat) -> None:
        drain(seat.health_end)
        with suppress(OSError, TimeoutError):  # nobody hears: nobody answers
            seat.health_end.send(b"?")
            async with asyncio.timeout(_PATIENCE):
                await asyncio.get_running_loop().sock_recv(seat.health_end, 16)


def _of_worker(pid: int, state: str, report: Report | None) -> list[str]:
    """Why a process cannot do its work."""
    if state:
        return [state]
    if report is None or report["pid"] != pid:
        return ["not started"]
    silent = time.monotonic() - report["time"]
    if silent > _SILENT:
        return [f"its event loop has not answered for {silent:.0f} s"]
    return report["problems"]


class _QueueReader:
    """The gauges that are the same for all: counter rows, the oldest message, free space."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._reader: Reader | None = None

    async def read(self) -> QueueGauges | None:
        """The gauges of now; ``None`` where the store does not give them."""
        try:
            async with asyncio.timeout(_READ):
                return await self._read()
        except (StoreError, OSError, TimeoutError) as error:
            _log.warning("gauges_failed", error=str(error) or "the store does not answer in time")
            return None

    async def _read(self) -> QueueGauges | None:
        data_dir = self._settings.data_dir
        if self._reader is None:
            if self._settings.store.url.is_sqlite and not database_path(data_dir).exists():  # opening would make it
                return None
            self._reader = Reader(open_engine(self._settings.store.database, data_dir, writes=False))
        states, oldest = await self._reader.run(lambda connection: (counts(connection), oldest_received(connection)))
        status = os.statvfs(data_dir)
        age = 0.0 if oldest is None else max(self._clock.time() - oldest, 0.0)
        return QueueGauges(states, age, status.f_bavail * status.f_frsize)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
