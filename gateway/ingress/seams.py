"""What ingress needs from the rest of the house: the intake behind it, a spool for bodies, metrics, DNS.

``app`` supplies the real ones; tests and tools supply small fakes. Ingress never sees the store, policy or queue.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.config.model import Connector
from gateway.errors import Refusal
from gateway.mail.address import Address
from gateway.mail.envelope import Message

__all__ = [
    "ControlHeaders",
    "IngressMetrics",
    "Intake",
    "LookupFailed",
    "LookupTxt",
    "NullMetrics",
    "Spool",
    "Submission",
]


class Spool(Protocol):
    """A sealed body in the making: what is written is encrypted before it touches a disk."""

    @property
    def size(self) -> int:
        """The number of plain bytes written so far."""
        ...

    def digest(self) -> str:
        """The lower-case hex SHA-256 of the plain bytes written so far."""
        ...

    async def write(self, data: bytes) -> None:
        """Append plain bytes. Raises :class:`gateway.errors.StoreError`."""
        ...

    async def abort(self) -> None:
        """Forget everything written. Harmless when repeated, and after the body was accepted."""
        ...


@dataclass(frozen=True, slots=True)
class ControlHeaders:
    """What the sender's system asked for in ``X-Gateway-*`` fields, which are taken out at the door.

    ``protect`` holds the method names as written, in lower case (unknown ones included); empty where the field was
    not there. ``idempotency_key`` is "" where there was none.
    """

    protect: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """A message whose last byte has arrived and whose connector has been found, ready to be made durable.

    ``message.size`` and ``message.digest`` are those of the bytes written to ``spool``, which begin with
    ``header_block`` (markers already out). ``looping`` holds the ``Address.key`` of recipients that have passed
    three times. ``violations`` is what a connector in stage ``observe`` would have refused, in words.
    ``dkim_signature`` is the SHA-256 of the signature that satisfied the ``dkim`` factor. ``eight_bit``: some byte
    of the body is above 127. ``subject`` is decoded: "" where there is none, None where it cannot be known for certain.
    ``author`` is the mailbox in From. ``user`` has logged in to hand it over; "" where nobody has.
    """

    message: Message
    connector: Connector
    header_block: bytes
    spool: Spool
    control: ControlHeaders
    looping: frozenset[str]
    violations: tuple[str, ...]
    dkim_signature: bytes | None
    eight_bit: bool
    subject: str | None
    author: Address | None = None
    user: str = ""


class Intake(Protocol):
    """Judges and keeps what ingress receives."""

    def ready(self) -> Refusal | None:
        """None while mail can be taken; else the answer: stopping, no space, store failed. Cheap, asked often."""
        ...

    def new_id(self) -> str:
        """A fresh message id (UUIDv7)."""
        ...

    async def open_spool(self, message_id: str) -> Spool:
        """A place for the body of this message. Raises :class:`gateway.errors.StoreError`."""
        ...

    def check_recipient(
        self, connectors: Sequence[Connector], sender: Address | None, recipient: Address
    ) -> Refusal | None:
        """What the policy rules on envelope and sender say at RCPT; None lets the recipient pass."""
        ...

    async def accept(self, submission: Submission) -> str:
        """Make the message durable; it is when this returns. The id to tell the client.

        Raises :class:`gateway.errors.Refusal` (policy) or :class:`gateway.errors.StoreError`.
        """
        ...


class LookupFailed(Exception):
    """A DNS question could not be answered now; asking again later may help."""


#: TXT records of a name, each with its strings joined. An empty list: there are none. Raises :class:`LookupFailed`.
LookupTxt = Callable[[str], Awaitable[Sequence[bytes]]]


class IngressMetrics(Protocol):
    """Where ingress counts. ``connector`` and ``listener`` are names out of the configuration."""

    def received(self, connector: str, result: str) -> None:
        """The end of one DATA. ``connector`` is "" where none was found.

        ``result``: ``accepted``, ``client_gone`` (accepted, but it had closed before our reply), ``incomplete`` (it
        broke off), or the reason of a refusal.
        """
        ...

    def connections(self, listener: str, change: int) -> None:
        """A connection was opened (+1) or closed (-1)."""
        ...

    def refused(self, reason: str) -> None:
        """An answer other than success; ``reason`` is one of :mod:`gateway.ingress.refusals`."""
        ...

    def softened(self) -> None:
        """A refusal that is temporary only because of its connector's stage: people should look before it is not."""
        ...


class NullMetrics:
    """Counts nothing."""

    def received(self, connector: str, result: str) -> None:
        """Nothing."""

    def connections(self, listener: str, change: int) -> None:
        """Nothing."""

    def refused(self, reason: str) -> None:
        """Nothing."""

    def softened(self) -> None:
        """Nothing."""
