"""Checks of DNS and of the ways out. Each is bounded; what cannot be reached is told, never guessed.

Sessions to smart hosts are the daemon's own (:class:`gateway.delivery.session.Session`): what is said of them here is
what the daemon would find. They are opened, judged and closed; nothing is sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import AsyncIterator, Container, Sequence
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode

from gateway.cli.doctor_checks import Finding, Status
from gateway.clock import SystemClock
from gateway.config.model import Settings
from gateway.config.outbound import Route, Timeouts
from gateway.delivery.contexts import ClientCertificateError
from gateway.delivery.nexthop import NextHop, find_next_hop, guard_of
from gateway.delivery.session import Session, SessionFailed
from gateway.delivery.target import Environment, Target
from gateway.delivery.trust import Trust, TrustError
from gateway.directory import DnsError, DnsResolver, find_addresses, find_mx, ipv6_usable
from gateway.directory.addresses import Family
from gateway.directory.destinations import DestinationGuard
from gateway.directory.resolver import Server, addresses_of
from gateway.mail.address import Address
from gateway.mail.attempt import Stage
from gateway.mail.protection import Assurance, Method

__all__ = ["ANYWHERE", "PATIENCE", "Surroundings", "dnssec", "outbound", "resolvers", "smart_host"]

#: Seconds for one DNS question or one connection.
PATIENCE = 4.0
#: Asked, not connected to: every address counts.
ANYWHERE = DestinationGuard((ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
#: Signed since 2009, and not about to go away.
_SIGNED = "org."
#: Domains and hosts that are tried to see whether the way out is open.
_MOST_DOMAINS, _MOST_HOSTS = 5, 8
_OWN_RESOLVER = (
    'run a validating resolver on this machine (such as unbound), and name it: dns: {resolvers: ["127.0.0.1:53"]}'
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the network checks work with."""

    settings: Settings
    resolver: DnsResolver
    clock: SystemClock

    @property
    def families(self) -> tuple[Family, ...]:
        """The address families that lead out of this machine."""
        return ("ipv6", "ipv4") if ipv6_usable() else ("ipv4",)


# -- DNS --------------------------------------------------------------------------------------------------------------


async def _ask(server: Server, name: str, rdtype: str) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype, use_edns=0, want_dnssec=True)
    query.flags |= dns.flags.AD
    response, _ = await dns.asyncquery.udp_with_fallback(
        query, server.address, timeout=PATIENCE, port=server.port, ignore_unexpected=True, ignore_errors=True
    )
    return response


async def resolvers(around: Surroundings) -> AsyncIterator[Finding]:
    """Whether each resolver answers at all."""
    servers = around.resolver.servers
    said = await asyncio.gather(*(_says(server, around.settings.hostname) for server in servers))
    answering = [answer is None for answer in said]
    for server, answer in zip(servers, said, strict=True):
        name = f"resolver {addresses_of([server])[0]}"
        if answer is None:
            yield Finding(name, Status.OK, "answers")
            continue
        if any(answering):
            yield Finding(name, Status.WARNING, answer, "mend it, or take it out of dns.resolvers: it costs time")
        else:
            remedy = "name resolvers that this machine can reach under dns.resolvers; without DNS mail only waits"
            yield Finding(name, Status.BAD, answer, remedy)


async def _says(server: Server, name: str) -> str | None:
    """What is wrong with this resolver; None where it answers."""
    try:
        response = await _ask(server, name, "A")
    except (OSError, EOFError, ValueError, dns.exception.DNSException) as error:
        silent = isinstance(error, (dns.exception.Timeout, TimeoutError))
        return f"did not answer within {PATIENCE:g} s" if silent else f"cannot be used: {error}"
    if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return None
    return f"answered {dns.rcode.to_text(response.rcode())} to a question for {name}"


async def dnssec(around: Surroundings) -> AsyncIterator[Finding]:
    """Whether a resolver is trusted for the "authenticated data" bit, and sets it for a signed zone."""
    trusted = [server for server in around.resolver.servers if server.trusted]
    if not trusted:
        detail = "no resolver is trusted to say what is authenticated: signed MX records do not count"
        yield Finding("dnssec", Status.WARNING, detail, _OWN_RESOLVER)
        return
    for server in around.resolver.servers:
        name = f"dnssec {addresses_of([server])[0]}"
        if server not in trusted:
            detail = "its word on what is authenticated does not count: it is not on this machine"
            remedy = "leave only validating resolvers of this machine under dns.resolvers, or none that need trust"
            yield Finding(name, Status.NOTE, detail, remedy)
            continue
        try:
            response = await _ask(server, _SIGNED, "SOA")
        except (OSError, EOFError, ValueError, dns.exception.DNSException):
            yield Finding(name, Status.WARNING, "could not tell: it did not answer", "see the resolver above")
            continue
        if response.rcode() != dns.rcode.NOERROR or not response.answer:
            detail = f"could not tell: it knows nothing of {_SIGNED} ({dns.rcode.to_text(response.rcode())})"
            yield Finding(name, Status.WARNING, detail, "ask again where it reaches the Internet")
        elif response.flags & dns.flags.AD:
            yield Finding(name, Status.OK, f"validates: {_SIGNED} is authenticated")
        else:
            yield Finding(name, Status.WARNING, f"does not validate: {_SIGNED} is not authenticated", _OWN_RESOLVER)


# -- the ways out -----------------------------------------------------------------------------------------------------


async def outbound(
    around: Surroundings, own_domains: Sequence[str], *, asked: str | None = None, ours: Container[str] = ()
) -> AsyncIterator[Finding]:
    """Whether a mail host of ``asked``, or else of a domain of our own, can be reached on the port that mail leaves by.

    ``ours``: addresses that are our own; that we reach ourselves says nothing.
    """
    settings, port = around.settings, around.settings.delivery.port
    name, elsewhere = f"port {port}", "name a domain that you write to: `gateway doctor --domain DOMAIN`"
    if "*" in settings.delivery.routes:
        yield Finding(name, Status.OK, "not needed: a route for all domains is set")
        return
    domains = own_domains[:_MOST_DOMAINS] if asked is None else [asked]
    looked = await asyncio.gather(*(_mail_hosts(around, domain) for domain in domains), return_exceptions=True)
    found = [each for hosts in looked if not isinstance(hosts, BaseException) for each in hosts]
    hosts = [(host, address) for host, address in dict.fromkeys(found) if address not in ours][:_MOST_HOSTS]
    failure = next((each for each in looked if isinstance(each, BaseException)), None)
    if failure is not None and not isinstance(failure, DnsError):
        raise failure
    if not hosts:
        if failure is not None:
            yield Finding(name, Status.WARNING, f"could not tell: {failure.reason}", "mend DNS first")
        elif asked is not None:
            detail = f"could not tell: this resolver knows no mail host of {asked} that can be tried"
            yield Finding(name, Status.WARNING, detail, elsewhere)
        else:
            detail = "not tried: no domain of yours has a mail host elsewhere"
            yield Finding(name, Status.NOTE, detail, elsewhere)
        return
    tried = await asyncio.gather(*(_greets(address, port) for _, address in hosts))
    for (host, address), wrong in zip(hosts, tried, strict=True):
        if wrong is None:
            yield Finding(name, Status.OK, f"{host} [{address}] greets")
            return
    host, address = hosts[0]
    remedy = f'ask your provider to open port {port} outbound (many clouds block it), or set a route for "*"'
    yield Finding(name, Status.BAD, f"{host} [{address}]: {tried[0]}", remedy)


async def _mail_hosts(around: Surroundings, domain: str) -> list[tuple[str, str]]:
    """Hosts that take mail for ``domain``, each with an address, ourselves left out. Raises :class:`DnsError`."""
    settings = around.settings
    mx = await find_mx(around.resolver, domain, frozenset({settings.hostname}), rng=random.SystemRandom())
    found: list[tuple[str, str]] = []
    for each in mx.hosts[:2]:
        host = await find_addresses(around.resolver, each.name, guard_of(settings), around.families)
        found += [(each.name, address) for address in host.addresses[:2]]
    return found


async def _greets(address: str, port: int) -> str | None:
    """What is wrong; None where an SMTP server greets."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(address, port)
            greeting = await reader.read(3)
            writer.write(b"QUIT\r\n")
            await writer.drain()
    except TimeoutError:
        return f"no answer within {PATIENCE:g} s"
    except OSError as error:
        return error.strerror or str(error)
    finally:
        if writer is not None:
            writer.close()
    return None if greeting.isdigit() else "what answers there is not a mail host"


async def smart_host(around: Surroundings, name: str, route: Route) -> AsyncIterator[Finding]:
    """Whether a session to this host comes about as the daemon needs it: reached, secured, judged, logged in."""
    settings = around.settings
    method = Method.PLAIN if route.tls is Assurance.NONE else Method.TLS
    hop = await find_next_hop(
        around.resolver,
        settings,
        Address.parse(f"postmaster@{settings.hostname}"),
        method,
        route.tls,
        return_route=route,
        chance=random.SystemRandom(),
    )
    assert isinstance(hop, NextHop)
    try:
        trust = await asyncio.to_thread(Trust.load, settings.tls.trust)
        addresses: tuple[str, ...] = (route.host,)
        if _is_name(route):
            addresses = (await find_addresses(around.resolver, route.host, ANYWHERE, around.families)).addresses
    except (DnsError, TrustError) as error:
        yield Finding(name, Status.WARNING, f"could not tell: {error}", "mend that first")
        return
    if not addresses:
        remedy = f"correct the host's name, or publish an address for {route.host}"
        yield Finding(name, Status.BAD, f"{route.host} has no address", remedy)
        return
    timeouts = Timeouts(connect=PATIENCE, greeting=PATIENCE, ehlo=PATIENCE, starttls=PATIENCE)
    environment = Environment(settings.hostname, around.clock, trust, timeouts=timeouts)
    yield await _session(name, hop, addresses[0], environment)


def _is_name(route: Route) -> bool:
    try:
        ipaddress.ip_address(route.host)
    except ValueError:
        return True
    return False


async def _session(name: str, hop: NextHop, address: str, environment: Environment) -> Finding:
    host = hop.hops[0]
    target = Target(host.host, address, host.port, host.names, hop.source)
    where = f"{host.host}:{host.port}"
    try:
        session = await Session.open(target, hop.policy, environment, hop.credentials)
    except ClientCertificateError as error:
        return Finding(name, Status.BAD, str(error), "put certificate and key of one pair there, in PEM form")
    except SessionFailed as error:
        failure = error.failure
        if failure.stage in (Stage.CONNECT, Stage.GREETING, Stage.EHLO):
            remedy = "check host, port and the firewalls between"
            return Finding(name, Status.BAD, f"{where}: {failure}", remedy)
        remedy = "mend its certificate or its account there, or state what it can do in `tls`, `name` and `auth`"
        return Finding(name, Status.BAD, f"{where}: {failure} (asked for: tls {hop.policy.require})", remedy)
    evidence = session.evidence
    await session.quit()
    if evidence is None:
        remedy = "set tls: encrypted or higher, if that host can"
        return Finding(name, Status.WARNING, f"{where} answers, in clear text", remedy)
    return Finding(name, Status.OK, f"{where} answers: {evidence.version}, {evidence.assurance}")
