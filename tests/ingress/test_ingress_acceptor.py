"""Whoever stands at the door gets in: crowds at once, and again after descriptors ran out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

from gateway.ingress.acceptor import BATCH, Acceptor
from gateway.testing import poll

HOST = "127.0.0.1"


class Door(asyncio.Protocol):
    """Counts who came in, in which turn of the loop."""

    def __init__(self, came: list[int], turn: list[int]) -> None:
        self._came = came
        self._turn = turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._came.append(self._turn[0])
        wire = cast("asyncio.Transport", transport)
        wire.write(b"220\r\n")
        wire.close()


@asynccontextmanager
async def door(came: list[int], turn: list[int], errors: list[int]) -> AsyncIterator[tuple[str, int]]:
    listening = socket.socket()
    listening.bind((HOST, 0))
    served = Acceptor(listening, lambda: Door(came, turn), lambda error: errors.append(error.errno or 0), pause=0.05)
    served.start(1024)
    try:
        yield listening.getsockname()
    finally:
        served.close()
        served.close()  # again: nothing to do
        assert served.sockets == ()


def client(address: tuple[str, int]) -> socket.socket:
    made = socket.create_connection(address, 10)
    made.settimeout(10)
    return made


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_crowd_is_taken_in_few_turns_however_long_a_turn_is() -> None:
    came: list[int] = []
    turn, errors = [0], list[int]()
    async with door(came, turn, errors) as address:
        clients = [client(address) for _ in range(100)]  # the kernel takes them in; nobody has looked yet
        while len(came) < len(clients):
            turn[0] += 1
            await asyncio.sleep(0)
            assert turn[0] < 1000
        # Each turn takes a batch; a connection needs a few more until its protocol is made.
        assert max(came) <= -(-len(clients) // BATCH) + 20
        for each in clients:
            assert await asyncio.to_thread(each.recv, 10) == b"220\r\n"
            each.close()


async def test_without_descriptors_clients_wait_and_get_in_later() -> None:
    came: list[int] = []
    errors: list[int] = []
    async with door(came, [0], errors) as address:
        waiting = client(address)
        with no_descriptors_left():
            await poll(lambda: bool(errors), 10, what="a look without descriptors")
            assert errors[0] == errno.EMFILE
            assert came == []
        assert await asyncio.to_thread(waiting.recv, 10) == b"220\r\n"
        waiting.close()
