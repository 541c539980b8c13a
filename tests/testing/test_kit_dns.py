"""The fake DNS answers dnspython's client and resolver as a real server with these records and faults would."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rdatatype
import dns.resolver
import pytest
from dns.rcode import Rcode
from hypothesis import given
from hypothesis import strategies as st

from gateway.testing import DnsServer, FakeClock, Query, poll
from gateway.testing.dns_data import Records

if TYPE_CHECKING:
    from gateway.testing import Flag

ZONE = """
$ORIGIN good.example.
@            3600 IN SOA ns1 hostmaster 7 3600 600 86400 120
             60   IN MX  10 mx1
                  IN MX  20 mx2.other.example.
             30      TXT "v=spf1 -all" "second string"
mx1          IN 42 A    127.0.0.2
                   AAAA ::1
www          CNAME  alias.other.example.
_25._tcp.mx1 TLSA   3 1 1 ( 0123456789abcdef0123456789abcdef
                            0123456789abcdef0123456789abcdef )  ; over two lines
*.wild       MX 5 mx1
deep.wild    A 127.0.0.9

$ORIGIN other.example.
$TTL 5
mx2          A      127.0.0.3
alias        CNAME  mx2
loop-a       CNAME  loop-b
loop-b       CNAME  loop-a
broken       CNAME  nothing
null.example. MX 0 .
"""


def resolver_for(server: DnsServer) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = [server.address], server.port, 3.0
    return resolver


async def ask(
    server: DnsServer,
    name: str,
    rdtype: str = "A",
    *,
    flags: int = 0,
    tcp: bool = False,
    timeout: float = 3.0,  # noqa: ASYNC109 - dnspython's own parameter
) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype)
    query.flags |= flags
    send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await send(query, server.address, port=server.port, timeout=timeout)


async def test_a_resolver_finds_every_kind_of_record() -> None:
    async with DnsServer(ZONE) as server:
        resolver = resolver_for(server)
        found = {
            (name, kind): sorted(record.to_text() for record in await resolver.resolve(name, kind))
            for name, kind in [
                ("good.example", "MX"),
                ("good.example", "TXT"),
                ("mx1.good.example", "A"),
                ("mx1.good.example", "AAAA"),
                ("_25._tcp.mx1.good.example", "TLSA"),
                ("anything.wild.good.example", "MX"),
                ("null.example", "MX"),
                ("good.example", "SOA"),
            ]
        }
    assert found == {
        ("good.example", "MX"): ["10 mx1.good.example.", "20 mx2.other.example."],
        ("good.example", "TXT"): ['"v=spf1 -all" "second string"'],
        ("mx1.good.example", "A"): ["127.0.0.2"],
        ("mx1.good.example", "AAAA"): ["::1"],
        ("_25._tcp.mx1.good.example", "TLSA"): ["3 1 1 " + "0123456789abcdef" * 4],
        ("anything.wild.good.example", "MX"): ["5 mx1.good.example."],
        ("null.example", "MX"): ["0 ."],
        ("good.example", "SOA"): ["ns1.good.example. hostmaster.good.example. 7 3600 600 86400 120"],
    }


async def test_cname_chains_are_followed_to_their_end_and_loops_fail() -> None:
    async with DnsServer(ZONE) as server:
        answer = await resolver_for(server).resolve("www.good.example", "A")
        assert answer.canonical_name == dns.name.from_text("mx2.other.example.")
        assert [rrset.rdtype for rrset in answer.response.answer] == [5, 5, 1]
        assert (await ask(server, "loop-a.other.example")).rcode() == Rcode.SERVFAIL
        dangling = await ask(server, "broken.other.example")
        assert dangling.rcode() == Rcode.NXDOMAIN
        assert len(dangling.answer) == 1


async def test_no_data_and_no_name_are_told_apart_both_with_soa() -> None:
    async with DnsServer(ZONE) as server:
        for name, kind, rcode, soa in [
            ("mx1.good.example", "MX", Rcode.NOERROR, "good.example."),
            ("_tcp.mx1.good.example", "A", Rcode.NOERROR, "good.example."),  # only a name below it exists
            ("none.good.example", "A", Rcode.NXDOMAIN, "good.example."),
            ("x.deep.wild.good.example", "MX", Rcode.NXDOMAIN, "good.example."),  # hidden from the wildcard
            ("none.nowhere", "A", Rcode.NXDOMAIN, "nowhere."),
        ]:
            response = await ask(server, name, kind)
            assert (response.rcode(), response.answer) == (rcode, []), name
            assert [r.name.to_text() for r in response.authority] == [soa]
            assert response.authority[0].rdtype == dns.rdatatype.SOA
        with pytest.raises(dns.resolver.NXDOMAIN):
            await resolver_for(server).resolve("none.good.example", "A")


async def test_ttl_comes_from_the_record_the_text_or_the_server() -> None:
    async with DnsServer(ZONE, ttl=777) as server:
        server.add("late.example. A 127.0.0.8")
        server.add("later.example. A 127.0.0.8", ttl=1)
        for name, ttl in [
            ("mx1.good.example", 42),
            ("mx2.other.example", 5),
            ("late.example", 777),
            ("later.example", 1),
        ]:
            assert (await ask(server, name)).answer[0].ttl == ttl, name


async def test_records_change_while_it_runs() -> None:
    async with DnsServer("a.example. MX 10 one.a.example.") as server:
        server.add("a.example. MX 20 two.a.example.")
        assert len((await ask(server, "a.example", "MX")).answer[0]) == 2
        server.remove("a.example", "MX")
        assert (await ask(server, "a.example", "MX")).rcode() == Rcode.NXDOMAIN
        server.set("b.example. A 127.0.0.1")
        assert (await ask(server, "b.example")).rcode() == Rcode.NOERROR
        with pytest.raises(ValueError, match="zone:2"):
            server.set("c.example. A 127.0.0.1\nd.example. A not-an-address\n")
        assert (await ask(server, "b.example")).rcode() == Rcode.NOERROR


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a.example. A 1.2.3", "zone:1"),
        ("\n\na.example. NOSUCHTYPE x", "zone:3"),
        ("$ORIGIN a.example.\n@ MX 10 mx\n\nmx A 1.2\nb A 127.0.0.1\n", "zone:4"),
        ("  A 127.0.0.1", "no owner"),
        ("a.example. MX ten mx.", "zone:1"),
        ("a.example. TLSA 3 1 1 (", "zone"),
        ("a.example.", "zone"),
    ],
)
def test_a_mistake_in_zone_text_is_told_with_its_line(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        DnsServer(text)


async def test_secure_names_carry_ad_only_for_those_who_ask() -> None:
    async with DnsServer(ZONE) as server:
        server.flag("mx1.good.example.", "secure")
        assert not (await ask(server, "mx1.good.example")).flags & dns.flags.AD
        assert (await ask(server, "mx1.good.example", flags=dns.flags.AD)).flags & dns.flags.AD
        query = dns.message.make_query("mx1.good.example", "A", want_dnssec=True)
        assert (await dns.asyncquery.udp(query, server.address, port=server.port)).flags & dns.flags.AD
        assert not (await ask(server, "good.example", "MX", flags=dns.flags.AD)).flags & dns.flags.AD


async def test_a_chain_is_secure_only_where_every_link_is() -> None:
    async with DnsServer(ZONE) as server:
        server.flag("good.example", "secure", subtree=True)
        assert not (await ask(server, "www.good.example", flags=dns.flags.AD)).flags & dns.flags.AD
        server.flag("other.example", "secure", subtree=True)
        assert (await ask(server, "www.good.example", flags=dns.flags.AD)).flags & dns.flags.AD
        assert (await ask(server, "none.good.example", flags=dns.flags.AD)).flags & dns.flags.AD
        server.unflag("other.example")
        assert not (await ask(server, "www.good.example", flags=dns.flags.AD)).flags & dns.flags.AD


async def test_bogus_names_fail_unless_checking_is_disabled() -> None:
    async with DnsServer(ZONE) as server:
        server.flag("good.example", "secure", subtree=True)
        server.flag("mx1.good.example", "bogus")
        assert (await ask(server, "mx1.good.example", flags=dns.flags.AD)).rcode() == Rcode.SERVFAIL
        response = await ask(server, "mx1.good.example", flags=dns.flags.AD | dns.flags.CD)
        assert response.rcode() == Rcode.NOERROR
        assert response.answer
        assert not response.flags & dns.flags.AD
        assert (await ask(server, "good.example", "MX")).rcode() == Rcode.NOERROR


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(("flag", "rcode"), [("servfail", Rcode.SERVFAIL), ("refused", Rcode.REFUSED)])
async def test_failures_hold_for_one_type_or_for_the_name(flag: Flag, rcode: Rcode, tcp: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    async with DnsServer(ZONE) as server:
        server.flag("mx1.good.example", flag, rdtype="AAAA")
        assert (await ask(server, "mx1.good.example", "AAAA", tcp=tcp)).rcode() == rcode
        assert (await ask(server, "mx1.good.example", "A", tcp=tcp)).rcode() == Rcode.NOERROR
        server.flag("mx2.other.example", flag)
        assert (await ask(server, "www.good.example", "A", tcp=tcp)).rcode() == rcode  # through the chain


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_timeout_is_silence(tcp: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    async with DnsServer(ZONE) as server:
        server.flag("mx1.good.example", "timeout")
        with pytest.raises(dns.exception.Timeout):
            await ask(server, "mx1.good.example", tcp=tcp, timeout=0.1)
        assert server.asked("mx1.good.example", "A") == 1
        server.unflag("mx1.good.example", "timeout")
        assert (await ask(server, "mx1.good.example", tcp=tcp)).answer


async def test_a_truncated_answer_is_whole_over_tcp_on_the_same_port() -> None:
    async with DnsServer(ZONE) as server:
        server.flag("good.example", "truncate", rdtype="MX")
        query = dns.message.make_query("good.example", "MX")
        response, over_tcp = await dns.asyncquery.udp_with_fallback(query, server.address, port=server.port, timeout=3)
        assert over_tcp
        assert len(response.answer[0]) == 2
        assert server.queries == [Query("good.example.", "MX", "udp"), Query("good.example.", "MX", "tcp")]


async def test_an_answer_too_large_for_its_packet_is_truncated_without_a_flag() -> None:
    async with DnsServer(ZONE) as server:
        server.flag("mx1.good.example", "many", rdtype="A", value=200)
        assert (await ask(server, "mx1.good.example")).flags & dns.flags.TC
        answer = await resolver_for(server).resolve("mx1.good.example", "A")
        assert len(answer) == 200
        assert "127.0.0.2" in {record.to_text() for record in answer}


@pytest.mark.parametrize("rdtype", ["A", "AAAA", "MX", "TXT", "TLSA"])
async def test_many_makes_as_many_distinct_records_as_asked_for(rdtype: str) -> None:
    async with DnsServer() as server:
        server.flag("big.example", "many", value=300)
        response = await ask(server, "big.example", rdtype, tcp=True)
        assert len(response.answer[0]) == 300


@pytest.mark.parametrize("tcp", [False, True])
async def test_garbage_and_wrong_ids_are_what_clients_must_not_believe(tcp: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    async with DnsServer(ZONE) as server:
        server.flag("mx1.good.example", "garbage", rdtype="A")
        with pytest.raises(dns.exception.DNSException):
            await ask(server, "mx1.good.example", "A", tcp=tcp, timeout=0.3)
        server.flag("mx1.good.example", "wrong_id", rdtype="AAAA")
        with pytest.raises(dns.query.BadResponse):
            await ask(server, "mx1.good.example", "AAAA", tcp=tcp, timeout=0.3)


async def test_a_slow_answer_waits_for_its_clock_and_does_not_hold_up_others() -> None:
    clock = FakeClock()
    async with DnsServer(ZONE, clock=clock) as server:
        server.flag("mx1.good.example", "slow", value=30)
        slow = asyncio.create_task(ask(server, "mx1.good.example"))
        await poll(lambda: clock.sleepers == 1)
        assert (await ask(server, "mx2.other.example")).answer
        await clock.advance(29.9)
        assert not slow.done()
        await clock.advance(0.1)
        assert (await slow).answer


async def test_the_question_comes_back_in_its_own_spelling() -> None:
    async with DnsServer(ZONE) as server:
        response = await ask(server, "mX1.gOOd.ExamplE")
        assert response.question[0].name.to_text() == "mX1.gOOd.ExamplE."
        assert response.answer
        assert server.queries[-1].name == "mx1.good.example."


async def test_junk_does_not_stop_the_server() -> None:
    async with DnsServer(ZONE) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for junk in (b"", b"x", b"\0" * 11, b"\xff" * 600, b"\x12\x34\x81\x80" + b"\0" * 8):
                sender.sendto(junk, (server.address, server.port))
        reader, writer = await asyncio.open_connection(server.address, server.port)
        writer.write(struct.pack("!H", 3) + b"abc" + struct.pack("!H", 40) + b"cut off")
        writer.close()
        await writer.wait_closed()
        assert await reader.read() == b""
        assert (await ask(server, "mx1.good.example")).answer
        status = dns.message.QueryMessage()
        status.set_opcode(dns.opcode.STATUS)
        response = await dns.asyncquery.udp(status, server.address, port=server.port, timeout=3)
        assert response.rcode() == Rcode.NOTIMP
        chaos = dns.message.make_query("version.bind", "TXT", "CH")
        response = await dns.asyncquery.udp(chaos, server.address, port=server.port, timeout=3)
        assert response.rcode() == Rcode.REFUSED


async def test_several_messages_share_a_tcp_connection() -> None:
    async with DnsServer(ZONE) as server:
        reader, writer = await asyncio.open_connection(server.address, server.port)
        for name in ("mx1.good.example", "mx2.other.example"):
            wire = dns.message.make_query(name, "A").to_wire()
            writer.write(struct.pack("!H", len(wire)) + wire)
        for _ in range(2):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            assert dns.message.from_wire(await reader.readexactly(length)).answer
        writer.close()
        await writer.wait_closed()


async def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown flag 'secur'"):
        DnsServer().flag("a.example", "secur")  # type: ignore[arg-type]  # the mistake is the point


LABELS = st.text("abc", min_size=1, max_size=2)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(lambda labels: ".".join(labels) + ".")


@given(st.lists(NAMES, min_size=1, max_size=8), NAMES)
def test_a_name_exists_exactly_where_it_or_something_below_it_has_records(names: list[str], asked: str) -> None:
    records = Records()
    records.add("\n".join(f"{name} A 127.0.0.1" for name in names), 300)
    found = records.lookup(dns.name.from_text(asked), dns.rdatatype.A)
    exists = any(name == asked or name.endswith("." + asked) for name in names)
    assert found.rcode == (Rcode.NOERROR if exists else Rcode.NXDOMAIN)
    assert bool(found.answer) == (asked in names)
    assert bool(found.authority) != bool(found.answer)
