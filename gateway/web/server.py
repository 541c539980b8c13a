"""The server: uvicorn's HTTP/1.1 with patience that has an end, on sockets and certificates that others look after.

What a stranger can hold, and how long:

- connections: so many in all, so many of one network (but not of a trusted proxy, which is everybody)
- a handshake and a request's head: seconds, however slowly they trickle; the head some kilobytes
- a body: it must get on by some kilobytes within each span of seconds, unless it is us who do not take it
- an answer: the client must take some of it within each minute
- a connection between two requests: seconds

Who uses these up is cut off without a word: words would be one more thing to wait for. Signals are the daemon's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
import sys
import time
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gateway.config.networks import Network
from gateway.web.client import client_of
from gateway.web.headers import plain_headers

__all__ = ["ServerLimits", "WebServer"]

_log = structlog.get_logger()

_BACKLOG: Final = 512
#: Seconds that a client gets to say goodbye in TLS.
_FAREWELL: Final = 2
#: Seconds between two looks at who uses up our patience.
_LOOK: Final = 0.5

TlsNow = Callable[[], ssl.SSLContext | None]
TrustedNow = Callable[[], Sequence[Network]]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much patience there is; seconds and bytes."""

    connections: int = 1000
    connections_per_network: int = 100
    handshake: float = 10.0
    head: float = 10.0
    head_bytes: int = 16 * 1024
    #: A body must get on by ``pace_bytes`` in each ``pace`` seconds: 800 bytes a second is the slowest of phones.
    pace: float = 20.0
    pace_bytes: int = 16 * 1024
    #: Time to take the next part of an answer (64 KiB).
    take: float = 60.0
    #: Between two requests.
    idle: float = 15.0
    #: What arrives behind an answer - the rest of a body that was refused - is thrown away for so long, so that a
    #: browser gets to read the answer.
    linger: float = 10.0
    #: What is under way at the end gets so long.
    drain: float = 10.0


@dataclass(slots=True)
class _Crowd:
    """Who is connected."""

    limits: ServerLimits
    trusted: TrustedNow
    https: bool
    networks: Counter[str] = field(default_factory=Counter)
    shaking: int = 0


class WebServer:
    """One application on bound sockets, from :meth:`start` to :meth:`stop`.

    ``tls`` gives the context for the next connection, ``None`` where there is no TLS; ``trusted`` the proxies.
    ``https``: whether browsers reach us by https, whoever ends it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tls: TlsNow = lambda: None,
        trusted: TrustedNow = tuple,
        https: bool = True,
        limits: ServerLimits | None = None,
    ) -> None:
        self._app = app
        self._limits = limits or ServerLimits()
        self._crowd = _Crowd(self._limits, trusted, https)
        self._tls = tls
        self._server: _Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Answer on these sockets, which are closed at the end."""
        # It would write requests of strangers into our log, line by line, in its own form.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self._app(scope, receive, send)

        config = uvicorn.Config(
            app,
            http=H11Protocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=self._limits.head_bytes,
            timeout_keep_alive=math.ceil(self._limits.idle),
            timeout_graceful_shutdown=math.ceil(self._limits.drain),
        )
        self._server = _Server(config, self._crowd, self._tls)
        serving = asyncio.create_task(self._server.serve(sockets=list(sockets)), name="web")
        self._tasks = [serving, asyncio.create_task(self._watch(self._server), name="web-patience")]
        await self._server.listening.wait()

    def replace(self, app: ASGIApp, *, https: bool) -> None:
        """From the next request on, on open connections too, this application answers."""
        self._app, self._crowd.https = app, https

    async def stop(self) -> None:
        """No new connections; what is under way is finished, for a while; then all are closed."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.should_exit = True
        serving, watching = self._tasks
        with suppress(asyncio.CancelledError):
            await serving
        watching.cancel()
        for connection in tuple(server.server_state.connections):
            if isinstance(connection, _Connection):
                connection.cut("the end")

    async def _watch(self, server: _Server) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            for connection in tuple(server.server_state.connections):
                if isinstance(connection, _Connection):
                    connection.look(now)


class _Server(uvicorn.Server):
    """uvicorn with connections of ours, no signal handlers, and an event that says when it listens."""

    def __init__(self, config: uvicorn.Config, crowd: _Crowd, tls: TlsNow) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._crowd = crowd
        self._tls = tls

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the daemon's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so. TLS is ours: so each connection gets the certificate of the moment."""
        loop = asyncio.get_running_loop()
        assert sockets is not None, "somebody else has bound them"
        self.servers = [
            await loop.create_server(lambda: self._connection(loop), sock=each, backlog=_BACKLOG) for each in sockets
        ]
        self.started = True
        self.listening.set()

    def _connection(self, loop: asyncio.AbstractEventLoop) -> asyncio.BaseProtocol:
        crowd = self._crowd
        if crowd.shaking + len(self.server_state.connections) >= crowd.limits.connections:
            return _Full()
        connection = _Connection(self.config, self.server_state, crowd)
        context = self._tls()
        if context is None:
            return connection
        shaken = loop.create_future()
        crowd.shaking += 1
        shaken.add_done_callback(self._shaken)
        return SSLProtocol(
            loop,
            connection,
            context,
            shaken,
            server_side=True,
            ssl_handshake_timeout=math.ceil(crowd.limits.handshake),
            ssl_shutdown_timeout=_FAREWELL,
        )

    def _shaken(self, outcome: asyncio.Future[None]) -> None:
        self._crowd.shaking -= 1
        if not outcome.cancelled():
            outcome.exception()  # whose handshake failed is a stranger's matter


class _Full(asyncio.Protocol):
    """Stands where a connection would: there are enough of them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Connection(H11Protocol):
    """uvicorn's connection, looked at from time to time."""

    def __init__(self, config: uvicorn.Config, state: ServerState, crowd: _Crowd) -> None:
        super().__init__(config, state, {})
        self._crowd = crowd
        self._network = ""
        now = time.monotonic()
        self._waits_since = now
        self._answered_at: float | None = None
        self._stalled_since: float | None = None
        self._pace_since, self._pace_bytes = now, 0

    # -- what the event loop calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._waits_since = time.monotonic()
        client = client_of(self.client[0] if self.client else None, {}, tls=False, trusted=())
        if client.address is not None and any(client.address in each for each in self._crowd.trusted()):
            return
        self._network = client.network
        self._crowd.networks[self._network] += 1
        if self._crowd.networks[self._network] > self._crowd.limits.connections_per_network:
            self.cut("too many of one network")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._network:
            self._crowd.networks[self._network] -= 1
            if not self._crowd.networks[self._network]:
                del self._crowd.networks[self._network]
            self._network = ""

    def data_received(self, data: bytes) -> None:
        self._pace_bytes += len(data)
        if not self.transport.is_closing():
            super().data_received(data)

    def pause_writing(self) -> None:
        self._stalled_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._answered_at = self._waits_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What h11 could not read: answered without an application, and closed."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self.conn.our_state is not h11.IDLE and self.conn.our_state is not h11.SEND_RESPONSE:
            self.cut("not HTTP, behind an answer")
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cut("a body that is not HTTP")
            return
        headers = [
            *plain_headers(https=self._crowd.https),
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"connection", b"close"),
        ]
        reason = b"Request Header Fields Too Large" if status == 431 else b"Bad Request"
        for event in (
            h11.Response(status_code=status, headers=headers, reason=reason),
            h11.Data(data=msg.encode("ascii", "replace")),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    # -- patience -----------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Cut the connection where its time is over."""
        reason = self._over(now)
        if reason:
            self.cut(reason)

    def cut(self, reason: str) -> None:
        """End it, without a word."""
        _log.debug("web_connection_cut", reason=reason, network=self._network)
        self.transport.abort()

    def _over(self, now: float) -> str:
        limits = self._crowd.limits
        if self._stalled_since is not None and now - self._stalled_since > limits.take:
            return "the answer is not taken"
        state = self.conn.their_state
        answered = self.cycle is None or self.cycle.response_complete
        if state is h11.SEND_BODY and not answered and not self.flow.read_paused:
            return self._lags(now)
        self._pace_since, self._pace_bytes = now, 0
        waited = now - self._waits_since
        if state is h11.SEND_BODY and answered and waited > limits.linger:
            return "a body without end"
        patience = limits.head if self._answered_at is None else limits.idle + limits.head
        if state is h11.IDLE and answered and waited > patience:
            return "no whole head in time"
        return ""

    def _lags(self, now: float) -> str:
        limits = self._crowd.limits
        if now - self._pace_since <= limits.pace:
            return ""
        got, self._pace_since, self._pace_bytes = self._pace_bytes, now, 0
        return "the body does not get on" if got < limits.pace_bytes else ""
