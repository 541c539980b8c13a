"""A message while its bytes arrive, between ``354`` and the answer to the final dot. No socket in here.

1. The header block is collected, up to a limit, and read strictly.
2. From names the author; the connectors are judged (a dkim factor may have to wait for the end).
3. Loops are counted, control fields read, markers taken out.
4. A spool is opened; the remaining header block and then the body go into it as they come, and - where a
   signature could matter - through the body hashers. Keys are looked up meanwhile.
5. At the end a waiting dkim factor is decided, and everything becomes a :class:`Submission`.

The first thing that is wrong ends the work: :attr:`Reception.refusal` is set, the spool is gone, and what still comes
is thrown away, so that the session stays in step with its client.
"""

from __future__ import annotations

import contextlib

from gateway.config.model import Connector
from gateway.errors import Refusal
from gateway.ingress.connectors import MessageFacts, Verdict, judge
from gateway.ingress.data import HeaderCollector, Violation
from gateway.ingress.dkim_check import DkimCheck
from gateway.ingress.loop import looping_recipients
from gateway.ingress.markers import ControlError, control_headers, parse_block
from gateway.ingress.refusals import Reason, from_error, refusal
from gateway.ingress.seams import ControlHeaders, Spool, Submission
from gateway.ingress.terms import Services
from gateway.ingress.transaction import Transaction, not_allowed
from gateway.mail.author import AuthorError, author
from gateway.mail.envelope import Envelope, Kind, Message
from gateway.mail.headers import Field, HeaderError, has_non_ascii, subject_of
from gateway.mail.kind import CalendarScan, kind_of

__all__ = ["Reception"]


class Reception:
    """One message arriving. Feed it clean bytes, then :meth:`finish`; :meth:`abort` where that never comes."""

    def __init__(self, transaction: Transaction, services: Services) -> None:
        self._transaction = transaction
        self._services = services
        self._header = HeaderCollector(transaction.terms.limits.header_size)
        self._size_limit = transaction.size_limit
        self._arrived = 0
        self._fields: tuple[Field, ...] = ()
        self._facts: MessageFacts | None = None
        self._verdict: Verdict | None = None
        self._dkim: DkimCheck | None = None
        self._control = ControlHeaders()
        self._looping: frozenset[str] = frozenset()
        self._block = b""
        self._subject: str | None = ""
        self._kept: tuple[Field, ...] = ()
        self._calendar = CalendarScan(())
        self._spool: Spool | None = None
        self._eight_bit = False
        self._separator = 2  # bytes of the empty line still to come, which the body hash leaves out
        self.refusal: Refusal | None = None

    @property
    def connector(self) -> str:
        """The name of the connector that takes the message; "" where none does, or not yet."""
        connector = self._verdict.connector if self._verdict is not None else None
        return connector.name if connector is not None else ""

    async def feed(self, piece: bytes) -> None:
        """The next clean bytes. Never raises: what is wrong becomes :attr:`refusal`."""
        if self.refusal is not None:
            return
        try:
            await self._feed(piece)
        except Exception as error:  # noqa: BLE001 - whatever it is, the session has to read on to the end of data
            await self._fail(error)

    async def void(self, violation: Violation) -> None:
        """The scanner found something that makes the message void: that is the answer, whatever else is wrong.

        So the answer does not depend on how the message was cut into pieces on its way.
        """
        if self.refusal is None or self.refusal.reason != Reason.SMUGGLING:
            text = f"Message holds a {violation}, which is not allowed"
            await self._fail(refusal(550, "5.6.0", text, Reason.SMUGGLING, detail=str(violation)))

    async def give_up(self, refused: Refusal) -> None:
        """There is a reason outside of the message why it cannot be taken now."""
        if self.refusal is None:
            await self._fail(refused)

    async def finish(self) -> Submission:
        """Everything has arrived. Raises :class:`gateway.errors.Refusal`; the spool is then gone."""
        if self.refusal is not None:
            raise self.refusal
        try:
            return await self._finish()
        except Exception as error:  # noqa: BLE001 - the client gets a coded answer whatever happens
            raise await self._fail(error) from None

    async def abort(self) -> None:
        """Forget the message; harmless when repeated."""
        if self._dkim is not None:
            self._dkim.cancel()
        if self._spool is not None:
            with contextlib.suppress(Exception):
                await self._spool.abort()

    # -- steps -----------------------------------------------------------------------------------------------------

    async def _fail(self, error: Exception) -> Refusal:
        if not isinstance(error, Refusal):
            transaction = self._transaction
            self._services.log.error(
                "reception_failed", message=transaction.id, session=transaction.client.session_id, exc_info=error
            )
        self.refusal = refused = from_error(error)
        await self.abort()
        return refused

    async def _feed(self, piece: bytes) -> None:
        self._arrived += len(piece)
        if not self._header.complete:
            # How much may come depends on whose message it is, which the header block tells; it has its own limit.
            body = self._header.feed(piece)
            self._check_header_size()
            if body is None:
                return
            await self._read_header()
            piece = body
        self._check_size()
        if piece:
            await self._body(piece)

    async def _finish(self) -> Submission:
        if not self._header.complete:
            self._header.finish()
            self._check_header_size()
            await self._read_header()
        await self._settle_dkim()
        verdict, spool = self._verdict, self._spool
        assert verdict is not None
        assert verdict.connector is not None
        assert spool is not None
        self._services.rates.take(verdict.connector)
        return Submission(
            message=self._message(verdict.connector, spool),
            connector=verdict.connector,
            header_block=self._block,
            spool=spool,
            control=self._control,
            looping=self._looping,
            violations=verdict.violations,
            dkim_signature=self._dkim.satisfied_by if self._dkim is not None and verdict.used_dkim else None,
            eight_bit=self._eight_bit,
            subject=self._subject,
            author=self._facts.author if self._facts is not None else None,
            user=self._transaction.client.arrival.user,
        )

    async def _read_header(self) -> None:
        try:
            self._fields = parse_block(self._header.block)
            who = author(self._fields)
        except (HeaderError, AuthorError) as error:
            raise refusal(550, "5.6.0", f"Message is malformed: {error}", Reason.MALFORMED) from None
        facts = self._facts = MessageFacts(self._fields, self._transaction.mail.sender, who)
        self._decide(judge(self._transaction.candidates, facts), facts)
        self._looping = looping_recipients(
            self._services.loop_key, self._fields, [each.address for each in self._transaction.recipients]
        )
        try:
            self._control = control_headers(self._fields)
        except ControlError as error:
            raise refusal(550, "5.6.0", f"Message is malformed: {error}", Reason.MALFORMED) from None
        self._spool = await self._services.intake.open_spool(self._transaction.id)
        kept = self._transaction.terms.markers.strip(self._fields)
        self._block = b"".join([field.raw for field in kept])
        self._subject = subject_of(kept)
        self._kept = kept
        self._calendar = CalendarScan(kept)
        await self._write(self._block)

    def _decide(self, without_dkim: Verdict, facts: MessageFacts) -> None:
        """Keep the verdict, or put it off where a valid signature could change it."""
        domains = {domain for each in self._transaction.candidates for domain in each.connector.accept.dkim}
        if domains and without_dkim != judge(
            self._transaction.candidates,
            MessageFacts(facts.fields, facts.sender, facts.author, frozenset({facts.author.domain})),
        ):
            check = DkimCheck.begin(facts, domains, self._services)
            if check is not None:
                self._dkim = check
                return
        self._conclude(without_dkim)

    def _conclude(self, verdict: Verdict) -> None:
        if verdict.connector is None:
            raise not_allowed(verdict.refused, self._transaction.id)
        self._verdict = verdict
        self._size_limit = verdict.connector.limits.message_size
        self._check_size()

    async def _settle_dkim(self) -> None:
        if self._dkim is None:
            return
        assert self._facts is not None
        valid = await self._dkim.settle()
        facts = self._facts
        verdict = judge(self._transaction.candidates, MessageFacts(facts.fields, facts.sender, facts.author, valid))
        if verdict.connector is None and self._dkim.unknown:
            raise refusal(451, "4.7.5", "The key of a signature cannot be looked up now", Reason.DKIM_TEMPORARY)
        self._conclude(verdict)

    async def _body(self, piece: bytes) -> None:
        self._eight_bit = self._eight_bit or not piece.isascii()
        if self._calendar.wanted:
            self._calendar.feed(piece)
        await self._write(piece)
        if self._dkim is not None:
            skip = min(self._separator, len(piece))
            self._separator -= skip
            self._dkim.body(piece[skip:])

    async def _write(self, piece: bytes) -> None:
        assert self._spool is not None
        if piece:
            await self._spool.write(piece)

    def _check_header_size(self) -> None:
        if self._header.overflow:
            raise refusal(552, "5.3.4", "Message header is too large", Reason.TOO_LARGE, detail="header")

    def _check_size(self) -> None:
        if self._arrived > self._size_limit:
            text = f"Message size exceeds {self._size_limit} bytes"
            raise refusal(552, "5.3.4", text, Reason.TOO_LARGE)

    def _message(self, connector: Connector, spool: Spool) -> Message:
        transaction = self._transaction
        mail, client = transaction.mail, transaction.client
        # Not because of a recipient's address: each is looked at where it is delivered to, and must not ask of the
        # others' hosts what only its own needs.
        smtputf8 = has_non_ascii(self._block) or not (mail.sender is None or mail.sender.is_ascii)
        # RFC 3848, RFC 6531 section 4.3: how it came, for our Received field.
        protocol = ("UTF8SMTP" if mail.smtputf8 else "ESMTP") if client.extended else "SMTP"
        if client.tls is not None and client.extended:
            protocol += "S"
        if client.arrival.user and client.extended:
            protocol += "A"
        envelope = Envelope(
            sender=mail.sender,
            recipients=tuple(transaction.recipients),
            connector=connector.name,
            client_address=str(client.arrival.address),
            helo=client.helo,
            tls=client.tls,
            ret=mail.ret,
            envid=mail.envid,
            body=mail.body,
            smtputf8=smtputf8,
            protocol=protocol,
            total=len(transaction.recipients),
        )
        declared = frozenset(Kind(name) for name in connector.kinds)
        kind = kind_of(self._kept, mail.sender, declared, self._calendar.found)
        return Message(transaction.id, self._services.clock.time(), envelope, spool.size, spool.digest(), kind)
