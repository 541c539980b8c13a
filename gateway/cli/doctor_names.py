"""The doctor's look at the addresses that mail leaves from, and at their names: others judge us by both."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import dns.reversename

from gateway.cli.doctor_checks import Finding, Status
from gateway.cli.doctor_network import ANYWHERE, Surroundings
from gateway.directory import DnsError, find_addresses
from gateway.directory.destinations import DestinationGuard

__all__ = ["Outgoing", "find_outgoing", "hostname", "source_addresses"]

#: Root servers: a UDP socket is connected towards them, which sends nothing, to learn what the system would send from.
_TOWARDS = ((socket.AF_INET, "198.41.0.4"), (socket.AF_INET6, "2001:503:ba3e::2:30"))
_MOST_NAMES = 4


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The public addresses that mail leaves from, as far as they can be known from here.

    ``assumed``: they are those of ``hostname``, because this machine has none of its own: it stands behind NAT.
    ``smart_host``: the host that all mail goes through, "" for none: then others see that host's addresses.
    """

    addresses: tuple[str, ...] = ()
    assumed: bool = False
    smart_host: str = ""


async def find_outgoing(around: Surroundings, given: tuple[str, ...]) -> Outgoing:
    """``given`` where somebody said it; else ``delivery.source_addresses``, this machine's, those of ``hostname``."""
    delivery = around.settings.delivery
    everything = delivery.routes.get("*")
    smart_host = everything.host if everything is not None else ""
    if given:
        return Outgoing(given, smart_host=smart_host)
    if configured := tuple(filter(_is_public, delivery.source_addresses)):
        return Outgoing(configured, smart_host=smart_host)
    if own := () if delivery.source_addresses else await asyncio.to_thread(_sources):
        return Outgoing(own, smart_host=smart_host)
    try:
        found = await find_addresses(around.resolver, around.settings.hostname, ANYWHERE)
    except DnsError:
        return Outgoing(smart_host=smart_host)
    return Outgoing(tuple(filter(_is_public, found.addresses)), assumed=True, smart_host=smart_host)


def _is_public(address: str) -> bool:
    return DestinationGuard().refusal(address) is None


def _sources() -> tuple[str, ...]:
    found = []
    for family, target in _TOWARDS:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 53))
            source = str(probe.getsockname()[0])
            if _is_public(source):
                found.append(source)
    return tuple(found)


async def source_addresses(around: Surroundings) -> AsyncIterator[Finding]:
    """Whether this machine has the addresses that it is told to send from."""
    for address in around.settings.delivery.source_addresses:
        name = f"source_address {address}"
        remedy = "give the address to an interface of this machine, or take it out of delivery.source_addresses"
        try:
            version = ipaddress.ip_address(address).version
            with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.bind((address, 0))
        except ValueError:
            yield Finding(name, Status.BAD, "this is no IP address", remedy)
        except OSError as error:
            detail = f"nothing can be sent from it: {error.strerror or error}"
            yield Finding(name, Status.BAD, detail, remedy)
        else:
            yield Finding(name, Status.OK, "is an address of this machine")


async def hostname(around: Surroundings, outgoing: Outgoing) -> AsyncIterator[Finding]:
    """Our own name, and the names of the addresses that mail leaves from (forward-confirmed reverse DNS)."""
    name = around.settings.hostname
    record = f"publish A (and AAAA, where mail leaves by IPv6) for {name}"
    if outgoing.smart_host:
        detail = f"others see {outgoing.smart_host}, which all mail goes through"
        yield Finding("hostname", Status.OK, detail)
        return
    try:
        found = await find_addresses(around.resolver, name, ANYWHERE)
    except DnsError as error:
        yield Finding("hostname", Status.WARNING, f"could not tell: {error.reason}", "mend DNS first")
        return
    public = tuple(filter(_is_public, found.addresses))
    strange = [] if outgoing.assumed else [each for each in outgoing.addresses if each not in found.addresses]
    told = ", ".join(found.addresses)
    if not found.addresses:
        yield Finding("hostname", Status.WARNING, f"{name} has no address: many hosts refuse such an EHLO", record)
    elif not public:
        detail = f"{name} is {told}: not an address that others can reach"
        yield Finding("hostname", Status.WARNING, detail, f"publish the address that mail leaves from for {name}")
    elif strange:
        detail = f"mail leaves from {', '.join(strange)}, {name} is {told}"
        yield Finding("hostname", Status.WARNING, detail, record)
    else:
        yield Finding("hostname", Status.OK, f"{name} is {told}")
    addresses = dict.fromkeys((*outgoing.addresses, *public))
    for finding in await asyncio.gather(*(_reverse(around, address) for address in addresses)):
        yield finding


async def _reverse(around: Surroundings, address: str) -> Finding:
    name = f"reverse_dns {address}"
    own = around.settings.hostname
    remedy = f"ask whoever gave you {address} to set its PTR record to {own}: large providers refuse mail without"
    confirmed = []
    try:
        answer = await around.resolver.query(dns.reversename.from_address(address).to_text(), "PTR")
        named = [record.to_text().rstrip(".").lower() for record in answer.records]
        for each in named[:_MOST_NAMES]:
            back = await find_addresses(around.resolver, each, ANYWHERE)
            if address in back.addresses:
                confirmed.append(each)
    except DnsError as error:
        return Finding(name, Status.WARNING, f"could not tell: {error.reason}", "mend DNS first")
    if own in confirmed:
        return Finding(name, Status.OK, f"{own}, which leads back to it")
    if confirmed:
        detail = f"{confirmed[0]}, which leads back to it, but is not {own}"
        return Finding(name, Status.NOTE, detail, f"some hosts compare: ask for a PTR record to {own}")
    if not named:
        return Finding(name, Status.WARNING, "has no PTR record", remedy)
    return Finding(name, Status.WARNING, f"{', '.join(named[:_MOST_NAMES])} does not lead back to it", remedy)
