"""Ports and waiting."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.testing import SmtpPeer, free_port, poll, read_until, wait_port


def test_a_free_port_can_be_bound_on_every_address_asked_for() -> None:
    addresses = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    port = free_port(*addresses)
    sockets = [socket.create_server((address, port)) for address in addresses]
    try:
        assert {s.getsockname()[1] for s in sockets} == {port}
    finally:
        for s in sockets:
            s.close()


async def test_peers_of_one_test_share_a_port_on_different_addresses() -> None:
    port = free_port("127.0.0.2", "127.0.0.3")
    async with SmtpPeer("127.0.0.2", port) as one, SmtpPeer("127.0.0.3", port) as two:
        assert (one.host_port, two.host_port) == (f"127.0.0.2:{port}", f"127.0.0.3:{port}")
        await wait_port("127.0.0.2", port)
        await wait_port("127.0.0.3", port)


async def test_poll_returns_what_the_condition_answered() -> None:
    answers = iter([None, 0, "", "yes"])
    assert await poll(lambda: next(answers)) == "yes"


async def test_poll_takes_an_async_condition() -> None:
    async def condition() -> int:
        await asyncio.sleep(0)
        return 7

    assert await poll(condition) == 7


async def test_poll_says_what_it_waited_for() -> None:
    with pytest.raises(TimeoutError, match=r"the moon .* last answer: 0"):
        await poll(lambda: 0, 0.05, what="the moon")


async def test_waiting_for_a_port_where_nobody_listens_ends() -> None:
    with pytest.raises(TimeoutError, match="a listener on"):
        await wait_port("127.0.0.1", free_port(), 0.1)


async def test_read_until_stops_at_the_marker_and_tells_what_came_instead() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"220 hello\r\n250 rest")
    assert await read_until(reader, b"\r\n") == b"220 hello\r\n"
    with pytest.raises(TimeoutError, match="250 rest"):
        await read_until(reader, b"\r\n", 0.05)
    reader.feed_eof()
    with pytest.raises(EOFError):
        await read_until(reader, b"\r\n")
