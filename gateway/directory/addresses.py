"""The addresses of a host that may be connected to: both families, the refused ones named."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.directory.destinations import DestinationGuard
from gateway.directory.resolver import Answer, DnsError, Resolver

__all__ = ["Family", "HostAddresses", "find_addresses", "ipv6_usable"]

#: Addresses of one host that are tried; each may cost a connect timeout.
MAX_ADDRESSES = 10

Family = Literal["ipv6", "ipv4"]

_TYPES: dict[Family, str] = {"ipv6": "AAAA", "ipv4": "A"}


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """What a host name leads to. ``refused`` holds ``address (reason)`` for destinations that are not allowed.

    ``secure``: at least one family's answer was authenticated by DNSSEC (RFC 7672 section 2.2.2 asks no more).
    ``exists`` false: there is no such host.
    """

    host: str
    addresses: tuple[str, ...]
    secure: bool
    refused: tuple[str, ...] = ()
    exists: bool = True


async def find_addresses(
    resolver: Resolver,
    host: str,
    destinations: DestinationGuard,
    families: Sequence[Family] = ("ipv6", "ipv4"),
) -> HostAddresses:
    """Look a host up, all ``families`` at once; addresses come in their order.

    A family that fails beside one with usable addresses is passed over. Raises
    :class:`gateway.directory.resolver.DnsError` where a failure leaves nothing to connect to.
    """
    found = await asyncio.gather(*(resolver.query(host, _TYPES[family]) for family in families), return_exceptions=True)
    addresses: list[str] = []
    refused: list[str] = []
    failure: DnsError | None = None
    answers: list[Answer] = []
    for answer in found:
        if isinstance(answer, DnsError):
            failure = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            answers.append(answer)
    for answer in answers:
        for record in answer.records:
            address = record.to_text()
            reason = destinations.refusal(address)
            if reason is None:
                addresses.append(address)
            else:
                refused.append(f"{address} ({reason})")
    if failure is not None and not addresses:
        raise failure
    return HostAddresses(
        host=host,
        addresses=tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES],
        secure=any(answer.secure for answer in answers),
        refused=tuple(dict.fromkeys(refused))[:MAX_ADDRESSES],
        exists=any(answer.exists for answer in answers),
    )


def ipv6_usable(address: str = "2001:4860:4860::8888") -> bool:
    """Whether the machine has an IPv6 route to the world: a UDP socket is connected, which sends nothing."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 53))
            source = str(probe.getsockname()[0])
    except OSError:
        return False
    # A route by way of a private or link-local address leads nowhere that an MX could answer from.
    return DestinationGuard().refusal(source) is None
