"""One SMTP session: commands in, replies out (RFC 5321), each reply with an enhanced code (RFC 2034).

1. ``_converse``: a line at a time, each verb a method; a :class:`gateway.errors.Refusal` anywhere becomes its reply,
   any other exception ``451 4.3.0`` and a new start of the transaction.
2. MAIL and RCPT build a :class:`gateway.ingress.transaction.Transaction`.
3. DATA: scanner and :class:`gateway.ingress.reception.Reception`; then the intake, in a task that nothing cancels.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

from gateway.config.model import Listener, ListenerTls
from gateway.errors import GatewayError, Refusal
from gateway.ingress.connection import Connection, Disconnect, Host, Phase, stopping_refusal
from gateway.ingress.data import DataScanner
from gateway.ingress.parameters import parse_mail, parse_rcpt
from gateway.ingress.reader import STREAM_LIMIT, Line, LineFault
from gateway.ingress.reception import Reception
from gateway.ingress.refusals import Reason, from_error, refusal
from gateway.ingress.transaction import Client, Transaction, begin

__all__ = ["SmtpSession"]

#: RFC 5321 section 4.5.3.1.4 asks for 512 at least; MAIL and RCPT grow with SMTPUTF8, ENVID, ORCPT and long addresses.
COMMAND_LIMIT = 1024
COMMAND_LIMITS = {"MAIL": 2048, "RCPT": 2048}
#: A client that goes on beyond this multiple of its limit is cut off: it was told SIZE, and gets no answer meanwhile.
OVERRUN = 4

_BEFORE_TLS = frozenset({"EHLO", "HELO", "NOOP", "QUIT", "STARTTLS", "RSET", "HELP"})
_HELO = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}\Z")
_VERB = re.compile(rb"[A-Za-z]{1,16}\Z")
#: Refusals that are the client's mistakes and count towards ``limits.errors``.
_MISTAKES = frozenset({Reason.SYNTAX, Reason.UNKNOWN_COMMAND, Reason.TLS_REQUIRED})


class SmtpSession(Connection):
    """One connection. Made by :class:`gateway.ingress.server.IngressServer` for each that is accepted."""

    def __init__(self, host: Host, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(host, listener, loop)
        # The base class shares one table among all sessions; ours is constant and its own.
        self.command_size_limits = dict(COMMAND_LIMITS)
        self._helo = ""
        self._extended = False
        self._transaction: Transaction | None = None
        self._reception: Reception | None = None
        self._errors = 0
        self._messages = 0

    # -- the conversation ------------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        await self.push(f"220 {self.hostname} ESMTP")
        longest = max(COMMAND_LIMIT, *self.command_size_limits.values())
        while not self._closing:
            self._wait(Phase.COMMAND, self._host.terms.limits.command_timeout)
            line = await self._input.read_line(longest)
            if line is None or self._closing:
                return
            self._wait(Phase.BUSY, float("inf"))
            try:
                await self._command(line)
            except (Disconnect, ConnectionError):
                raise
            except Refusal as refused:
                await self._refuse(refused)
            except Exception as error:  # noqa: BLE001 - a bug of ours: the client keeps its message and may go on
                await self._fault(error)
            if self._host.stopping:
                raise Disconnect(stopping_refusal())

    async def _command(self, line: Line) -> None:
        if line.fault is not None:
            raise _line_refusal(line.fault)
        word, _, rest = line.data.partition(b" ")
        if not _VERB.match(word):
            raise refusal(500, "5.5.2", "Syntax error, command not recognized", Reason.SYNTAX)
        verb = word.decode("ascii").upper()
        if len(line.data) + 2 > self.command_size_limits.get(verb, COMMAND_LIMIT):
            raise _line_refusal(LineFault.TOO_LONG)
        try:
            argument = rest.decode("utf-8").strip(" ")
        except UnicodeDecodeError:
            raise refusal(500, "5.5.2", "Syntax error, argument is not UTF-8", Reason.SYNTAX) from None
        method: Callable[[str | None], Awaitable[None]] | None = self._smtp_methods.get(verb)
        if method is None:
            raise refusal(500, "5.5.1", "Command not recognized", Reason.UNKNOWN_COMMAND)
        if self._listener.tls is ListenerTls.REQUIRED and self._tls is None and verb not in _BEFORE_TLS:
            raise refusal(530, "5.7.0", "Must issue a STARTTLS command first", Reason.TLS_REQUIRED)
        await method(argument or None)

    async def _refuse(self, refused: Refusal) -> None:
        self._note(refused)
        if refused.reason in _MISTAKES:
            self._errors += 1
            if self._errors >= self._host.terms.limits.errors:
                await self.push(refused.line)
                raise Disconnect(refusal(421, "4.7.0", "Too many errors, closing connection", Reason.TOO_MANY_ERRORS))
        if refused.reply_code == 421:
            raise Disconnect(refused)
        await self.push(refused.line)

    async def _fault(self, error: Exception) -> None:
        refused = from_error(error)
        if not isinstance(error, GatewayError):
            self._log.error("command_failed", message=self._message_id, exc_info=error)
        await self._refuse(refused)
        await self._reset()

    async def _reset(self) -> None:
        """Forget the transaction (RFC 5321 section 4.1.1.5)."""
        reception, self._reception = self._reception, None
        self._transaction = self._message_id = None
        if reception is not None:
            await reception.abort()

    # -- hello and TLS ---------------------------------------------------------------------------------------------

    async def smtp_HELO(self, arg: str | None) -> None:  # noqa: N802 - the base class finds verbs by name
        """RFC 5321 section 4.1.1.1."""
        self._hello(arg, "HELO")
        self._extended = False
        await self._reset()
        await self.push(f"250 {self.hostname}")

    async def smtp_EHLO(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.1; what is offered is what is done."""
        self._hello(arg, "EHLO")
        self._extended = True
        await self._reset()
        terms = self._host.terms
        offers = [
            self.hostname,
            "PIPELINING",
            f"SIZE {terms.largest_message(terms.connectors_for(self._arrival()))}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "DSN",
        ]
        if self._offers_tls():
            offers.append("STARTTLS")
        lines = [f"250-{each}" for each in offers[:-1]] + [f"250 {offers[-1]}"]
        await self.push("\r\n".join(lines))

    def _hello(self, arg: str | None, verb: str) -> None:
        if arg is None or not _HELO.match(arg):
            raise refusal(501, "5.5.4", f"Syntax: {verb} hostname", Reason.SYNTAX)
        self._helo = arg

    def _offers_tls(self) -> bool:
        wanted = self._listener.tls in (ListenerTls.OFFERED, ListenerTls.REQUIRED)
        return wanted and self._tls is None and self._host.terms.contexts is not None

    async def smtp_STARTTLS(self, arg: str | None) -> None:  # noqa: N802
        """RFC 3207. Whatever came before the handshake is void, and nothing may have come behind this command."""
        if arg is not None:
            raise refusal(501, "5.5.4", "Syntax: STARTTLS", Reason.SYNTAX)
        if self._tls is not None:
            raise refusal(503, "5.5.1", "TLS is already in use", Reason.SYNTAX)
        if not self._offers_tls():
            raise refusal(502, "5.5.1", "STARTTLS is not offered here", Reason.UNKNOWN_COMMAND)
        self._expect_silence()
        assert self._wire is not None
        # Not pushed: no other task may run - and no byte be read - between this reply and the handshake.
        self._wire.write(b"220 2.0.0 Ready to start TLS\r\n")
        await self._handshake()
        await self._reset()
        self._helo, self._extended = "", False

    # -- the transaction -------------------------------------------------------------------------------------------

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.2."""
        if not self._helo:
            raise refusal(503, "5.5.1", "Send EHLO first", Reason.SYNTAX)
        if self._transaction is not None:
            raise refusal(503, "5.5.1", "A transaction is open already", Reason.SYNTAX)
        self._raise_if_unready()
        terms = self._host.terms
        if self._messages >= terms.limits.session_messages:
            raise Disconnect(refusal(421, "4.7.0", "Enough messages in one session, connect again", Reason.MESSAGES))
        mail = parse_mail(arg or "", extended=self._extended)
        client = Client(self._arrival(), self._helo, self._extended, self._tls, self._id)
        self._transaction = begin(terms, client, mail, self._services)
        self._message_id = self._transaction.id
        await self.push("250 2.1.0 Sender ok")

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.3."""
        if self._transaction is None:
            raise refusal(503, "5.5.1", "Send MAIL first", Reason.SYNTAX)
        mail = self._transaction.mail
        wanted = parse_rcpt(arg or "", self.hostname, extended=self._extended, smtputf8=mail.smtputf8)
        self._transaction.add_recipient(wanted, self._services)
        await self.push("250 2.1.5 Recipient ok")

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.4."""
        transaction = self._transaction
        if transaction is None:
            raise refusal(503, "5.5.1", "Send MAIL first", Reason.SYNTAX)
        if arg is not None:
            raise refusal(501, "5.5.4", "Syntax: DATA", Reason.SYNTAX)
        if not transaction.recipients:
            raise refusal(503, "5.5.1", "No valid recipients", Reason.SYNTAX)
        self._raise_if_unready()
        self._messages += 1
        reception = self._reception = Reception(transaction, self._services)
        result = "incomplete"
        try:
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            await self._receive(reception, transaction)
            self._wait(Phase.BUSY, float("inf"))
            result = await self._commit(reception)
        except Refusal as refused:
            result = refused.reason
            await self._refuse(refused)
        finally:
            self._services.metrics.received(reception.connector, result)
            await self._reset()

    async def _receive(self, reception: Reception, transaction: Transaction) -> None:
        """Read to the end of data whatever happens on the way, or end the session.

        To go on with commands from the middle of a message would be to take the rest of it for commands.
        """
        try:
            await self._receive_to_end(reception, transaction)
        except (Disconnect, ConnectionError):
            raise
        except Exception as error:
            self._log.error("command_failed", message=transaction.id, exc_info=error)
            raise Disconnect(refusal(421, "4.3.0", GatewayError.public, Reason.STORE)) from error

    async def _receive_to_end(self, reception: Reception, transaction: Transaction) -> None:
        scanner = DataScanner()
        clock = self._services.clock
        self._waited, self._data_bytes = 0.0, 0
        while not scanner.done:
            self._wait(Phase.DATA, transaction.terms.limits.data_timeout)
            self._waiting_since = started = clock.monotonic()
            try:
                chunk = await self._input.read_chunk()
            finally:
                self._waiting_since = None
                self._waited += clock.monotonic() - started
            if not chunk or self._closing:
                raise ConnectionResetError("the client left in the middle of its data")
            self._wait(Phase.BUSY, float("inf"))
            self._data_bytes += len(chunk)
            piece = scanner.feed(chunk)
            if scanner.violation is not None:
                await reception.void(scanner.violation)
            if piece:
                await reception.feed(piece)
            if scanner.received > OVERRUN * transaction.size_limit + STREAM_LIMIT:
                raise Disconnect(refusal(421, "4.3.0", "Far too much data", Reason.TOO_LARGE))
        self._input.unread(scanner.rest)

    async def _commit(self, reception: Reception) -> str:
        """Hand the message over; it counts as accepted once the intake says so, whether or not anybody hears it."""
        submission = await reception.finish()
        self._reception = None  # the spool is the intake's now: nothing here may forget it while it commits
        commit = self.loop.create_task(self._services.intake.accept(submission))
        self._host.commits.add(commit)
        commit.add_done_callback(self._host.commits.discard)
        try:
            message_id = await asyncio.shield(commit)
        except Exception as error:  # noqa: BLE001 - whatever happened to it, the client gets a coded answer
            if not isinstance(error, GatewayError):
                self._log.error("commit_failed", message=submission.message.id, exc_info=error)
            with contextlib.suppress(Exception):
                await submission.spool.abort()
            raise from_error(error) from None
        # Whoever closed before this may never know; a client that only half-closed reads it all the same.
        gone = self._input.at_eof() or self._lost
        try:
            await self.push(f"250 2.0.0 Accepted as {message_id}")
        except ConnectionError:
            gone = True
        log = self._log.warning if gone else self._log.info
        log(
            "accepted",
            message=message_id,
            connector=submission.connector.name,
            size=submission.message.size,
            recipients=len(submission.message.envelope.recipients),
            violations=list(submission.violations),
            client_gone=gone,
        )
        return "client_gone" if gone else "accepted"

    def _raise_if_unready(self) -> None:
        refused = self._services.intake.ready()
        if refused is not None:
            raise refused

    # -- the rest --------------------------------------------------------------------------------------------------

    async def smtp_RSET(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.5."""
        if arg is not None:
            raise refusal(501, "5.5.4", "Syntax: RSET", Reason.SYNTAX)
        await self._reset()
        await self.push("250 2.0.0 Ok")

    async def smtp_NOOP(self, arg: str | None) -> None:  # noqa: N802, ARG002 - an argument is allowed, without meaning
        """RFC 5321 section 4.1.1.9."""
        await self.push("250 2.0.0 Ok")

    async def smtp_QUIT(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.10."""
        if arg is not None:
            raise refusal(501, "5.5.4", "Syntax: QUIT", Reason.SYNTAX)
        await self.push("221 2.0.0 Bye")
        raise Disconnect

    async def smtp_HELP(self, arg: str | None) -> None:  # noqa: N802, ARG002 - the same answer for every topic
        """RFC 5321 section 4.1.1.8."""
        await self.push("214 2.0.0 See RFC 5321")

    async def smtp_VRFY(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.6: nobody learns here who exists."""
        if arg is None:
            raise refusal(501, "5.5.4", "Syntax: VRFY address", Reason.SYNTAX)
        await self.push("252 2.5.2 Cannot verify, but will take mail and attempt delivery")

    async def smtp_EXPN(self, arg: str | None) -> None:  # noqa: N802, ARG002
        """RFC 5321 section 4.1.1.7: not offered."""
        raise refusal(502, "5.5.1", "EXPN is not offered here", Reason.UNKNOWN_COMMAND)

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802, ARG002
        """RFC 4954: not offered."""
        raise refusal(502, "5.5.1", "AUTH is not offered here", Reason.UNKNOWN_COMMAND)

    async def smtp_BDAT(self, arg: str | None) -> None:  # noqa: N802, ARG002
        """RFC 3030: not offered. The chunk follows at once and would be taken for commands, so this is the end."""
        raise Disconnect(refusal(421, "4.5.1", "CHUNKING is not offered here", Reason.UNKNOWN_COMMAND))


def _line_refusal(fault: LineFault) -> Refusal:
    if fault is LineFault.TOO_LONG:
        return refusal(500, "5.5.2", "Command line is too long", Reason.SYNTAX)
    return refusal(500, "5.5.2", f"Syntax error: {fault} in a command", Reason.SYNTAX)
