"""Domains to probe, and the delivery that a probe foretells; a test overrides one thing."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.clock import SystemClock
from gateway.config.model import Settings
from gateway.config.outbound import Timeouts
from gateway.delivery.carried import HostFailure
from gateway.delivery.nexthop import Unreachable, find_next_hop, guard_of
from gateway.delivery.probe import ProbeLimits, Prober
from gateway.delivery.probed import AddressProbe, DomainProbe, HostProbe
from gateway.delivery.sites import SiteLimits, Sites
from gateway.delivery.target import Environment
from gateway.delivery.trust import Trust
from gateway.delivery.verdict import summed_up
from gateway.directory import DnsResolver
from gateway.mail.address import Address
from gateway.mail.protection import Assurance, Method
from gateway.testing import CA, Behaviour, Certificate, DnsServer, SmtpPeer, free_port

ROOT = CA("Probe Root")
DOMAIN = "good.example"
MX = "mx1.good.example"
HEALTHY = Behaviour()
#: Long enough for a slow machine, short enough for a test of a peer that says nothing.
QUICK = Timeouts(connect=3, greeting=3, ehlo=3, starttls=3, mail=3, rcpt=3, data=3, block=3, dot=3)
GOOD = ROOT.issue(MX)


@dataclass(frozen=True, kw_only=True)
class Mx:
    """One host; its name is given by the certificate unless the test names it."""

    name: str = MX
    certificate: Certificate | None = GOOD
    behaviour: Behaviour = HEALTHY
    preference: int = 10
    up: bool = True


HAPPY = Mx()


@dataclass
class World:
    """Peers behind a resolver, and a prober that goes the ways of the settings."""

    dns: DnsServer
    settings: Settings
    resolver: DnsResolver
    environment: Environment
    peers: dict[str, SmtpPeer]
    prober: Prober

    async def probe(self, domain: str = DOMAIN) -> DomainProbe:
        (found,) = await self.prober.probe([Address.parse(f"postmaster@{domain}")])
        for peer in self.peers.values():
            for session in peer.sessions:
                assert {command.verb for command in session.commands} <= {"EHLO", "STARTTLS", "QUIT"}
            assert not peer.faults
        return found

    async def host(self, domain: str = DOMAIN) -> HostProbe:
        (host,) = (await self.probe(domain)).hosts
        return host

    async def address(self, domain: str = DOMAIN) -> AddressProbe:
        (address,) = (await self.host(domain)).addresses
        return address

    async def delivery(self, method: Method, required: Assurance, domain: str = DOMAIN) -> HostFailure | None:
        """What a delivery of just now fails by, before anything of a message is sent; None where it would go on."""
        hop = await find_next_hop(
            self.resolver,
            self.settings,
            Address.parse(f"pat@{domain}"),
            method,
            required,
            chance=random.Random(0),
        )
        if isinstance(hop, Unreachable):
            return HostFailure(hop.host, "", hop.failure)
        sites = Sites(self.resolver, lambda: self.environment, lambda: guard_of(self.settings), SiteLimits)
        session, failures = await sites._connect(hop)
        if session is not None:
            await session.quit()
            return None
        failure, host = summed_up(failures)
        return HostFailure(host, "", failure)


@asynccontextmanager
async def world(
    *hosts: Mx,
    zone: str = "",
    secure: tuple[str, ...] = (),
    delivery: Mapping[str, Any] | None = None,
    limits: ProbeLimits | None = None,
    timeouts: Timeouts = QUICK,
) -> AsyncIterator[World]:
    """``PORT`` and ``ADDRESS`` in ``delivery`` stand for the port of all hosts and the first one's address."""
    given = hosts or (HAPPY,)
    addresses = {host.name: f"127.0.2.{number}" for number, host in enumerate(given, 1)}
    port = free_port(*addresses.values())
    lines = [f"{name}. A {address}" for name, address in addresses.items()]
    lines += [f"{DOMAIN}. MX {host.preference} {host.name}." for host in given]
    places = {"PORT": port, "ADDRESS": addresses[given[0].name]}
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer("\n".join([*lines, zone])))
        for name in secure:
            dns.flag(name, "secure")
        peers = {}
        for host in given:
            peer = SmtpPeer(
                addresses[host.name],
                port,
                certificate=host.certificate,
                behaviour=host.behaviour,
                hostname=host.name,
            )
            stack.push_async_callback(peer.stop)
            peers[host.name] = peer
            if host.up:
                await peer.start()
        values: dict[str, Any] = {
            "hostname": "gw.clinic.example",
            "postmaster": "p@clinic.example",
            "dns": {"resolvers": [dns.resolver]},
            "delivery": {
                "port": port,
                "allow_networks": ["127.0.0.0/8"],
                "timeouts": timeouts.model_dump(),
                **_filled(dict(delivery or {}), places),
            },
        }
        settings = Settings.model_validate(values)
        clock = SystemClock()
        resolver = DnsResolver(settings.dns, clock)
        stack.push_async_callback(resolver.close)
        trust = Trust.from_pem(ROOT.root_pem)
        environment = Environment(settings.hostname, clock, trust, timeouts=settings.delivery.timeouts)
        yield World(dns, settings, resolver, environment, peers, Prober.over(settings, resolver, clock, trust, limits))


def _filled(value: Any, places: Mapping[str, object]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, places) for key, item in value.items()}
    return places.get(value, value) if isinstance(value, str) else value
