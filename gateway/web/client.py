"""Who asks: the address behind proxies that we trust, and whether the browser's way to us is encrypted.

Anybody can write ``X-Forwarded-For``. It is believed from a trusted proxy alone, and read from the right: each trusted
hop vouches for the one before it, and the first that is not trusted is the client. What stands left of that is hearsay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.config.networks import Network

__all__ = ["Client", "IpAddress", "client_of", "network_of"]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: The prefix that one customer of a network has, so that limits cannot be walked around by counting up addresses.
_PREFIX = {4: 24, 6: 64}
#: Hops that are looked at: more proxies than that stand in no row.
_MOST_HOPS = 20
#: ``address``, ``address:port``, ``[address]`` or ``[address]:port``, as proxies write a hop.
_HOP = re.compile(r"\[([0-9a-fA-F:.]+)\](?::\d{1,5})?\Z|([0-9.]+)(?::\d{1,5})?\Z|([0-9a-fA-F:.]+)\Z")


@dataclass(frozen=True, slots=True)
class Client:
    """``address`` is ``None`` where the connection has none. ``secure``: TLS from the browser on, as far as we know."""

    address: IpAddress | None
    secure: bool

    @property
    def network(self) -> str:
        """What limits count by, and the log shows: the /24 or /64; "unknown" without an address."""
        return "unknown" if self.address is None else network_of(self.address)


def network_of(address: IpAddress) -> str:
    """The /24 or /64 of an address."""
    return str(ipaddress.ip_network((address, _PREFIX[address.version]), strict=False))


def client_of(
    peer: str | None, headers: Mapping[str, Sequence[str]], *, tls: bool, trusted: Sequence[Network]
) -> Client:
    """The client of a request.

    ``peer``: who connected. ``headers``: the values of ``x-forwarded-for`` and ``x-forwarded-proto``, in order.
    ``tls``: whether the connection itself has TLS.
    """
    address = _address(peer or "")
    if address is None or not _is_in(address, trusted):
        return Client(address, tls)
    schemes = [each.strip().lower() for value in headers.get("x-forwarded-proto", ()) for each in value.split(",")]
    secure = schemes[-1] == "https" if schemes else tls
    hops = [each.strip() for value in headers.get("x-forwarded-for", ()) for each in value.split(",")]
    for hop in reversed(hops[-_MOST_HOPS:]):
        found = _hop(hop)
        if found is None:  # a proxy that hides or garbles who came: it is the last that we know
            break
        address = found
        if not _is_in(address, trusted):
            break
    return Client(address, secure)


def _hop(text: str) -> IpAddress | None:
    match = _HOP.match(text)
    return None if match is None else _address(next(group for group in match.groups() if group))


def _address(text: str) -> IpAddress | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_in(address: IpAddress, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
