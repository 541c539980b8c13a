"""What the tests of the kit share: a client that says exactly what it is told to, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Self

import pytest

from gateway.testing import CA, Certificate, SmtpPeer, read_until

if TYPE_CHECKING:
    from collections.abc import Callable


class Dialogue:
    """A raw SMTP client over asyncio streams."""

    def __init__(self, peer: SmtpPeer, context: ssl.SSLContext | None) -> None:
        self._peer = peer
        self._context = context
        self._tls = context is not None

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(self._peer.address, self._peer.port, ssl=self._context)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def reply(self, timeout: float = 5.0) -> tuple[int, str]:  # noqa: ASYNC109 - passed on
        """The next reply: its code and its text, lines joined by LF."""
        texts = []
        while True:
            line = (await read_until(self.reader, b"\r\n", timeout)).decode()
            texts.append(line[4:-2])
            if line[3] != "-":
                return int(line[:3]), "\n".join(texts)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def say(self, line: str) -> int:
        """Send a command, return the code that comes back."""
        self.send(line.encode() + b"\r\n")
        return (await self.reply())[0]

    async def greeted(self, *, upto: str = "EHLO") -> Self:
        """Past the greeting and EHLO, and past MAIL and RCPT (``upto="RCPT"``) or DATA."""
        assert (await self.reply())[0] == 220
        steps = ["EHLO gw.example", "MAIL FROM:<a@a.example>", "RCPT TO:<b@b.example>", "DATA"]
        for step in steps:
            assert await self.say(step) in {250, 354}
            if step.startswith(upto):
                break
        return self

    async def ended(self) -> bytes:
        """What still came until the peer closed."""
        try:
            return await asyncio.wait_for(self.reader.read(), 5)
        except ConnectionResetError:
            return b"reset"


@pytest.fixture
def dialogue() -> Callable[..., Dialogue]:
    def make(peer: SmtpPeer, context: ssl.SSLContext | None = None) -> Dialogue:
        return Dialogue(peer, context)

    return make


@pytest.fixture(scope="session")
def ca() -> CA:
    return CA()


@pytest.fixture(scope="session")
def certificate(ca: CA) -> Certificate:
    return ca.issue("mx.peer.example", "127.0.0.1")
