"""The whole gateway over real sockets: a resolver, MX hosts and a client around it; a test overrides one thing.

:class:`Scene` says what there is, and its defaults are the happy path: one domain, one MX host with a good certificate,
one application on loopback that may relay. :class:`World` is that scene running.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import yaml
from sqlalchemy import func, select

from gateway.app import Gateway
from gateway.audit.chain import happenings
from gateway.clock import SystemClock
from gateway.queue.views import trace_messages
from gateway.store.schema import events, messages, recipients
from gateway.testing import (
    CA,
    Behaviour,
    Certificate,
    DnsServer,
    Message,
    SmtpPeer,
    free_port,
    poll,
)

Json = dict[str, Any]

ROOT = CA("Scenario Root")
SUBJECT = b"subject-marker-7f3a"
BODY = b"body-marker-91c4"
SENDER = "dr@clinic.example"
TO = "pat@good.example"
MX = "mx1.good.example"
HOME = "home.clinic.example"
PLAIN_ALLOWED = {"methods": ["tls", "plain"], "tls": "encrypted"}
_PATIENCE = 30.0
HEALTHY = Behaviour()

#: A message with markers that must never be seen where they do not belong.
MAIL = (
    b"From: Doctor <dr@clinic.example>\r\nTo: Pat <pat@good.example>\r\nSubject: " + SUBJECT + b"\r\n"
    b"Message-ID: <m1@clinic.example>\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\n" + BODY + b"\r\n"
)


@lru_cache(maxsize=64)
def good_certificate(host: str) -> Certificate:
    """A certificate of the root that the gateway trusts."""
    return ROOT.issue(host)


@dataclass(frozen=True, kw_only=True)
class Host:
    """One MX host. ``certificate``: "good", None (no TLS), or one of its own."""

    behaviour: Behaviour = HEALTHY
    certificate: Certificate | str | None = "good"
    up: bool = True


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What there is. ``domains``: the MX hosts of each domain, best first. Mappings are laid over the defaults.

    ``protection``, ``rules`` and further sections in ``policy`` become the policy file; with none there is none.
    ``secure``: names whose answers DNSSEC authenticated. ``PORT`` in settings stands for the port of all hosts.
    """

    hosts: Mapping[str, Host] = field(default_factory=lambda: {MX: Host()})
    domains: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"good.example": (MX,)})
    zone: str = ""
    secure: Sequence[str] = ()
    connector: Mapping[str, Any] = field(default_factory=dict)
    delivery: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    protection: Mapping[str, Any] | None = None
    rules: Sequence[Mapping[str, Any]] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)


class JumpClock(SystemClock):
    """The machine's clock, which a test can let run ahead: time passes, nobody has set the wall clock."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset

    def monotonic(self) -> float:
        return super().monotonic() + self.offset


class Refused(Exception):
    """The gateway did not take it."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.decode("utf-8", "replace"))
        self.code = int(reply[:3])
        self.enhanced = reply[4:].split(b" ")[0].decode("ascii", "replace")


class Client:
    """Says over SMTP exactly what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def reply(self) -> bytes:
        """The next whole reply."""
        lines = b""
        async with asyncio.timeout(_PATIENCE):
            while True:
                line = await self.reader.readline()
                lines += line
                if not line or line[3:4] != b"-":
                    return lines

    async def say(self, data: bytes) -> bytes:
        """Write, and the reply."""
        self.writer.write(data)
        return await self.reply()

    async def must(self, data: bytes, code: int = 250) -> bytes:
        """Write, and the reply, which has to carry this code: else :class:`Refused`."""
        reply = await self.say(data)
        if not reply.startswith(b"%d" % code):
            raise Refused(reply)
        return reply

    async def close(self) -> None:
        self.writer.close()


class World:
    """A scene that runs. Use it as an async context manager; ``restart`` and ``reload`` act on the gateway alone."""

    def __init__(self, scene: Scene, directory: Path) -> None:
        self.scene = scene
        self.directory = directory
        self.clock = JumpClock()
        self.peers: dict[str, SmtpPeer] = {}
        self.config = directory / "gateway.yaml"
        self.faults_expected = False
        self._hosts = {**scene.hosts, HOME: scene.hosts.get(HOME, Host())}
        self._addresses = {host: f"127.0.0.{number}" for number, host in enumerate(self._hosts, 2)}
        self.delivery_port = free_port(*self._addresses.values())
        self._stack = AsyncExitStack()
        self._running = False

    # -- around it ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.dns = await self._stack.enter_async_context(DnsServer(self._zone()))
        for name in self.scene.secure:
            self.dns.flag(name, "secure")
        for host, wanted in self._hosts.items():
            certificate = good_certificate(host) if wanted.certificate == "good" else wanted.certificate
            assert not isinstance(certificate, str)
            peer = SmtpPeer(
                self._addresses[host],
                self.delivery_port,
                certificate=certificate,
                behaviour=wanted.behaviour,
                hostname=host,
            )
            self.peers[host] = peer
            self._stack.push_async_callback(peer.stop)
            if wanted.up:
                await peer.start()
        try:
            self.write(self._settings())
            await self.start()
        except BaseException:  # the hosts must not outlive the test: the loop would wait for them for ever
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self.stop()
        finally:
            await self._stack.aclose()
        if kind is None:
            assert self.faults_expected or not self.faults, self.faults
            assert not [error for peer in self.peers.values() for error in peer._errors]

    @property
    def faults(self) -> list[str]:
        """Breaches of protocol by the gateway, as the peers saw them: a stray CR, LF or NUL is one.

        Breaking off in the middle of a body is none: a peer out of step, or too slow, leaves no other way.
        """
        every = [fault for peer in self.peers.values() for fault in peer.faults]
        return [fault for fault in every if fault != "the connection ended inside a body"]

    def _zone(self) -> str:
        lines = [f"{host}. A {address}" for host, address in self._addresses.items()]
        domains = {"clinic.example": (HOME,), **self.scene.domains}
        for domain, hosts in domains.items():
            lines += [f"{domain}. MX {10 * number} {host}." for number, host in enumerate(hosts, 1)]
        return "\n".join([*lines, self.scene.zone])

    def _settings(self) -> Json:
        scene = self.scene
        connector = {"name": "app", "accept": {"networks": ["127.0.0.0/8"]}, "senders": ["*"], **scene.connector}
        delivery = {
            "port": self.delivery_port,
            "allow_networks": ["127.0.0.0/8"],
            "retry": {"first": "0.2s", "max": "0.4s", "expire": "1d", "delay_notice": "4h"},
            "connections": {"idle": "0.3s"},
            "timeouts": dict.fromkeys(
                ("connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "block", "dot"), "3s"
            ),
            **scene.delivery,
        }
        settings: Json = {
            "hostname": "gw.clinic.example",
            "postmaster": "postmaster@clinic.example",
            "data_dir": str(self.directory / "data"),
            "listeners": [{"address": "127.0.0.1:0", "tls": "none"}],
            "connectors": [connector],
            "dns": {"resolvers": [self.dns.resolver], "timeout": "10s"},
            "delivery": delivery,
            "metrics": {"listen": None},
            "tls": {"trust": str(ROOT.write_root(self.directory / "roots.pem"))},
            "limits": {"free_space": "1MB"},
        }
        if scene.protection is not None or scene.rules or scene.policy:
            settings["policies"] = ["policy.yaml"]
            self.write_policy(scene.protection, scene.rules, **scene.policy)
        for key, value in scene.settings.items():
            old = settings.get(key)
            settings[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, Mapping) else value
        filled = self._filled(settings)
        assert isinstance(filled, dict)
        return filled

    def _filled(self, value: Any) -> Any:
        """``PORT`` anywhere is the port that all hosts of the scene share."""
        if isinstance(value, Mapping):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._filled(item) for item in value]
        return self.delivery_port if value == "PORT" else value

    def write(self, settings: Json) -> None:
        """Replace the configuration file."""
        self.config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    def settings(self) -> Json:
        """What the configuration file says now."""
        return dict(yaml.safe_load(self.config.read_text("utf-8")))

    def write_policy(
        self,
        protection: Mapping[str, Any] | None,
        rules: Sequence[Mapping[str, Any]] = (),
        **sections: Any,
    ) -> None:
        """Replace the policy file; ``sections``: further ones."""
        policy: Json = {"version": 1}
        if protection is not None:
            policy["protection"] = dict(protection)
        if rules:
            policy["rules"] = [dict(rule) for rule in rules]
        policy.update(sections)
        (self.directory / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False), encoding="utf-8")

    # -- the gateway --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self.gateway = Gateway(self.config, clock=self.clock)
        await self.gateway.start()
        self._running = True

    async def stop(self) -> None:
        """As SIGTERM does."""
        if self._running:
            self._running = False
            await self.gateway.stop()

    async def change(self, **sections: Any) -> bool:
        """Lay these over the sections of the configuration and reload."""
        settings = self.settings()
        for key, value in sections.items():
            old = settings.get(key)
            settings[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        self.write(self._filled(settings))
        return await self.gateway.reload()

    def jump(self, seconds: float) -> None:
        """Let time pass, and wake those who wait for it; the lease is as fresh as it was."""
        self.clock.offset += seconds
        self.gateway._store.incarnation.heartbeat_at += seconds
        self.gateway._queue.wake.set()

    async def problems(self) -> list[str]:
        return await self.gateway.problems()

    def metric(self, name: str, **labels: str) -> float:
        """The value of a counter, 0 where it was never counted."""
        return self.gateway.metrics.registry.get_sample_value(name, labels) or 0.0

    # -- the client ---------------------------------------------------------------------------------------------------

    async def client(self, *, ehlo: bool = True) -> Client:
        port = self.gateway._ingress.bound[0].port
        client = Client(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))
        self._stack.push_async_callback(client.close)
        assert (await client.reply()).startswith(b"220")
        if ehlo:
            await client.must(b"EHLO app.clinic.example\r\n")
        return client

    async def send(
        self,
        to: str | Sequence[str] = TO,
        raw: bytes = MAIL,
        *,
        sender: str | None = SENDER,
        mail: str = "",
        rcpt: str = "",
        fields: str = "",
    ) -> str:
        """Hand a message to the gateway; its id. ``fields`` stand on top of it. Raises :class:`Refused`."""
        client = await self.client()
        try:
            parameters = f" {mail}" if mail else ""
            await client.must(f"MAIL FROM:<{sender or ''}>{parameters}\r\n".encode())
            for address in [to] if isinstance(to, str) else to:
                await client.must(f"RCPT TO:<{address}>{f' {rcpt}' if rcpt else ''}\r\n".encode())
            await client.must(b"DATA\r\n", 354)
            whole = fields.encode() + raw
            stuffed = re.sub(rb"(?m)^\.", b"..", whole)
            reply = await client.must(stuffed + b".\r\n")
            return reply.decode().split()[-1]
        finally:
            await client.close()

    # -- what became of it --------------------------------------------------------------------------------------------

    async def trace(self, message: str) -> Json:
        """The life of a message, as ``gateway trace --json`` tells it."""
        (found,) = await self.gateway._store.read(lambda connection: trace_messages(connection, [message]))
        return found

    async def recipient(self, message: str, address: str | None = None) -> Json:
        """One recipient of the trace; the only one unless named."""
        found = [
            entry
            for entry in (await self.trace(message))["recipients"]
            if address is None or entry["recipient"] == address
        ]
        assert len(found) == 1, found
        return dict(found[0])

    async def wait_state(
        self, message: str, *states: str, to: str | None = None, attempts: int = 0, seconds: float = _PATIENCE
    ) -> Json:
        """Wait until the recipient is in one of the states, after at least so many attempts; its trace."""

        found: Json = {}

        async def there() -> bool:
            found.update(await self.recipient(message, to))
            return found["state"] in states and len(found["attempts"]) >= attempts

        try:
            await poll(there, seconds, what=f"{message} {to or ''} in {states}")
        except TimeoutError as error:
            peers = "\n".join(f"{host}: {peer.summary()}" for host, peer in self.peers.items())
            raise TimeoutError(f"{error}\n{found}\n{peers}") from None
        return found

    async def delivered(self, message: str, to: str | None = None) -> Json:
        return await self.wait_state(message, "delivered", to=to)

    async def bounced(self, message: str, to: str | None = None) -> Json:
        return await self.wait_state(message, "bounced", to=to)

    async def notices(self, message: str, count: int = 1) -> list[Message]:
        """The DSNs about a message, as they arrived at its sender's own host."""
        home = self.peers[HOME]

        def about() -> list[Message]:
            return [
                found for found in home.messages if f"please name the message id\r\n{message}.".encode() in found.raw
            ]

        await poll(lambda: len(about()) >= count, _PATIENCE, what=f"{count} notices about {message}")
        return about()

    async def settled(self, message: str) -> list[Json]:
        """Wait until every recipient is in a terminal state or held; all of them."""
        live = select(func.count()).where(
            recipients.c.message == message, recipients.c.state.in_(["queued", "delivering", "deferred"])
        )

        async def all_there() -> bool:
            count = await self.gateway._store.read(lambda connection: connection.execute(live).scalar())
            return count == 0

        await poll(all_there, _PATIENCE, interval=0.02, what=f"the end of {message}")
        return list((await self.trace(message))["recipients"])

    async def all_ids(self) -> list[str]:
        """The ids of all messages that the store knows, notices among them."""
        return await self.gateway._store.read(
            lambda connection: list(connection.scalars(select(messages.c.id).order_by(messages.c.id)))
        )

    async def alarms(self) -> list[dict[str, Any]]:
        """What the alarm events say, oldest first."""
        query = select(events.c.data).where(events.c.kinds.contains(" alarm ")).order_by(events.c.seq)
        records = await self.gateway._store.read(lambda c: list(c.scalars(query)))
        return [event.data for text in records for event in happenings(text) if event.kind == "alarm"]

    @property
    def peer(self) -> SmtpPeer:
        """The first host."""
        return next(iter(self.peers.values()))

    def nothing_sent_to(self, *hosts: str) -> None:
        """Assert that these peers saw nothing of any mail, in clear or under TLS."""
        for host in hosts:
            received = self.peers[host].received
            assert not any(word in received for word in (b"MAIL FROM", b"RCPT TO", b"DATA\r\n", SUBJECT, BODY)), host
