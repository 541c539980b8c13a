"""Owning workers: nothing is stranded, nothing goes out that its owner gave up, a failure is heard by all who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.delivery.carried import Carried, Failed
from gateway.delivery.nexthop import Hop, NextHop
from gateway.delivery.sites import SiteLimits, Sites
from gateway.delivery.target import Environment, TlsPolicy
from gateway.delivery.transaction import Transaction
from gateway.delivery.trust import Trust
from gateway.directory import Answer
from gateway.directory.destinations import DestinationGuard
from gateway.mail.address import Address
from gateway.mail.attempt import Verdict
from gateway.mail.envelope import Recipient
from gateway.mail.protection import Assurance
from gateway.protect.sevenbit import CannotConvert
from gateway.queue.outcomes import LeaseLost
from gateway.testing import Behaviour, SmtpPeer, Tls, delay, free_port, poll, reply
from gateway.testing.smtp_record import Message as ReceivedMail
from tests.delivery.session_world import ADDRESS, CERTIFICATE, HOST, QUICK, ROOT, SECRET, transaction


class NoDns:
    async def query(self, name: str, rdtype: str) -> Answer:
        raise AssertionError(f"nobody needs {name} {rdtype}")


@dataclass
class World:
    peer: SmtpPeer
    sites: Sites
    hop: NextHop
    limits: SiteLimits

    async def carry(self, sent: Transaction | None = None, hop: NextHop | None = None) -> Carried | Failed:
        async with asyncio.timeout(10):
            return await self.sites.carry(hop or self.hop, sent or transaction(), unchanged)


async def unchanged(sent: Transaction) -> Transaction:
    raise CannotConvert("it is signed")


@asynccontextmanager
async def world(
    behaviour: Behaviour | None = None, *, limits: SiteLimits | None = None, up: bool = True
) -> AsyncIterator[World]:
    peer = SmtpPeer(ADDRESS, free_port(ADDRESS), certificate=CERTIFICATE, behaviour=behaviour or Behaviour())
    if up:
        await peer.start()
    environment = Environment("gw.clinic.example", SystemClock(), Trust.from_pem(ROOT.root_pem), timeouts=QUICK)
    given = limits or SiteLimits(idle=2.0)
    sites = Sites(NoDns(), lambda: environment, DestinationGuard, lambda: given)
    hop = NextHop((Hop(HOST, peer.port, (HOST,), address=ADDRESS, exempt=True),), TlsPolicy(require=Assurance.VERIFIED))
    try:
        yield World(peer, sites, hop, given)
    finally:
        await sites.close()
        await peer.stop()


async def test_mail_that_comes_at_the_very_moment_the_idle_time_ends_is_carried() -> None:
    async with world(limits=SiteLimits(idle=0.1)) as w:
        await w.carry()
        await poll(lambda: [site.idle for site in w.sites._sites.values()] == [1], what="an idle worker")
        loop = asyncio.get_running_loop()
        go = loop.create_future()

        async def late() -> Carried | Failed:
            await go
            return await w.carry()

        task = asyncio.create_task(late())
        await asyncio.sleep(0)
        # Both timers are over when the loop looks again: the mail is handed in, then the worker hears that it waited
        # in vain - after it was counted upon.
        loop.call_later(0.01, go.set_result, None)
        loop.call_soon(time.sleep, 0.3)
        assert isinstance(await task, Carried)
        assert len(w.peer.messages) == 2


async def test_all_who_wait_for_a_dead_host_hear_of_it_without_each_of_them_dialling() -> None:
    behaviour = Behaviour(greeting=reply(421, "4.3.2 busy", delay=0.05))
    async with world(behaviour) as w:
        ends = await asyncio.gather(*(w.carry() for _ in range(60)))
        assert all(isinstance(end, Failed) for end in ends)
        assert len(w.peer.sessions) <= 20


async def test_a_dead_site_is_left_alone_for_a_while_and_then_dialled_again() -> None:
    async with world(Behaviour(greeting=reply(421, "4.3.2 busy")), limits=SiteLimits(rest=1.5)) as w:
        await asyncio.gather(*(w.carry() for _ in range(20)))
        dialled = len(w.peer.sessions)
        again = await w.carry()
        assert isinstance(again, Failed)
        assert "not dialled again yet" in again.failures[0].failure.reason
        assert len(w.peer.sessions) == dialled
        assert len(w.sites._sites) == 1
        w.peer.behaviour = Behaviour()

        async def carried() -> bool:
            return isinstance(await w.carry(), Carried)

        await poll(carried, what="the site to be dialled again")
        assert w.sites._sites != {}
        await poll(lambda: not w.sites._sites, 5, what="a living site to be forgotten once it is idle")


async def test_a_site_that_proves_too_little_is_dialled_each_time() -> None:
    async with world(Behaviour(tls=Tls(handshake="drop"))) as w:
        for _ in range(8):
            assert isinstance(await w.carry(), Failed)
        assert len(w.peer.sessions) == 8
        assert w.sites._sites == {}


async def test_a_letter_waits_for_one_message_of_a_bulk_job_that_has_the_whole_site() -> None:
    limits = SiteLimits(connections=1, idle=2.0)
    async with world(Behaviour(dot=delay(0.01)), limits=limits) as w:

        def named(name: str) -> Transaction:
            return transaction(f"Subject: {name}\r\n\r\nx\r\n".encode())

        async def carry(name: str, origin: int) -> None:
            await w.sites.carry(w.hop, named(name), unchanged, origin=origin)

        bulk = [asyncio.create_task(carry(f"bulk {n}", 1)) for n in range(60)]
        await poll(lambda: len(w.peer.messages) >= 3, what="the bulk job to run")
        before = len(w.peer.messages)
        await carry("letter", 2)
        assert len(w.peer.messages) - before <= 4
        await asyncio.gather(*bulk)
        assert len(w.peer.messages) == 61


async def test_what_its_owner_gave_up_while_it_waited_is_never_sent() -> None:
    async with world(Behaviour(dot=delay(0.2)), limits=SiteLimits(connections=1, idle=2.0)) as w:
        first = asyncio.create_task(w.carry())
        await poll(lambda: bool(w.peer.sessions), what="a session")
        waiting = asyncio.create_task(w.carry(transaction(b"Subject: given up\r\n\r\nx\r\n")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await first
        await w.carry()
        assert b"given up" not in w.peer.received
        assert len(w.peer.messages) == 2


async def test_what_cannot_be_converted_leaves_the_connection_for_the_next() -> None:
    async with world(Behaviour(extensions=("PIPELINING",))) as w:
        with pytest.raises(CannotConvert):
            await w.carry(transaction("Subject: ä\r\n\r\nx\r\n".encode(), eight_bit=True))
        await w.carry()
        assert len(w.peer.sessions) == 1


async def test_a_body_that_cannot_be_read_takes_its_connection_with_it_and_nothing_else() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"Subject: x\r\n"
        raise OSError("the disk")

    async with world() as w:
        with pytest.raises(OSError, match="the disk"):
            await w.carry(replace(transaction(), body=broken))
        assert w.peer.messages == []
        assert isinstance(await w.carry(), Carried)
        assert [message.raw.startswith(b"Subject: the secret") for message in w.peer.messages] == [True]


async def test_another_policy_at_the_same_host_has_a_connection_of_its_own() -> None:
    async with world() as w:
        await w.carry()
        await w.carry(hop=replace(w.hop, policy=TlsPolicy(require=Assurance.ENCRYPTED)))
        await w.carry(hop=replace(w.hop, hops=(replace(w.hop.hops[0], names=("other.example", HOST)),)))
        assert len(w.peer.sessions) == 3


async def test_opportunistic_tls_that_breaks_is_left_out_and_only_there() -> None:
    async with world(Behaviour(tls=Tls(handshake="drop"))) as w:
        strict = await w.carry()
        assert isinstance(strict, Failed)
        assert [failed.failure.verdict for failed in strict.failures] == [Verdict.ASSURANCE]
        loose = await w.carry(hop=replace(w.hop, policy=TlsPolicy(require=Assurance.NONE, starttls="try")))
        assert isinstance(loose, Carried)
        assert loose.attained is Assurance.NONE
        assert loose.before[0].failure.verdict is Verdict.ASSURANCE


async def test_closing_ends_idle_connections() -> None:
    async with world(limits=SiteLimits(idle=60)) as w:
        await w.carry()
        await w.sites.close()
        await w.peer.wait_sessions(1, timeout=3)


def traced(to: str, raw: bytes = SECRET, **changes: Any) -> Transaction:
    """One claim's part of a message; its prefix tells whom the transaction is for."""

    def trace(recipients: Sequence[Recipient]) -> bytes:
        return b"X-For: " + b",".join(str(recipient.address).encode() for recipient in recipients) + b"\r\n"

    made = transaction(raw, to=(to,), trace=trace, **changes)
    return replace(made, prefix=trace(made.recipients))


def addresses(message: ReceivedMail) -> list[str]:
    return message.addresses


async def test_claims_of_one_message_that_go_to_one_site_share_a_transaction() -> None:
    async with world() as w:
        ends = await asyncio.gather(*(w.carry(traced(f"b@{name}.example")) for name in ("one", "two", "three")))
        assert [len(end.result.recipients) for end in ends if isinstance(end, Carried)] == [1, 1, 1]
        hearers = [str(end.result.recipients[0].recipient.address) for end in ends if isinstance(end, Carried)]
        assert hearers == ["b@one.example", "b@two.example", "b@three.example"]
        (message,) = w.peer.messages
        assert addresses(message) == ["b@one.example", "b@two.example", "b@three.example"]
        assert message.raw.startswith(b"X-For: b@one.example,b@two.example,b@three.example\r\n")


async def test_each_claim_of_a_shared_transaction_hears_what_became_of_its_own_recipients() -> None:
    behaviour = Behaviour(rcpt=[reply(250, "2.1.5 ok"), reply(550, "5.1.1 nobody"), reply(250, "2.1.5 ok")])
    async with world(behaviour) as w:
        ends = await asyncio.gather(*(w.carry(traced(f"b@{name}.example")) for name in ("one", "two", "three")))
        delivered = [end.result.recipients[0].delivered for end in ends if isinstance(end, Carried)]
        assert delivered == [True, False, True]


@pytest.mark.parametrize(
    "other",
    [
        {"message_id": "0190-other"},
        {"rendering": "sealed for somebody"},
        {"required": Assurance.VERIFIED},
        {"sender": "other@clinic.example"},
        {"trace": None},
    ],
)
async def test_what_differs_in_more_than_its_recipients_goes_alone(other: dict[str, Any]) -> None:
    async with world() as w:
        second = replace(traced("b@two.example"), **{**other, **sender_of(other)})
        await asyncio.gather(w.carry(traced("b@one.example")), w.carry(second))
        assert sorted(addresses(message) for message in w.peer.messages) == [["b@one.example"], ["b@two.example"]]


def sender_of(changes: dict[str, Any]) -> dict[str, Any]:
    return {"sender": Address.parse(changes["sender"])} if "sender" in changes else {}


async def test_no_transaction_has_more_recipients_than_every_server_takes() -> None:
    async with world() as w:
        await asyncio.gather(*(w.carry(traced(f"b@d{n}.example")) for n in range(150)))
        assert max(len(message.recipients) for message in w.peer.messages) == 100
        assert sum(len(message.recipients) for message in w.peer.messages) == 150


async def test_the_permit_of_every_claim_is_asked_before_the_shared_transaction() -> None:
    asked: list[str] = []

    def refuse() -> None:
        asked.append("two")
        raise LeaseLost("gone")

    async with world() as w:
        jobs = [
            traced("b@one.example", permit=lambda: asked.append("one")),
            traced("b@two.example", permit=refuse),
        ]
        ends = await asyncio.gather(*(w.carry(job) for job in jobs), return_exceptions=True)
        assert [type(end) for end in ends] == [LeaseLost, LeaseLost]
        assert asked == ["one", "two"]
        assert not w.peer.messages
