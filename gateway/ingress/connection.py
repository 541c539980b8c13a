"""The connection under a session: transport, deadlines, TLS. Verbs are in :mod:`gateway.ingress.session`.

What of aiosmtpd is used: its protocol, the table of verbs, its place in the event loop. What is done here instead, and
why, is told in the design's list of its traps: the reader (chunks, strict line ends), timers (by phase, with a 421),
STARTTLS (an empty buffer), the end of the stream (which never cancels a commit).
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import ipaddress
import ssl
from enum import Enum, auto
from typing import Protocol, cast

from aiosmtpd.smtp import SMTP

from gateway.config.model import Listener
from gateway.errors import Refusal
from gateway.ingress.client_certificate import judge_certificate
from gateway.ingress.client_tls import peer_chain
from gateway.ingress.connectors import Arrival, IpAddress
from gateway.ingress.limits import ConnectionCounts, Place
from gateway.ingress.pace import Pace
from gateway.ingress.proxied import peer_address
from gateway.ingress.reader import STREAM_LIMIT, ChunkReader, Line
from gateway.ingress.refusals import Reason, refusal
from gateway.ingress.sasl import Login
from gateway.ingress.terms import Services, Terms
from gateway.ingress.transaction import ConnectorRefusal
from gateway.mail.envelope import ReceivedTls

__all__ = ["Connection", "Disconnect", "Host", "Phase", "stopping_refusal"]

HANDSHAKE_TIMEOUT = 30
#: Replies that are gathered, at most, before they leave.
MOST_SAID = 100
#: How long a session that was told to go may take to hang up, in seconds of the server's clock.
LINGER = 5.0


class Host(Protocol):
    """What a session needs of the server that runs it."""

    services: Services
    counts: ConnectionCounts
    commits: set[asyncio.Task[str]]
    stopping: bool

    @property
    def terms(self) -> Terms:
        """The configuration in force now."""
        ...

    def opened(self, session: Connection) -> None:
        """A connection that is served."""
        ...

    def closed(self, session: Connection) -> None:
        """It is over."""
        ...


class Phase(Enum):
    """What the session waits for its client to do; BUSY: nothing, the ball is with us."""

    HANDSHAKE = auto()
    COMMAND = auto()
    DATA = auto()
    BUSY = auto()
    CLOSING = auto()


class Disconnect(Exception):
    """End the session; the refusal, where there is one, is the last thing said."""

    def __init__(self, refused: Refusal | None = None) -> None:
        super().__init__()
        self.refused = refused


class Connection(SMTP, abc.ABC):
    """A connection that is counted, can speak TLS, and ends in time; :meth:`_converse` says what about."""

    line_length_limit = STREAM_LIMIT

    def __init__(
        self, host: Host, listener: Listener, loop: asyncio.AbstractEventLoop, client: IpAddress | None = None
    ) -> None:
        super().__init__(None, hostname=host.terms.hostname, data_size_limit=None, enable_SMTPUTF8=True, loop=loop)
        self._input = ChunkReader(limit=STREAM_LIMIT, loop=loop)
        self._host = host
        self._listener = listener
        self._services = host.services
        self._log = host.services.log
        self._place: Place | None = None
        self._raw: asyncio.Transport | None = None
        self._wire: asyncio.Transport | None = None
        self._lost = False
        self._left = False
        self._phase = Phase.BUSY
        self._deadline = float("inf")
        self._id = ""
        self._told = client  # by a trusted proxy
        self._address: IpAddress = ipaddress.ip_address("127.0.0.1")
        self._tls: ReceivedTls | None = None
        self._certificate_names: frozenset[str] = frozenset()
        self._login: Login | None = None
        self._message_id: str | None = None
        self._said: list[bytes] = []  # replies that have not left yet
        self._known_arrival: Arrival | None = None
        self._pace: Pace | None = None  # of the message whose content is on its way
        self.task: asyncio.Task[None] | None = None

    @abc.abstractmethod
    async def _converse(self) -> None:
        """Talk to the client until one of both has enough."""

    @abc.abstractmethod
    async def _reset(self) -> None:
        """Forget what the conversation has built up."""

    # -- the transport's side --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop: a client is there."""
        # uvloop's transports do what asyncio's do without being of their class.
        self._raw = self._wire = cast("asyncio.Transport", transport)
        self.transport = transport
        self._input.set_transport(transport)
        self._id = self._services.intake.new_id()
        peer = peer_address(transport)
        self._address = self._told or peer
        self._log = self._services.log.bind(session=self._id, listener=self._listener.name, client=str(self._address))
        if self._told is not None:
            self._log = self._log.bind(proxy=str(peer))
        self._host.opened(self)
        self.task = self.loop.create_task(self._handle_client())

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._input.feed_data(data)

    def eof_received(self) -> bool:
        """The client says no more; what it has asked for is still done and answered."""
        self._input.feed_eof()
        # A TLS transport cannot stay half open, and complains about the wish.
        return self._wire is not None and self._wire.get_extra_info("ssl_object") is None

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone. Nothing is cancelled: whoever reads sees the end, and a commit goes on."""
        if error is not None and not isinstance(error, ConnectionError):
            # Whoever waits for this client needs to know one kind of error only.
            error = ConnectionResetError(f"{type(error).__name__}: {error}")
        if error is None:
            self._input.feed_eof()
        else:
            self._input.set_exception(error)
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None
        self._lost = True
        self._report_closed()

    async def _handle_client(self) -> None:
        try:
            self._enter()
            session = self._wire.get_extra_info("ssl_object") if self._wire is not None else None
            if session is not None:
                self._learn_tls(session, self._host.terms)
            await self._converse()
        except Disconnect as end:
            if end.refused is not None:
                self._note(end.refused)
                line = end.refused.line
                if end.refused.reply_code != 421:
                    line += "\r\n421 4.5.0 Out of step, closing connection"  # RFC 5321 section 3.8: never without
                with contextlib.suppress(ConnectionError):
                    await self.push(line)
        except ConnectionError:
            pass  # the client is gone: there is nobody left to tell
        except Exception as error:  # noqa: BLE001 - one session must not take the process with it
            self._log.error("session_failed", exc_info=error)
        finally:
            await self._leave()

    def _enter(self) -> None:
        """Count the connection; too many, or nowhere to put mail: 421 before anything is spent on it."""
        if self._host.stopping:
            raise Disconnect(stopping_refusal())
        terms = self._host.terms
        named_by = terms.connectors_for(self._arrival())
        try:
            self._place = self._host.counts.enter(self._address, terms.limits, named_by)
        except Refusal as refused:
            raise Disconnect(refused) from None
        self._services.metrics.connections(self._listener.name, +1)

    async def _leave(self) -> None:
        if self._phase is not Phase.CLOSING:
            self._phase = Phase.CLOSING
            self._deadline = self._services.clock.monotonic() + LINGER
        if self._wire is not None:
            if self._said and not self._wire.is_closing():
                self._wire.write(self._take_said())
            self._wire.close()
        await self._reset()
        if self._place is not None:
            self._host.counts.leave(self._place)
            self._services.metrics.connections(self._listener.name, -1)
        self._left = True
        self._report_closed()

    def _report_closed(self) -> None:
        """Over is over when both the conversation and the transport have ended."""
        if self._left and self._lost:
            self._host.closed(self)

    # -- deadlines, called by the server ---------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look at the clock: a client that lets us wait too long gets a 421, one that stays on is cut off."""
        if self._pace is not None and self._pace.is_too_slow(now, self._host.terms.limits.min_data_rate):
            self._expire(refusal(421, "4.4.2", "Data comes too slowly", Reason.TOO_SLOW))
        elif now < self._deadline:
            return
        elif self._phase is Phase.CLOSING:
            self.abort()
        else:
            self._expire(refusal(421, "4.4.2", "Timeout, closing connection", Reason.TIMEOUT, self._phase.name))

    def stop_if_idle(self) -> None:
        """The server is stopping: end now where only a command is awaited; else after the answer to DATA."""
        if self._phase is Phase.COMMAND:
            self._expire(stopping_refusal())

    def abort(self) -> None:
        """Cut the connection off at once."""
        if self._raw is not None:
            self._raw.abort()

    def _expire(self, refused: Refusal) -> None:
        self._note(refused)
        handshake, self._phase = self._phase is Phase.HANDSHAKE, Phase.CLOSING
        self._deadline = self._services.clock.monotonic() + LINGER
        if handshake:
            self.abort()  # there is no wire yet on which a reply could be read
        elif self._wire is not None and not self._wire.is_closing():
            self._wire.write(self._take_said() + refused.line.encode("ascii") + b"\r\n")
            self._wire.close()

    @property
    def _closing(self) -> bool:
        return self._phase is Phase.CLOSING

    def _wait(self, phase: Phase, seconds: float) -> None:
        if not self._closing:
            self._phase = phase
            self._deadline = self._services.clock.monotonic() + seconds

    # -- listening -------------------------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """Whether the client has said its last word."""
        return self._input.at_eof() or self._lost

    async def _read_line(self, longest: int) -> Line | None:
        """The next command; None where there will be none. Between the chunks of a message its pace counts on."""
        line = None if self._closing else self._input.take_line(longest)
        if line is not None:
            return line
        await self.flush()
        self._wait(Phase.COMMAND, self._host.terms.limits.command_timeout)
        if self._pace is not None:
            self._pace.wait()
        line = await self._input.read_line(longest)
        if self._pace is not None:
            self._pace.go_on()
        if line is None or self._closing:
            return None
        self._wait(Phase.BUSY, float("inf"))
        return line

    async def read_data(self, most: int) -> bytes:
        """The next octets of content, at most so many. Raises ``ConnectionError`` where the client is gone."""
        pace = self._pace
        if pace is None:
            pace = self._pace = Pace(self._services.clock)
        octets = b"" if self._closing else self._input.take(most)
        if octets:
            pace.go_on(len(octets))
            return octets
        await self.flush()
        self._wait(Phase.DATA, self._host.terms.limits.data_timeout)
        pace.wait()
        try:
            octets = await self._input.read(most)
        finally:
            pace.go_on(len(octets))
        if not octets or self._closing:
            raise ConnectionResetError("the client left in the middle of its data")
        self._wait(Phase.BUSY, float("inf"))
        return octets

    async def ask(self, challenge: str, longest: int) -> Line:
        """Send a challenge; the line that answers it. Raises ``ConnectionError`` where none comes."""
        await self.push(challenge)
        line = await self._read_line(longest)
        if line is None:
            raise ConnectionResetError("the client left in the middle of its log-in")
        return line

    def unread(self, octets: bytes) -> None:
        """Put back what belongs to the next command."""
        self._input.unread(octets)

    # -- talking ---------------------------------------------------------------------------------------------------

    async def push(self, status: str | bytes) -> None:
        """Say one line (or several, already joined). It leaves when we next wait for the client.

        So the replies to commands that came together go together (RFC 2920 section 3.2). Raises ``ConnectionError``
        where the client is gone.
        """
        if self._wire is None or self._wire.is_closing():
            raise ConnectionResetError("the client is gone")
        self._said.append((status if isinstance(status, bytes) else status.encode("utf-8")) + b"\r\n")
        if len(self._said) >= MOST_SAID:
            await self.flush()
            await asyncio.sleep(0)  # whoever sends so many commands at once lets the others have their turn

    async def flush(self) -> None:
        """Send what was said. Raises ``ConnectionError`` where the client is gone."""
        if not self._said:
            return
        if self._wire is None or self._wire.is_closing():
            raise ConnectionResetError("the client is gone")
        self._wire.write(self._take_said())
        if self._paused:  # type: ignore[attr-defined] # of asyncio's FlowControlMixin, left out of its stubs
            if self._phase is Phase.BUSY:
                # A client that does not read its replies must not keep the session for ever.
                self._wait(Phase.BUSY, self._host.terms.limits.command_timeout)
            await self._drain_helper()  # type: ignore[attr-defined] # as above

    def _take_said(self) -> bytes:
        said = b"".join(self._said)
        self._said.clear()
        return said

    def _note(self, refused: Refusal) -> None:
        """One event and one count for every refusal."""
        self._services.metrics.refused(refused.reason)
        alert = isinstance(refused, ConnectorRefusal) and refused.alert
        if alert:
            self._services.metrics.softened()
        log = self._log.warning if alert else self._log.info
        log(
            "refused",
            message=self._message_id,
            reason=refused.reason,
            reply=f"{refused.reply_code} {refused.reply_enhanced}",
            detail=refused.detail,
            alert=alert,
        )

    def _arrival(self) -> Arrival:
        known = self._known_arrival
        if known is None:
            names = frozenset({self._listener.name, self._listener.address})
            user, hashes = ("", frozenset()) if self._login is None else (self._login.user, self._login.hashes)
            known = self._known_arrival = Arrival(self._address, names, self._certificate_names, user, hashes)
        return known

    # -- TLS -------------------------------------------------------------------------------------------------------

    def _expect_silence(self) -> None:
        if self._input.pending:
            # Bytes in clear that the client would later take for said under TLS: an injection, not a mistake.
            self._note(refusal(554, "5.5.0", "", Reason.STARTTLS_INJECTION, f"{self._input.pending} bytes"))
            self.abort()
            raise Disconnect

    async def _handshake(self) -> None:
        terms = self._host.terms
        contexts = terms.contexts
        if contexts is None or self._raw is None:
            raise Disconnect
        self._expect_silence()
        self._wait(Phase.HANDSHAKE, HANDSHAKE_TIMEOUT * 2)  # the event loop's own timer comes first
        try:
            wire = await self.loop.start_tls(
                self._raw,
                self,
                contexts.for_listener(self._listener.client_certificates),
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
            )
        except (OSError, EOFError) as error:  # ssl.SSLError and ConnectionError are OSErrors
            detail = getattr(error, "reason", None) or type(error).__name__
            if not self._closing:
                self._note(refusal(421, "4.7.0", "", Reason.HANDSHAKE, detail=str(detail)))
            self.abort()
            self._lost = True  # the event loop tells a protocol of this loss only once its handshake is done
            raise Disconnect from None
        if wire is None or self._closing:
            raise Disconnect
        self._wire = wire
        self.transport = wire
        self._input.rebind(wire)
        self._wait(Phase.BUSY, float("inf"))
        self._learn_tls(wire.get_extra_info("ssl_object"), terms)

    def _learn_tls(self, session: ssl.SSLObject, terms: Terms) -> None:
        certificate = None
        if terms.trust is not None:
            certificate = judge_certificate(peer_chain(session), terms.trust, self._services.clock.time())
        cipher = session.cipher()
        self._tls = ReceivedTls(
            session.version() or "",
            cipher[0] if cipher else "",
            certificate.subject if certificate is not None else "",
        )
        if certificate is not None:
            self._certificate_names = certificate.names
            self._known_arrival = None
            self._log = self._log.bind(client_certificate=certificate.subject, client_chain=certificate.chain)


def stopping_refusal() -> Refusal:
    """What a client is told when the gateway goes down."""
    return refusal(421, "4.3.2", "Service is stopping, try again later", Reason.STOPPING)
