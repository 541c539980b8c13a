"""An SMTP server for tests that misbehaves on purpose and writes everything down.

1. ``smtp_behaviour`` - what it does: :class:`Behaviour`, its :class:`Tls`, actions for each command
2. ``smtp_record``    - what it saw: :class:`Session`, :class:`Message`
3. ``smtp_session``   - the conversation; ``smtp_channel`` the bytes beneath, ``smtp_body`` the body

Written by hand, not on a server library: a well-made library refuses to do half of what is needed here.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Self

from gateway.clock import Clock, SystemClock
from gateway.testing.net import poll
from gateway.testing.smtp_behaviour import (
    OK,
    Action,
    Behaviour,
    ByAddress,
    Chooser,
    PerSession,
    Share,
    Step,
    Tls,
    delay,
    drip,
    drop,
    drop_after,
    endless,
    garbage,
    reply,
    stall,
)
from gateway.testing.smtp_channel import Channel, NamedSSLObject, note_server_name
from gateway.testing.smtp_record import Command, Message, Recipient, Session, TlsFacts
from gateway.testing.smtp_session import Conversation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.testing.ca import Certificate

__all__ = [
    "OK",
    "Action",
    "Behaviour",
    "ByAddress",
    "Command",
    "Message",
    "PerSession",
    "Recipient",
    "Session",
    "Share",
    "SmtpPeer",
    "Tls",
    "TlsFacts",
    "delay",
    "drip",
    "drop",
    "drop_after",
    "endless",
    "garbage",
    "reply",
    "stall",
]


class SmtpPeer:
    """An async context manager; while it is open it listens on ``address`` and ``port`` (0: a free one).

    ``certificate``: shown in TLS, STARTTLS is offered when given. ``behaviour`` may be replaced at any time; it counts
    from the next command on, and sequences start anew. ``keep_bodies=False`` keeps size and digest only.
    ``clock`` counts for delays and for the times in the record.

    ``sessions`` and ``messages`` (accepted ones, also those whose reply was withheld) grow as things happen;
    ``refused`` holds messages that came to their end and got a 4xx or 5xx. ``peak`` is the highest number of
    connections at a time.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        certificate: Certificate | None = None,
        behaviour: Behaviour | None = None,
        hostname: str = "mx.peer.example",
        keep_bodies: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.address = address
        self.port = port
        self.certificate = certificate
        self.hostname = hostname
        self.keep_bodies = keep_bodies
        self.sessions: list[Session] = []
        self.messages: list[Message] = []
        self.refused: list[Message] = []
        self.peak = 0
        self._behaviour = behaviour or Behaviour()
        self._chooser = Chooser()
        self._clock = clock or SystemClock()
        self._contexts: dict[tuple[Certificate, Tls], ssl.SSLContext] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.stop()
        if self._errors and kind is None:
            raise self._errors[0]

    async def start(self) -> None:
        """Begin to listen; after :meth:`stop` again on the same port, as a host that comes back."""
        self._server = await asyncio.start_server(self._accept, self.address, self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and break off every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            await asyncio.sleep(0)

    @property
    def host_port(self) -> str:
        """``ADDRESS:PORT``, as a route takes it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def behaviour(self) -> Behaviour:
        """What the peer does at the moment."""
        return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._chooser = Chooser()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

    @property
    def faults(self) -> list[str]:
        """What clients did against the protocol, in all sessions."""
        return [fault for session in self.sessions for fault in session.faults]

    @property
    def received(self) -> bytes:
        """Every byte that ever came in, in clear or decrypted: to prove that something did *not* come."""
        return b"".join(session.everything for session in self.sessions)

    async def wait_messages(self, count: int, timeout: float = 10.0) -> list[Message]:  # noqa: ASYNC109 - see poll()
        """Wait until ``count`` messages were accepted, and return all of them.

        Raises ``TimeoutError`` that tells what happened instead.
        """
        try:
            await poll(lambda: len(self.messages) >= count, timeout)
        except TimeoutError:
            raise TimeoutError(
                f"{len(self.messages)} of {count} messages came within {timeout:g} s; {self.summary()}"
            ) from None
        return self.messages

    async def wait_sessions(self, count: int, timeout: float = 10.0) -> list[Session]:  # noqa: ASYNC109 - see poll()
        """Wait until ``count`` sessions are over, and return all of them. Raises ``TimeoutError``."""
        try:
            await poll(lambda: sum(s.closed is not None for s in self.sessions) >= count, timeout)
        except TimeoutError:
            raise TimeoutError(f"fewer than {count} sessions ended within {timeout:g} s; {self.summary()}") from None
        return self.sessions

    def summary(self) -> str:
        """What happened so far, a line a session, for failure messages."""
        lines = [f"{len(self.messages)} accepted, {len(self.refused)} refused, {len(self.sessions)} sessions"]
        for session in self.sessions:
            said = " ".join(f"{command.verb}={command.reply}" for command in session.commands)
            lines.append(
                f"  #{session.index} {session.tls_version or 'clear'} {said} ended={session.ended}"
                f" {session.handshake_error or ''} {session.faults or ''}".rstrip()
            )
        return "\n".join(lines)

    # What the conversation asks

    def choose(self, step: Step, session: Session, addresses: Sequence[str] = ()) -> Action:
        """The action that the script has for this occurrence of ``step``."""
        return self._chooser.choose(step, self._behaviour.script(step), session.index, addresses)

    def tls_context(self, session: Session) -> ssl.SSLContext | None:
        """The context for a handshake in ``session``; None where there is no certificate. Made once for each kind."""
        tls = self._behaviour.tls
        certificate = tls.certificate_of(session.index, self.certificate)
        if certificate is None:
            return None
        key = (certificate, tls)
        if key not in self._contexts:
            context = certificate.server_context(
                minimum=tls.minimum,
                maximum=tls.maximum,
                ciphers=tls.ciphers,
                client_ca=tls.client_ca,
                client_required=tls.client_required,
            )
            context.sslobject_class = NamedSSLObject
            context.sni_callback = note_server_name
            self._contexts[key] = context
        return self._contexts[key]

    def deliver(self, message: Message, *, accepted: bool) -> None:
        """Take a message that came to its end."""
        (self.messages if accepted else self.refused).append(message)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limit = self._behaviour.connection_limit
        overloaded = limit is not None and len(self._tasks) >= limit
        client = writer.get_extra_info("peername") or ("", 0)
        session = Session(len(self.sessions), client[:2], self._clock.monotonic())
        self.sessions.append(session)
        channel = Channel(reader, writer, session, self._clock)
        talk = Conversation(self, session, channel, self._clock).run(overloaded=overloaded)
        task = asyncio.get_running_loop().create_task(talk)
        self._tasks.add(task)
        self.peak = max(self.peak, len(self._tasks))
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)  # a fault of the fake itself must not look like one of the gateway
