"""The server: listeners that come and go with the configuration, sessions that are counted, timed and drained."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from asyncio.sslproto import SSLProtocol
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.config.model import ClientCertificates, Listener, ListenerTls, Settings
from gateway.config.shares import WHOLE, Share
from gateway.errors import GatewayError
from gateway.ingress.acceptor import Acceptor, bound, resolved
from gateway.ingress.certificates import Reload, ServerCertificate
from gateway.ingress.client_certificate import Trust
from gateway.ingress.connection import HANDSHAKE_TIMEOUT, Connection
from gateway.ingress.connectors import IpAddress
from gateway.ingress.limits import ConnectionCounts, Rates
from gateway.ingress.memory import MemoryBudget
from gateway.ingress.networks import load_networks
from gateway.ingress.passwords import Failures, Passwords
from gateway.ingress.proxied import HEADER_TIMEOUT, ProxyFront
from gateway.ingress.refusals import Reason
from gateway.ingress.seams import IngressMetrics, Intake, LookupTxt
from gateway.ingress.session import SmtpSession
from gateway.ingress.terms import Services, Terms

__all__ = ["Bound", "IngressServer", "ServerError", "keyed"]

#: How often deadlines are looked at, in seconds of the clock.
TICK = 1.0
BACKLOG = 512


class ServerError(GatewayError):
    """A listener cannot be opened; the message says which one and why."""


@dataclass(frozen=True, slots=True)
class Bound:
    """An address that listens."""

    listener: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class _Hangup(asyncio.Protocol):
    """Stands where a session would: there are enough of them, and no way to say so before a handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class IngressServer:
    """The SMTP server of one process.

    ``share``: this process's part of the gateway's limits. ``sockets``: bound sockets by the key of their listener
    (see :func:`keyed`), where somebody else has made them. Everything runs on the event loop that :meth:`start` is
    called on.
    """

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        clock: Clock,
        metrics: IngressMetrics,
        log: FilteringBoundLogger,
        *,
        lookup_txt: LookupTxt,
        loop_key: bytes,
        share: Share = WHOLE,
        sockets: Mapping[str, Sequence[socket.socket]] | None = None,
    ) -> None:
        # The library writes every command and every line of data to its own logger.
        logging.getLogger("mail.log").setLevel(logging.WARNING)
        self.services = Services(
            intake,
            clock,
            metrics,
            Rates(clock, share),
            MemoryBudget(share),
            Failures(clock, share),
            Passwords(),
            lookup_txt,
            loop_key,
            log,
        )
        self.counts = ConnectionCounts(share)
        self.commits: set[asyncio.Task[str]] = set()
        self.stopping = False
        self._share = share
        self._sockets = None if sockets is None else dict(sockets)
        self._terms = self._terms_of(settings)
        self._settings = settings
        self._servers: dict[str, list[Acceptor]] = {}
        self._listeners: dict[str, Listener] = {}
        self._sessions: set[Connection] = set()
        self._fronts: set[ProxyFront] = set()
        self._shaking = 0  # handshakes of implicit TLS under way, before there is a session to count
        self._ticker: asyncio.Task[None] | None = None

    # -- what sessions ask (gateway.ingress.connection.Host) -------------------------------------------------------

    @property
    def terms(self) -> Terms:
        """The configuration in force now."""
        return self._terms

    def opened(self, session: Connection) -> None:
        """A connection that is served."""
        self._sessions.add(session)

    def closed(self, session: Connection) -> None:
        """It is over."""
        self._sessions.discard(session)

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> tuple[Bound, ...]:
        """Open all listeners: all or none. Raises :class:`ServerError`."""
        self._ticker = asyncio.create_task(self._tick())
        try:
            await self._listen(self._settings.listeners)
        except ServerError:
            await self.close()
            raise
        return self.bound

    @property
    def bound(self) -> tuple[Bound, ...]:
        """The addresses that listen, in the order of the configuration."""
        return tuple(
            Bound(self._listeners[key].name, *each.getsockname()[:2])
            for key, servers in self._servers.items()
            for server in servers
            for each in server.sockets
        )

    @property
    def connections(self) -> int:
        """Connections that are open at the moment."""
        return len(self._sessions)

    @property
    def certificate_expires(self) -> float | None:
        """When our certificate ends (seconds since the epoch); None where there is none."""
        certificate = self._terms.certificate
        return None if certificate is None else certificate.not_after

    async def reload(self, settings: Settings) -> None:
        """Work by new settings: open sessions keep their transaction, everything later sees the new ones.

        All or nothing: raises :class:`ServerError`, ``CertificateError`` or ``TrustError`` and changes nothing then.
        """
        await self.adopt(settings, self.prepare(settings))

    def prepare(self, settings: Settings) -> Terms:
        """What sessions are to be served on under new settings; changes nothing. Raises what :meth:`reload` does."""
        return self._terms_of(settings)

    async def adopt(
        self, settings: Settings, terms: Terms, sockets: Mapping[str, Sequence[socket.socket]] | None = None
    ) -> None:
        """Take prepared terms over; ``sockets`` are those of listeners that are new."""
        if self._sockets is not None:
            self._sockets.update(sockets or {})
        await self._listen(settings.listeners)
        self._terms, self._settings = terms, settings

    def reload_certificate(self) -> Reload | None:
        """Look whether the certificate's files have changed; see :meth:`ServerCertificate.reload_if_changed`."""
        certificate = self._terms.certificate
        return None if certificate is None else certificate.reload_if_changed()

    async def stop_accepting(self) -> None:
        """Close the listeners; sessions go on."""
        servers, self._servers = self._servers, {}
        for server in _flat(servers):
            server.close()

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - on our clock, which asyncio.timeout is not
        """Stop: idle sessions get 421 now, those in DATA after its answer. True where all ended by themselves.

        What is left after ``timeout`` seconds of the clock is cut off; a commit that runs is waited for all the same.
        """
        self.stopping = True
        await self.stop_accepting()
        self._cut_fronts()
        for session in tuple(self._sessions):
            session.stop_if_idle()
        deadline = self.services.clock.monotonic() + timeout
        while self._sessions and self.services.clock.monotonic() < deadline:
            await self.services.clock.sleep(min(0.05, timeout))
        drained = not self._sessions
        await self.close()
        return drained

    async def close(self) -> None:
        """Cut everything off, except commits."""
        self.stopping = True
        await self.stop_accepting()
        self._cut_fronts()
        tasks = [session.task for session in self._sessions if session.task is not None]
        for session in tuple(self._sessions):
            session.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.commits:
            await asyncio.gather(*self.commits, return_exceptions=True)
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker

    def _cut_fronts(self) -> None:
        for front in tuple(self._fronts):
            front.abort()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _terms_of(self, settings: Settings) -> Terms:
        networks, faults = load_networks(settings.data_dir)
        for fault in faults:
            self.services.log.warning("networks_unusable", fault=fault)
        certificate = trust = None
        if any(each.tls is not ListenerTls.NONE for each in settings.listeners):
            if settings.tls.certificate is None or settings.tls.key is None:
                raise ServerError("listeners offer TLS, but tls.certificate and tls.key are not set")
            certificate = ServerCertificate(settings.tls.certificate, settings.tls.key)
        if any(each.client_certificates is ClientCertificates.REQUEST for each in settings.listeners):
            trust = Trust(settings.tls.trust)
        return Terms.of(settings, networks, trust, certificate)

    async def _listen(self, wanted: Sequence[Listener]) -> None:
        """Open what is new, then close what is gone; where opening fails, close what was just opened.

        A socket belongs to an address. Everything else about a listener is looked up when a client comes, so that new
        terms for an address need no new socket - which could not be bound while the old one is there.
        """
        by_key = keyed(wanted)
        opened: dict[str, list[Acceptor]] = {}
        try:
            for key, listener in by_key.items():
                if key not in self._servers:
                    opened[key] = self._open(key, listener)
        except ServerError:
            for server in _flat(opened):
                server.close()
            raise
        gone = {key: self._servers.pop(key) for key in self._servers.keys() - by_key.keys()}
        for server in _flat(gone):
            server.close()
        merged = {**self._servers, **opened}
        self._servers = {key: merged[key] for key in by_key}
        self._listeners = by_key
        for server in _flat(opened):
            server.start(BACKLOG)

    def _open(self, key: str, listener: Listener) -> list[Acceptor]:
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.BaseProtocol:
            return self._accept(self._listeners[key], loop)

        try:
            if self._sockets is not None:
                sockets: Sequence[socket.socket] = self._sockets.pop(key)
            else:
                found = resolved(listener.host, listener.port)
                sockets = [bound(family, address, listener.port) for family, address in found]
            return [Acceptor(each, accept, self._note_exhausted) for each in sockets]
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ServerError(f"cannot listen on {listener.address}: {reason}") from None

    def _note_exhausted(self, error: OSError) -> None:
        self.services.log.error(
            "accept_failed", error=os.strerror(error.errno or 0), meaning="clients wait in the queue"
        )

    def _accept(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> asyncio.BaseProtocol:
        """The protocol of a new connection: that of its client, or what first finds out who the client is."""
        if not listener.proxy_protocol:
            return self._serve(listener, loop)
        if self._waiting >= self._share.of(self._terms.limits.connections):
            return _Hangup()
        front = ProxyFront(
            listener.proxy_protocol,
            self.services.clock.monotonic() + HEADER_TIMEOUT,
            lambda client: self._serve(listener, loop, client),
            lambda proxy, why: self._note_failure(listener, Reason.PROXY, f"{proxy}: {why}"),
            self._fronts.discard,
        )
        self._fronts.add(front)
        return front

    @property
    def _waiting(self) -> int:
        """Connections, with those for which there is no session yet."""
        return self._shaking + len(self._fronts) + len(self._sessions)

    def _serve(
        self, listener: Listener, loop: asyncio.AbstractEventLoop, client: IpAddress | None = None
    ) -> asyncio.BaseProtocol:
        """The session of a client, who is known where a proxy has told. Implicit TLS comes in between.

        By our own hand, where ``create_server(ssl=...)`` would do the same: so each connection gets the certificate
        and the terms that are in force when it comes.
        """
        session = SmtpSession(self, listener, loop, client)
        if listener.tls is not ListenerTls.IMPLICIT:
            return session
        if self._waiting >= self._share.of(self._terms.limits.connections):
            return _Hangup()
        contexts = self._terms.contexts
        assert contexts is not None, "terms with TLS listeners have a certificate"
        self._shaking += 1
        shaken = loop.create_future()
        shaken.add_done_callback(lambda outcome: self._note_handshake(listener, outcome))
        context = contexts.for_listener(listener.client_certificates)
        return SSLProtocol(loop, session, context, shaken, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT)

    def _note_handshake(self, listener: Listener, outcome: asyncio.Future[None]) -> None:
        self._shaking -= 1
        error = None if outcome.cancelled() else outcome.exception()
        if error is not None:
            self._note_failure(listener, Reason.HANDSHAKE, str(getattr(error, "reason", None) or type(error).__name__))

    def _note_failure(self, listener: Listener, reason: Reason, detail: str) -> None:
        """A connection that ended before there was a session."""
        self.services.metrics.refused(str(reason))
        self.services.log.info("refused", listener=listener.name, reason=str(reason), detail=detail)

    async def _tick(self) -> None:
        clock = self.services.clock
        while True:
            await clock.sleep(TICK)
            now = clock.monotonic()
            for front in tuple(self._fronts):
                front.tick(now)
            for session in tuple(self._sessions):
                session.tick(now)


def _flat(servers: Mapping[str, Sequence[Acceptor]]) -> list[Acceptor]:
    return [server for several in servers.values() for server in several]


def keyed(listeners: Sequence[Listener]) -> dict[str, Listener]:
    """Each listener under its address; more of one address (port 0) are counted."""
    found: dict[str, Listener] = {}
    for listener in listeners:
        number = sum(each.address == listener.address for each in found.values())
        found[f"{listener.address}#{number}"] = listener
    return found
