"""What a session is opened to and what it must show: values, usable as keys for the reuse of connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.clock import Clock
from gateway.config.outbound import Timeouts
from gateway.delivery.contexts import ClientContexts
from gateway.delivery.trust import Trust
from gateway.mail.protection import Assurance

__all__ = ["Environment", "Target", "TlsPolicy"]


@dataclass(frozen=True, slots=True)
class Target:
    """One address of one host. ``names``: those that the certificate may carry; empty means ``host``.

    ``source`` is the local address to connect from; None leaves it to the system.
    """

    host: str
    address: str
    port: int = 25
    names: tuple[str, ...] = ()
    source: str | None = None

    @property
    def reference_names(self) -> tuple[str, ...]:
        """The names to match the certificate against."""
        return self.names or (self.host,)


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """What the session must show before mail is sent, and how TLS is begun.

    ``starttls``: ``must``; ``try`` (opportunistic: goes on in clear where it is not offered or refused); ``never``.
    ``implicit``: TLS from the first byte, in place of STARTTLS. ``host_authenticated``: the host's name is one that
    an attacker on the DNS path could not have chosen. ``spki``: lower-case hex SHA-256 of the keys that are right.
    ``client_certificate``: paths of certificate and key.

    Raises ``ValueError`` for a requirement that this way of beginning TLS could not enforce.
    """

    require: Assurance = Assurance.ENCRYPTED
    starttls: Literal["must", "try", "never"] = "must"
    host_authenticated: bool = False
    spki: frozenset[str] = frozenset()
    client_certificate: tuple[str, str] | None = None
    implicit: bool = False

    def __post_init__(self) -> None:
        if self.require > Assurance.NONE and self.starttls != "must" and not self.implicit:
            raise ValueError(f"assurance {self.require} needs STARTTLS, not {self.starttls!r}")


@dataclass(frozen=True, slots=True)
class Environment:
    """What all sessions of this process share. ``hostname`` is the name that we give in EHLO."""

    hostname: str
    clock: Clock
    trust: Trust
    contexts: ClientContexts = field(default_factory=ClientContexts)
    timeouts: Timeouts = field(default_factory=Timeouts)
