"""A session with a peer: opened, secured and judged; then it carries mail, one transaction after the other.

Opening (RFC 5321 section 3.1-3.2, RFC 3207):

1. connect to the one address
2. read the greeting, say EHLO
3. STARTTLS, with nothing left over from before the handshake; what was offered before is void
4. judge what the handshake showed (:mod:`gateway.delivery.judge`); too little ends the session here
5. EHLO again, and AUTH where the route asks for it - never in clear

Every failure is a :class:`SessionFailed` with the verdict of architecture.md, "What ends an attempt".
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import ssl

from aiosmtplib.auth import auth_login_encode, auth_plain_encode

from gateway.config.outbound import Credentials
from gateway.delivery.judge import assurance, judge
from gateway.delivery.peer import peer_chain
from gateway.delivery.protocol import ConnectionFault, ConnectionLost, HandshakeFailed, OutOfStep, SmtpProtocol
from gateway.delivery.shortfall import shortfall
from gateway.delivery.target import Environment, Target, TlsPolicy
from gateway.delivery.transaction import Conversation, StaleSession, Transaction, TransactionResult, foresee
from gateway.delivery.wire import Extensions, RawReply, command_line
from gateway.delivery.witness import Witness
from gateway.errors import GatewayError, GuardViolation
from gateway.mail.attempt import Failure, Stage, TlsEvidence, Verdict
from gateway.mail.protection import Assurance
from gateway.mail.reply import clean_text

__all__ = ["Session", "SessionFailed"]

# QUIT is a courtesy: its answer is not waited for longer than this.
_QUIT = 1.0


class SessionFailed(GatewayError):
    """The session did not come about; nothing of any message was sent. ``evidence``: what TLS showed, if it did."""

    def __init__(self, failure: Failure, evidence: TlsEvidence | None, address: str) -> None:
        super().__init__(f"{address}: {failure}")
        self.failure = failure
        self.evidence = evidence
        self.address = address


class Session:
    """An open session. Made by :meth:`open`; used by one task at a time; ended by :meth:`quit` or :meth:`abort`."""

    def __init__(self, target: Target, policy: TlsPolicy, environment: Environment, protocol: SmtpProtocol) -> None:
        self.target = target
        self.policy = policy
        self._environment = environment
        self._protocol = protocol
        self._evidence: TlsEvidence | None = None
        self._extensions = Extensions()
        self._opened = self._used = environment.clock.monotonic()
        self._transactions = 0
        self._dirty = False
        self._witness: Witness | None = None

    @classmethod
    async def open(
        cls,
        target: Target,
        policy: TlsPolicy,
        environment: Environment,
        credentials: Credentials | None = None,
        witness: Witness | None = None,
    ) -> Session:
        """Connect, secure, judge. ``witness`` hears what the session shows meanwhile.

        Raises :class:`SessionFailed`, and :class:`gateway.delivery.contexts.ClientCertificateError` where our own
        certificate cannot be read.
        """
        context = environment.contexts.get(policy.require, policy.client_certificate)
        protocol = await _connect(target, policy, environment)
        session = cls(target, policy, environment, protocol)
        session._witness = witness
        try:
            if witness is not None:
                witness.connected()
            await session._establish(context, credentials)
        except BaseException:
            protocol.abort()
            raise
        return session

    # -- what is known about it -----------------------------------------------------------------------------------

    @property
    def evidence(self) -> TlsEvidence | None:
        """What TLS showed, at every level; None in clear."""
        return self._evidence

    @property
    def attained(self) -> Assurance:
        """The level that this very connection attained."""
        return self._protocol.attained

    @property
    def extensions(self) -> Extensions:
        """What the peer offers now, after TLS."""
        return self._extensions

    @property
    def alive(self) -> bool:
        """Whether the connection stands and is in step, as far as can be known without asking."""
        return self._protocol.usable

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return self._environment.clock.monotonic() - self._opened

    @property
    def idle(self) -> float:
        """Seconds since it last carried something."""
        return self._environment.clock.monotonic() - self._used

    @property
    def transactions(self) -> int:
        """How many transactions were begun on it."""
        return self._transactions

    def guard(self, required: Assurance) -> None:
        """Raise :class:`GuardViolation` unless the session attained ``required``, and what its policy requires."""
        needed = max(required, self.policy.require)
        if self.attained < needed:
            raise GuardViolation(f"mail needs {needed}, the session to {self.target.host} attained {self.attained}")

    # -- use ------------------------------------------------------------------------------------------------------

    async def send(self, transaction: Transaction) -> TransactionResult:
        """Carry one message; the result says what became of each recipient.

        Raises :class:`NeedsSevenBit` with nothing written (convert, send again on this session);
        :class:`StaleSession` where a reused connection was gone at its first command; :class:`GuardViolation`
        before anything is written below the required level, or where the body would break the framing. After
        anything but the first, and after cancellation, the connection is dropped.
        """
        self._protocol.raise_floor(transaction.required)
        reused = self._transactions > 0
        if reused and not self.alive:
            self.abort()
            raise StaleSession(str(self._protocol.fault or "the connection is closed"))
        conversation = Conversation(
            protocol=self._protocol,
            extensions=self._extensions,
            timeouts=self._environment.timeouts,
            transaction=transaction,
            hopeless=foresee(transaction, self._extensions),
            guard=self.guard,
            reused=reused,
        )
        try:
            if self._dirty:
                await self._reset()
            result = await conversation.run()
        except BaseException:
            self.abort()
            raise
        if conversation.started:
            self._transactions += 1
            self._dirty = result.reply is None or result.reply.code != 250
        self._used = self._environment.clock.monotonic()
        return result

    async def quit(self) -> None:
        """End it politely, within a second; never raises for what the peer does."""
        try:
            async with asyncio.timeout(_QUIT):
                if self.alive:
                    self._protocol.command(b"QUIT\r\n")
                    await self._protocol.reply(_QUIT)
                self._protocol.close()
                await self._protocol.wait_closed()
        except (TimeoutError, ConnectionFault):
            pass
        finally:
            self._protocol.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._protocol.fail(ConnectionLost("we dropped the connection"))

    async def _reset(self) -> None:
        """RSET after a transaction that did not end with a 250; where it fails, the connection is no longer good."""
        try:
            self._protocol.command(b"RSET\r\n")
            reply = await self._protocol.reply(self._environment.timeouts.mail)
        except ConnectionFault as fault:
            raise StaleSession(f"the connection was gone: {fault}") from fault
        if reply.code != 250:
            raise StaleSession(f"RSET was refused: {reply.reply}")
        self._dirty = False

    # -- opening --------------------------------------------------------------------------------------------------

    async def _establish(self, context: ssl.SSLContext, credentials: Credentials | None) -> None:
        if self.policy.implicit:
            await self._handshake(context)
        await self._greeting()
        await self._ehlo()
        if not self.policy.implicit and self.policy.starttls != "never" and await self._starttls():
            await self._handshake(context)
            self._extensions = Extensions()  # RFC 3207 section 4.2: what was said in clear is forgotten
            await self._ehlo()
        self.guard(Assurance.NONE)
        if credentials is not None:
            await self._authenticate(credentials)

    async def _ask(
        self, stage: Stage, command: bytes | None, seconds: float, verdict: Verdict = Verdict.TEMPORARY
    ) -> RawReply:
        """One command (none: a reply that is due) and its reply; trouble with the connection gets this verdict."""
        try:
            if command is not None:
                self._protocol.command(command)
            raw = await self._protocol.reply(seconds)
        except ConnectionFault as fault:
            raise self._failed(stage, verdict, str(fault)) from fault
        if self._witness is not None:
            self._witness.replied(stage, raw)
        return raw

    def _take_leave(self) -> None:
        """QUIT to a peer that is in step but not good enough; its answer is not waited for."""
        with contextlib.suppress(ConnectionFault):
            self._protocol.write(b"QUIT\r\n")
            self._protocol.close()

    def _failed(self, stage: Stage, verdict: Verdict, reason: str, raw: RawReply | None = None) -> SessionFailed:
        reply = None if raw is None else raw.reply
        return SessionFailed(Failure(stage, verdict, reason, reply), self._evidence, self.target.address)

    async def _greeting(self) -> None:
        raw = await self._ask(Stage.GREETING, None, self._environment.timeouts.greeting)
        if raw.code != 220:
            raise self._failed(Stage.GREETING, Verdict.TEMPORARY, "the peer does not greet", raw)

    async def _ehlo(self) -> None:
        """EHLO; where nothing is required of TLS, HELO for a peer that does not know it (RFC 5321 section 3.2)."""
        hostname, seconds = self._environment.hostname, self._environment.timeouts.ehlo
        raw = await self._ask(Stage.EHLO, command_line("EHLO", hostname), seconds)
        if raw.reply.permanent and self.policy.require == Assurance.NONE and self.policy.starttls != "must":
            raw = await self._ask(Stage.EHLO, command_line("HELO", hostname), seconds)
            if raw.code == 250:
                return
        if raw.code != 250:
            raise self._failed(Stage.EHLO, Verdict.TEMPORARY, "EHLO was refused", raw)
        self._extensions = Extensions.parse(raw)

    async def _starttls(self) -> bool:
        """Ask for TLS; False where the session may, and must, go on in clear."""
        must = self.policy.starttls == "must"
        if "STARTTLS" not in self._extensions:
            if must:
                self._take_leave()
                raise self._failed(Stage.STARTTLS, Verdict.DEFINITE, "STARTTLS is not offered")
            return False
        seconds = self._environment.timeouts.starttls
        raw = await self._ask(Stage.STARTTLS, b"STARTTLS\r\n", seconds, Verdict.ASSURANCE)
        if raw.code == 220:
            return True
        if raw.code == 421:
            verdict = Verdict.ASSURANCE if must else Verdict.TEMPORARY
            raise self._failed(Stage.STARTTLS, verdict, "the peer is closing", raw)
        if must or raw.reply.positive:
            self._take_leave()
            raise self._failed(Stage.STARTTLS, Verdict.ASSURANCE, "STARTTLS was refused", raw)
        return False

    async def _handshake(self, context: ssl.SSLContext) -> None:
        stage = Stage.HANDSHAKE if self.policy.implicit else Stage.STARTTLS
        try:
            ssl_object = await self._protocol.secure(
                context, _server_name(self.target), self._environment.timeouts.starttls
            )
        except OutOfStep:
            reason = "the peer spoke in clear" if self.policy.implicit else "replies injected before the handshake"
            raise self._failed(stage, Verdict.ASSURANCE, reason) from None
        except HandshakeFailed as failed:
            # Only a session that needs TLS can be told for good that it cannot be had.
            definite = failed.definite and self.policy.require > Assurance.NONE
            verdict = Verdict.DEFINITE if definite else Verdict.ASSURANCE
            reason = f"version below the level: {failed}" if definite else str(failed)
            raise self._failed(Stage.HANDSHAKE, verdict, reason) from None
        except ConnectionFault as fault:
            hostile = self._protocol.goodbye is not None  # a reply behind the 220, even a 421, was injected
            reason = "replies injected before the handshake" if hostile else str(fault)
            raise self._failed(stage, Verdict.ASSURANCE, reason) from None
        self._judge(ssl_object)

    def _judge(self, ssl_object: ssl.SSLObject) -> None:
        """Record what the session shows, attest it, and end it here where it is not enough."""
        environment, policy = self._environment, self.policy
        if self._witness is not None:
            self._witness.secured(ssl_object)
        version = ssl_object.version() or "unknown"
        cipher = (ssl_object.cipher() or ("unknown", "", 0))[0]
        names = self.target.reference_names
        verdict = judge(peer_chain(ssl_object), environment.trust, names, environment.clock.time())
        level = assurance(
            version,
            cipher,
            verdict,
            host_authenticated=policy.host_authenticated,
            spki_pins=policy.spki,
            ciphers=environment.contexts.profile.ciphers,
        )
        self._evidence = TlsEvidence(
            version=version,
            cipher=cipher,
            assurance=level,
            chain=verdict.chain,
            name=verdict.name,
            spki_sha256=verdict.spki_sha256,
            subject=verdict.subject,
            not_after=verdict.not_after,
        )
        self._protocol.attest(level)
        if level < policy.require:
            reason = shortfall(self._evidence, policy)
            self._take_leave()
            raise self._failed(Stage.JUDGE, Verdict.DEFINITE, reason)

    async def _authenticate(self, credentials: Credentials) -> None:
        """AUTH PLAIN, else LOGIN (RFC 4954); over TLS only. Refusal is a fault of the set-up: the mail waits."""
        if not self._protocol.over_tls:
            raise self._failed(Stage.AUTH, Verdict.TEMPORARY, "the session is in clear: no password is sent")
        offered = self._extensions.parameters("AUTH")
        username, password = credentials.username, credentials.password.reveal()
        if "PLAIN" in offered:
            first, *rest = [b"AUTH PLAIN " + auth_plain_encode(username, password)]
        elif "LOGIN" in offered:
            first, *rest = [b"AUTH LOGIN", *auth_login_encode(username, password)]
        else:
            raise self._failed(Stage.AUTH, Verdict.TEMPORARY, "neither AUTH PLAIN nor AUTH LOGIN is offered")
        seconds = self._environment.timeouts.ehlo
        raw = await self._ask(Stage.AUTH, first + b"\r\n", seconds)
        for line in rest:
            if raw.code == 334:
                raw = await self._ask(Stage.AUTH, line + b"\r\n", seconds)
        if raw.code != 235:
            raise self._failed(Stage.AUTH, Verdict.TEMPORARY, "AUTH was refused", raw)


async def _connect(target: Target, policy: TlsPolicy, environment: Environment) -> SmtpProtocol:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(environment.timeouts.connect):
            _, protocol = await loop.create_connection(
                lambda: SmtpProtocol(policy.require),
                target.address,
                target.port,
                local_addr=None if target.source is None else (target.source, 0),
            )
    except TimeoutError:
        reason = f"no connection within {environment.timeouts.connect:g} s"
    except OSError as error:
        # asyncio's own text repeats the address; the system's says what happened.
        reason = clean_text(os.strerror(error.errno) if error.errno else str(error), 200)
    else:
        return protocol
    raise SessionFailed(Failure(Stage.CONNECT, Verdict.TEMPORARY, reason), None, target.address)


def _server_name(target: Target) -> str | None:
    """The name for SNI: the first reference name; addresses have none (RFC 6066 section 3)."""
    name = target.reference_names[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return None if name.startswith("[") else name
    return None
