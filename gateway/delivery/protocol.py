"""The connection: aiosmtplib's protocol with a queue of replies, and the last line of defence in its ``write``.

The stock protocol knows one reply at a time and drops the rest; ours counts what it has asked for, so that commands
can be pipelined (RFC 2920) and a reply that nobody asked for is noticed. Flow control and transport stay theirs.

The guard: while the session has attained less than the floor, :meth:`SmtpProtocol.write` lets nothing pass but the
commands that carry no mail. Nothing else in this package touches the transport.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from typing import cast

from aiosmtplib.protocol import SMTPProtocol as StockProtocol

from gateway.delivery.wire import RawReply, ReplyError, ReplyReader
from gateway.errors import GuardViolation
from gateway.mail.protection import Assurance
from gateway.mail.reply import clean_text

__all__ = ["ConnectionFault", "ConnectionLost", "HandshakeFailed", "OutOfStep", "SmtpProtocol", "TimedOut"]

_HARMLESS = re.compile(rb"(?:(?:EHLO|HELO) [!-~]+|STARTTLS|NOOP|RSET|QUIT)\r\n")

# A peer that does not answer our TLS close is not waited for.
_TLS_SHUTDOWN = 2.0

# Unsent octets from which on the writer waits.
_WRITE_BUFFER = 256 * 1024


class ConnectionFault(Exception):
    """The connection is of no further use; the text says why."""


class ConnectionLost(ConnectionFault):
    """The peer, or the network, ended it."""


class OutOfStep(ConnectionFault):
    """The peer sent what is no reply, or a reply that nobody asked for."""


class TimedOut(ConnectionFault):
    """The peer took longer than the phase allows."""


class HandshakeFailed(ConnectionFault):
    """TLS did not come about. ``definite``: the peer says that it cannot do what we require."""

    def __init__(self, reason: str, *, definite: bool = False) -> None:
        super().__init__(reason)
        self.definite = definite


class SmtpProtocol(StockProtocol):
    """One connection to a peer. Made by ``create_connection``; the greeting is the first reply expected."""

    def __init__(self, floor: Assurance) -> None:
        super().__init__(asyncio.get_running_loop())
        self._reader = ReplyReader()
        self._replies: deque[RawReply] = deque()
        self._expected = 1
        self._waiter: asyncio.Future[None] | None = None
        self._fault: ConnectionFault | None = None
        self._closed = asyncio.Event()
        self._floor = floor
        self._attained = Assurance.NONE
        self.goodbye: RawReply | None = None

    # -- the guard ------------------------------------------------------------------------------------------------

    @property
    def attained(self) -> Assurance:
        """The level that this connection was attested."""
        return self._attained

    @property
    def over_tls(self) -> bool:
        """Whether what is written goes through TLS."""
        return self._over_ssl

    def attest(self, attained: Assurance) -> None:
        """Record what the session attained. More than ``none`` is only taken over TLS: :class:`GuardViolation`."""
        if attained > Assurance.NONE and not self._over_ssl:
            raise GuardViolation("a connection in clear was about to be attested an assurance")
        self._attained = attained

    def raise_floor(self, required: Assurance) -> None:
        """From now on at least this level is needed for mail; the floor never sinks."""
        self._floor = max(self._floor, required)

    def write(self, data: bytes) -> None:
        """Hand octets to the transport; below the floor, nothing that carries mail.

        Raises :class:`GuardViolation`, the connection then dropped; :class:`ConnectionFault` where it is gone.
        """
        if self._attained < self._floor and not _HARMLESS.fullmatch(data):
            self.abort()
            raise GuardViolation(f"mail needs {self._floor}, the session attained {self._attained}")
        if self._fault is not None:
            raise self._fault
        if self.transport is None or self.transport.is_closing():
            raise ConnectionLost("the connection is closed")
        cast("asyncio.WriteTransport", self.transport).write(data)

    # -- commands and replies -------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether the connection stands and both sides are in step."""
        return self._fault is None and self.is_connected and not self._expected and not self._replies

    @property
    def fault(self) -> ConnectionFault | None:
        """Why the connection is of no further use, once it is."""
        return self._fault

    def take_reply(self) -> RawReply | None:
        """A reply that is already there, without waiting."""
        return self._replies.popleft() if self._replies else None

    def command(self, data: bytes, replies: int = 1) -> None:
        """Write commands that will be answered by this many replies."""
        self.write(data)
        self._expected += replies

    def expect(self, replies: int = 1) -> None:
        """This many more replies may come, to something that is still to be written."""
        self._expected += replies

    async def reply(self, timeout: float) -> RawReply:  # noqa: ASYNC109 - a time limit per phase is the interface
        """The next reply, whole within ``timeout`` seconds. Raises :class:`ConnectionFault`."""
        if not self._replies:
            if self._fault is not None:
                raise self._fault
            self._waiter = self._loop.create_future()
            # A timer that breaks the connection off, which wakes us: it costs a quarter of asyncio.timeout.
            late = self._loop.call_later(timeout, self.fail, TimedOut(f"no reply within {timeout:g} s"))
            try:
                await self._waiter
            finally:
                late.cancel()
                self._waiter = None
        if self._replies:
            return self._replies.popleft()
        raise self._fault or ConnectionLost("the connection is closed")

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - as above
        """Wait until the peer has taken enough of what was written. Raises :class:`ConnectionFault`."""
        if self._fault is None and not self._paused:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._drain_helper()
        except TimeoutError:
            self.fail(TimedOut(f"the peer took nothing for {timeout:g} s"))
        except OSError as error:
            self.fail(ConnectionLost(_os_text(error)))
        if self._fault is not None:
            raise self._fault

    def fail(self, fault: ConnectionFault) -> None:
        """Break off, for this reason; the first one stays."""
        if self._fault is None:
            self._fault = fault
        self.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- called by the transport ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Cut replies out of the stream and count them against what was asked."""
        if self._fault is not None:
            return
        try:
            found = self._reader.feed(data)
        except ReplyError as error:
            self.fail(OutOfStep(f"the peer sent {error}"))
            return
        for reply in found:
            if self._expected == 0:
                self._unasked(reply)
                return
            self._expected -= 1
            self._replies.append(reply)
        if self._expected == 0 and self._reader.partial:
            self.fail(OutOfStep("the peer sent a reply that nobody asked for"))
            return
        if self._replies:
            self._wake()

    def _unasked(self, reply: RawReply) -> None:
        if reply.code == 421:
            # RFC 5321 section 3.8: a server that must shut down may say so at any time.
            self.goodbye = reply
            self.fail(ConnectionLost(f"the peer is closing: {reply.reply}"))
        else:
            self.fail(OutOfStep("the peer sent a reply that nobody asked for"))

    def eof_received(self) -> bool:
        """Half-closed connections are of no use to us: let the transport close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember why, wake whoever waits."""
        if self._fault is None:
            text = "the peer closed the connection" if exc is None else _os_text(exc)
            self._fault = ConnectionLost(text)
        super().connection_lost(exc)
        self._closed.set()
        self._wake()

    # -- TLS and the end ------------------------------------------------------------------------------------------

    async def secure(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> ssl.SSLObject:
        """Start TLS on this connection, now; the caller has read the 220 to STARTTLS.

        Octets that came after the 220 were written by someone who wanted them read as if they had come through TLS
        (CVE-2011-0411 and its kin): :class:`OutOfStep`. Raises :class:`HandshakeFailed` otherwise.
        """
        transport = self.transport
        if self._fault is not None:
            raise self._fault
        if self._replies or self._reader.partial:
            raise OutOfStep("the peer sent replies before the handshake")
        if transport is None or transport.is_closing():
            raise ConnectionLost("the connection is closed")
        try:
            upgraded = await self._loop.start_tls(
                cast("asyncio.WriteTransport", transport),
                self,
                context,
                server_hostname=server_hostname,
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=_TLS_SHUTDOWN,
            )
        except ssl.SSLError as error:
            reason = error.reason or str(error)
            raise HandshakeFailed(_handshake_text(reason), definite=_is_refusal(reason)) from None
        except (OSError, TimeoutError) as error:
            raise HandshakeFailed(f"the TLS handshake was broken off: {_os_text(error)}") from None
        ssl_object = None if upgraded is None else upgraded.get_extra_info("ssl_object")
        if upgraded is None or ssl_object is None:
            raise HandshakeFailed("the connection was lost during the TLS handshake")
        self.transport = upgraded
        self._over_ssl = True
        upgraded.set_write_buffer_limits(high=_WRITE_BUFFER)
        return cast("ssl.SSLObject", ssl_object)

    def abort(self) -> None:
        """Drop the connection at once: what is not yet sent is not sent."""
        if self.transport is not None:
            cast("asyncio.Transport", self.transport).abort()

    def close(self) -> None:
        """Close the connection in order."""
        if self.transport is not None:
            self.transport.close()

    async def wait_closed(self) -> None:
        """Wait until the transport is gone."""
        await self._closed.wait()


def _os_text(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return _handshake_text(error.reason or str(error))
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if not text and isinstance(error, ConnectionError):
        return "the peer closed the connection"
    return clean_text(text or type(error).__name__, 200)


def _handshake_text(reason: str) -> str:
    return clean_text(f"TLS failed: {reason.replace('_', ' ').lower()}", 200)


def _is_refusal(reason: str) -> bool:
    """Whether the peer, or our own floor, says that versions or security do not meet (RFC 8446 section 6.2).

    ``handshake_failure`` is not among them: servers also send it while their certificate is missing.
    """
    return any(part in reason for part in ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "INSUFFICIENT_SECURITY"))
