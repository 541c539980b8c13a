"""The PROXY protocol, version 2: who the client is behind a load balancer, and that nobody else can say so."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingress.proxy_protocol import LONGEST, SIGNATURE, ProxyError, ProxyHeader, parse_header
from gateway.testing import FakeClock, poll
from tests.ingress.ingress_harness import CA_ROOT, HEADER, Running, Talker, connector, running, settings_of

BODY = HEADER + b"\r\nhello\r\n"


def header(client: str, *, records: bytes = b"", command: int = 0x21, family: int | None = None) -> bytes:
    address = ipaddress.ip_address(client)
    addresses = address.packed + address.packed + struct.pack(">HH", 40000, 25) + records
    if family is None:
        family = 0x11 if address.version == 4 else 0x21
    return SIGNATURE + struct.pack(">BBH", command, family, len(addresses)) + addresses


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"

# -- pure ----------------------------------------------------------------------------------------------------------

ADDRESSES = st.ip_addresses().filter(
    lambda each: (
        not (each.is_unspecified or each.is_multicast)
        and not (isinstance(each, ipaddress.IPv6Address) and each.ipv4_mapped)
    )
)
RECORDS = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=5).map(
    lambda records: b"".join(struct.pack(">BH", kind, len(value)) + value for kind, value in records)
)


@given(ADDRESSES, RECORDS, st.binary(max_size=20))
def test_a_header_is_read_as_soon_as_it_is_there_and_not_before(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address, records: bytes, rest: bytes
) -> None:
    octets = header(str(client), records=records)
    for size in range(len(octets)):
        assert parse_header(octets[:size]) is None
    assert parse_header(octets + rest) == ProxyHeader(client, len(octets))


@given(st.binary(max_size=60), st.integers(0, 2**16 - 1), st.binary(max_size=60))
def test_anything_else_is_refused_or_waited_for_within_bounds(start: bytes, length: int, rest: bytes) -> None:
    for octets in (start, SIGNATURE + start, SIGNATURE + b"\x21\x11" + struct.pack(">H", length) + rest):
        try:
            found = parse_header(octets)
        except ProxyError:
            continue
        if found is None:
            assert len(octets) < LONGEST
        else:
            assert found.size <= len(octets)


def test_the_proxys_own_connections_have_no_client() -> None:
    assert parse_header(LOCAL + b"EHLO") == ProxyHeader(None, 16)
    assert parse_header(header("192.0.2.1", command=0x20)) == ProxyHeader(None, 28)
    assert parse_header(header("192.0.2.1", command=0x20, family=0x31)) == ProxyHeader(None, 28)


def test_an_ipv4_address_in_ipv6_is_the_ipv4_address() -> None:
    assert parse_header(header("::ffff:192.0.2.1")) == ProxyHeader(ipaddress.ip_address("192.0.2.1"), 52)


WRONG = {
    "version 1": b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n",
    "no header": b"EHLO x\r\n",
    "another version": header("192.0.2.1", command=0x11),
    "unknown command": header("192.0.2.1", command=0x22),
    "UDP": header("192.0.2.1", family=0x12),
    "a UNIX socket": header("192.0.2.1", family=0x31),
    "unspecified family": header("192.0.2.1", family=0x00),
    "addresses cut short": header("192.0.2.1", family=0x21),
    "no address at all": header("0.0.0.0"),
    "a group's address": header("224.0.0.1"),
    "a record cut short": header("192.0.2.1", records=b"\x01\x00\x05abc"),
    "half a record": header("192.0.2.1", records=b"\x01"),
    "endless records": header("192.0.2.1", records=b"\x04\x0f\xff" + b"x" * 4095),
}


@pytest.mark.parametrize("octets", WRONG.values(), ids=WRONG)
def test_what_is_malformed_is_refused(octets: bytes) -> None:
    with pytest.raises(ProxyError):
        parse_header(octets)


# -- on the wire -----------------------------------------------------------------------------------------------------


def behind(folder: Path, tls: str = "offered", proxies: tuple[str, ...] = ("127.0.0.1",), **changes: Any) -> Any:
    base: dict[str, Any] = {
        "listeners": [{"address": "127.0.0.1:0", "tls": tls, "proxy_protocol": list(proxies)}],
        "connectors": [connector(accept={"networks": ["192.0.2.0/24", "2001:db8::/32"]})],
    }
    return settings_of(folder, **{**base, **changes})


async def through(run: Running, octets: bytes, step: int = 10_000) -> Talker:
    client = await run.client(greet=False)
    for start in range(0, len(octets), step):
        client.send(octets[start : start + step])
        if step < 100:
            await asyncio.sleep(0.001)
    return client


async def sent(client: Talker, run: Running) -> str:
    """Send a message; the client's address that it was taken from."""
    await client.hello()
    await client.envelope()
    code, text = await client.data(BODY)
    assert code == 250, text
    return run.intake.accepted[-1].submission.message.envelope.client_address


@pytest.mark.parametrize("client_address", ["192.0.2.7", "2001:db8::7"])
@pytest.mark.parametrize("step", [1, 10_000])
async def test_the_client_is_whom_the_proxy_names(tmp_path: Path, client_address: str, step: int) -> None:
    async with running(behind(tmp_path)) as run:
        client = await through(run, header(client_address, records=b"\x04\x00\x02hi"), step)
        assert (await client.reply())[0] == 220
        assert await sent(client, run) == client_address
        (event,) = run.events("accepted")
        assert (event["client"], event["proxy"]) == (client_address, "127.0.0.1")
        await client.expect("STARTTLS", 220)
        await client.shake_hands()
        assert await sent(client, run) == client_address
        await client.close()


async def test_what_comes_in_the_same_packet_is_not_lost(tmp_path: Path) -> None:
    async with running(behind(tmp_path)) as run:
        client = await through(run, header("192.0.2.7") + b"EHLO x\r\nNOOP\r\n")
        assert [(await client.reply())[0] for _ in range(3)] == [220, 250, 250]
        await client.close()


async def test_implicit_tls_comes_behind_the_header(tmp_path: Path) -> None:
    async with running(behind(tmp_path, "implicit")) as run:
        client = await through(run, header("192.0.2.7"))
        await client.shake_hands()
        assert (await client.reply())[0] == 220
        assert await sent(client, run) == "192.0.2.7"
        assert run.intake.accepted[0].submission.message.envelope.protocol == "ESMTPS"
        await client.close()


async def test_a_handshake_that_begins_in_the_headers_packet(tmp_path: Path) -> None:
    async with running(behind(tmp_path, "implicit")) as run:
        assert (await asyncio.to_thread(greeting_in_one_packet, run.port)).startswith(b"220 ")
        await poll(lambda: run.server.connections == 0)


def greeting_in_one_packet(port: int) -> bytes:
    """What the server says first, where header and ClientHello come together."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = CA_ROOT.client_context().wrap_bio(incoming, outgoing, server_hostname="gw.clinic.example")
    first = header("192.0.2.7")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plug:
        while True:
            try:
                tls.do_handshake()
                return tls.read(1000)
            except ssl.SSLWantReadError:
                plug.sendall(first + outgoing.read())
                first = b""
                incoming.write(plug.recv(65536))


async def test_a_health_check_is_the_proxy_itself(tmp_path: Path) -> None:
    async with running(behind(tmp_path)) as run:
        client = await through(run, LOCAL)
        assert (await client.reply())[0] == 220
        await client.hello()
        await client.expect("MAIL FROM:<ann@clinic.example>", 550)
        assert run.events("refused")[0]["client"] == "127.0.0.1"
        await client.close()


async def test_who_is_no_proxy_is_taken_for_who_it_is(tmp_path: Path) -> None:
    settings = behind(tmp_path, proxies=("10.0.0.1", "2001:db8::1"))
    async with running(settings) as run:
        client = await run.client()
        await client.hello()
        await client.expect("MAIL FROM:<ann@clinic.example>", 550)
        await client.close()
        liar = await through(run, header("192.0.2.7") + b"EHLO x\r\nMAIL FROM:<ann@clinic.example>\r\n")
        assert [(await liar.reply())[0] for _ in range(7)] == [220, 500, 500, 500, 500, 500, 503]
        await liar.hello()
        await liar.expect("MAIL FROM:<ann@clinic.example>", 550)
        assert {event["client"] for event in run.events("refused")} == {"127.0.0.1"}
        await liar.close()


@pytest.mark.parametrize("octets", WRONG.values(), ids=WRONG)
async def test_a_proxy_without_a_header_that_can_be_taken_is_cut_off(tmp_path: Path, octets: bytes) -> None:
    async with running(behind(tmp_path)) as run:
        client = await through(run, octets)
        assert await client.at_end()
        assert run.metrics.reasons == ["proxy"]
        assert run.events("refused")[0]["detail"].startswith("127.0.0.1: ")
        assert not run.server._fronts
        await client.close()


async def test_a_connection_that_ends_before_its_header_is_counted(tmp_path: Path) -> None:
    async with running(behind(tmp_path)) as run:
        client = await through(run, SIGNATURE)
        await client.close()
        await poll(lambda: run.metrics.reasons == ["proxy"])
        await poll(lambda: not run.server._fronts)


async def test_a_header_has_to_come_at_once_and_fronts_are_counted_and_cut(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(behind(tmp_path, limits={"connections": 2}), clock=clock) as run:
        slow = await through(run, SIGNATURE[:5])
        silent = await run.client(greet=False)
        await poll(lambda: len(run.server._fronts) == 2)
        beyond = await run.client(greet=False)
        assert await beyond.at_end()
        await clock.advance(4)
        assert not run.metrics.reasons
        await clock.advance(2)
        assert await slow.at_end()
        assert await silent.at_end()
        assert run.metrics.reasons == ["proxy", "proxy"]
        last = await through(run, SIGNATURE)
        await poll(lambda: run.server._fronts)
        await run.server.drain(1)
        assert await last.at_end()
        for client in (slow, silent, beyond, last):
            await client.close()


async def test_limits_are_the_clients(tmp_path: Path) -> None:
    far = [connector(accept={"networks": ["10.0.0.0/8"]})]
    async with running(behind(tmp_path, limits={"connections_per_network": 1}, connectors=far)) as run:
        clients = [await through(run, header(f"192.0.{third}.1")) for third in (1, 2, 2)]
        assert [(await client.reply())[0] for client in clients] == [220, 220, 421]
        for client in clients:
            await client.close()
