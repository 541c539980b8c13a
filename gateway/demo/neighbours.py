"""The neighbourhood of the demo's gateway: a resolver, an authority, and recipients' hosts of every kind, on loopback.

Each host has an address of its own out of 127.0.0.0/8 and all listen on one port, as real ones do on 25. On Linux these
addresses need no set-up and no root.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from gateway.errors import GatewayError
from gateway.testing import (
    CA,
    OK,
    Behaviour,
    ByAddress,
    Certificate,
    DnsServer,
    SmtpPeer,
    delay,
    free_port,
    reply,
    self_signed,
)

__all__ = ["HOME", "NEIGHBOURS", "Neighbour", "Papers", "Town", "kinds"]

HOME = "clinic-example.mail.protection.example"
"""The host that plays Microsoft 365 where bounces come back to: the sender's own."""


class Papers(Enum):
    """What a host shows in the TLS handshake."""

    GOOD = "a certificate of the authority that the gateway trusts, for its own name"
    SELF_SIGNED = "a certificate that nobody vouches for"
    OTHER_NAME = "a good certificate, but another host's"
    EXPIRED = "a certificate whose time is over"
    NONE = "no TLS at all"


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A domain and its mail host ``mx.DOMAIN``. ``signed``: DNSSEC vouches for the name of the host."""

    domain: str
    is_: str
    papers: Papers = Papers.GOOD
    behaviour: Behaviour = field(default_factory=Behaviour)
    signed: bool = False

    @property
    def host(self) -> str:
        """The name of its mail host."""
        return f"mx.{self.domain}"

    def certificate(self, ca: CA) -> Certificate | None:
        """What it shows, made by ``ca`` where anybody made it."""
        match self.papers:
            case Papers.GOOD:
                return ca.issue(self.host)
            case Papers.SELF_SIGNED:
                return self_signed(self.host)
            case Papers.OTHER_NAME:
                return ca.issue("mx.elsewhere.example")
            case Papers.EXPIRED:
                return ca.expired(self.host)
            case Papers.NONE:
                return None


NEIGHBOURS = (
    Neighbour(
        domain="hospital.example",
        is_="good certificate, DNSSEC",
        signed=True,
        behaviour=Behaviour(rcpt=ByAddress({"gone@hospital.example": reply(550, "5.1.1 No such user")})),
    ),
    Neighbour(domain="lab.example", is_="good certificate"),
    Neighbour(domain="selfsigned.example", is_="self-made certificate", papers=Papers.SELF_SIGNED),
    Neighbour(domain="wrongname.example", is_="borrowed certificate", papers=Papers.OTHER_NAME),
    Neighbour(domain="expired.example", is_="certificate out of date", papers=Papers.EXPIRED),
    Neighbour(
        domain="greylist.example",
        is_="says: come again later",
        behaviour=Behaviour(rcpt=[reply(451, "4.7.1 Greylisted, please come again"), OK]),
    ),
    Neighbour(domain="slow.example", is_="takes its time", behaviour=Behaviour(greeting=delay(1.5), dot=delay(1.5))),
    Neighbour(domain="notls.example", is_="has no TLS", papers=Papers.NONE),
    Neighbour(domain="village.example", is_="has no TLS", papers=Papers.NONE),
)
"""Who lives there. Beside them there is ``nomail.example``, which says by DNS that it takes no mail (RFC 7505)."""

_NO_MAIL = "nomail.example"
#: The answers of the resolver may be kept so long; short, because a demo is.
_TTL = 60


def kinds(neighbours: Iterable[Neighbour]) -> dict[str, str]:
    """What each domain is, in a few words."""
    return {each.domain: each.is_ for each in neighbours} | {_NO_MAIL: "DNS says: no mail here"}


class Town:
    """All of them at work, as an async context manager. ``home`` is the sender's own host, where bounces end."""

    def __init__(self, neighbours: Sequence[Neighbour] = NEIGHBOURS) -> None:
        self.neighbours = tuple(neighbours)
        self.ca = CA("Demo Root")
        self.peers: dict[str, SmtpPeer] = {}
        self._addresses = {name: f"127.0.0.{number}" for number, name in enumerate(self._hosts(), 2)}
        self._stack = AsyncExitStack()

    def _hosts(self) -> list[str]:
        return [HOME, *(each.host for each in self.neighbours)]

    async def __aenter__(self) -> Self:
        """Open all. Raises :class:`GatewayError` where this machine lacks the addresses."""
        _require(self._addresses.values())
        self.port = free_port(*self._addresses.values())
        async with self._stack:
            self.dns = await self._stack.enter_async_context(DnsServer(self._zone(), ttl=_TTL))
            self.home = await self._open(HOME, self.ca.issue(HOME), Behaviour())
            for each in self.neighbours:
                self.peers[each.domain] = await self._open(each.host, each.certificate(self.ca), each.behaviour)
                if each.signed:
                    self.dns.flag(each.domain, "secure", subtree=True)
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open(self, host: str, certificate: Certificate | None, behaviour: Behaviour) -> SmtpPeer:
        peer = SmtpPeer(self._addresses[host], self.port, certificate=certificate, behaviour=behaviour, hostname=host)
        self._stack.push_async_callback(peer.stop)
        await peer.start()
        return peer

    def _zone(self) -> str:
        lines = [f"{host}. A {address}" for host, address in self._addresses.items()]
        lines += [f"{each.domain}. MX 10 {each.host}." for each in self.neighbours]
        return "\n".join([*lines, f"clinic.example. MX 10 {HOME}.", f"{_NO_MAIL}. MX 0 .", ""])


def _require(addresses: Iterable[str]) -> None:
    """See that loopback has these addresses."""
    for address in addresses:
        with socket.socket() as probe:
            try:
                probe.bind((address, 0))
            except OSError:
                raise GatewayError(
                    f"the demo needs loopback addresses from 127.0.0.2 on, and this machine has no {address}; "
                    "Linux has them by itself, elsewhere add each one, such as: sudo ifconfig lo0 alias 127.0.0.2"
                ) from None
