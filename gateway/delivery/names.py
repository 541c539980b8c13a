"""Whether a certificate is for this host: RFC 6125 section 6, narrowed as RFC 8461 and CAs do it today.

Only ``subjectAltName`` counts, never the common name. ``*`` stands for exactly one whole left-most label, with at
least two labels after it. Address literals match ``iPAddress`` entries only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from cryptography import x509

__all__ = ["alternative_names", "match_names"]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def alternative_names(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[IpAddress, ...]]:
    """DNS names (as they stand) and IP addresses of a certificate. Raises ``ValueError`` where it is malformed."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return (), ()
    names = tuple(extension.value.get_values_for_type(x509.DNSName))
    found = extension.value.get_values_for_type(x509.IPAddress)
    return names, tuple(ip for ip in found if isinstance(ip, (ipaddress.IPv4Address, ipaddress.IPv6Address)))


def match_names(wanted: Sequence[str], dns: Iterable[str], addresses: Iterable[IpAddress]) -> str:
    """``ok`` where one of ``wanted`` (host names in A-labels, or IP addresses) is among them; else the reason."""
    if not wanted:
        return "there is no name to match"
    presented = [name.lower().removesuffix(".") for name in dns]
    literals = set(addresses)
    for name in wanted:
        ip = _ip(name)
        if ip is None:
            host = name.lower().removesuffix(".")
            if any(_matches(host, pattern) for pattern in presented):
                return "ok"
        elif ip in literals:
            return "ok"
    if not presented and not literals:
        return "the certificate names no host"
    return "the certificate is for another name"


def _ip(text: str) -> IpAddress | None:
    bare = text.removeprefix("[").removesuffix("]")
    if bare[:5].lower() == "ipv6:":
        bare = bare[5:]
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        return None


def _matches(host: str, pattern: str) -> bool:
    if not pattern.isascii() or not host:
        return False
    if not pattern.startswith("*."):
        return "*" not in pattern and host == pattern
    rest = pattern[2:]
    label, dot, parent = host.partition(".")
    return bool(label and dot) and "*" not in rest and "." in rest and parent == rest
