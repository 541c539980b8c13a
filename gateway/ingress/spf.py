"""The networks that an SPF record names, following ``include`` and ``redirect`` (RFC 7208), within limits.

Only literal networks count: ``a``, ``mx``, ``exists`` and macros name no list, so a record that has them is read for
the rest. Qualifiers other than ``+`` name networks that are not the sender's.
"""

from __future__ import annotations

import ipaddress
import re

from gateway.ingress.connectors import Network
from gateway.ingress.networks import NetworksError
from gateway.ingress.seams import LookupFailed, LookupTxt
from gateway.mail.address import AddressError, normal_domain

__all__ = ["spf_networks"]

_MAX_LOOKUPS = 20  # RFC 7208 section 4.6.4 allows 10; the clouds' trees may grow
_MAX_NETWORKS = 2000
#: A network wider than this is nobody's outbound mail service.
_WIDEST = {4: 8, 6: 20}
_TERM = re.compile(r"(?P<qualifier>[+?~-]?)(?P<name>[A-Za-z0-9]+)(?P<separator>[:=]?)(?P<value>.*)\Z")


async def spf_networks(names: tuple[str, ...], lookup: LookupTxt) -> list[Network]:
    """All networks under ``names``. Raises :class:`gateway.ingress.networks.NetworksError`: half a list is none."""
    walk = _Walk(lookup)
    for name in names:
        await walk.follow(name)
    return walk.networks


class _Walk:
    def __init__(self, lookup: LookupTxt) -> None:
        self._lookup = lookup
        self._seen: set[str] = set()
        self.networks: list[Network] = []

    async def follow(self, name: str) -> None:
        try:
            domain = normal_domain(name)
        except AddressError as error:
            raise NetworksError(f"{name!r}: {error}") from None
        if domain in self._seen:
            return
        if len(self._seen) == _MAX_LOOKUPS:
            raise NetworksError(f"more than {_MAX_LOOKUPS} look-ups, the last one for {domain}")
        self._seen.add(domain)
        redirect = ""
        for term in (await self._record(domain)).split()[1:]:
            match = _TERM.match(term)
            if match is None or match["qualifier"] not in ("", "+"):
                continue
            kind, value = match["name"].lower(), match["value"]
            if kind in ("ip4", "ip6"):
                self._add(domain, value, 4 if kind == "ip4" else 6)
            elif kind == "include":
                await self.follow(value)
            elif kind == "redirect" and match["separator"] == "=":
                redirect = value
        if redirect:
            await self.follow(redirect)

    async def _record(self, domain: str) -> str:
        try:
            found = await self._lookup(domain)
        except LookupFailed as error:
            raise NetworksError(f"{domain}: {error}") from None
        records = [
            text for each in found if (text := each.decode("ascii", "replace")).split(" ")[0].lower() == "v=spf1"
        ]
        if len(records) != 1:
            raise NetworksError(f"{domain}: {'no' if not records else 'more than one'} SPF record")
        return records[0]

    def _add(self, domain: str, text: str, version: int) -> None:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise NetworksError(f"{domain}: {text!r} is not a network") from None
        if network.version != version or network.prefixlen < _WIDEST[version]:
            raise NetworksError(f"{domain}: {text!r} is not a network of a mail service")
        self.networks.append(network)
        if len(self.networks) > _MAX_NETWORKS:
            raise NetworksError(f"{domain}: more than {_MAX_NETWORKS} networks")
