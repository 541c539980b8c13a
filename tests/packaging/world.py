"""The shipped DNS server and a mail host, in the network of another process: a thread that moved there serves them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.testing import CA, DnsServer, SmtpPeer

__all__ = ["World", "world"]

_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class World:
    """``resolver`` answers for ``peer.example``, whose only mail host is ``peer``, with a certificate of ``ca``."""

    resolver: str
    peer: SmtpPeer
    ca: CA


@contextmanager
def world(pid: int | None = None) -> Iterator[World]:
    """In the network of process ``pid``, or in our own."""
    ca = CA()
    made: list[World] = []
    failure: list[BaseException] = []
    up, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        peer = SmtpPeer("127.0.0.2", certificate=ca.issue("mx1.peer.example"))
        zone = "peer.example. MX 10 mx1.peer.example.\nmx1.peer.example. A 127.0.0.2\n"
        async with DnsServer(zone) as server, peer:
            made.append(World(server.resolver, peer, ca))
            up.set()
            await stop.wait()

    def run() -> None:
        try:
            if pid is not None:
                _move(pid)
            loop.run_until_complete(serve())
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that asked
            failure.append(error)
        finally:
            up.set()
            loop.close()

    thread = threading.Thread(target=run, name="world")
    thread.start()
    up.wait(10)
    try:
        if failure:
            raise failure[0]
        yield made[0]
    finally:
        with suppress(RuntimeError):  # the loop is closed where serving failed
            loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def _move(pid: int) -> None:
    """The calling thread alone goes to that network; sockets stay where they are made."""
    handle = os.open(Path(f"/proc/{pid}/ns/net"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(handle)
