"""Mail of our own as messages in the queue: from the null sender, outside policy, by the safest way home.

Mail to a connector's own people goes by its ``return_route``; everything else by MX, at least encrypted. DSNs are made
in ``notices``, letters to people here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from gateway.config.model import Settings
from gateway.config.names import matches_sender
from gateway.mail.address import Address
from gateway.mail.announcements import Text
from gateway.mail.envelope import Envelope, Kind, Message, Notify, Recipient
from gateway.mail.ids import uuid7
from gateway.mail.letter import Letter, build_letter
from gateway.mail.protection import Assurance, Method, Requirement
from gateway.queue.records import NewMessage, NewRecipient
from gateway.store.bodies import SealedBody
from gateway.store.store import Store

__all__ = ["home_of", "letters", "new_id", "return_requirement", "system_message"]


def new_id(now: float) -> str:
    """A fresh message id."""
    return uuid7(now, os.urandom(10))


def return_requirement(settings: Settings, connector: str, *, confidential: bool = False) -> Requirement:
    """The protection of mail back to a connector's senders.

    ``confidential``: it says what nobody else may read, such as a reply or an access phrase; then it is encrypted also
    where the way back asks for nothing.
    """
    route = next((known.return_route for known in settings.connectors if known.name == connector), None)
    if route is not None and route.tls is Assurance.NONE:
        if confidential:
            return Requirement(methods=frozenset({Method.TLS}), tls=Assurance.ENCRYPTED, digest="system")
        return Requirement(methods=frozenset({Method.PLAIN}), tls=Assurance.NONE, digest="system")
    level = Assurance.ENCRYPTED if route is None else route.tls
    return Requirement(methods=frozenset({Method.TLS}), tls=level, digest="system")


def home_of(settings: Settings, address: Address) -> str:
    """The connector whose ``return_route`` leads to this address: one that names its domain; "" where none does."""
    for connector in settings.connectors:
        named = [pattern for pattern in connector.senders if pattern != "*"]
        if connector.return_route is not None and matches_sender(named, address):
            return connector.name
    return ""


def system_message(
    settings: Settings,
    body: SealedBody,
    now: float,
    to: Sequence[Address],
    connector: str,
    *,
    eight_bit: bool,
    parent: str | None,
    facts: dict[str, str],
    confidential: bool = False,
) -> NewMessage:
    """A message of our own, ready for a transaction. ``connector`` says whose way back it takes.

    ``parent`` is the message that it is about; None where it is about none: then nobody is alarmed when it is lost.
    """
    requirement = return_requirement(settings, connector, confidential=confidential)
    recipients = tuple(Recipient(address, frozenset({Notify.NEVER})) for address in to)
    envelope = Envelope(
        sender=None,
        recipients=recipients,
        connector=connector,
        client_address="",
        helo=settings.hostname,
        smtputf8=not all(address.is_ascii for address in to),
        protocol="",
    )
    return NewMessage(
        message=Message(body.message, now, envelope, body.size, body.digest, Kind.DSN),
        body=body,
        recipients=tuple(NewRecipient(recipient, requirement) for recipient in recipients),
        eight_bit=eight_bit,
        system=True,
        parent=parent,
        facts=dict(facts),
    )


def letters(
    store: Store,
    settings: Settings,
    now: float,
    to: Sequence[Address],
    text: Text,
    *,
    about: str,
    parent: str | None = None,
    connector: str | None = None,
    confidential: bool = False,
) -> Iterator[NewMessage]:
    """The same letter for each way home; ``about`` goes into its event. ``connector``: this way and no other.

    ``confidential``: see :func:`return_requirement`.
    """
    subject, blocks = text
    ways: dict[str, list[Address]] = {}
    for address in to:
        ways.setdefault(home_of(settings, address) if connector is None else connector, []).append(address)
    for way, addresses in ways.items():
        letter = Letter(new_id(now), tuple(addresses), subject, blocks, settings.postmaster, settings.hostname, now)
        data = build_letter(letter)
        body = store.sealed(letter.id, data)
        yield system_message(
            settings,
            body,
            now,
            addresses,
            way,
            eight_bit=not data.isascii(),
            parent=parent,
            facts={"letter": about},
            confidential=confidential,
        )
