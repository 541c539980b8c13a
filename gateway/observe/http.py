"""The metrics address: ``/metrics``, ``/healthz`` (the process lives), ``/readyz`` (it can take mail, or why not)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

__all__ = ["HealthServer"]


class HealthServer:
    """A small web server.

    ``registry`` gives what is exposed, at each scrape; ``problems`` tells why the gateway is not ready; [] when it is.
    ``warnings``, asked for behind it: what needs a person all the same.
    """

    def __init__(
        self,
        registry: Callable[[], Awaitable[CollectorRegistry]],
        problems: Callable[[], Awaitable[list[str]]],
        warnings: Callable[[], list[str]] = list,
    ) -> None:
        self._registry = registry
        self._problems = problems
        self._warnings = warnings
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Answer on this bound socket."""
        app = Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
            ]
        )
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2, loop="none"
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="health")
        await self._server.listening.wait()

    async def stop(self) -> None:
        """Answer what is being answered, then end."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            with suppress(asyncio.CancelledError):
                await self._task

    async def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(await self._registry()), media_type=CONTENT_TYPE_LATEST)

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        problems = await self._problems()
        answer = {"ready": not problems, "problems": problems, "warnings": self._warnings()}
        return JSONResponse(answer, status_code=503 if problems else 200)


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own, and with an event that says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the daemon's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets=sockets)
        self.listening.set()
