"""Recipients' hosts that misbehave in every way at once: the others' mail goes on, memory and slots stay bounded.

Eleven hosts, each with a vice of its own, and one healthy; two workers. What each vice does at each step of a session,
to its own message, is in ``tests/scenario/test_scenario_misbehaviour.py``; here is what all of them do to everybody
else. Time is scaled: the gateway waits two seconds where it would wait minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from bench.memory import watching
from bench.processes import tree
from gateway.testing import (
    CA,
    Behaviour,
    Certificate,
    SmtpPeer,
    Tls,
    drip,
    drop,
    drop_after,
    endless,
    garbage,
    reply,
    stall,
)
from gateway.testing.net import free_port
from tests.crash.ledger import Client, message
from tests.peers.gateway_process import GatewayProcess, dns_server, wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("hostile"), pytest.mark.timeout(300)]

GOOD: Final = "good.example"
STEPS: Final = ("connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "block", "dot")
VICES: Final = {
    "refuses": Behaviour(greeting=reply(554, "5.7.1 no")),
    "stalls": Behaviour(greeting=stall()),
    "stalls-late": Behaviour(dot=stall()),
    "garbage": Behaviour(ehlo=garbage(b"\x00\xff" * 40_000)),
    "goes-away": Behaviour(mail=reply(421, "4.3.2 closing")),
    "endless": Behaviour(rcpt=endless(pause=0.0)),
    "endless-greeting": Behaviour(greeting=endless(pause=0.01)),
    "crawls": Behaviour(greeting=drip(1.0)),
    "drops-at-the-dot": Behaviour(dot=drop_after()),
    "drops": Behaviour(data=drop(reset=True)),
    "injects": Behaviour(tls=Tls(inject=b"250-STARTTLS\r\n250 AUTH PLAIN\r\n250 2.1.0 ok\r\n")),
}
EACH: Final = 4
MEGABYTE: Final = 1 << 20


@dataclass
class Farm:
    """All hosts, and the gateway between them and us."""

    gateway: GatewayProcess
    peers: dict[str, SmtpPeer]

    def hand_over(self, domain: str, count: int, label: str) -> None:
        """So many messages to one domain; every one is answered 250."""
        client = Client(self.gateway.address, self.gateway.port)
        try:
            for number in range(count):
                answer = client.send(message(f"{label}-{number}", large=number == 0, domain=domain))
                assert answer.accepted, answer
        finally:
            client.close()


@asynccontextmanager
async def farm(directory: Path) -> AsyncIterator[Farm]:
    ca = CA()
    port = free_port("127.0.0.61")
    names = {f"{vice}.example": behaviour for vice, behaviour in VICES.items()} | {GOOD: Behaviour()}
    async with AsyncExitStack() as stack:
        peers: dict[str, SmtpPeer] = {}
        zone = []
        for number, (domain, behaviour) in enumerate(names.items(), 61):
            address, host = f"127.0.0.{number}", f"mx.{domain}"
            certificate: Certificate = ca.issue(host)
            peer = SmtpPeer(address, port, certificate=certificate, behaviour=behaviour, hostname=host)
            peers[domain] = peer
            await peer.start()
            stack.push_async_callback(peer.stop)
            zone += [f"{host}. 300 IN A {address}", f"{domain}. 300 IN MX 10 {host}."]
        resolver = stack.enter_context(dns_server("\n".join(zone) + "\n"))
        connector = {
            "name": "app",
            "accept": {"networks": ["127.0.0.0/8"]},
            "senders": ["sender.example"],
            "limits": {"messages_per_minute": 1_000_000},
        }
        delivery = {
            "port": port,
            "allow_networks": ["127.0.0.0/8"],
            "retry": {"first": "3s", "max": "6s", "expire": "1d", "delay_notice": "4h"},
            "timeouts": dict.fromkeys(STEPS, "2s"),
        }
        protection = {"methods": ["tls"], "tls": "encrypted", "fallback_after": "1h"}
        gateway = GatewayProcess(
            directory,
            resolver=resolver,
            trust=ca,
            settings={"workers": 2, "delivery": delivery, "connectors": [connector]},
            policies={"policy.yaml": {"version": 1, "protection": protection}},
        )
        stack.callback(gateway.kill9)
        await asyncio.to_thread(gateway.start, seconds=90)
        yield Farm(gateway, peers)


async def test_what_bad_hosts_do_is_done_to_their_own_mail_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with farm(tmp_path) as here:
        gateway, good = here.gateway, here.peers[GOOD]
        assert gateway.process is not None
        root = gateway.process.pid
        await asyncio.to_thread(here.hand_over, GOOD, 5, "warm")
        await good.wait_messages(5, timeout=60)
        with watching(lambda: tree(root)) as memory:
            for vice in VICES:
                await asyncio.to_thread(here.hand_over, f"{vice}.example", EACH, vice)
            for wave in range(3):
                await asyncio.to_thread(here.hand_over, GOOD, 10, f"good{wave}")
                await good.wait_messages(5 + 10 * (wave + 1), timeout=60)
            grown = (memory.peak.pss - memory.before.pss) / MEGABYTE
        peaks = {domain: peer.peak for domain, peer in here.peers.items()}
        with capsys.disabled():
            print(f"\nhostile hosts: {grown:.0f} MB grown, most connections at once {peaks}")  # noqa: T201 - figures
        assert len(good.messages) == 35, "each once"
        assert grown < 64
        assert max(peaks.values()) <= 20
        assert not [event for event in gateway.events() if event.get("event") == "process_died"]

        # They come to reason: their mail was kept, their slots come free. What was refused for good has ended.
        for peer in here.peers.values():
            peer.behaviour = Behaviour()

        def waiting() -> int:
            return gateway.recipients("queued", "delivering", "deferred")

        await asyncio.to_thread(wait_for, "all has ended", lambda: not waiting(), seconds=120)
        assert await asyncio.to_thread(gateway.probe, "/readyz") == 200
        for vice in VICES:
            tokens = {found.recipients[0].address.partition("@")[0] for found in here.peers[f"{vice}.example"].messages}
            if vice != "refuses":  # 554 to the connection is no word about a recipient: it may end either way
                assert tokens == {f"{vice}-{number}" for number in range(EACH)}, vice
