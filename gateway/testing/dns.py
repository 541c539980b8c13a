"""A DNS server for tests: real packets over UDP and TCP, from zone text, with faults on demand.

It plays the recursive resolver that a gateway is configured with: whatever its records say is the world. It does not
sign: "secure" means that it sets the AD bit, as a validating resolver on loopback would.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, get_args

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from gateway.clock import Clock, SystemClock
from gateway.testing.dns_data import Lookup, Records
from gateway.testing.net import free_port

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

__all__ = ["DnsServer", "Flag", "Query"]

Flag = Literal["secure", "bogus", "servfail", "refused", "timeout", "truncate", "garbage", "wrong_id", "slow", "many"]
Transport = Literal["udp", "tcp"]

#: What a flag's ``value`` is where none is given: seconds for ``slow``, records for ``many``.
_DEFAULTS: Mapping[str, float] = {"slow": 1.0, "many": 500}

#: RFC 1035 section 4.2.1, for those who ask without EDNS; and our own limit for those with.
_PLAIN_UDP, _OUR_UDP = 512, 1232


class Query(NamedTuple):
    """A question that came in: absolute name in lower case with its final dot, type ("MX"), transport."""

    name: str
    type: str
    transport: Transport


@dataclass(frozen=True, slots=True)
class _Mark:
    name: dns.name.Name
    rdtype: RdataType | None
    subtree: bool
    flag: Flag
    value: float

    def covers(self, name: dns.name.Name, rdtype: RdataType) -> bool:
        if self.rdtype not in {None, rdtype}:
            return False
        return name == self.name or (self.subtree and name.is_subdomain(self.name))


class DnsServer:
    """An async context manager; while it is open, :attr:`resolver` answers.

    ``zone_text`` is in master-file form: whole zones or just records with absolute names, of as many zones as needed.
    ``ttl`` counts for records that give none. ``port`` 0 takes a free one, the same for UDP and TCP.

    Flags (:meth:`flag`) change how a name is answered:

    ========  ===================================================================================
    secure    AD is set where the query has AD or DO, if every name of a CNAME chain is secure
    bogus     SERVFAIL, but answered without AD where the query has CD
    servfail  SERVFAIL
    refused   REFUSED
    timeout   no answer
    truncate  over UDP an empty answer with TC, over TCP the whole
    garbage   the query's id, then bytes that are no message
    wrong_id  the right answer under another id
    slow      the answer after ``value`` seconds (1)
    many      the set is blown up to ``value`` records (500)
    ========  ===================================================================================

    All but ``secure`` also work through a CNAME that leads to the flagged name.
    """

    def __init__(
        self,
        zone_text: str = "",
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        ttl: int = 300,
        clock: Clock | None = None,
    ) -> None:
        self.address = address
        self.port = port
        self.ttl = ttl
        self.queries: list[Query] = []
        self._clock = clock or SystemClock()
        self._records = Records()
        self._marks: list[_Mark] = []
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self.add(zone_text)

    async def __aenter__(self) -> Self:
        for attempt in range(5):
            port = self.port or free_port(self.address)
            try:
                await self._listen(port)
                break
            except OSError:
                # Between finding a free port and binding it somebody else may have taken it.
                if self.port or attempt == 4:
                    raise
        self.port = port
        return self

    async def _listen(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._accept, self.address, port)
        try:
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=(self.address, port)
            )
        except OSError:
            self._tcp.close()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close their sockets in the loop's next turn
        if self._errors and kind is None:
            raise self._errors[0]

    @property
    def resolver(self) -> str:
        """``ADDRESS:PORT``, as ``dns.resolvers`` takes it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def add(self, zone_text: str, *, ttl: int | None = None) -> None:
        """Add records while running. Raises ``ValueError`` with the line number."""
        self._records.add(zone_text, self.ttl if ttl is None else ttl)

    def set(self, zone_text: str, *, ttl: int | None = None) -> None:
        """Replace all records while running (flags stay). Raises ``ValueError``, and then changes nothing."""
        fresh = Records()
        fresh.add(zone_text, self.ttl if ttl is None else ttl)
        self._records = fresh

    def remove(self, name: str, rdtype: str | None = None) -> None:
        """Take away the records of ``name``, of one type or all."""
        self._records.remove(_name(name), _type(rdtype))

    def flag(
        self,
        name: str,
        flag: Flag,
        *,
        rdtype: str | None = None,
        subtree: bool = False,
        value: float | None = None,
    ) -> None:
        """Answer for ``name`` (one type or all; with ``subtree`` also every name below it) as ``flag`` says.

        Flags of a name add up. Raises ``ValueError`` for an unknown flag.
        """
        if flag not in get_args(Flag):
            raise ValueError(f"unknown flag {flag!r}; there are {', '.join(get_args(Flag))}")
        amount = _DEFAULTS.get(flag, 0) if value is None else value
        self._marks.append(_Mark(_name(name), _type(rdtype), subtree, flag, amount))

    def unflag(self, name: str, flag: Flag | None = None) -> None:
        """Take back the flags that were set with that very ``name``: one kind, or all."""
        gone = _name(name)
        self._marks = [m for m in self._marks if m.name != gone or flag not in {None, m.flag}]

    def asked(self, name: str, rdtype: str | None = None) -> int:
        """How many queries came for ``name``, of one type or all."""
        wanted = _name(name).to_text().lower()
        return sum(q.name == wanted and rdtype in {None, q.type} for q in self.queries)

    async def respond(self, wire: bytes, transport: Transport) -> bytes | None:
        """The bytes that answer the query ``wire``, after the delay that a flag asks for; None for no answer."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            # RFC 1035 section 4.1.1: FORMERR needs no more than the id; less is noise.
            return wire[:2] + b"\x80\x01" + bytes(8) if len(wire) >= 12 and not wire[2] & 0x80 else None
        if query.flags & dns.flags.QR:
            return None
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            return _failure(query, Rcode.NOTIMP)
        question = query.question[0]
        if question.rdclass != dns.rdataclass.IN:
            return _failure(query, Rcode.REFUSED)
        rdtype = RdataType(question.rdtype)
        self.queries.append(Query(question.name.to_text().lower(), dns.rdatatype.to_text(rdtype), transport))
        found = self._records.lookup(question.name, rdtype)
        flags = self._flags(found, rdtype)
        if "slow" in flags:
            await self._clock.sleep(flags["slow"])
        return _answer(query, found, flags, transport)

    def _flags(self, found: Lookup, rdtype: RdataType) -> dict[Flag, float]:
        """The flags that hold for an answer: of any name it depends on; "secure" only where all have it."""
        each = [{mark.flag: mark.value for mark in self._marks if mark.covers(owner, rdtype)} for owner in found.owners]
        joined: dict[Flag, float] = {flag: value for flags in each for flag, value in flags.items()}
        if not all("secure" in flags for flags in each):
            joined.pop("secure", None)
        return joined

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._converse(reader, writer))

    def datagram(self, wire: bytes, source: tuple[str, int]) -> None:
        """Answer a query that came over UDP."""
        self._spawn(self._answer_datagram(wire, source))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)  # a fault of the fake itself must not look like one of the gateway

    async def _answer_datagram(self, wire: bytes, source: tuple[str, int]) -> None:
        response = await self.respond(wire, "udp")
        if response is not None and self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(response, source)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Messages over TCP, each after its length in two octets (RFC 1035 section 4.2.2)."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    response = await self.respond(await reader.readexactly(length), "tcp")
                    if response is not None:
                        writer.write(struct.pack("!H", len(response)) + response)
                        await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)


def _answer(
    query: dns.message.Message, found: Lookup, flags: Mapping[Flag, float], transport: Transport
) -> bytes | None:
    checking = not query.flags & dns.flags.CD
    if "timeout" in flags:
        return None
    if "garbage" in flags:
        return struct.pack("!H", query.id) + b"\x81\x80" + b"\x00\x01\x00\x09\x00\x00\x00\x00" + b"\xff" * 24
    if "refused" in flags:
        return _failure(query, Rcode.REFUSED)
    if "servfail" in flags or ("bogus" in flags and checking):
        return _failure(query, Rcode.SERVFAIL)
    response = dns.message.make_response(query, recursion_available=True, our_payload=_OUR_UDP)
    response.set_rcode(found.rcode)
    if "wrong_id" in flags:
        response.id = query.id ^ 0x5555
    wants_ad = query.flags & dns.flags.AD or query.ednsflags & dns.flags.DO
    if "secure" in flags and "bogus" not in flags and wants_ad:
        response.flags |= dns.flags.AD
    if transport == "udp" and "truncate" in flags:
        response.flags |= dns.flags.TC
        return response.to_wire()
    response.answer = _blown_up(query, found.answer, int(flags["many"])) if "many" in flags else found.answer
    response.authority = found.authority
    if transport == "tcp":
        return response.to_wire(max_size=65535)
    limit = min(max(query.payload, _PLAIN_UDP), _OUR_UDP) if query.edns >= 0 else _PLAIN_UDP
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer, response.authority = [], []
        response.flags |= dns.flags.TC
        return response.to_wire()


def _failure(query: dns.message.Message, rcode: Rcode) -> bytes:
    response = dns.message.make_response(query, recursion_available=True, our_payload=_OUR_UDP)
    response.set_rcode(rcode)
    return response.to_wire()


def _blown_up(query: dns.message.Message, answer: list[dns.rrset.RRset], count: int) -> list[dns.rrset.RRset]:
    """``answer`` with its last set, or one made up for the question, grown to ``count`` records."""
    question = query.question[0]
    asked = RdataType(question.rdtype)
    if answer and answer[-1].rdtype == asked:
        *before, last = answer
        grown = dns.rrset.RRset(last.name, last.rdclass, last.rdtype)
        for rdata in last:
            grown.add(rdata, last.ttl)
    else:
        before, grown = list(answer), dns.rrset.RRset(question.name, dns.rdataclass.IN, asked)
    ttl = grown.ttl or 300
    number = 0
    while len(grown) < count:
        text = _filler(asked, number, grown.name)
        if text is None:
            return answer
        grown.add(dns.rdata.from_text(dns.rdataclass.IN, asked, text), ttl)
        number += 1
    return [*before, grown]


def _filler(rdtype: RdataType, number: int, owner: dns.name.Name) -> str | None:
    match rdtype:
        case RdataType.A:
            return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        case RdataType.AAAA:
            return f"fd00::{number:x}"
        case RdataType.MX:
            return f"{10 + number % 50} many{number}.{owner}"
        case RdataType.TXT:
            return f'"filler {number}"'
        case RdataType.TLSA:
            return f"3 1 1 {hashlib.sha256(str(number).encode()).hexdigest()}"
        case _:
            return None


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)


def _type(text: str | None) -> RdataType | None:
    return None if text is None else dns.rdatatype.from_text(text)
