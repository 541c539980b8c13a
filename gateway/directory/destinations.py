"""Which addresses found by DNS are refused as destinations: whoever writes an MX record must not choose among our own.

IANA's special-purpose registries (RFC 6890), cloud metadata services, and every IPv6 form that carries such an IPv4
address inside. Routes and the return route are the administrator's word and are not asked about.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

__all__ = ["DestinationGuard"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REFUSED_V4 = tuple(
    (ipaddress.IPv4Network(network), reason)
    for network, reason in (
        ("169.254.169.254/32", "metadata service"),
        ("100.100.100.200/32", "metadata service"),
        ("192.0.0.192/32", "metadata service"),
        ("168.63.129.16/32", "metadata service"),
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_REFUSED_V6 = tuple(
    (ipaddress.IPv6Network(network), reason)
    for network, reason in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fd00:ec2::254/128", "metadata service"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),  # protocol assignments, Teredo among them: no mail server lives there
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class DestinationGuard:
    """Says which destinations are refused. ``allow_networks`` are the administrator's exceptions."""

    def __init__(self, allow_networks: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allow_networks)

    def refusal(self, address: str) -> str | None:
        """Why this address is refused; None where it may be connected to."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return "not an IP address"
        return self._judge(ip)

    def _judge(self, ip: Address) -> str | None:
        if any(ip.version == network.version and ip in network for network in self._allowed):
            return None
        if isinstance(ip, ipaddress.IPv4Address):
            return next((reason for network, reason in _REFUSED_V4 if ip in network), None)
        reason = next((reason for network, reason in _REFUSED_V6 if ip in network), None)
        if reason is not None:
            return reason
        inside = _embedded(ip)
        for inner in inside:
            refused = self._judge(inner)
            if refused is not None:
                return f"{refused} (inside an IPv6 address)"
        return None if inside or ip in _GLOBAL_V6 else "reserved"


def _embedded(ip: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that packets to this address may end up at (RFC 4291, 3056, 6052)."""
    last = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    if ip in _NAT64 or ip in _COMPATIBLE:
        return (last,)
    return ()
