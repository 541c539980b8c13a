"""The server against strangers who take their time, send too much, or speak something else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from gateway.testing.ca import CA
from gateway.web import PAGE_POLICY, ServerLimits
from tests.web.stand import LOOPBACK, Stand, face, stand

QUICK = ServerLimits(
    connections=12,
    connections_per_network=8,
    handshake=1.0,
    head=1.0,
    pace=1.0,
    pace_bytes=1000,
    take=1.5,
    idle=1.0,
    linger=1.0,
    drain=2.0,
)
FORM = (
    b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)
GET = b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def web() -> AsyncIterator[Stand]:
    async with stand(limits=QUICK) as running:
        yield running


async def seconds_until_cut(web: Stand, first: bytes, trickle: bytes) -> float:
    """How long the server bears with a client that sends ``first``, and then ``trickle`` ten times a second."""
    reader, writer = await web.raw()
    begun = time.monotonic()
    writer.write(first)
    try:
        while time.monotonic() < begun + 10:
            with suppress(TimeoutError):
                if not await asyncio.wait_for(reader.read(65536), 0.1):
                    break
            writer.write(trickle)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()
    return time.monotonic() - begun


@pytest.mark.parametrize(
    ("first", "trickle"),
    [
        (b"", b""),
        (b"G", b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-a: b\r\n"),
        (b"", b"\r\n"),
        (GET, b"G"),  # behind a whole request
        (FORM, b"a"),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n", b"a" * 1000),
    ],
    ids=["silence", "a letter", "endless fields", "endless lines", "next head", "body", "chunks", "refused body"],
)
async def test_who_trickles_is_cut_off(web: Stand, first: bytes, trickle: bytes) -> None:
    assert await seconds_until_cut(web, first, trickle) < 6
    assert (await web.client.get("/who")).status_code == 200


async def test_who_does_not_take_the_answer_is_cut_off(web: Stand) -> None:
    _, writer = await web.raw()
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()
    # asyncio reads 64 KiB ahead and no more: the rest waits at the server, until its patience ends.
    deadline = time.monotonic() + 10
    while not any(visit[1] == "large" for visit in web.counts.visits):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)  # between two looks
    writer.close()
    assert (await web.client.get("/who")).status_code == 200


async def test_a_body_that_gets_on_may_take_its_time(web: Stand) -> None:
    token = (await web.client.get("/form")).text.split('value="')[1].split('"')[0]

    async def body() -> AsyncIterator[bytes]:
        yield f"csrf={token}&text=".encode()
        for _ in range(12):
            await asyncio.sleep(0.2)  # the client's own pace
            yield b"x" * 1000

    answer = await web.client.post(
        "/form", content=body(), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 200


async def test_one_network_cannot_have_all_connections(web: Stand) -> None:
    held = [await web.raw() for _ in range(QUICK.connections_per_network)]
    assert await web.say(GET) == b""
    for _, writer in held:
        writer.close()
    deadline = time.monotonic() + 5
    while (await web.say(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))[:12] != b"HTTP/1.1 200":
        assert time.monotonic() < deadline


async def test_a_trusted_proxy_may_have_all_connections_but_there_are_only_so_many() -> None:
    async with stand(face(trusted=LOOPBACK), QUICK) as web:
        held = [await web.raw() for _ in range(QUICK.connections - 1)]
        closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert (await web.say(closing)).startswith(b"HTTP/1.1 200")
        held.append(await web.raw())
        assert await web.say(GET) == b""
        for _, writer in held:
            writer.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\nConnection: close\r\n\r\n", b"431"),
        (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + b"X: y\r\n" * 90 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls where there is none\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\x00: c\r\n\r\n", b"400"),
    ],
)
async def test_what_cannot_be_read_is_answered_with_the_headers_of_every_answer(
    web: Stand, request_: bytes, status: bytes
) -> None:
    answer = await web.say(request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"content-security-policy: " + PAGE_POLICY.encode() in answer.lower().replace(
        PAGE_POLICY.lower().encode(), PAGE_POLICY.encode()
    )


async def test_a_web_socket_is_an_ordinary_request(web: Stand) -> None:
    answer = await web.say(
        b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200")


async def test_requests_behind_one_another_are_answered_in_order(web: Stand) -> None:
    answer = await web.say(
        GET + b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"127.0.0.0/24") == 2


async def test_the_end_waits_for_what_is_under_way_and_takes_nothing_new(web: Stand) -> None:
    under_way = asyncio.create_task(web.client.get("/slow"))
    idle_reader, idle_writer = await web.raw()
    deadline = time.monotonic() + 5
    while not any(True for _ in web.server._server.server_state.tasks):  # type: ignore[union-attr]  # it runs
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await web.server.stop()
    answer = await under_way
    assert (answer.status_code, answer.text) == (200, "done")
    assert await idle_reader.read() == b""
    idle_writer.close()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await web.raw()


# -- TLS --------------------------------------------------------------------------------------------------------------


async def test_with_tls_of_its_own_the_client_is_secure_and_a_slow_handshake_ends() -> None:
    ca = CA()
    made = face("https://secure.clinic.example")
    async with stand(made, QUICK, ca.issue("secure.clinic.example").server_context()) as web:
        context = ca.client_context()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", web.port, ssl=context, server_hostname="secure.clinic.example"
        )
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"strict-transport-security: max-age=31536000" in answer.lower()
        assert answer.endswith(b"127.0.0.1 True 127.0.0.0/24")
        assert 0.5 < await seconds_until_cut(web, b"\x16\x03\x01", b"") < 4
        assert 0 <= await seconds_until_cut(web, GET, b"") < 4  # no TLS, no answer in clear
