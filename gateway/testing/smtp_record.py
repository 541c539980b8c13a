"""What a fake SMTP peer writes down: sessions with every byte, and the messages it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Command", "Message", "Recipient", "Session", "TlsFacts"]


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """A completed handshake: ``version`` ("TLSv1.3"), cipher name, server name asked for, client certificate (DER)."""

    version: str
    cipher: str
    sni: str | None
    client_certificate: bytes | None


@dataclass(slots=True, eq=False)
class Command:
    """A command as it came: verb in capitals, the line without its end, under TLS or not, when, the code it got.

    The end of a body counts as a command of its own, ``.``, because it is answered like one.
    ``reply`` is None while unanswered, and for good where the peer answered with garbage or not at all. ``at``
    is the peer's monotonic clock.
    """

    verb: str
    line: str
    tls: bool
    at: float
    reply: int | None = None


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient that was accepted, as written in RCPT TO, with its parameters (names in capitals)."""

    address: str
    parameters: Mapping[str, str]


@dataclass(slots=True, eq=False)
class Session:
    """One connection. ``index`` counts from 0 over the life of the peer.

    Bytes from the client stand in three places: ``clear_bytes``, ``handshake_bytes`` (all that came while a
    handshake was expected, also where it never began) and ``tls_bytes`` (decrypted). With ``keep_bodies=False``
    bodies are left out. ``faults`` lists breaches of protocol by the client. ``ended``: who closed, and how.
    """

    index: int
    client: tuple[str, int]
    opened: float
    clear_bytes: bytearray = field(default_factory=bytearray)
    handshake_bytes: bytearray = field(default_factory=bytearray)
    tls_bytes: bytearray = field(default_factory=bytearray)
    commands: list[Command] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    tls: TlsFacts | None = None
    handshake_error: str | None = None
    helo: str | None = None
    authenticated: str | None = None
    messages: int = 0
    ended: Literal["quit", "client", "peer"] | None = None
    closed: float | None = None

    @property
    def tls_version(self) -> str | None:
        """The version of TLS that was agreed on, None where there is none."""
        return self.tls.version if self.tls else None

    @property
    def sni(self) -> str | None:
        """The server name that the client asked for."""
        return self.tls.sni if self.tls else None

    @property
    def everything(self) -> bytes:
        """All bytes that came from the client, whatever the wrapping (TLS records of the handshake as they were)."""
        return bytes(self.clear_bytes + self.handshake_bytes + self.tls_bytes)

    @property
    def verbs(self) -> list[str]:
        """The verbs of the commands in order."""
        return [command.verb for command in self.commands]

    def verbs_under_tls(self, *, tls: bool) -> list[str]:
        """The verbs of the commands that came under TLS, or of those that came in clear."""
        return [command.verb for command in self.commands if command.tls == tls]


@dataclass(frozen=True, slots=True)
class Message:
    """A message that came to its end.

    ``raw`` is the body after un-stuffing, ``wire`` before, both without the line of the final dot. With
    ``keep_bodies=False`` both are empty; ``size`` and ``sha256`` always tell of ``raw``. ``reply`` is the code
    that the peer sent, None where it went away instead. ``chunked``: it came by BDAT.
    """

    sender: str
    sender_parameters: Mapping[str, str]
    recipients: tuple[Recipient, ...]
    raw: bytes
    wire: bytes
    size: int
    sha256: str
    tls: TlsFacts | None
    session: Session
    chunked: bool
    reply: int | None

    @property
    def tls_version(self) -> str | None:
        """The version of TLS that it came over, None in clear."""
        return self.tls.version if self.tls else None

    @property
    def addresses(self) -> list[str]:
        """The accepted recipients' addresses."""
        return [recipient.address for recipient in self.recipients]
