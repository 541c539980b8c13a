"""The one door to DNS: an answer, with whether it is authenticated, or a :class:`DnsError`. Nothing in between.

Only NOERROR (with or without data) and NXDOMAIN are answers; SERVFAIL, REFUSED, silence, and what cannot be read are
temporary, and never "there is nothing" (RFC 7672 section 2.1; RFC 5321 section 5.1). The "authenticated data" bit
(RFC 4035 section 3.2.3) is believed only from a resolver on loopback, or where the administrator says so.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype

from gateway.clock import Clock
from gateway.config.outbound import Dns
from gateway.directory.dns_cache import TtlCache
from gateway.errors import GatewayError
from gateway.mail.reply import clean_text

__all__ = ["Answer", "DnsError", "DnsResolver", "Resolver", "Server", "system_servers"]

# RFC 9715, and DNS flag day 2020: what passes everywhere without fragments.
_PAYLOAD = 1232

# One question to one server; several of these fit into the total.
_TRY = 3.0
_ROUNDS = 2

_MIN_TTL, _MAX_TTL = 5.0, 3600.0
_FAILURE_TTL = 5.0
_CAPACITY = 10_000

# A server that did not answer is asked last for this long.
_DOWN = 30.0

_MAX_RECORDS = 100
_MAX_CNAMES = 8


class DnsError(GatewayError):
    """No answer to a question: try again later. ``reason`` is for people."""

    def __init__(self, reason: str, name: str, rdtype: str) -> None:
        super().__init__(f"DNS: {name} {rdtype}: {reason}")
        self.reason = reason
        self.name = name
        self.rdtype = rdtype


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS says about ``name`` and ``rdtype``.

    ``exists`` false: there is no such name (NXDOMAIN). ``exists`` without ``records``: the name has none of this
    type. ``secure``: authenticated by DNSSEC, as far as the resolver is believed. ``canonical``: where CNAMEs led,
    without the final dot. ``ttl`` in seconds, as it was when the answer came.
    """

    name: str
    rdtype: str
    records: tuple[dns.rdata.Rdata, ...]
    secure: bool
    canonical: str
    ttl: float
    exists: bool


class Resolver(Protocol):
    """What the rest of the gateway knows of DNS."""

    async def query(self, name: str, rdtype: str) -> Answer:
        """The answer for this name and type; raises :class:`DnsError`."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """A recursive resolver. ``trusted``: its "authenticated data" bit is believed."""

    address: str
    port: int
    trusted: bool


def system_servers(resolv_conf: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """The addresses of the system's resolvers; loopback where it names none (resolv.conf(5))."""
    try:
        lines = resolv_conf.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return tuple(found) or ("127.0.0.1",)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


class _Failed(Exception):
    """A server said that it cannot answer; from one that validates this may mean "forged"."""


class _Unreadable(Exception):
    """A response that holds no answer that we take."""


class DnsResolver:
    """A stub resolver on the configured servers, with a cache; one flight for questions that are asked together."""

    def __init__(self, settings: Dns, clock: Clock) -> None:
        self._clock = clock
        self._total = settings.timeout
        self._try = min(_TRY, settings.timeout)
        named = [(server.host, server.port) for server in settings.resolvers]
        self.servers = tuple(
            Server(
                address,
                port,
                _is_loopback(address) if settings.trust_ad == "auto" else settings.trust_ad,
            )
            for address, port in named or [(address, 53) for address in system_servers()]
        )
        self._cache: TtlCache[tuple[str, str], Answer | DnsError] = TtlCache(clock, _CAPACITY)
        self._flights: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._down: dict[Server, float] = {}

    async def query(self, name: str, rdtype: str) -> Answer:
        """The answer, from the cache or the servers. Raises :class:`DnsError`."""
        key = (name.lower().rstrip("."), rdtype.upper())
        cached = self._cache.get(key)
        if isinstance(cached, Answer):
            return cached
        if cached is not None:
            raise DnsError(cached.reason, cached.name, cached.rdtype)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fly(key))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        # Whoever gives up waiting does not take the answer away from the others.
        return await asyncio.shield(flight)

    def clear(self) -> None:
        """Forget every answer."""
        self._cache.clear()

    async def close(self) -> None:
        """End what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _landed(self, key: tuple[str, str], flight: asyncio.Task[Answer]) -> None:
        self._flights.pop(key, None)
        if flight.cancelled():
            return
        error = flight.exception()  # looked at: nobody may be waiting any more
        if error is None:
            answer = flight.result()
            self._cache.put(key, answer, min(max(answer.ttl, _MIN_TTL), _MAX_TTL))
        elif isinstance(error, DnsError):
            self._cache.put(key, error, _FAILURE_TTL)

    async def _fly(self, key: tuple[str, str]) -> Answer:
        name, rdtype = key
        try:
            qname = dns.name.from_text(name)
            qtype = dns.rdatatype.from_text(rdtype)
        except (dns.exception.DNSException, ValueError) as error:
            raise DnsError(f"this cannot be asked: {clean_text(str(error), 100)}", name, rdtype) from None
        try:
            async with asyncio.timeout(self._total):
                return await self._ask_around(name, qname, qtype)
        except TimeoutError:
            raise DnsError(f"no answer within {self._total:g} s", name, rdtype) from None

    async def _ask_around(self, name: str, qname: dns.name.Name, qtype: dns.rdatatype.RdataType) -> Answer:
        """Server after server, twice. After the failure of a trusted one only trusted ones are asked.

        SERVFAIL of a validating resolver may mean "forged"; a resolver that does not validate would know nothing of
        that and pass the forgery on.
        """
        rdtype = dns.rdatatype.to_text(qtype)
        reasons: dict[Server, str] = {}
        distrust = False
        for _ in range(_ROUNDS):
            for server in self._in_order():
                if distrust and not server.trusted:
                    continue
                try:
                    response = await self._ask(server, qname, qtype)
                    return _read(response, name, rdtype, trusted=server.trusted)
                except _Failed as error:
                    reasons[server] = str(error)
                    distrust = distrust or server.trusted
                except (OSError, EOFError, ValueError, _Unreadable, dns.exception.DNSException) as error:
                    reasons[server] = _in_words(error)
                    self._down[server] = self._clock.monotonic() + _DOWN
        told = "; ".join(f"{server.address} {reason}" for server, reason in reasons.items())
        raise DnsError(told or "no resolver is configured", name, rdtype)

    def _in_order(self) -> list[Server]:
        """The servers as configured, those that did not answer lately last."""
        now = self._clock.monotonic()
        return sorted(self.servers, key=lambda server: self._down.get(server, 0.0) > now)

    async def _ask(
        self, server: Server, qname: dns.name.Name, qtype: dns.rdatatype.RdataType
    ) -> dns.message.QueryMessage:
        query = dns.message.make_query(qname, qtype, use_edns=0, payload=_PAYLOAD, want_dnssec=server.trusted)
        if server.trusted:
            query.flags |= dns.flags.AD  # RFC 6840 section 5.7: we understand the bit
        response, _ = await dns.asyncquery.udp_with_fallback(
            query, server.address, timeout=self._try, port=server.port, ignore_unexpected=True, ignore_errors=True
        )
        rcode = response.rcode()
        if rcode not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
            raise _Failed(_rcode_in_words(rcode, response))
        if not isinstance(response, dns.message.QueryMessage) or response.flags & dns.flags.TC:
            raise _Unreadable("truncated, also over TCP")
        return response


def _read(response: dns.message.QueryMessage, name: str, rdtype: str, *, trusted: bool) -> Answer:
    """The answer in a response; raises for what is none."""
    chain = response.resolve_chaining()
    if len(chain.cnames) > _MAX_CNAMES:
        raise _Unreadable(f"more than {_MAX_CNAMES} aliases one after the other")
    records = tuple(chain.answer)[:_MAX_RECORDS] if chain.answer is not None else ()
    return Answer(
        name=name,
        rdtype=rdtype,
        records=records,
        secure=trusted and bool(response.flags & dns.flags.AD),
        canonical=chain.canonical_name.to_text(omit_final_dot=True).lower(),
        ttl=float(chain.minimum_ttl),
        exists=response.rcode() == dns.rcode.NOERROR,
    )


def _rcode_in_words(rcode: dns.rcode.Rcode, response: dns.message.Message) -> str:
    """The code, and what an extended DNS error says about it (RFC 8914)."""
    told = [clean_text(option.to_text(), 100) for option in response.extended_errors()[:2]]
    return " ".join(["said", dns.rcode.to_text(rcode), *told])


def _in_words(error: Exception) -> str:
    if isinstance(error, (dns.exception.Timeout, TimeoutError)):
        return "did not answer"
    if isinstance(error, OSError):
        return clean_text(error.strerror or str(error), 100)
    return f"answered what cannot be read: {clean_text(str(error), 100)}"


def addresses_of(servers: Sequence[Server]) -> tuple[str, ...]:
    """The servers as ``address:port``, for the log."""
    return tuple(f"[{s.address}]:{s.port}" if ":" in s.address else f"{s.address}:{s.port}" for s in servers)
