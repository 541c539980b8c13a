"""A delivery's step into the portal: the deposit and its notice, in the transaction that ends the attempt.

Nothing is copied: the accepted bytes are sealed already. A deposit is a key to them for one recipient, and a row. What
policy changes in the message is changed when it is read, by the requirement that stands in the recipient's row.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config.model import Settings
from gateway.mail.address import Address
from gateway.mail.envelope import Envelope, Kind, Message, Notify, Recipient
from gateway.mail.protection import Assurance, Method, Requirement
from gateway.portal.deposits import insert_deposit
from gateway.portal.letters import Mail, Stamp, build_notice, face_of
from gateway.portal.names import Names
from gateway.protect.choose import NO_PORTAL
from gateway.queue.accept import insert_message
from gateway.queue.records import NewMessage, NewRecipient
from gateway.queue.system_mail import new_id
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = ["OUTWARD", "Depositor", "needs_of", "outward", "portal_obstacle"]

#: The protection of notices and codes: the strongest TLS that the peer offers. What it attained is written down, and
#: decides what they are worth; they hold no content, and may go to a domain without TLS, where portals are needed most.
OUTWARD = Requirement(methods=frozenset({Method.PLAIN}), tls=Assurance.NONE, digest="portal")


def needs_of(settings: Settings, requirement: Requirement) -> Assurance:
    """What the session that carries a code must reach for the code alone to open this message."""
    asked = requirement.tls if Method.TLS in requirement.methods else Assurance.ENCRYPTED
    return max(settings.portal.code_assurance, asked)


def portal_obstacle(settings: Settings, sender: Address | None) -> str:
    """Why nothing of this sender can lie in the portal; "" where it can."""
    if settings.portal.url is None:
        return NO_PORTAL
    if sender is None:
        return "it has no sender to answer for it"
    return ""


def outward(
    store: Store,
    settings: Settings,
    stamp: Stamp,
    to: Address,
    mail: Mail,
    *,
    about: str,
    parent: str | None,
    verp: str,
) -> NewMessage:
    """A mail of ours to a recipient, ready for a transaction. ``verp``: where bounces come back to; "": to nobody."""
    body = store.sealed(stamp.id, mail.data)
    local = settings.local
    sender = Address.parse(f"{local.notices}+{verp}@{local.domain}") if verp and local.domain is not None else None
    recipient = Recipient(to, frozenset({Notify.NEVER}))
    envelope = Envelope(
        sender=sender,
        recipients=(recipient,),
        connector="",
        client_address="",
        helo=settings.hostname,
        smtputf8=not to.is_ascii,
        protocol="",
    )
    return NewMessage(
        message=Message(stamp.id, stamp.now, envelope, body.size, body.digest, Kind.DSN),
        body=body,
        recipients=(NewRecipient(recipient, OUTWARD),),
        system=True,
        parent=parent,
        facts={"letter": about},
    )


@dataclass(frozen=True, slots=True)
class Depositor:
    """Makes deposits in the transactions of others."""

    store: Store
    names: Names

    @classmethod
    def over(cls, store: Store) -> Depositor:
        """For this store's secret."""
        return cls(store, Names(store.loop_secret))

    def deposit(
        self,
        transaction: Transaction,
        settings: Settings,
        message: Message,
        n: int,
        recipient: Address,
        requirement: Requirement,
    ) -> None:
        """The rows of a deposit and its notice; the state of the recipient is the caller's. Raises ``StoreCorrupt``."""
        now = transaction.now
        expires = now + settings.portal.expires
        stamp = Stamp(new_id(now), settings.hostname, now)
        notice = self._notice(settings, message, n, recipient, expires, stamp)
        insert_message(transaction, self.store, notice, expire=settings.delivery.retry.expire)
        insert_deposit(
            transaction,
            self.store,
            self.names,
            message.id,
            n,
            recipient.key,
            expires=expires,
            needs=needs_of(settings, requirement),
            notice=stamp.id,
        )

    def remind(
        self,
        transaction: Transaction,
        settings: Settings,
        message: Message,
        n: int,
        recipient: Address,
        expires: float,
        *,
        reminder: bool = True,
    ) -> str:
        """Another notice; its id. What becomes of it changes nothing unless the caller writes it down."""
        stamp = Stamp(new_id(transaction.now), settings.hostname, transaction.now)
        notice = self._notice(settings, message, n, recipient, expires, stamp, reminder=reminder)
        insert_message(transaction, self.store, notice, expire=settings.delivery.retry.expire)
        return stamp.id

    def _notice(
        self,
        settings: Settings,
        message: Message,
        n: int,
        recipient: Address,
        expires: float,
        stamp: Stamp,
        *,
        reminder: bool = False,
    ) -> NewMessage:
        sender = message.envelope.sender
        assert sender is not None, "automatic mail never comes to the portal"
        face = face_of(settings, sender.domain)
        mail = build_notice(face, self.names, message.id, n, recipient, str(sender), expires, stamp, reminder=reminder)
        verp = self.names.verp(message.id, n)
        about = "reminder" if reminder else "notice"
        return outward(self.store, settings, stamp, recipient, mail, about=about, parent=message.id, verp=verp)
