"""Ports, and waiting for something to become true, without sleeping on a guess."""

# ruff: noqa: ASYNC109 - the deadline is part of what these promise, and their message names what was awaited

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import socket
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

__all__ = ["free_port", "poll", "read_until", "wait_port"]

#: Below the range that Linux hands to outgoing connections (32768 on), so that a port found free is not taken by
#: somebody's client before the test binds it.
_LOWEST, _HIGHEST = 20_000, 32_000
#: Of its own: where a test run seeds the common generator, all its processes would try the same ports in turn.
_CHANCE = random.SystemRandom()


def free_port(*addresses: str) -> int:
    """A port that is free for TCP and UDP on every one of ``addresses`` (default 127.0.0.1).

    All MX hosts of a scenario share one ``delivery.port``: give their addresses (127.0.0.2, 127.0.0.3, ...), then start
    one peer on each. Raises ``OSError`` where none can be found.
    """
    wanted = addresses or ("127.0.0.1",)
    for _ in range(500):
        port = _CHANCE.randint(_LOWEST, _HIGHEST)
        if all(_bindable(address, port) for address in wanted):
            return port
    raise OSError(f"no port is free on all of {', '.join(wanted)}")


def _bindable(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as probe:
            # No SO_REUSEADDR: a port in TIME_WAIT counts as taken.
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


@overload
async def poll(
    condition: Callable[[], Awaitable[T]], timeout: float = ..., *, interval: float = ..., what: str = ...
) -> T: ...
@overload
async def poll(condition: Callable[[], T], timeout: float = ..., *, interval: float = ..., what: str = ...) -> T: ...
async def poll(
    condition: Callable[[], Any],
    timeout: float = 10.0,
    *,
    interval: float = 0.01,
    what: str = "the condition",
) -> Any:
    """Ask ``condition`` (plain or async) until it answers something true, and return that.

    Raises ``TimeoutError`` naming ``what`` and the last answer after ``timeout`` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if loop.time() >= deadline:
            raise TimeoutError(f"{what} did not come true within {timeout:g} s; last answer: {value!r}")
        await asyncio.sleep(interval)


async def read_until(
    reader: asyncio.StreamReader,
    marker: bytes,
    timeout: float = 10.0,
) -> bytes:
    """Everything from ``reader`` up to and including ``marker``.

    Raises ``TimeoutError`` or ``EOFError`` with what was read where the marker does not come.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(timeout):
            while not data.endswith(marker):
                byte = await reader.read(1)
                if not byte:
                    raise EOFError(f"the stream ended before {marker!r}: {bytes(data)!r}")
                data += byte
    except TimeoutError:
        raise TimeoutError(f"no {marker!r} within {timeout:g} s, only {bytes(data)!r}") from None
    return bytes(data)


async def wait_port(address: str, port: int, timeout: float = 10.0) -> None:
    """Wait until something accepts TCP connections there; raises ``TimeoutError``."""

    async def accepts() -> bool:
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    await poll(accepts, timeout, what=f"a listener on {address}:{port}")
