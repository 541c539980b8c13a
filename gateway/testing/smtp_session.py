"""One conversation with a client: the state of an SMTP session, each answer passed through the peer's script.

RFC 5321 (SMTP), 3207 (STARTTLS), 1870 (SIZE), 6152 (8BITMIME), 6531 (SMTPUTF8), 3461 (DSN), 2920 (PIPELINING),
3030 (CHUNKING), 4954 (AUTH).
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from typing import TYPE_CHECKING, Protocol

from gateway.testing.smtp_behaviour import Action, Behaviour, Manner, Step
from gateway.testing.smtp_body import Body, DotScanner
from gateway.testing.smtp_record import Command, Message, Recipient, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from gateway.clock import Clock
    from gateway.testing.smtp_channel import Channel

__all__ = ["Conversation", "Host"]

_PATH = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^">])*)>(?: +(.*))?\Z', re.DOTALL)
_MAX_COMMAND = 2048

#: Which extension must be offered for a parameter to be taken.
_PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "MAIL": {
        "SIZE": "SIZE",
        "BODY": "8BITMIME",
        "SMTPUTF8": "SMTPUTF8",
        "RET": "DSN",
        "ENVID": "DSN",
        "AUTH": "AUTH",
        "REQUIRETLS": "REQUIRETLS",
    },
    "RCPT": {"NOTIFY": "DSN", "ORCPT": "DSN"},
}

#: Commands that must end a group (RFC 2920 section 3.1; RFC 3207 section 4.2): nothing may follow before their
#: answer.
_LAST_IN_GROUP = frozenset({"EHLO", "HELO", "DATA", "QUIT", "NOOP", "STARTTLS", "AUTH"})


class Host(Protocol):
    """What a conversation needs of its peer."""

    hostname: str
    keep_bodies: bool

    @property
    def behaviour(self) -> Behaviour:
        """What is done at the moment."""
        ...

    def choose(self, step: Step, session: Session, addresses: Sequence[str] = ()) -> Action:
        """The action that the script has for this occurrence of ``step``."""
        ...

    def tls_context(self, session: Session) -> ssl.SSLContext | None:
        """The context for a handshake in ``session``; None where there is no certificate."""
        ...

    def deliver(self, message: Message, *, accepted: bool) -> None:
        """Take a message that came to its end."""
        ...


class _HangUpError(Exception):
    """Ends the conversation from our side."""

    def __init__(self, *, reset: bool = False) -> None:
        self.reset = reset


class Conversation:
    """Runs one session on ``channel`` and writes it into ``session``; :meth:`run` returns when it is over."""

    def __init__(self, host: Host, session: Session, channel: Channel, clock: Clock) -> None:
        self._host = host
        self._session = session
        self._channel = channel
        self._clock = clock
        self._command: Command | None = None
        self._sender: str | None = None
        self._sender_parameters: Mapping[str, str] = {}
        self._recipients: list[Recipient] = []
        self._chunks: Body | None = None
        self._verbs: Mapping[str, Callable[[str], Awaitable[None]]] = {
            "EHLO": self._ehlo,
            "HELO": self._helo,
            "STARTTLS": self._starttls,
            "AUTH": self._auth,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "BDAT": self._bdat,
            "RSET": self._rset,
            "NOOP": self._noop,
            "QUIT": self._quit,
        }

    async def run(self, *, overloaded: bool = False) -> None:
        """The whole session, from the greeting to the end of the connection."""
        session, reset = self._session, False
        try:
            if self._host.behaviour.tls.implicit:
                await self._handshake()
            if overloaded:
                await self._refuse(421, "4.3.2 Too many connections")
            await self._answer("greeting", 220, f"{self._host.hostname} ESMTP")
            while (line := await self._channel.line()) is not None:
                await self._obey(line)
            session.ended = session.ended or "client"
        except _HangUpError as end:
            session.ended, reset = session.ended or "peer", end.reset
        except ConnectionError:
            session.ended = session.ended or "client"
        finally:
            await self._channel.close(reset=reset)
            session.closed = self._clock.monotonic()

    # One command

    async def _obey(self, line: bytes) -> None:
        text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        verb, _, rest = text.partition(" ")
        verb = verb.upper()
        self._command = Command(verb, text, self._channel.under_tls, self._clock.monotonic())
        self._session.commands.append(self._command)
        self._note_faults(verb, line)
        if len(line) > _MAX_COMMAND or not line.endswith(b"\n"):
            await self._refuse(500, "5.5.6 Line too long", close=True)
        elif verb in self._verbs:
            await self._verbs[verb](rest)
        else:
            await self._refuse(500, "5.5.2 Command not recognised")

    def _note_faults(self, verb: str, line: bytes) -> None:
        faults = self._session.faults
        if not line.endswith(b"\r\n"):
            faults.append(f"{verb}: line ends without CRLF")
        if b"\r" in line[:-2] or b"\0" in line:
            faults.append(f"{verb}: CR or NUL inside the line")
        if self._channel.buffer:
            if not self._host.behaviour.has("PIPELINING"):
                faults.append(f"{verb}: more was sent before the answer, PIPELINING was not offered")
            elif verb in _LAST_IN_GROUP:
                faults.append(f"{verb}: more was sent before the answer, this command must be the last of a group")

    async def _refuse(self, code: int, text: str, *, close: bool = False) -> None:
        """Answer what the state of the session demands; no script changes that."""
        if self._command is not None:
            self._command.reply = code
        await self._channel.send(_lines(code, text))
        if close or code == 421:
            raise _HangUpError

    async def _answer(
        self,
        step: Step,
        code: int,
        text: str,
        *,
        addresses: Sequence[str] = (),
        effect: Callable[[int | None], None] | None = None,
        trailer: bytes = b"",
    ) -> bool:
        """Answer a command that is in order, as the script says; True where the command took effect.

        ``effect`` is called with the code that is about to be sent (None for none) once the answer is known to
        be positive, before it is sent: what a client was told is true. ``trailer`` goes out in one piece with
        the reply.
        """
        action = self._host.choose(step, self._session, addresses)
        if action.manner is Manner.DROP:
            await self._clock.sleep(action.delay)
            raise _HangUpError(reset=action.reset)
        planned = _planned_code(action, code)
        positive = planned is not None and 200 <= planned < 400
        sent = None if action.manner in {Manner.DROP_AFTER, Manner.STALL} else planned
        if effect is not None and (positive or step == "dot"):
            effect(sent if positive else planned)
        if action.delay:
            await self._clock.sleep(action.delay)
        if self._command is not None:
            self._command.reply = sent
        await self._deliver_reply(action, planned or code, action.text if action.code else text, trailer)
        if action.close or planned == 421:
            raise _HangUpError(reset=action.reset)
        return positive

    async def _deliver_reply(self, action: Action, code: int, text: str, trailer: bytes) -> None:
        channel = self._channel
        match action.manner:
            case Manner.DROP_AFTER:
                raise _HangUpError(reset=action.reset)
            case Manner.STALL:
                await channel.absorb()
                self._session.ended = "client"
                raise _HangUpError
            case Manner.RAW:
                await channel.send(action.raw)
            case Manner.ENDLESS:
                line = f"{code}-{action.text or text}\r\n".encode("utf-8", "surrogateescape")
                piece = line if action.pause else line * 200
                while True:
                    await channel.send(piece)
                    await self._clock.sleep(action.pause)
            case Manner.DRIP:
                await channel.send_slowly(_lines(code, text) + trailer, action.pause)
            case _:
                await channel.send(_lines(code, text) + trailer)

    # Hello and TLS

    async def _ehlo(self, name: str) -> None:
        behaviour = self._host.behaviour
        keywords = list(behaviour.extensions)
        if self._offers_starttls():
            keywords.append("STARTTLS")
        if behaviour.credentials is not None and self._channel.under_tls:
            keywords.append("AUTH PLAIN")
        text = "\n".join([f"{self._host.hostname} greets {name}", *keywords])
        await self._answer("ehlo", 250, text, effect=lambda _: self._greeted(name))

    async def _helo(self, name: str) -> None:
        await self._answer("helo", 250, self._host.hostname, effect=lambda _: self._greeted(name))

    def _greeted(self, name: str) -> None:
        self._session.helo = name
        self._forget_mail()

    def _offers_starttls(self) -> bool:
        has_certificate = self._host.tls_context(self._session) is not None
        tls = self._host.behaviour.tls
        return has_certificate and not self._channel.under_tls and tls.offers(self._session.index)

    async def _starttls(self, rest: str) -> None:
        if rest:
            await self._refuse(501, "5.5.4 STARTTLS takes no parameter")
        elif self._channel.under_tls:
            await self._refuse(503, "5.5.1 TLS is active already")
        elif not self._offers_starttls():
            await self._refuse(502, "5.5.1 STARTTLS is not offered")
        else:
            inject = self._host.behaviour.tls.inject
            if await self._answer("starttls", 220, "2.0.0 Ready to start TLS", trailer=inject):
                if late := self._host.behaviour.tls.inject_late:
                    await self._clock.sleep(0.02)  # so that it travels in a segment of its own
                    await self._channel.send_clear(late)
                await self._handshake()

    async def _handshake(self) -> None:
        """What the behaviour says in place of the handshake, or the handshake (RFC 3207 section 4.2: forget all)."""
        session, channel = self._session, self._channel
        if channel.buffer and not channel.buffer.startswith(b"\x16\x03"):
            session.faults.append("clear text was sent between STARTTLS and the handshake")
        manner = self._host.behaviour.tls.handshake_of(session.index)
        if manner != "complete":
            session.handshake_error = f"scripted: {manner}"
            if manner != "stall":
                await channel.absorb_handshake(at_most=1)
            if manner == "drop":
                raise _HangUpError
            if manner == "garbage":
                await channel.send_clear(b"\x00\xff this is no TLS record\r\n" * 4)
            await channel.absorb_handshake()
            session.ended = "client"
            raise _HangUpError
        context = self._host.tls_context(session)
        if context is None:
            raise ValueError("a peer with implicit TLS needs a certificate")
        try:
            await channel.handshake(context)
        except (ssl.SSLError, ConnectionError) as error:
            session.handshake_error = str(error)
            channel.send_no_more()
            await channel.absorb_handshake()  # a client that goes on in clear is to be seen
            session.ended = "client"
            raise _HangUpError from None
        session.helo = session.authenticated = None
        self._forget_mail()

    async def _auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        credentials = self._host.behaviour.credentials
        if credentials is None:
            await self._refuse(502, "5.5.1 AUTH is not offered")
        elif not self._channel.under_tls:
            await self._refuse(538, "5.7.11 Encryption required")
        elif mechanism.upper() != "PLAIN":
            await self._refuse(504, "5.5.4 Mechanism not known")
        else:
            if not initial:
                await self._channel.send(b"334 \r\n")
                line = await self._channel.line()
                initial = (line or b"").decode("ascii", "replace").strip()
            user, password = _plain_credentials(initial)
            if (user, password) == credentials:
                await self._answer("auth", 235, "2.7.0 Welcome", effect=lambda _: self._authenticated(user))
            else:
                await self._refuse(535, "5.7.8 Authentication failed")

    def _authenticated(self, user: str) -> None:
        self._session.authenticated = user

    # The mail transaction

    async def _mail(self, rest: str) -> None:
        behaviour = self._host.behaviour
        if self._session.helo is None:
            await self._refuse(503, "5.5.1 Say EHLO first")
        elif behaviour.require_tls and not self._channel.under_tls:
            await self._refuse(530, "5.7.0 Must issue a STARTTLS command first")
        elif behaviour.require_auth and self._session.authenticated is None:
            await self._refuse(530, "5.7.0 Authentication required")
        elif self._sender is not None:
            await self._refuse(503, "5.5.1 There is a sender already")
        elif (path := await self._path("MAIL", "FROM:", rest)) is not None:
            sender, parameters = path
            limit, size = behaviour.size_limit, parameters.get("SIZE", "0")
            if limit is not None and size.isdigit() and int(size) > limit:
                await self._refuse(552, "5.3.4 Message too big")
            elif not sender.isascii() and "SMTPUTF8" not in parameters:
                await self._refuse(553, "5.6.7 Address needs SMTPUTF8")
            else:

                def effect(_: int | None) -> None:
                    self._sender, self._sender_parameters = sender, parameters

                await self._answer("mail", 250, "2.1.0 Sender ok", addresses=[sender], effect=effect)

    async def _rcpt(self, rest: str) -> None:
        if self._sender is None:
            await self._refuse(503, "5.5.1 MAIL first")
        elif (path := await self._path("RCPT", "TO:", rest)) is not None:
            address, parameters = path
            if not address:
                await self._refuse(501, "5.1.3 No recipient")
            elif not address.isascii() and "SMTPUTF8" not in self._sender_parameters:
                await self._refuse(553, "5.6.7 Address needs SMTPUTF8")
            else:
                recipient = Recipient(address, parameters)
                await self._answer(
                    "rcpt",
                    250,
                    "2.1.5 Recipient ok",
                    addresses=[address],
                    effect=lambda _: self._recipients.append(recipient),
                )

    async def _path(self, verb: str, keyword: str, rest: str) -> tuple[str, dict[str, str]] | None:
        """The address and the parameters; None where they were refused."""
        if rest[: len(keyword)].upper() != keyword:
            await self._refuse(501, f"5.5.4 Syntax: {verb} {keyword}<address>")
            return None
        argument = rest[len(keyword) :]
        if argument.startswith(" "):
            self._session.faults.append(f"{verb}: space after {keyword}")
        match = _PATH.match(argument.strip(" "))
        if match is None:
            await self._refuse(501, "5.1.7 Malformed address" if verb == "MAIL" else "5.1.3 Malformed address")
            return None
        parameters: dict[str, str] = {}
        for word in (match.group(2) or "").split():
            name, _, value = word.partition("=")
            extension = _PARAMETERS[verb].get(name.upper())
            if extension is None or not self._extension_offered(extension):
                self._session.faults.append(f"{verb}: parameter {name} was not offered")
                await self._refuse(555, f"5.5.4 Parameter {name} is not known")
                return None
            parameters[name.upper()] = value
        return match.group(1), parameters

    def _extension_offered(self, extension: str) -> bool:
        behaviour = self._host.behaviour
        return behaviour.credentials is not None if extension == "AUTH" else behaviour.has(extension)

    def _forget_mail(self) -> None:
        self._sender = None
        self._sender_parameters = {}
        self._recipients = []
        self._chunks = None

    @property
    def _addresses(self) -> list[str]:
        return [recipient.address for recipient in self._recipients]

    async def _data(self, rest: str) -> None:
        if rest:
            await self._refuse(501, "5.5.4 DATA takes no parameter")
        elif self._chunks is not None:
            await self._refuse(503, "5.5.1 BDAT was begun")
        elif self._sender is None:
            await self._refuse(503, "5.5.1 MAIL first")
        elif not self._recipients:
            await self._refuse(554, "5.5.1 No valid recipients")
        elif await self._answer("data", 354, "End data with <CR><LF>.<CR><LF>", addresses=self._addresses):
            body = await self._read_data()
            self._command = Command(".", ".", self._channel.under_tls, self._clock.monotonic())
            self._session.commands.append(self._command)
            await self._finish(body, chunked=False)

    async def _read_data(self) -> Body:
        behaviour, channel = self._host.behaviour, self._channel
        body = Body(keep=self._host.keep_bodies)
        scanner = DotScanner(body, lax=behaviour.lax_end_of_data)
        channel.recording = self._host.keep_bodies
        try:
            while True:
                piece = bytes(channel.buffer)
                channel.buffer.clear()
                rest = scanner.feed(piece)
                if rest is not None:
                    channel.buffer += rest
                    return body
                if behaviour.drop_body_after is not None and body.wire_size >= behaviour.drop_body_after:
                    raise _HangUpError
                if behaviour.read_pause:
                    await self._clock.sleep(behaviour.read_pause)
                if not await channel.fill():
                    self._session.faults.append("the connection ended inside a body")
                    raise ConnectionResetError
        finally:
            channel.recording = True

    async def _bdat(self, rest: str) -> None:
        match = re.fullmatch(r"(\d{1,12})( +LAST)?", rest, re.IGNORECASE)
        if match is None or not self._host.behaviour.has("CHUNKING"):
            await self._refuse(501 if match is None else 502, "5.5.4 Syntax: BDAT size [LAST]", close=True)
            return
        body = self._chunks or Body(keep=self._host.keep_bodies)
        await self._read_chunk(body, int(match.group(1)))
        if self._sender is None or not self._recipients:
            await self._refuse(503, "5.5.1 MAIL and RCPT first")
        elif match.group(2):
            await self._finish(body, chunked=True)
        else:

            def effect(_: int | None) -> None:
                self._chunks = body

            await self._answer(
                "bdat", 250, f"2.0.0 {body.size} octets so far", addresses=self._addresses, effect=effect
            )

    async def _read_chunk(self, body: Body, size: int) -> None:
        self._channel.recording = self._host.keep_bodies
        try:
            while size:
                piece = await self._channel.exactly(size)
                if piece is None:
                    self._session.faults.append("the connection ended inside a chunk")
                    raise ConnectionResetError
                body.add(piece, piece)
                size -= len(piece)
        finally:
            self._channel.recording = True

    async def _finish(self, body: Body, *, chunked: bool) -> None:
        """Judge the message that has ended, keep it, answer."""
        session = self._session
        declared = self._sender_parameters.get("BODY", "").upper() in {"8BITMIME", "BINARYMIME"}
        session.faults += body.faults(eight_bit_declared=declared)
        limit = self._host.behaviour.size_limit
        if limit is not None and body.size > limit:
            self._forget_mail()
            await self._refuse(552, "5.3.4 Message too big")
            return

        def effect(code: int | None) -> None:
            self._host.deliver(self._message(body, code, chunked=chunked), accepted=code is None or code < 400)
            self._forget_mail()

        session.messages += 1
        await self._answer(
            "dot",
            250,
            f"2.0.0 Ok, taken as {session.index}.{session.messages}",
            addresses=self._addresses,
            effect=effect,
        )

    def _message(self, body: Body, code: int | None, *, chunked: bool) -> Message:
        return Message(
            sender=self._sender or "",
            sender_parameters=self._sender_parameters,
            recipients=tuple(self._recipients),
            raw=bytes(body.raw),
            wire=bytes(body.wire),
            size=body.size,
            sha256=body.sha256,
            tls=self._session.tls,
            session=self._session,
            chunked=chunked,
            reply=code,
        )

    # The rest

    async def _rset(self, _rest: str) -> None:
        await self._answer("rset", 250, "2.0.0 Ok", effect=lambda _: self._forget_mail())

    async def _noop(self, _rest: str) -> None:
        await self._answer("noop", 250, "2.0.0 Ok")

    async def _quit(self, _rest: str) -> None:
        self._session.ended = "quit"
        await self._answer("quit", 221, "2.0.0 Bye")
        raise _HangUpError


def _planned_code(action: Action, usual: int) -> int | None:
    """The code that the client will understand; None where garbage has none."""
    if action.manner is Manner.RAW:
        return int(action.raw[:3]) if re.match(rb"[2345]\d\d[ -]", action.raw) else None
    return usual if action.code is None else action.code


def _lines(code: int, text: str) -> bytes:
    """A reply on the wire (RFC 5321 section 4.2.1)."""
    *first, last = text.split("\n")
    lines = [f"{code}-{line}" for line in first] + [f"{code} {last}".rstrip()]
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape")


def _plain_credentials(encoded: str) -> tuple[str, str]:
    """User and password of AUTH PLAIN (RFC 4616); two empty ones where they cannot be read."""
    try:
        _, user, password = base64.b64decode(encoded, validate=True).decode().split("\0")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password
