"""The envelope as we understood it, and the message that it belongs to.

RFC 5321 section 2.3.1; DSN parameters RFC 3461 section 4; BODY RFC 6152; SMTPUTF8 RFC 6531; REQUIRETLS RFC 8689.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.mail.address import Address

__all__ = ["Envelope", "Kind", "Message", "Notify", "ReceivedTls", "Recipient"]


class Notify(StrEnum):
    """When a sender wants to hear about a recipient (RFC 3461 section 4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class Kind(StrEnum):
    """The kinds of mail that are treated apart (architecture: "Kinds of mail")."""

    ORDINARY = "ordinary"
    CALENDAR = "calendar"
    AUTO_REPLY = "auto_reply"
    RECEIPT = "receipt"
    DSN = "dsn"
    JOURNAL = "journal"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT: the address, and its DSN parameters. ``notify`` is empty where none was given.

    ``orcpt`` is the decoded parameter, ``type;address`` (RFC 3461 section 4.2), "" where none was given.
    """

    address: Address
    notify: frozenset[Notify] = frozenset()
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class ReceivedTls:
    """The TLS facts of the session that brought the message in; goes into our Received field."""

    version: str
    cipher: str
    client_subject: str = ""

    def as_json(self) -> dict[str, Any]:
        """All fields, by their names."""
        return {"version": self.version, "cipher": self.cipher, "client_subject": self.client_subject}


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything that was said around the message.

    ``sender`` is None for the null sender ``<>``. ``smtputf8`` is computed from addresses and header fields, it is
    not the client's word. ``ret`` is "", "FULL" or "HDRS"; ``envid`` the decoded ENVID; ``body`` is 7BIT or
    8BITMIME, "" where the client said nothing. ``total``: how many recipients were given, also where ``recipients`` are
    only those of one claim; 0: not known.
    """

    sender: Address | None
    recipients: tuple[Recipient, ...]
    connector: str
    client_address: str
    helo: str
    tls: ReceivedTls | None = None
    ret: str = ""
    envid: str = ""
    body: str = ""
    smtputf8: bool = False
    requiretls: bool = False
    protocol: str = "ESMTP"
    total: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """An accepted message, without its bytes. ``id`` is a UUIDv7, ``received`` seconds since the epoch.

    ``size`` and ``digest`` (lower-case hex SHA-256) are of the accepted bytes, markers already taken out.
    """

    id: str
    received: float
    envelope: Envelope
    size: int
    digest: str
    kind: Kind = Kind.ORDINARY
