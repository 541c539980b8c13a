"""The header of the PROXY protocol, version 2 (haproxy's proxy-protocol.txt, section 2.2), read without any I/O.

Only what TCP over IPv4 or IPv6 needs is taken; everything else is malformed. What follows the addresses (TLV records)
is checked for its form, and not looked at.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from gateway.ingress.connectors import IpAddress

__all__ = ["LONGEST", "ProxyError", "ProxyHeader", "parse_header"]

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16
#: The longest header that is taken, all in all: addresses need 36 octets, the rest is records that nobody reads here.
LONGEST = 2048
_LOCAL, _PROXY = 0x20, 0x21
#: Family and protocol: how many octets an address has, of which two are followed by two ports.
_ADDRESSES = {0x11: 4, 0x21: 16}


class ProxyError(Exception):
    """This is no header that can be taken; the message says why."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A header: whose connection it is - None where it is the proxy's own - and how many octets it had."""

    client: IpAddress | None
    size: int


def parse_header(octets: bytes) -> ProxyHeader | None:
    """The header that a connection begins with; None while it is not all there. Raises :class:`ProxyError`."""
    if not octets.startswith(SIGNATURE[: len(octets)]):
        raise ProxyError("no PROXY header of version 2")
    if len(octets) < _FIXED:
        return None
    command, family = octets[12], octets[13]
    size = _FIXED + int.from_bytes(octets[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise ProxyError(f"version and command 0x{command:02x}")
    if size > LONGEST:
        raise ProxyError(f"a header of {size} octets")
    if command == _PROXY and family not in _ADDRESSES:
        raise ProxyError(f"address family and protocol 0x{family:02x}")
    if len(octets) < size:
        return None
    if command == _LOCAL:
        return ProxyHeader(None, size)  # what follows is to be skipped, whatever it is
    length = _ADDRESSES[family]
    records = _FIXED + 2 * length + 4
    if size < records:
        raise ProxyError("addresses are cut short")
    _check_records(octets[records:size])
    return ProxyHeader(_address(octets[_FIXED : _FIXED + length]), size)


def _address(packed: bytes) -> IpAddress:
    address = ipaddress.ip_address(packed)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast:
        raise ProxyError(f"the client's address is {address}")
    return address


def _check_records(octets: bytes) -> None:
    """Each is a type, a length of two octets, and so many octets."""
    at = 0
    while at < len(octets):
        if at + 3 > len(octets):
            raise ProxyError("a record is cut short")
        at += 3 + int.from_bytes(octets[at + 1 : at + 3], "big")
    if at != len(octets):
        raise ProxyError("a record is cut short")
