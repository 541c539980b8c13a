"""A peer, what we need to open a session to it, and messages to send: each test overrides one thing."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.config.outbound import Credentials, Timeouts
from gateway.delivery.contexts import ClientContexts
from gateway.delivery.session import Session, SessionFailed
from gateway.delivery.target import Environment, Target, TlsPolicy
from gateway.delivery.transaction import Transaction
from gateway.delivery.trust import Trust
from gateway.mail.address import Address
from gateway.mail.attempt import Failure
from gateway.mail.envelope import Recipient
from gateway.mail.protection import Assurance
from gateway.testing import CA, Behaviour, SmtpPeer, free_port

HOST = "mx1.good.example"
ADDRESS = "127.0.0.2"
SECRET = b"Subject: the secret subject\r\n\r\nthe secret body\r\n"

ROOT = CA("World Root")
CERTIFICATE = ROOT.issue(HOST)

#: Long enough for a slow machine, short enough for a test of a peer that says nothing.
QUICK = Timeouts(connect=5, greeting=5, ehlo=5, starttls=5, mail=5, rcpt=5, data=5, block=5, dot=5)

NO_PLAIN_MAIL = (b"MAIL", b"RCPT", b"DATA", b"secret", b"Subject")


def recipients(*addresses: str) -> tuple[Recipient, ...]:
    return tuple(Recipient(Address.parse(address)) for address in addresses)


def transaction(
    raw: bytes = SECRET,
    *,
    to: Sequence[str] | tuple[Recipient, ...] = ("b@good.example",),
    sender: str | None = "a@clinic.example",
    blocks: int = 0,
    **changes: Any,
) -> Transaction:
    """A message; ``blocks`` cuts the body into pieces of that many octets."""

    async def body() -> AsyncIterator[bytes]:
        step = blocks or max(len(raw), 1)
        for start in range(0, len(raw), step):
            yield raw[start : start + step]

    values: dict[str, Any] = {
        "message_id": "0190-test",
        "sender": None if sender is None else Address.parse(sender),
        "recipients": tuple(r if isinstance(r, Recipient) else recipients(r)[0] for r in to),
        "body": body,
        "size": len(raw),
        "required": Assurance.NONE,
    }
    return Transaction(**(values | changes))


def doing(stage: str, script: Any, **more: Any) -> Behaviour:
    """A peer that is healthy but for one stage."""
    values: Any = {stage: script, **more}
    return Behaviour(**values)


@dataclass
class World:
    """One peer with a good certificate, and a gateway that trusts its CA."""

    peer: SmtpPeer
    environment: Environment
    sessions: list[Session] = field(default_factory=list)

    async def open(
        self,
        require: Assurance = Assurance.VERIFIED,
        *,
        policy: TlsPolicy | None = None,
        credentials: Credentials | None = None,
        **target: Any,
    ) -> Session:
        values: dict[str, Any] = {"host": HOST, "address": self.peer.address, "port": self.peer.port} | target
        session = await Session.open(
            Target(**values), policy or TlsPolicy(require=require), self.environment, credentials
        )
        self.sessions.append(session)
        return session

    async def refused(self, *args: Any, **kwargs: Any) -> SessionFailed:
        """The failure of a session that must not come about; the peer must have seen nothing of any mail."""
        with pytest.raises(SessionFailed) as caught:
            await self.open(*args, **kwargs)
        assert not any(word in self.peer.received for word in NO_PLAIN_MAIL)
        assert caught.value.address == self.peer.address
        return caught.value

    async def failure(self, *args: Any, **kwargs: Any) -> Failure:
        return (await self.refused(*args, **kwargs)).failure


@asynccontextmanager
async def world(
    behaviour: Behaviour | None = None,
    *,
    certificate: Any = CERTIFICATE,
    timeouts: Timeouts = QUICK,
    contexts: ClientContexts | None = None,
) -> AsyncIterator[World]:
    port = free_port(ADDRESS)
    async with SmtpPeer(ADDRESS, port, certificate=certificate, behaviour=behaviour or Behaviour()) as peer:
        environment = Environment(
            hostname="gw.clinic.example",
            clock=SystemClock(),
            trust=Trust.from_pem(ROOT.root_pem),
            contexts=contexts or ClientContexts(),
            timeouts=timeouts,
        )
        made = World(peer, environment)
        try:
            yield made
        finally:
            for session in made.sessions:
                await session.quit()


def some_text(size: int, seed: int = 0) -> bytes:
    """A body of about ``size`` octets with lines of all lengths, many of them beginning with dots."""
    source = random.Random(seed)
    lines = []
    length = 0
    while length < size:
        line = b"." * source.randint(0, 2) + b"x" * source.randint(0, 120) + b"\r\n"
        lines.append(line)
        length += len(line)
    return b"Subject: x\r\n\r\n" + b"".join(lines)
