"""How a notice or a code fared: what its session attained, whether it was refused, whether it came back later.

In the transaction that ends the attempt. A notice that was accepted makes the deposit ``deposited``; one that failed
for good, or came back, bounces the message: its content goes, and its sender is told. Where a notice or a code
travelled with less protection than the message asks of it, an access phrase is made then and sent to the sender.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, select, update

from gateway.config.model import Settings
from gateway.errors import QueueError
from gateway.mail.address import Address
from gateway.mail.bounce import Bounce, read_bounce
from gateway.mail.dsn import Action
from gateway.mail.envelope import Recipient
from gateway.mail.protection import Assurance
from gateway.portal.deposits import (
    Deposit,
    by_id,
    by_notice,
    by_verp,
    change,
    fresh,
    mark_noticed,
    set_phrase,
    set_values,
)
from gateway.portal.letters import about_phrase
from gateway.portal.names import Names
from gateway.portal.observer import PortalObserver
from gateway.portal.phrases import new_phrase
from gateway.queue.accept import insert_message
from gateway.queue.notices import NoticeEntry, is_wanted, read_header, report_now
from gateway.queue.outcomes import Recorded
from gateway.queue.records import Claim, Outcome, message_from_row, recipient_from_row, silent_kinds
from gateway.queue.states import State, StateEvent
from gateway.queue.system_mail import letters
from gateway.store.schema import messages, portal_codes, recipients
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = ["Aftermath", "end_deposit", "make_phrase"]

_NOT_TOLD = (
    "The message was kept for the recipient in the secure portal, but the notice about it could not be delivered. "
    "Nothing of the message was sent, and it is not kept any more."
)


@dataclass(frozen=True, slots=True)
class Aftermath:
    """Follows up on mail of the portal. ``settings`` gives the current ones at each use."""

    store: Store
    settings: Callable[[], Settings]
    names: Names
    observer: PortalObserver

    @classmethod
    def over(cls, store: Store, settings: Callable[[], Settings], observer: PortalObserver | None = None) -> Aftermath:
        """For this store's secret."""
        return cls(store, settings, Names(store.loop_secret), observer or PortalObserver())

    async def after(self, claim: Claim, outcomes: Sequence[Outcome]) -> Callable[[Transaction, Recorded], None] | None:
        """What is to be done in the transaction that writes these outcomes; None where it is no mail of the portal.

        Raises :class:`StoreError`.
        """
        mail = claim.message.id

        def look(connection: Connection) -> tuple[Deposit | None, bool]:
            code = connection.execute(select(portal_codes.c.id).where(portal_codes.c.mail == mail)).first()
            return by_notice(connection, mail), code is not None

        deposit, is_code = await self.store.read(look)
        if deposit is None and not is_code:
            return None
        header = b""
        if deposit is not None and any(outcome.event is not StateEvent.DELIVERED for outcome in outcomes):
            header = await read_header(self.store, deposit.message, deposit.n)

        def done(transaction: Transaction, recorded: Recorded) -> None:
            for outcome in outcomes:
                if is_code:
                    self._code_ended(transaction, mail, outcome)
                else:
                    self._notice_ended(transaction, mail, outcome, recorded.states[outcome.n], header)

        return done

    def _notice_ended(self, transaction: Transaction, mail: str, outcome: Outcome, state: State, header: bytes) -> None:
        deposit = by_notice(transaction.connection, mail)
        if deposit is None:  # it came back already, or was read
            return
        if state is State.DELIVERED:
            attained = _attained(outcome)
            mark_noticed(transaction, deposit, attained)
            transaction.after_commit(partial(self.observer.happened, "noticed"))
            if attained < deposit.needs and deposit.phrase is None:
                self._phrase(transaction, deposit, attained)
        elif state in (State.DROPPED, State.BOUNCED, State.EXPIRED, State.REJECTED):
            self.failed(transaction, deposit, outcome.error or "the notice was refused", header)

    def _code_ended(self, transaction: Transaction, mail: str, outcome: Outcome) -> None:
        if outcome.event is not StateEvent.DELIVERED:
            return
        attained = _attained(outcome)
        transaction.connection.execute(
            update(portal_codes).where(portal_codes.c.mail == mail).values(assurance=str(attained))
        )
        row = transaction.connection.execute(
            select(portal_codes.c.message, portal_codes.c.n).where(portal_codes.c.mail == mail)
        ).first()
        if row is None or row.message is None:
            return
        deposit = by_id(transaction.connection, row.message, row.n)
        if deposit is not None and deposit.phrase is None and attained < deposit.needs:
            self._phrase(transaction, deposit, attained)

    def _phrase(self, transaction: Transaction, deposit: Deposit, attained: Assurance) -> None:
        make_phrase(transaction, self.store, self.settings(), self.names, deposit, attained)
        transaction.after_commit(partial(self.observer.happened, "phrase_made"))

    def failed(self, transaction: Transaction, deposit: Deposit, reason: str, header: bytes) -> None:
        """The recipient will not hear of it: the message bounces. Nothing where it was read, recalled or has ended."""
        set_values(transaction, deposit, notice=None)
        if deposit.state in (State.NOTICING, State.DEPOSITED):
            entry = NoticeEntry(recipient_of(transaction, deposit), "5.1.1", _NOT_TOLD, reason)
            end_deposit(transaction, self.store, self.settings(), deposit, StateEvent.NOTICE_FAIL, entry, header)
            transaction.after_commit(partial(self.observer.happened, "notice_failed"))

    async def received(self, verp: str, data: bytes) -> Callable[[Transaction], None] | None:
        """A message arrived at the address of a notice; ``data`` is its beginning. What to do as it is accepted.

        None where it says nothing about a delivery. Raises :class:`StoreError`.
        """
        bounce = read_bounce(data)
        if bounce is None:
            return None
        deposit = await self.store.read(lambda connection: by_verp(connection, verp))
        if deposit is None or deposit.ends is None:
            return None
        header = await read_header(self.store, deposit.message, deposit.n) if bounce.final else b""
        return partial(self._came_back, verp=verp, bounce=bounce, header=header)

    def _came_back(self, transaction: Transaction, verp: str, bounce: Bounce, header: bytes) -> None:
        deposit = by_verp(transaction.connection, verp)
        if deposit is None or deposit.ends is None:
            return
        facts = {"status": bounce.status, "reason": bounce.reason, "final": bounce.final}
        transaction.event("notice_came_back", facts, message=deposit.message, n=deposit.n)
        if bounce.final:
            with suppress(QueueError):
                self.failed(transaction, fresh(transaction, deposit.message, deposit.n), bounce.reason, header)


def end_deposit(  # noqa: PLR0917  as make_notice
    transaction: Transaction,
    store: Store,
    settings: Settings,
    deposit: Deposit,
    event: StateEvent,
    entry: NoticeEntry,
    header: bytes,
) -> State:
    """End it with a notice of failure to its sender, and shred. Raises :class:`QueueError` where it has ended."""
    row = transaction.connection.execute(select(messages).where(messages.c.id == deposit.message)).one()
    message, _ = message_from_row(row, (entry.recipient,))
    can_tell = message.envelope.sender is not None and message.kind not in silent_kinds
    after = change(transaction, deposit, event, {"error": entry.diagnostic or entry.explanation}, can_tell=can_tell)
    if can_tell and is_wanted(entry.recipient, Action.FAILED):
        notice = report_now(store, settings, transaction.now, message, Action.FAILED, [entry], header)
        insert_message(transaction, store, notice, expire=settings.delivery.retry.expire)
    store.withdraw(transaction, deposit.message, deposit.n)
    return after


def recipient_of(transaction: Transaction, deposit: Deposit) -> Recipient:
    """The envelope recipient of a deposit."""
    return recipient_from_row(
        transaction.connection.execute(
            select(recipients).where(recipients.c.message == deposit.message, recipients.c.n == deposit.n)
        ).one()
    )


def make_phrase(
    transaction: Transaction, store: Store, settings: Settings, names: Names, deposit: Deposit, attained: Assurance
) -> None:
    """Make an access phrase and send it to the sender; what is kept is a keyed digest."""
    phrase = new_phrase()
    set_phrase(transaction, deposit, phrase_digest(names, deposit.message, deposit.n, phrase))
    if deposit.sender is None:
        return
    way = "without encryption" if attained is Assurance.NONE else f"with TLS that was only {attained}"
    asks = {"encrypted": "encryption", "verified": "a verified host", "authenticated": "an authenticated host"}
    reason = (
        f"Mail to {deposit.address} travels {way}, and this message asks for {asks.get(str(deposit.needs), 'more')}."
    )
    text = about_phrase(deposit.address, phrase, deposit.expires, reason)
    sender = Address.parse(deposit.sender)
    now = transaction.now
    home = deposit.connector
    for letter in letters(store, settings, now, [sender], text, about="phrase", connector=home, confidential=True):
        insert_message(transaction, store, letter, expire=settings.delivery.retry.expire)


def phrase_digest(names: Names, message: str, n: int, phrase: str) -> bytes:
    """What is kept of a phrase: only this store can make it, so that a stolen database is no list to guess against."""
    return names.keyed("phrase", message, str(n), phrase)


def _attained(outcome: Outcome) -> Assurance:
    """What the session that carried it has shown; nothing where it was in the clear."""
    evidence = outcome.attempts[-1].tls if outcome.attempts else None
    return Assurance.NONE if evidence is None else evidence.assurance
