"""What goes into the queue and what comes out: values between the rooms and the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.jsontext import from_json, to_json
from gateway.mail.address import Address
from gateway.mail.attempt import Attempt
from gateway.mail.envelope import Envelope, Kind, Message, Notify, ReceivedTls, Recipient
from gateway.mail.protection import Requirement
from gateway.queue.states import State, StateEvent
from gateway.store.bodies import SealedBody
from gateway.store.writer import Transaction

__all__ = [
    "Claim",
    "ClaimedRecipient",
    "Idempotency",
    "NewMessage",
    "NewRecipient",
    "Outcome",
    "envelope_json",
    "silent_kinds",
]

#: Kinds whose failures nobody is told about (architecture: "Kinds of mail").
silent_kinds = frozenset({Kind.AUTO_REPLY, Kind.RECEIPT, Kind.DSN})


@dataclass(frozen=True, slots=True)
class NewRecipient:
    """A recipient at acceptance: its requirement, and the state it begins in."""

    recipient: Recipient
    requirement: Requirement
    state: State = State.QUEUED
    hold_until: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Digests behind X-Gateway-Idempotency-Key: what the key belongs to, and what it was used for."""

    scope: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class NewMessage:
    """Everything that one accept transaction writes about one message.

    ``facts`` become the data of its ``accepted`` event. ``signature`` is counted against replay.
    """

    message: Message
    body: SealedBody
    recipients: tuple[NewRecipient, ...]
    eight_bit: bool = False
    observed: bool = False
    system: bool = False
    parent: str | None = None
    signature: bytes | None = None
    idempotency: Idempotency | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClaimedRecipient:
    """One recipient that this worker may deliver to now. ``attempts`` counts this one."""

    n: int
    recipient: Recipient
    requirement: Requirement
    attempts: int
    expires: float
    unsure_since: float | None
    delay_notified: bool
    approvals: frozenset[str]


@dataclass(frozen=True, slots=True)
class Claim:
    """Recipients of one message at one domain, claimed together.

    ``origin`` is who takes turns with it; ``plain`` are the accepted bytes where they are still in memory from the
    accept.
    """

    message: Message
    recipients: tuple[ClaimedRecipient, ...]
    eight_bit: bool
    observed: bool
    system: bool
    parent: str | None
    origin: int
    plain: bytes | None = None

    @property
    def domain(self) -> str:
        """The recipient domain that all of them share."""
        return self.recipients[0].recipient.address.domain

    @property
    def can_tell(self) -> bool:
        """Whether there is a sender to tell about a failure."""
        return self.message.envelope.sender is not None and self.message.kind not in silent_kinds


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended for one recipient; becomes one state change with its evidence."""

    n: int
    event: StateEvent
    error: str = ""
    method: str | None = None
    decision: dict[str, Any] | None = None
    attempts: tuple[Attempt, ...] = ()
    next_attempt: float | None = None
    unsure_since: float | None = None
    delay_notified: bool | None = None
    requirement: Requirement | None = None
    hold_reason: str = ""
    hold_until: float | None = None
    possible_duplicate: bool = False
    #: What else belongs into the transaction that writes this, such as a deposit in the portal.
    also: Callable[[Transaction], None] | None = None


def envelope_json(new: NewMessage) -> str:
    """The parts of the envelope that have no column."""
    envelope = new.message.envelope
    return to_json(
        {
            "helo": envelope.helo,
            "tls": None if envelope.tls is None else envelope.tls.as_json(),
            "ret": envelope.ret,
            "envid": envelope.envid,
            "body": envelope.body,
            "smtputf8": envelope.smtputf8,
            "requiretls": envelope.requiretls,
            "protocol": envelope.protocol,
            "eight_bit": new.eight_bit,
            "total": envelope.total,
        }
    )


def message_from_row(row: Any, recipients: tuple[Recipient, ...]) -> tuple[Message, bool]:
    """The message of a ``messages`` row, and whether its body has bytes above 127."""
    data = from_json(row.envelope)
    tls = data["tls"]
    envelope = Envelope(
        sender=None if row.sender is None else Address.parse(row.sender),
        recipients=recipients,
        connector=row.connector,
        client_address=row.client,
        helo=data["helo"],
        tls=None if tls is None else ReceivedTls(tls["version"], tls["cipher"], tls["client_subject"]),
        ret=data["ret"],
        envid=data["envid"],
        body=data["body"],
        smtputf8=data["smtputf8"],
        requiretls=data["requiretls"],
        protocol=data["protocol"],
        total=data.get("total", 0),
    )
    message = Message(row.id, row.received, envelope, row.size, row.digest, Kind(row.kind))
    return message, bool(data["eight_bit"])


def recipient_from_row(row: Any) -> Recipient:
    """The envelope recipient of a ``recipients`` row."""
    notify = frozenset(Notify(word) for word in row.notify.split(",") if word)
    return Recipient(Address.parse(row.address), notify, row.orcpt)


def claimed_from_row(row: Any) -> ClaimedRecipient:
    """A claimed recipient from its row (as it is after the claim)."""
    return ClaimedRecipient(
        n=row.n,
        recipient=recipient_from_row(row),
        requirement=Requirement.from_json(from_json(row.requirement)),
        attempts=row.attempts,
        expires=row.expires,
        unsure_since=row.unsure_since,
        delay_notified=bool(row.delay_notified),
        approvals=frozenset(from_json(row.approvals)),
    )
