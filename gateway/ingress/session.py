"""One SMTP session: commands in, replies out (RFC 5321), each reply with an enhanced code (RFC 2034).

1. ``_converse``: a line at a time, each verb a method; a :class:`gateway.errors.Refusal` anywhere becomes its reply,
   any other exception ``451 4.3.0`` and a new start of the transaction.
2. MAIL and RCPT build a :class:`gateway.ingress.transaction.Transaction`.
3. DATA, or chunk by chunk BDAT: a :class:`gateway.ingress.content.Content` is received, then accepted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from gateway.config.model import Listener, ListenerTls
from gateway.errors import GatewayError, Refusal
from gateway.ingress.authentication import AUTH_LINE, MECHANISMS, Authentication
from gateway.ingress.chunking import Chunk, is_bdat, parse_bdat
from gateway.ingress.connection import Connection, Disconnect, Host, stopping_refusal
from gateway.ingress.connectors import Arrival, Candidate, IpAddress, candidates
from gateway.ingress.content import Content, discard, overrun, too_large
from gateway.ingress.parameters import parse_mail, parse_rcpt
from gateway.ingress.reader import Line, LineFault
from gateway.ingress.refusals import Reason, from_error, refusal
from gateway.ingress.terms import Terms
from gateway.ingress.transaction import Client, Transaction, begin

__all__ = ["SmtpSession"]

#: RFC 5321 section 4.5.3.1.4 asks for 512 at least; MAIL and RCPT grow with SMTPUTF8, ENVID, ORCPT and long addresses.
COMMAND_LIMIT = 1024
COMMAND_LIMITS = {"MAIL": 2048, "RCPT": 2048, "AUTH": AUTH_LINE}

_BEFORE_TLS = frozenset({"EHLO", "HELO", "NOOP", "QUIT", "STARTTLS", "RSET", "HELP"})
_HELO = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}\Z")
_VERB = re.compile(rb"[A-Za-z]{1,16}\Z")
#: Refusals that are the client's mistakes and count towards ``limits.errors``.
_MISTAKES = frozenset({Reason.SYNTAX, Reason.UNKNOWN_COMMAND, Reason.TLS_REQUIRED})


class SmtpSession(Connection):
    """One connection. Made by :class:`gateway.ingress.server.IngressServer` for each that is accepted."""

    def __init__(
        self, host: Host, listener: Listener, loop: asyncio.AbstractEventLoop, client: IpAddress | None = None
    ) -> None:
        super().__init__(host, listener, loop, client)
        # The base class shares one table among all sessions; ours is constant and its own.
        self.command_size_limits = dict(COMMAND_LIMITS)
        self._helo = ""
        self._extended = False
        self._transaction: Transaction | None = None
        self._content: Content | None = None
        self._spoilt: Refusal | None = None  # why the chunks of this transaction are refused, up to the last one
        self._known_candidates: tuple[Terms, Arrival, tuple[Candidate, ...]] | None = None
        self._authentication = Authentication(self, self._services)
        self._errors = 0
        self._messages = 0

    # -- the conversation ------------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        await self.push(f"220 {self.hostname} ESMTP")
        longest = max(COMMAND_LIMIT, *self.command_size_limits.values())
        while not self._closing:
            line = await self._read_line(longest)
            if line is None:
                return
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
        if is_bdat(line.data):
            await self._bdat(line)
            return
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
        if verb not in _BEFORE_TLS:
            self._require_tls()
        await method(argument or None)

    def _require_tls(self) -> None:
        if self._listener.tls is ListenerTls.REQUIRED and self._tls is None:
            raise refusal(530, "5.7.0", "Must issue a STARTTLS command first", Reason.TLS_REQUIRED)

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
        content, self._content = self._content, None
        self._transaction = self._message_id = self._pace = self._spoilt = None
        if content is not None:
            await content.end()

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
            "CHUNKING",
        ]
        if self._tls is not None and terms.user_tables(self._arrival()):
            offers.append(f"AUTH {' '.join(MECHANISMS)}")
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
        await self.flush()
        self._expect_silence()
        assert self._wire is not None
        # Not pushed: no other task may run - and no byte be read - between this reply and the handshake.
        self._wire.write(b"220 2.0.0 Ready to start TLS\r\n")
        await self._handshake()
        await self._reset()
        self._helo, self._extended = "", False

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        """RFC 4954; see :mod:`gateway.ingress.authentication`."""
        terms = self._host.terms
        tables = terms.user_tables(self._arrival())
        if not tables:
            raise refusal(502, "5.5.1", "AUTH is not offered here", Reason.UNKNOWN_COMMAND)
        if self._tls is None:
            raise refusal(538, "5.7.11", "Must issue a STARTTLS command first", Reason.TLS_REQUIRED)
        if not self._extended:
            raise refusal(503, "5.5.1", "Send EHLO first", Reason.SYNTAX)
        if self._login is not None or self._transaction is not None:
            raise refusal(503, "5.5.1", "Logged in already, or a transaction is open", Reason.SYNTAX)
        self._login = await self._authentication.run(arg, tables, terms, self._address)
        self._known_arrival = None
        self._log = self._log.bind(user=self._login.user)
        self._log.info("logged_in")
        await self.push("235 2.7.0 Logged in")

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
        arrival = self._arrival()
        client = Client(arrival, self._helo, self._extended, self._tls, self._id)
        self._transaction = begin(terms, client, mail, self._services, self._candidates(terms, arrival))
        self._message_id = self._transaction.id
        await self.push("250 2.1.0 Sender ok")

    def _candidates(self, terms: Terms, arrival: Arrival) -> tuple[Candidate, ...]:
        """What the connection factors say; the same for every MAIL, as long as neither side changes."""
        known = self._known_candidates
        if known is None or known[0] is not terms or known[1] is not arrival:
            known = terms, arrival, candidates(terms.connectors, arrival, terms.networks)
            self._known_candidates = known
        return known[2]

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.3."""
        self._expect_no_chunks()
        if self._transaction is None:
            raise refusal(503, "5.5.1", "Send MAIL first", Reason.SYNTAX)
        mail = self._transaction.mail
        wanted = parse_rcpt(arg or "", self.hostname, extended=self._extended, smtputf8=mail.smtputf8)
        self._transaction.add_recipient(wanted, self._services)
        await self.push("250 2.1.5 Recipient ok")

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 section 4.1.1.4."""
        self._expect_no_chunks()
        if arg is not None:
            raise refusal(501, "5.5.4", "Syntax: DATA", Reason.SYNTAX)
        content = self._begin_content()
        try:
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            await content.receive_data()
            await self._accept(content)
        finally:
            await self._reset()

    async def _bdat(self, line: Line) -> None:
        """RFC 3030 section 2. Whatever the answer, the chunk is read: what stands in it is never a command.

        A chunk that was refused has spoilt its transaction: what is left of the message is refused with it.
        """
        chunk = parse_bdat(line.data) if line.fault is None else None
        if chunk is None:
            raise Disconnect(refusal(501, "5.5.4", "Syntax: BDAT size [LAST]", Reason.SYNTAX))
        try:
            await self._chunk(chunk)
        finally:
            if chunk.last or self._transaction is None:
                await self._reset()

    async def _chunk(self, chunk: Chunk) -> None:
        try:
            content = self._content_of_chunks()
        except Exception as error:
            self._spoilt = from_error(error)
            await self._discard(chunk.size)
            raise
        await content.receive_chunk(chunk)
        if chunk.last:
            await self._accept(content)
        elif content.refusal is not None:
            content.result = content.refusal.reason
            raise content.refusal
        else:
            await self.push(f"250 2.0.0 {chunk.size} octets received")

    def _content_of_chunks(self) -> Content:
        if self._spoilt is not None:
            raise self._spoilt
        self._require_tls()
        return self._content or self._begin_content()

    async def _discard(self, size: int) -> None:
        terms = self._host.terms
        limit = terms.largest_message(terms.connectors_for(self._arrival()))
        if size > overrun(limit):
            raise Disconnect(too_large(limit))
        await discard(self, size)

    def _expect_no_chunks(self) -> None:
        if self._content is not None or self._spoilt is not None:
            raise refusal(503, "5.5.1", "BDAT has begun: go on with it, or send RSET", Reason.SYNTAX)

    def _begin_content(self) -> Content:
        """The content of the open transaction. Raises :class:`gateway.errors.Refusal` where none can come now."""
        transaction = self._transaction
        if transaction is None:
            raise refusal(503, "5.5.1", "Send MAIL first", Reason.SYNTAX)
        if not transaction.recipients:
            raise refusal(503, "5.5.1", "No valid recipients", Reason.SYNTAX)
        self._raise_if_unready()
        hold = self._services.memory.hold(transaction.mail.size, transaction.terms.limits.memory)
        self._messages += 1
        content = Content(self, transaction, self._services, hold, self._host.commits, self._log)
        self._content = content
        return content

    async def _accept(self, content: Content) -> None:
        try:
            await content.accept()
        except Refusal as refused:
            content.result = refused.reason
            await self._refuse(refused)

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


def _line_refusal(fault: LineFault) -> Refusal:
    if fault is LineFault.TOO_LONG:
        return refusal(500, "5.5.2", "Command line is too long", Reason.SYNTAX)
    return refusal(500, "5.5.2", f"Syntax error: {fault} in a command", Reason.SYNTAX)
