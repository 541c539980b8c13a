"""One mail transaction on an open session: MAIL, RCPT for each recipient, DATA, the body, the final dot.

RFC 5321 section 3.3; pipelining RFC 2920; SIZE RFC 1870; 8BITMIME RFC 6152; SMTPUTF8 RFC 6531; DSN RFC 3461.

1. what the peer cannot take is said before anything is written (:func:`foresee`)
2. the guard, then the envelope: in one write where the peer pipelines, else command by command
3. the body, streamed, with back-pressure; each octet passes :class:`gateway.delivery.wire.BodyEncoder`
4. the final dot, and what its reply means for each recipient
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from gateway.config.outbound import Timeouts
from gateway.delivery.protocol import ConnectionFault, ConnectionLost, SmtpProtocol, TimedOut
from gateway.delivery.wire import BodyEncoder, Extensions, RawReply, UnsafeOutput, mail_command, rcpt_command
from gateway.errors import GatewayError
from gateway.mail.address import Address
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.edits import Change
from gateway.mail.envelope import Recipient
from gateway.mail.protection import Assurance
from gateway.mail.reply import Reply

__all__ = [
    "Conversation",
    "NeedsSevenBit",
    "RecipientResult",
    "StaleSession",
    "Transaction",
    "TransactionResult",
    "foresee",
]

# Octets that are collected before they are handed to the transport.
_BLOCK = 64 * 1024

# Slower than this over the whole body, and the peer holds our slot for no good. Octets per second.
_MIN_RATE = 2048


class NeedsSevenBit(GatewayError):
    """The peer lacks 8BITMIME and the body needs it; nothing was written.

    Convert it (``protect.sevenbit``) and send it again on the same session.
    """


class StaleSession(GatewayError):
    """A connection that had been used before turned out to be gone at its first command. No attempt was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A message for some recipients, over one session.

    ``body`` opens the octets anew, CRLF line ends, undotted; ``size`` is their exact number: a body that comes out
    longer or shorter never gets its final dot. ``prefix`` goes before it (trace fields of our own). ``required`` is
    the level that the session must have attained. ``eight_bit``: octets above 127 in the body. ``smtputf8``: the
    message itself needs it. ``permit`` is called directly before MAIL FROM is written and raises to stop it. ``plain``
    is the same body where it is in memory as a whole.

    Transactions of one message with the same ``rendering`` say the same octets but for the prefix, which ``trace``
    makes for any recipients: so they may become one (``joint``). Without ``trace`` this one goes alone.

    ``finish`` makes the last change, once everything else about the octets is settled (``signing``); ``notes`` say what
    it did.
    """

    message_id: str
    sender: Address | None
    recipients: tuple[Recipient, ...]
    body: Callable[[], AsyncIterator[bytes]]
    size: int
    required: Assurance
    prefix: bytes = b""
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    permit: Callable[[], None] | None = None
    plain: bytes | None = None
    rendering: str = ""
    trace: Callable[[Sequence[Recipient]], bytes] | None = None
    finish: Callable[[Transaction], Awaitable[Transaction]] | None = None
    notes: tuple[Change, ...] = ()

    @property
    def octets(self) -> int:
        """The size of what is sent, without the doubling of dots."""
        return len(self.prefix) + self.size


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """What became of one recipient; no ``failure`` means that the peer has taken responsibility.

    ``reply`` is the one that decided. ``status`` is an enhanced code of our own where no reply carries one.
    """

    recipient: Recipient
    reply: Reply | None
    failure: Failure | None
    status: str = ""

    @property
    def delivered(self) -> bool:
        """Whether the peer has taken responsibility."""
        return self.failure is None


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """The results, in the order of the recipients.

    ``reply`` is that to the final dot. ``unknown``: the connection was lost after the dot, the message may arrive
    twice. ``dsn``: the peer offers DSN, the parameters were passed on (RFC 3461 section 5.2).
    """

    recipients: tuple[RecipientResult, ...]
    reply: Reply | None = None
    unknown: bool = False
    dsn: bool = False


def foresee(transaction: Transaction, extensions: Extensions) -> dict[Recipient, RecipientResult]:
    """The recipients that this peer cannot take, known without asking. Raises :class:`NeedsSevenBit`."""
    limit = extensions.size
    if limit is not None and transaction.octets > limit:
        reason = f"the message has {transaction.octets} octets, the peer takes {limit}"
        failure = Failure(Stage.MAIL, Verdict.FINAL, reason)
        return {r: RecipientResult(r, None, failure, "5.3.4") for r in transaction.recipients}
    hopeless: dict[Recipient, RecipientResult] = {}
    if "SMTPUTF8" not in extensions:
        whole = transaction.smtputf8 or not (transaction.sender is None or transaction.sender.is_ascii)
        for recipient in transaction.recipients:
            if not recipient.address.is_ascii:
                failure = Failure(Stage.RCPT, Verdict.FINAL, "peer lacks SMTPUTF8, the address needs it")
                hopeless[recipient] = RecipientResult(recipient, None, failure, "5.6.7")
            elif whole:
                failure = Failure(Stage.MAIL, Verdict.DEFINITE, "peer lacks SMTPUTF8")
                hopeless[recipient] = RecipientResult(recipient, None, failure, "5.6.7")
    if transaction.eight_bit and "8BITMIME" not in extensions and len(hopeless) < len(set(transaction.recipients)):
        raise NeedsSevenBit("the peer lacks 8BITMIME")
    return hopeless


class _Broken(Exception):
    """The transaction cannot go on: recipients that have no result yet get this failure."""

    def __init__(self, failure: Failure, *, unknown: bool = False) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.unknown = unknown


@dataclass(slots=True)
class Conversation:
    """The state of one transaction.

    ``hopeless`` is what :func:`foresee` said; ``guard`` raises where the session must not carry mail of this level;
    ``started`` tells whether anything was written.
    """

    protocol: SmtpProtocol
    extensions: Extensions
    timeouts: Timeouts
    transaction: Transaction
    hopeless: dict[Recipient, RecipientResult]
    guard: Callable[[Assurance], None]
    reused: bool = False
    started: bool = False
    _results: dict[Recipient, RecipientResult] = field(default_factory=dict)
    _accepted: list[Recipient] = field(default_factory=list)
    _answered: bool = False

    async def run(self) -> TransactionResult:
        """Carry it through.

        Raises :class:`StaleSession`, ``GuardViolation``, and whatever the body raises while it is read; the
        connection must then be dropped.
        """
        self._results = dict(self.hopeless)
        final: Reply | None = None
        unknown = False
        if self._open():
            try:
                if await self._envelope():
                    final = await self._content()
            except _Broken as broken:
                for recipient in self._open():
                    self._results[recipient] = RecipientResult(recipient, broken.failure.reply, broken.failure)
                unknown = broken.unknown
        results = tuple(self._results[recipient] for recipient in self.transaction.recipients)
        return TransactionResult(results, final, unknown, "DSN" in self.extensions)

    def _open(self) -> list[Recipient]:
        """The recipients that have no result yet, each once, in order."""
        return [r for r in dict.fromkeys(self.transaction.recipients) if r not in self._results]

    # -- the envelope ---------------------------------------------------------------------------------------------

    async def _envelope(self) -> bool:
        """MAIL, RCPT, DATA. Whether the peer waits for the body, for at least one recipient."""
        transaction, recipients = self.transaction, self._open()
        dsn = "DSN" in self.extensions
        international = transaction.smtputf8 or not all(
            address.is_ascii for address in (transaction.sender, *(r.address for r in recipients)) if address
        )
        mail = mail_command(
            transaction.sender,
            size=transaction.octets if "SIZE" in self.extensions else None,
            eight_bit=transaction.eight_bit,
            smtputf8=international,
            ret=transaction.ret if dsn else "",
            envid=transaction.envid if dsn else "",
        )
        commands = [mail, *(rcpt_command(recipient, dsn=dsn) for recipient in recipients)]
        if transaction.permit is not None:
            transaction.permit()
        self.guard(transaction.required)
        self.started = True
        if "PIPELINING" in self.extensions:
            return await self._pipelined(commands, recipients)
        return await self._in_turn(commands, recipients)

    async def _pipelined(self, commands: list[bytes], recipients: list[Recipient]) -> bool:
        """All in one write; then as many replies as commands, whatever they say."""
        self._write(b"".join(commands) + b"DATA\r\n", len(commands) + 1, Stage.MAIL)
        refused = self._mail_refused(await self._reply(Stage.MAIL, self.timeouts.mail))
        for recipient in recipients:
            reply = await self._reply(Stage.RCPT, self.timeouts.rcpt)
            if refused is None:
                self._rcpt(recipient, reply)
        data = await self._reply(Stage.DATA, self.timeouts.data)
        if refused is not None:
            if data.code == 354:
                await self._lone_dot()
            raise refused
        if not self._accepted:
            if data.code == 354:
                await self._lone_dot()
            return False
        return self._data(data)

    async def _in_turn(self, commands: list[bytes], recipients: list[Recipient]) -> bool:
        self._write(commands[0], 1, Stage.MAIL)
        refused = self._mail_refused(await self._reply(Stage.MAIL, self.timeouts.mail))
        if refused is not None:
            raise refused
        for command, recipient in zip(commands[1:], recipients, strict=True):
            self._write(command, 1, Stage.RCPT)
            self._rcpt(recipient, await self._reply(Stage.RCPT, self.timeouts.rcpt))
        if not self._accepted:
            return False
        self._write(b"DATA\r\n", 1, Stage.DATA)
        return self._data(await self._reply(Stage.DATA, self.timeouts.data))

    def _mail_refused(self, raw: RawReply) -> _Broken | None:
        return None if 200 <= raw.code < 300 else _Broken(self._refusal(Stage.MAIL, raw))

    def _rcpt(self, recipient: Recipient, raw: RawReply) -> None:
        if 200 <= raw.code < 300:
            self._accepted.append(recipient)
            return
        failure = self._refusal(Stage.RCPT, raw)
        if raw.code == 552 and self._accepted and raw.reply.enhanced in {"", "5.5.3"}:
            # RFC 5321 section 4.5.3.1.10: servers of old say 552 for "too many recipients at once".
            failure = Failure(Stage.RCPT, Verdict.TEMPORARY, failure.reason, failure.reply)
        self._results[recipient] = RecipientResult(recipient, failure.reply, failure)

    def _data(self, raw: RawReply) -> bool:
        if raw.code != 354:
            raise _Broken(self._refusal(Stage.DATA, raw))
        return True

    async def _lone_dot(self) -> None:
        """Nobody was accepted, yet the peer waits for a body: end it at once (RFC 2920 section 3.1)."""
        try:
            self.protocol.command(b".\r\n")
            await self.protocol.reply(self.timeouts.data)
        except ConnectionFault:
            return  # every recipient has its result already

    # -- the content ----------------------------------------------------------------------------------------------

    async def _content(self) -> Reply:
        """The body and its final dot; the reply, which the accepted recipients' results are set by."""
        self.protocol.expect()  # the final reply may come before we are through, where the peer has seen enough
        plain = self.transaction.plain
        if plain is not None and len(plain) <= _BLOCK:
            self._whole(plain)
        else:
            await self._streamed()
        try:
            await self.protocol.drain(self.timeouts.block)
            raw = await self.protocol.reply(self.timeouts.dot)
        except ConnectionFault as fault:
            raise _Broken(Failure(Stage.DOT, Verdict.TEMPORARY, str(fault)), unknown=True) from fault
        reply = raw.reply
        if raw.code == 421:
            self.protocol.fail(ConnectionLost("the peer is closing"))
        if raw.code != 250 and reply.positive:
            # An answer, but to what? Nothing says that it has the message.
            self.protocol.fail(ConnectionLost("the peer is out of step"))
            failure = Failure(Stage.DOT, Verdict.TEMPORARY, "unexpected reply after the final dot", reply)
            raise _Broken(failure, unknown=True)
        refusal = None if raw.code == 250 else self._refusal(Stage.DOT, raw)
        for recipient in self._accepted:
            self._results[recipient] = RecipientResult(recipient, reply, refusal)
        return reply

    def _whole(self, plain: bytes) -> None:
        """A message that is no larger than a block, in one write with its final dot."""
        encoder = BodyEncoder()
        data = encoder.feed(self.transaction.prefix + plain)
        self._check_length(encoder)
        self._no_early_reply()
        self._write(data + encoder.finish(), 0, Stage.BODY)

    async def _streamed(self) -> None:
        limit = self.timeouts.block + self.transaction.octets / _MIN_RATE
        try:
            async with asyncio.timeout(limit):
                await self._body()
        except TimeoutError:
            self.protocol.fail(TimedOut(f"the peer did not take the message within {limit:.0f} s"))
            raise _Broken(Failure(Stage.BODY, Verdict.TEMPORARY, str(self.protocol.fault))) from None

    async def _body(self) -> None:
        """Stream the message; with the last octets goes the final dot."""
        encoder = BodyEncoder()
        pending = bytearray(encoder.feed(self.transaction.prefix))
        async for block in self.transaction.body():
            for start in range(0, len(block), _BLOCK):
                pending += encoder.feed(block[start : start + _BLOCK])
                if len(pending) >= _BLOCK:
                    await self._take(bytes(pending))
                    pending.clear()
        self._check_length(encoder)
        pending += encoder.finish()
        self._no_early_reply()
        self._write(bytes(pending), 0, Stage.BODY)

    def _check_length(self, encoder: BodyEncoder) -> None:
        if encoder.octets != self.transaction.octets:
            raise UnsafeOutput(
                f"the message has {encoder.octets} octets instead of {self.transaction.octets}: its end is not sent"
            )

    async def _take(self, data: bytes) -> None:
        self._no_early_reply()
        self._write(data, 0, Stage.BODY)
        try:
            await self.protocol.drain(self.timeouts.block)
        except ConnectionFault as fault:
            self._no_early_reply()  # what the peer said before it left explains more
            raise _Broken(Failure(Stage.BODY, Verdict.TEMPORARY, str(fault))) from fault
        self._no_early_reply()

    def _no_early_reply(self) -> None:
        """A reply before the final dot means that the peer does not want the rest.

        Without the rest there is no way back into step, so the connection goes, too.
        """
        raw = self.protocol.take_reply()
        if raw is not None:
            self.protocol.fail(ConnectionLost("the peer replied before the end of the message"))
            raise _Broken(self._refusal(Stage.BODY, raw))

    # -- replies --------------------------------------------------------------------------------------------------

    def _write(self, data: bytes, replies: int, stage: Stage) -> None:
        try:
            self.protocol.command(data, replies)
        except ConnectionFault as fault:
            raise self._lost(stage, fault) from fault

    async def _reply(self, stage: Stage, timeout: float) -> RawReply:  # noqa: ASYNC109 - a time limit per phase
        try:
            raw = await self.protocol.reply(timeout)
        except ConnectionFault as fault:
            raise self._lost(stage, fault) from fault
        if raw.code == 421:
            self.protocol.fail(ConnectionLost("the peer is closing"))
            if self.reused and not self._answered:
                raise StaleSession(f"the peer closed the connection: {raw.reply}")
            raise _Broken(Failure(stage, Verdict.TEMPORARY, "the peer is closing", raw.reply))
        self._answered = True
        return raw

    def _lost(self, stage: Stage, fault: ConnectionFault) -> Exception:
        if self.reused and not self._answered and isinstance(fault, ConnectionLost):
            return StaleSession(f"the connection was gone: {fault}")
        return _Broken(Failure(stage, Verdict.TEMPORARY, str(fault)))

    def _refusal(self, stage: Stage, raw: RawReply) -> Failure:
        """What a reply other than the hoped-for one means: 5xx is final, all else passes (architecture)."""
        reply = raw.reply
        if reply.permanent:
            return Failure(stage, Verdict.FINAL, "refused by the peer", reply)
        if reply.temporary:
            return Failure(stage, Verdict.TEMPORARY, "refused by the peer for now", reply)
        self.protocol.fail(ConnectionLost("the peer is out of step"))
        return Failure(stage, Verdict.TEMPORARY, "unexpected reply", reply)
