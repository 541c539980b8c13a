"""A server with an intake in memory, and a client that says exactly what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from gateway.clock import Clock, SystemClock
from gateway.config.model import Connector, Settings
from gateway.errors import Refusal
from gateway.ingress.seams import LookupTxt, Submission
from gateway.ingress.server import IngressServer
from gateway.mail.address import Address
from gateway.mail.ids import uuid7
from gateway.testing import CA

LOOP_KEY = b"k" * 32
CA_ROOT = CA()
CERTIFICATE = CA_ROOT.issue("gw.clinic.example")
REPLY = re.compile(rb"(?:(?P<code>[2-5]\d\d)(?P<more>[ -])(?P<text>[\x20-\x7e]*)\r\n)\Z")
HEADER = b"From: Ann <ann@clinic.example>\r\nTo: bob@b.example\r\nSubject: hello\r\n"


class MemorySpool:
    """Keeps what is written; says when it was aborted."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.aborted = False
        self.fail: Exception | None = None

    @property
    def size(self) -> int:
        return len(self.data)

    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    async def write(self, data: bytes) -> None:
        if self.fail is not None:
            raise self.fail
        self.data += data

    async def abort(self) -> None:
        self.aborted = True


@dataclass
class Accepted:
    submission: Submission
    data: bytes


@dataclass
class MemoryIntake:
    """Takes everything, unless told otherwise. ``gate``: commits wait for it."""

    accepted: list[Accepted] = field(default_factory=list)
    spools: list[MemorySpool] = field(default_factory=list)
    unready: Refusal | None = None
    open_error: Exception | None = None
    write_error: Exception | None = None
    accept_error: Exception | None = None
    recipient: Callable[[Address], Refusal | None] = lambda _: None
    gate: asyncio.Event | None = None
    committing: int = 0
    _ids: int = 0

    def ready(self) -> Refusal | None:
        return self.unready

    def new_id(self) -> str:
        self._ids += 1
        return uuid7(1_800_000_000 + self._ids, self._ids.to_bytes(10, "big"))

    async def open_spool(self, message_id: str) -> MemorySpool:
        if self.open_error is not None:
            raise self.open_error
        spool = MemorySpool()
        spool.fail = self.write_error
        self.spools.append(spool)
        return spool

    def check_recipient(
        self, connectors: Sequence[Connector], sender: Address | None, recipient: Address
    ) -> Refusal | None:
        assert connectors
        return self.recipient(recipient)

    async def accept(self, submission: Submission) -> str:
        self.committing += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.accept_error is not None:
            raise self.accept_error
        spool = submission.spool
        assert isinstance(spool, MemorySpool)
        data = bytes(spool.data)
        assert not spool.aborted
        assert submission.message.size == len(data)
        assert submission.message.digest == hashlib.sha256(data).hexdigest()
        assert data.startswith(submission.header_block)
        self.accepted.append(Accepted(submission, data))
        return submission.message.id


@dataclass
class Counted:
    """Metrics that remember."""

    results: list[tuple[str, str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    open: int = 0
    soft: int = 0

    def received(self, connector: str, result: str) -> None:
        self.results.append((connector, result))

    def connections(self, listener: str, change: int) -> None:
        self.open += change

    def refused(self, reason: str) -> None:
        self.reasons.append(reason)

    def softened(self) -> None:
        self.soft += 1


async def no_txt(name: str) -> Sequence[bytes]:
    return []


def connector(**changes: Any) -> dict[str, Any]:
    """An application on loopback, in force; ``changes`` to it."""
    return {
        "name": "app",
        "stage": "enforce",
        "accept": {"networks": ["127.0.0.0/8"]},
        "senders": ["clinic.example"],
        **changes,
    }


def settings_of(folder: Path, **changes: Any) -> Settings:
    """Settings of a gateway with one plain listener and one connector; ``changes`` to the sections."""
    certificate, key = CERTIFICATE.write(folder, "gw")
    base: dict[str, Any] = {
        "hostname": "gw.clinic.example",
        "postmaster": "postmaster@clinic.example",
        "data_dir": str(folder),
        "tls": {
            "certificate": str(certificate),
            "key": str(key),
            "trust": str(CA_ROOT.write_root(folder / "root.pem")),
        },
        "listeners": [{"address": "127.0.0.1:0", "tls": "offered"}],
        "connectors": [connector()],
    }
    return Settings.model_validate({**base, **changes})


@dataclass
class Running:
    """A server that runs, and everything around it."""

    server: IngressServer
    intake: MemoryIntake
    metrics: Counted
    log: structlog.testing.LogCapture
    port: int

    def events(self, name: str) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self.log.entries if entry["event"] == name]

    async def client(self, *, tls: bool = False, greet: bool = True, source: str | None = None) -> Talker:
        return await Talker.connect(self.port, tls=tls, greet=greet, source=source)


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock | None = None,
    intake: MemoryIntake | None = None,
    lookup_txt: LookupTxt = no_txt,
) -> AsyncIterator[Running]:
    """A server of these settings; afterwards no session, no commit and no connection is left."""
    capture = structlog.testing.LogCapture()
    log = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.BoundLogger)
    intake, metrics = intake or MemoryIntake(), Counted()
    server = IngressServer(
        settings, intake, clock or SystemClock(), metrics, log, lookup_txt=lookup_txt, loop_key=LOOP_KEY
    )
    bound = await server.start()
    try:
        yield Running(server, intake, metrics, capture, bound[0].port if bound else 0)
    finally:
        await server.close()
    assert not server.commits
    assert metrics.open == 0
    assert server.counts.total == 0


class Talker:
    """An SMTP client that says what it is told, byte for byte, and checks that every reply is one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, *, tls: bool = False, greet: bool = True, source: str | None = None) -> Talker:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=(source, 0) if source else None, limit=2**20
        )
        talker = cls(reader, writer)
        if tls:
            await talker.shake_hands()
        if greet:
            assert (await talker.reply())[0] == 220
        return talker

    async def shake_hands(self, context: ssl.SSLContext | None = None) -> None:
        await self.writer.start_tls(
            context or CA_ROOT.client_context(), server_hostname="gw.clinic.example", ssl_handshake_timeout=10
        )
        # Before 3.12 the reader keeps the old transport for its flow control.
        self.reader._transport = self.writer.transport  # type: ignore[attr-defined] # a private name of asyncio

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> tuple[int, str]:
        """The next reply: code and text. Fails where it is malformed."""
        lines: list[str] = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 10)
            if not line:
                raise EOFError("no reply, the connection is closed")
            match = REPLY.match(line)
            assert match is not None, line
            lines.append(match["text"].decode())
            if match["more"] == b" ":
                return int(match["code"]), "\n".join(lines)

    async def say(self, line: str | bytes) -> tuple[int, str]:
        """Send a command, give back its reply; an enhanced code must be on all but those that have none."""
        data = line if isinstance(line, bytes) else line.encode()
        self.send(data + b"\r\n")
        code, text = await self.reply()
        hello = data[:4].upper() in (b"EHLO", b"HELO") and code == 250
        if code != 354 and not hello:
            assert re.match(rf"{code // 100}\.\d\.\d+ ", text), (code, text)
        return code, text

    async def expect(self, line: str | bytes, code: int) -> str:
        found, text = await self.say(line)
        assert found == code, (line, found, text)
        return text

    async def hello(self) -> str:
        return await self.expect("EHLO client.example", 250)

    async def envelope(self, sender: str = "ann@clinic.example", *recipients: str) -> None:
        await self.expect(f"MAIL FROM:<{sender}>", 250)
        for recipient in recipients or ("bob@b.example",):
            await self.expect(f"RCPT TO:<{recipient}>", 250)

    async def data(self, content: bytes) -> tuple[int, str]:
        """DATA with this content - already stuffed - and the end."""
        await self.expect("DATA", 354)
        self.send(content + b".\r\n")
        return await self.reply()

    async def at_end(self) -> bool:
        """Whether the server has closed the connection, with nothing more to say."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 10) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()
