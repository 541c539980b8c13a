"""The portal as its pages see it: every method is one step, durable where it changes something.

What somebody may not see is answered like what is not there: unknown, foreign, expired and recalled look the same.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from sqlalchemy import Connection, select

from gateway.clock import Clock
from gateway.config.model import Settings
from gateway.errors import QueueError
from gateway.jsontext import from_json
from gateway.mail.address import Address, AddressError
from gateway.mail.edits import Edits
from gateway.mail.envelope import Envelope, Kind, Message, Notify, Recipient
from gateway.portal import codes, sessions
from gateway.portal.aftermath import make_phrase, phrase_digest
from gateway.portal.codes import CodeAsked
from gateway.portal.counts import Limit, count, is_reached
from gateway.portal.deposits import Deposit, by_address, by_handle, by_id, by_typed, mark_opened
from gateway.portal.letters import Face, face_of
from gateway.portal.names import Names, handle_of, normal_typed
from gateway.portal.observer import PortalObserver
from gateway.portal.phrases import normal_phrase
from gateway.portal.replies import Reply, ReplyWriter
from gateway.portal.sessions import Session
from gateway.queue.accept import insert_message
from gateway.queue.records import NewMessage, NewRecipient
from gateway.queue.system_mail import new_id, return_requirement
from gateway.store.schema import recipients
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = ["Entry", "Mailbox", "PortalObserver", "SignedIn"]

_log = structlog.get_logger()

#: Looks for typed codes from one network; tries at a phrase, for one deposit and from one network; replies.
_TYPED_LOOKS: Final = Limit("typed code", 20, 900.0)
_PHRASES: Final = Limit("phrase", 5, 3600.0)
_PHRASES_NETWORK: Final = Limit("phrase network", 20, 3600.0)
_REPLIES: Final = Limit("reply", 20, 3600.0)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A code was right: the value of the session's cookie, and the deposit whose page asked for it."""

    cookie: str
    deposit: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A deposit as its recipient may see it: ``open`` where this sign-in is enough, else a phrase is asked for."""

    deposit: Deposit
    face: Face
    open: bool
    edits: Edits


@dataclass(slots=True)
class Mailbox:
    """Steps over a store. ``settings`` gives the current settings at each use."""

    store: Store
    settings: Callable[[], Settings]
    clock: Clock
    observer: PortalObserver = field(default_factory=PortalObserver)
    _names: Names = field(init=False)

    def __post_init__(self) -> None:
        self._names = Names(self.store.loop_secret)

    # -- finding ------------------------------------------------------------------------------------------------------

    def face(self, deposit: Deposit) -> Face:
        """The organisation that a deposit comes from."""
        domain = "" if deposit.sender is None else Address.parse(deposit.sender).domain
        return face_of(self.settings(), domain)

    async def landing(self, token: str) -> Deposit | None:
        """What a link is about; None where there is nothing to read (any more). No side effect."""
        found = await self.store.read(lambda connection: by_handle(connection, handle_of(token)))
        return found if found is not None and found.readable(self.clock.time()) else None

    async def find_typed(self, text: str, network: str) -> str | None:
        """The link's token for a code that was typed; None where there is none, or too many were tried."""
        typed = normal_typed(text)

        def job(transaction: Transaction) -> list[Deposit]:
            if is_reached(transaction.connection, transaction.now, (_TYPED_LOOKS, network)):
                return []
            count(transaction, (_TYPED_LOOKS, network))
            return by_typed(transaction.connection, typed) if typed else []

        found = [deposit for deposit in await self.store.write(job) if deposit.readable(self.clock.time())]
        return self._names.token(found[0].message, found[0].n) if found else None

    def token(self, deposit: Deposit) -> str:
        """What stands in its link."""
        return self._names.token(deposit.message, deposit.n)

    # -- signing in ---------------------------------------------------------------------------------------------------

    async def ask_code(self, deposit: Deposit, browser: str, network: str) -> CodeAsked:
        """Mail a code for this browser to the recipient of a deposit."""
        settings, face = self.settings(), self.face(deposit)
        to = Address.parse(deposit.address)

        def job(transaction: Transaction) -> CodeAsked:
            return codes.ask(
                transaction, self.store, settings, self._names, face, to, _browser(browser), network,
                (deposit.message, deposit.n),
            )  # fmt: skip

        asked: CodeAsked = await self.store.write(job)
        self.observer.happened("code_limited" if asked.limited else "code_asked")
        return asked

    async def ask_code_for(self, address: str, browser: str, network: str) -> CodeAsked:
        """Mail a code to an address that somebody typed, where anything lies there for it; the answer is the same."""
        settings = self.settings()
        try:
            to = Address.parse(address.strip())
        except AddressError:
            to = None

        def job(transaction: Transaction) -> CodeAsked:
            there = [] if to is None else by_address(transaction.connection, to.key)
            live = [deposit for deposit in there if deposit.readable(transaction.now)]
            if to is None or not live:
                return codes.decline(network, address.strip().casefold()[:320], transaction)
            face = self.face(live[0])
            to_now = Address.parse(live[0].address)
            return codes.ask(
                transaction, self.store, settings, self._names, face, to_now, _browser(browser), network, None
            )

        asked: CodeAsked = await self.store.write(job)
        self.observer.happened("code_limited" if asked.limited else "code_asked")
        return asked

    async def reference(self, browser: str) -> str:
        """The reference of the newest code that this browser can enter; "" where it has none."""
        now = self.clock.time()
        return await self.store.read(lambda connection: codes.waiting(connection, _browser(browser), now))

    async def enter_code(self, text: str, browser: str, network: str, before: str | None) -> SignedIn | bool:
        """Sign in by a code. False: it is wrong, or over. True: too many wrong ones; wait.

        ``before`` is the cookie of the session that this browser has: it ends.
        """
        code = codes.normal_code(text)

        def job(transaction: Transaction) -> SignedIn | bool:
            taken = codes.take(transaction, self._names, _browser(browser), code, network)
            if isinstance(taken, bool):
                return taken
            return SignedIn(sessions.begin(transaction, taken, before), taken.deposit)

        result: SignedIn | bool = await self.store.write(job)
        self.observer.happened("code_wrong" if isinstance(result, bool) else "signed_in")
        return result

    async def session(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None where there is none, or it is over. Noted as used."""
        if cookie is None:
            return None
        now = self.clock.time()
        found = await self.store.read(lambda connection: sessions.load(connection, cookie, now))
        if found is not None and sessions.is_stale(found, now):
            await self.store.write(lambda transaction: sessions.touch(transaction, found))
            return replace(found, seen=now)
        return found

    async def peek(self, cookie: str | None) -> Session | None:
        """The same for a page that has no side effect: it is not noted as used."""
        if cookie is None:
            return None
        now = self.clock.time()
        return await self.store.read(lambda connection: sessions.load(connection, cookie, now))

    async def sign_out(self, cookie: str) -> None:
        """End a session."""
        await self.store.write(lambda transaction: sessions.end(transaction, cookie))

    # -- reading ------------------------------------------------------------------------------------------------------

    async def inbox(self, session: Session) -> list[Entry]:
        """What can be read at this address, newest first."""
        now = self.clock.time()

        def load(connection: Connection) -> list[tuple[Deposit, str | None]]:
            found = [deposit for deposit in by_address(connection, session.key) if deposit.readable(now)]
            wanted = {deposit.message for deposit in found}
            requirement = select(recipients.c.message, recipients.c.n, recipients.c.requirement)
            rows = connection.execute(requirement.where(recipients.c.message.in_(wanted)))
            known = {(row.message, row.n): row.requirement for row in rows}
            return [(deposit, known.get((deposit.message, deposit.n))) for deposit in found]

        return [self._entry(session, *found) for found in await self.store.read(load)]

    async def entry(self, session: Session, message: str, n: int) -> Entry | None:
        """One of them; None where it is not this reader's, or cannot be read any more."""

        def load(connection: Connection) -> tuple[Deposit | None, str | None]:
            requirement = select(recipients.c.requirement).where(recipients.c.message == message, recipients.c.n == n)
            return by_id(connection, message, n), connection.execute(requirement).scalar()

        deposit, requirement = await self.store.read(load)
        if deposit is None or deposit.key != session.key or not deposit.readable(self.clock.time()):
            return None
        return self._entry(session, deposit, requirement)

    def _entry(self, session: Session, deposit: Deposit, requirement: str | None) -> Entry:
        edits = Edits.from_json(from_json(requirement or "{}").get("transforms"))
        return Entry(deposit, self.face(deposit), session.may_read(deposit), edits)

    async def ask_phrase(self, session: Session, entry: Entry) -> None:
        """See to it that there is an access phrase, where this sign-in is not enough: it goes to the sender."""
        deposit = entry.deposit
        if entry.open or deposit.phrase is not None:
            return

        def job(transaction: Transaction) -> None:
            now = by_id(transaction.connection, deposit.message, deposit.n)
            if now is not None and now.phrase is None and now.readable(transaction.now):
                make_phrase(transaction, self.store, self.settings(), self._names, now, session.level)

        await self.store.write(job)

    async def enter_phrase(self, session: Session, entry: Entry, text: str, network: str) -> bool | None:
        """Whether the words are right; None where too many were wrong, and it has to wait."""
        deposit = entry.deposit
        limits = ((_PHRASES, deposit.id), (_PHRASES_NETWORK, network))

        def job(transaction: Transaction) -> bool | None:
            if is_reached(transaction.connection, transaction.now, *limits):
                return None
            given = phrase_digest(self._names, deposit.message, deposit.n, normal_phrase(text))
            facts = {"network": network}
            if deposit.phrase is None or not hmac.compare_digest(deposit.phrase, given):
                count(transaction, *limits)
                transaction.event("phrase_wrong", facts, message=deposit.message, n=deposit.n)
                return False
            sessions.note_phrase(transaction, session, deposit)
            transaction.event("phrase_entered", facts, message=deposit.message, n=deposit.n)
            return True

        right: bool | None = await self.store.write(job)
        return right

    async def open(self, session: Session, entry: Entry, network: str) -> bool:
        """Its reader sees the body from now on: written down before any of it is shown.

        False where it cannot be read any more. Raises :class:`StoreError`; then nothing may be shown.
        """
        deposit = entry.deposit
        assert entry.open, "a sign-in that is not enough opens nothing"
        facts = {"network": network, "level": str(session.level)}
        try:
            first = await self.store.write(
                lambda transaction: mark_opened(transaction, deposit.message, deposit.n, facts)
            )
        except QueueError:
            return False
        self.observer.happened("opened" if first else "viewed")
        if first:
            self.observer.opened(max(self.clock.time() - deposit.made, 0.0))
        return True

    async def body(self, entry: Entry) -> AsyncIterator[bytes]:
        """The accepted bytes, without what policy changes (``entry.edits``). Raises :class:`StoreCorrupt`."""
        async with aclosing(self.octets(entry, 0, entry.deposit.size)) as pieces:
            async for piece in pieces:
                yield piece

    async def octets(self, entry: Entry, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Some of them. Raises :class:`StoreCorrupt`."""
        assert entry.open, "a sign-in that is not enough opens nothing"
        deposit = entry.deposit
        whole = start == 0 and end >= deposit.size
        pieces = (
            self.store.body(deposit.message, deposit.n)  # which looks at the digest of the whole, too
            if whole
            else self.store.body_range(deposit.message, start, end, deposit.n)
        )
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def note(self, entry: Entry, event: str, facts: dict[str, object]) -> None:
        """An event of the chain about a deposit, such as a download."""
        deposit = entry.deposit
        await self.store.write(
            lambda transaction: transaction.event(event, dict(facts), message=deposit.message, n=deposit.n)
        )

    # -- answering ----------------------------------------------------------------------------------------------------

    async def may_reply(self, session: Session) -> bool:
        """Whether this reader has answers left."""
        now = self.clock.time()
        return not await self.store.read(lambda connection: is_reached(connection, now, (_REPLIES, session.key)))

    def begin_reply(self, entry: Entry, subject: str, message_id: str, references: str) -> ReplyWriter:
        """A reply to the sender, to be written and then given to :meth:`send_reply`. Raises :class:`StoreFull`."""
        deposit = entry.deposit
        assert entry.open, "a sign-in that is not enough answers nothing"
        assert deposit.sender is not None, "mail without a sender never comes to the portal"
        self.store.space.look()
        self.store.space.require()
        now = self.clock.time()
        number = new_id(now)
        reply = Reply(
            number, self.settings().hostname, entry.face, Address.parse(deposit.address),
            Address.parse(deposit.sender), subject, message_id, references, now,
        )  # fmt: skip
        return ReplyWriter(reply, self.store.spool(number))

    async def send_reply(self, session: Session, entry: Entry, writer: ReplyWriter) -> None:
        """Send what was written, durably. Raises :class:`StoreError`."""
        settings, deposit = self.settings(), entry.deposit
        body = await writer.finish()
        to = writer.reply.to
        recipient = Recipient(to, frozenset({Notify.NEVER}))
        envelope = Envelope(None, (recipient,), deposit.connector, "", settings.hostname, smtputf8=not to.is_ascii)
        requirement = return_requirement(settings, deposit.connector, confidential=True)
        new = NewMessage(
            message=Message(body.message, writer.reply.now, envelope, body.size, body.digest, Kind.ORDINARY),
            body=body,
            recipients=(NewRecipient(recipient, requirement),),
            system=True,
            parent=deposit.message,
            facts={"letter": "reply"},
        )

        def job(transaction: Transaction) -> None:
            count(transaction, (_REPLIES, session.key))
            insert_message(transaction, self.store, new, expire=settings.delivery.retry.expire)
            transaction.event("replied", {"message": body.message}, message=deposit.message, n=deposit.n)

        await self.store.write(job)
        writer.disown()
        self.observer.happened("replied")


def _browser(cookie: str) -> bytes:
    """What is kept of the cookie that tells browsers apart."""
    return hashlib.sha256(b"portal browser\0" + cookie.encode("utf-8", "replace")).digest()
