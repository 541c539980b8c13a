"""Probing real peers: every way of being a mail host has a clear word, and a probe foretells what a delivery meets."""

from __future__ import annotations

import asyncio
import ssl
import time

import pytest

from gateway.delivery.advice import advice, policy_for
from gateway.delivery.outlook import assurance_of, obstacle, worst_assurance
from gateway.delivery.probe import ProbeLimits
from gateway.mail.address import Address
from gateway.mail.attempt import Stage, Verdict
from gateway.mail.protection import Assurance, Method
from gateway.testing import Action, Behaviour, Tls, drip, drop, endless, garbage, poll, reply, self_signed, stall
from tests.delivery.probe_world import DOMAIN, HAPPY, MX, ROOT, Mx, world

NONE, ENCRYPTED, VERIFIED, AUTHENTICATED = Assurance
SECOND = "mx2.good.example"
DEMANDS = [(Method.PLAIN, NONE), (Method.TLS, ENCRYPTED), (Method.TLS, VERIFIED), (Method.TLS, AUTHENTICATED)]

#: A host of each kind, and the level that mail to it gets; None where there is no session at all.
KINDS: dict[str, tuple[Mx, Assurance | None]] = {
    "good": (HAPPY, VERIFIED),
    "TLS 1.2": (Mx(behaviour=Behaviour(tls=Tls(maximum=ssl.TLSVersion.TLSv1_2))), VERIFIED),
    "no TLS": (Mx(certificate=None), NONE),
    "self-signed": (Mx(certificate=self_signed(MX)), ENCRYPTED),
    "expired": (Mx(certificate=ROOT.expired(MX)), ENCRYPTED),
    "another name": (Mx(certificate=ROOT.issue("other.example")), ENCRYPTED),
    "TLS 1.0 only": (
        Mx(behaviour=Behaviour(tls=Tls(minimum=ssl.TLSVersion.TLSv1, maximum=ssl.TLSVersion.TLSv1))),
        NONE,
    ),
    "weak cipher": (
        Mx(behaviour=Behaviour(tls=Tls(maximum=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-SHA"))),
        NONE,
    ),
    "ChaCha20": (
        Mx(behaviour=Behaviour(tls=Tls(maximum=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-CHACHA20-POLY1305"))),
        NONE,
    ),
    "STARTTLS refused": (Mx(behaviour=Behaviour(starttls=reply(454, "4.7.0 not now"))), NONE),
    "closing at STARTTLS": (Mx(behaviour=Behaviour(starttls=reply(421, "4.3.2 bye"))), None),
    "handshake broken off": (Mx(behaviour=Behaviour(tls=Tls(handshake="drop"))), NONE),
    "handshake of garbage": (Mx(behaviour=Behaviour(tls=Tls(handshake="garbage"))), NONE),
    "injected": (Mx(behaviour=Behaviour(tls=Tls(inject=b"250 ok\r\n"))), NONE),
    "greets with 5xx": (Mx(behaviour=Behaviour(greeting=reply(554, "5.7.1 no"))), None),
    "greets with 4xx": (Mx(behaviour=Behaviour(greeting=reply(451, "4.7.1 later"))), None),
    "drops": (Mx(behaviour=Behaviour(greeting=drop())), None),
    "garbage": (Mx(behaviour=Behaviour(ehlo=garbage())), None),
    "endless": (Mx(behaviour=Behaviour(ehlo=endless())), None),
    "refuses EHLO": (Mx(behaviour=Behaviour(ehlo=reply(550, "5.7.1 who are you"))), None),
    "falls silent after TLS": (Mx(behaviour=Behaviour(ehlo=[HAPPY.behaviour.ehlo, reply(451, "4.3.0 no")])), None),
    "down": (Mx(up=False), None),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_probe_foretells_what_a_delivery_meets(kind: str) -> None:
    host, level = KINDS[kind]
    async with world(host) as w:
        probe = await w.probe()
        assert worst_assurance(probe) is level
        for method, required in DEMANDS:
            w.peers[MX].behaviour = host.behaviour  # scripts begin anew
            foretold = obstacle(probe, method, required)
            met = await w.delivery(method, required)
            told = None if foretold is None else (foretold.failure.verdict, foretold.failure.reason, foretold.host)
            true = None if met is None else (met.failure.verdict, met.failure.reason, met.host)
            if kind == "refuses EHLO" and method is Method.PLAIN:
                assert met is None  # it takes HELO, which a probe never says
                continue
            assert told == true, (method, required)


async def test_all_that_a_good_host_shows() -> None:
    certificate = ROOT.issue(MX, "*.good.example", intermediate=True)
    async with world(Mx(certificate=certificate)) as w:
        host = await w.host()
        (address,) = host.addresses
        shown, evidence = address.shown, address.shown.evidence
        assert evidence is not None
        assert (shown.failure, shown.starttls, shown.answers) == (None, True, True)
        assert (evidence.version, evidence.cipher) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
        assert shown.group in {"x25519", "X25519MLKEM768"}
        leaf, middle = shown.chain
        assert leaf.names == (MX, "*.good.example")
        assert (leaf.issuer, middle.issuer) == ("CN=Test Intermediate", "CN=Probe Root")
        assert (leaf.sha256, evidence.spki_sha256) == (certificate.sha256, certificate.spki_sha256)
        assert leaf.not_before is not None
        assert "8BITMIME" in shown.extensions
        assert "STARTTLS" not in shown.extensions
        assert MX in shown.greeting
        timing = shown.timing
        assert timing.connect is not None
        assert timing.tls is not None
        assert timing.total is not None
        assert timing.total >= timing.tls > 0
        (session,) = await w.peers[MX].wait_sessions(1)
        assert [command.verb for command in session.commands] == ["EHLO", "STARTTLS", "EHLO", "QUIT"]
        assert session.sni == MX


@pytest.mark.parametrize("kind", ["no TLS", "STARTTLS refused"])
async def test_a_host_that_is_in_step_is_left_with_quit(kind: str) -> None:
    async with world(KINDS[kind][0]) as w:
        await w.probe()
        (session,) = await w.peers[MX].wait_sessions(1)
        assert session.commands[-1].verb == "QUIT"


@pytest.mark.parametrize(
    ("kind", "above", "word"),
    [
        ("no TLS", ENCRYPTED, "offer STARTTLS"),
        ("TLS 1.0 only", ENCRYPTED, "allow TLS 1.2 or 1.3"),
        ("STARTTLS refused", ENCRYPTED, "offered, then refused"),
        ("injected", ENCRYPTED, "who answers before the handshake"),
        ("handshake broken off", ENCRYPTED, "it breaks off"),
        ("self-signed", VERIFIED, "self-signed certificate by one of a CA"),
        ("expired", VERIFIED, "renew"),
        ("another name", VERIFIED, f"a certificate that names {MX}"),
        ("good", AUTHENTICATED, "sign good.example with DNSSEC"),
    ],
)
async def test_what_the_recipients_admin_would_have_to_do(kind: str, above: Assurance, word: str) -> None:
    async with world(KINDS[kind][0]) as w:
        probe = await w.probe()
        (host,) = probe.hosts
        told = advice(probe, host, host.addresses[0].shown)
        assert told is not None
        assert told.level is above
        assert word in told.remedy


# -- where mail goes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "domain", "status", "verdict"),
    [
        ("null.example. MX 0 .", "null.example", "null", Verdict.FINAL),
        ("", "nowhere.example", "nxdomain", Verdict.FINAL),
        ("loop.example. MX 5 gw.clinic.example.", "loop.example", "loop", Verdict.FINAL),
        ("ip.example. MX 5 127.0.0.1.", "ip.example", "mx", Verdict.FINAL),
        ("gone.example. MX 5 mx.gone.example.", "gone.example", "mx", Verdict.TEMPORARY),
        ("inner.example. MX 5 in.example.\nin.example. A 10.1.2.3", "inner.example", "mx", Verdict.TEMPORARY),
    ],
)
async def test_domains_that_no_mail_gets_to(zone: str, domain: str, status: str, verdict: Verdict) -> None:
    async with world(zone=zone) as w:
        probe = await w.probe(domain)
        assert probe.status == status
        assert worst_assurance(probe) is None
        for method, required in DEMANDS:
            foretold, met = obstacle(probe, method, required), await w.delivery(method, required, domain)
            assert foretold is not None
            assert met is not None
            assert foretold.failure == met.failure
            assert foretold.failure.verdict is verdict


async def test_a_domain_that_dns_does_not_answer_for() -> None:
    async with world() as w:
        w.dns.flag(DOMAIN, "servfail")
        probe = await w.probe()
        assert (probe.status, probe.dnssec, probe.hosts) == ("error", None, ())
        failed = obstacle(probe, Method.TLS, ENCRYPTED)
        assert failed is not None
        assert "SERVFAIL" in failed.failure.reason


async def test_without_an_mx_the_domain_itself_is_the_host() -> None:
    async with world(zone=f"bare.example. A 127.0.2.1\nalias.example. CNAME {DOMAIN}.") as w:
        probe = await w.probe("bare.example")
        assert (probe.status, probe.hosts[0].hop.host) == ("implicit", "bare.example")
        assert worst_assurance(probe) is ENCRYPTED  # its certificate is for the MX
        probe = await w.probe("alias.example")
        assert (probe.status, probe.alias, worst_assurance(probe)) == ("mx", DOMAIN, VERIFIED)


async def test_an_mx_that_is_an_alias_is_told() -> None:
    async with world(zone=f"odd.example. MX 5 other.example.\nother.example. CNAME {MX}.") as w:
        host = await w.host("odd.example")
        assert host.alias == MX


async def test_private_addresses_are_refused_as_in_a_delivery_and_never_dialled() -> None:
    async with world(delivery={"allow_networks": []}) as w:
        address = await w.address()
        assert (address.dialled, address.address) == (False, "127.0.2.1")
        assert address.shown.failure is not None
        assert "loopback" in address.shown.failure.reason
        assert not w.peers[MX].sessions


# -- DNSSEC, pins, routes ---------------------------------------------------------------------------------------------


async def test_signed_mx_records_authenticate() -> None:
    async with world(secure=(DOMAIN,)) as w:
        probe = await w.probe()
        assert (probe.dnssec, worst_assurance(probe)) == (True, AUTHENTICATED)
        assert await w.delivery(Method.TLS, AUTHENTICATED) is None
        assert obstacle(probe, Method.TLS, AUTHENTICATED) is None


@pytest.mark.parametrize(
    ("pin", "level"),
    [
        ({"hosts": [MX]}, AUTHENTICATED),
        ({"hosts": [SECOND]}, None),
        ({"spki": ["00" * 32]}, NONE),
    ],
)
async def test_pins_count_as_in_a_delivery(pin: dict[str, list[str]], level: Assurance | None) -> None:
    async with world(delivery={"pins": {DOMAIN: pin}}) as w:
        probe = await w.probe()
        assert worst_assurance(probe) is level
        for method, required in DEMANDS:
            foretold, met = obstacle(probe, method, required), await w.delivery(method, required)
            assert (foretold and foretold.failure) == (met and met.failure)
        assert (obstacle(probe, Method.TLS, ENCRYPTED) is None) is (level is AUTHENTICATED)
        assert obstacle(probe, Method.PLAIN, NONE) is None


@pytest.mark.parametrize("final", [True, False])
async def test_routes_count_as_in_a_delivery(final: bool) -> None:  # noqa: FBT001 - a parameter
    route = {"host": "ADDRESS", "port": "PORT", "name": MX, "tls": "verified", "final": final}
    async with world(delivery={"routes": {"far.example": route}}) as w:
        probe = await w.probe("far.example")
        assert probe.status == "route"
        assert worst_assurance(probe) is (AUTHENTICATED if final else VERIFIED)
        for method, required in DEMANDS:
            foretold = obstacle(probe, method, required)
            met = await w.delivery(method, required, "far.example")
            assert (foretold and foretold.failure) == (met and met.failure)
            assert (foretold is None) is (final or method is Method.PLAIN)


# -- several hosts, time, manners -------------------------------------------------------------------------------------


async def test_one_good_host_carries_what_the_others_cannot_and_the_worst_is_told() -> None:
    async with world(HAPPY, Mx(name=SECOND, certificate=None, preference=20)) as w:
        probe = await w.probe()
        assert worst_assurance(probe) is NONE
        assert obstacle(probe, Method.TLS, VERIFIED) is None
        levels = [assurance_of(h.addresses[0].shown, policy_for(probe, h), probe.ciphers) for h in probe.hosts]
        assert levels == [VERIFIED, NONE]


async def test_more_addresses_than_an_attempt_dials_are_all_looked_at() -> None:
    zone = "\n".join(f"many.example. A 127.0.2.{number}" for number in range(2, 10))
    async with world(zone=f"{zone}\nfar.example. MX 5 many.example.") as w:
        probe = await w.probe("far.example")
        assert len(probe.hosts[0].addresses) == 8
        foretold, met = obstacle(probe, Method.TLS, ENCRYPTED), await w.delivery(Method.TLS, ENCRYPTED, "far.example")
        assert foretold is not None
        assert met is not None
        assert foretold.failure == met.failure
        assert "not tried: 6 addresses before it failed" in met.failure.reason


async def test_hosts_that_domains_share_are_asked_once() -> None:
    zone = "\n".join(f"d{number}.example. MX 5 {MX}." for number in range(5))
    async with world(zone=zone) as w:
        domains = [Address.parse(f"x@d{number}.example") for number in range(5)]
        found = await w.prober.probe(domains)
        assert [worst_assurance(each) for each in found] == [VERIFIED] * 5
        assert len(w.peers[MX].sessions) == 1


async def test_an_address_gets_one_connection_at_a_time() -> None:
    names = [f"m{number}.example" for number in range(4)]
    zone = "\n".join([f"{name}. A 127.0.2.1\nfar.example. MX 5 {name}." for name in names])
    async with world(Mx(behaviour=Behaviour(greeting=Action(delay=0.05))), zone=zone) as w:
        probe = await w.probe("far.example")
        assert len(probe.hosts) == 4
        assert w.peers[MX].peak == 1


@pytest.mark.parametrize(
    ("behaviour", "stage", "verdict"),
    [
        (Behaviour(greeting=stall()), Stage.GREETING, Verdict.TEMPORARY),
        (Behaviour(greeting=drip(0.5)), Stage.GREETING, Verdict.TEMPORARY),
        (Behaviour(tls=Tls(handshake="stall")), Stage.HANDSHAKE, Verdict.ASSURANCE),
    ],
)
async def test_the_time_for_everything_is_kept(behaviour: Behaviour, stage: Stage, verdict: Verdict) -> None:
    hosts = (HAPPY, Mx(name=SECOND, certificate=ROOT.issue(SECOND), behaviour=behaviour))
    async with world(*hosts, limits=ProbeLimits(seconds=1.5)) as w:
        began = time.monotonic()
        probe = await w.probe()
        assert time.monotonic() - began < 2.9
        slow = next(host for host in probe.hosts if host.hop.host == SECOND).addresses[0].shown
        assert slow.failure is not None
        assert (slow.failure.stage, slow.failure.verdict) == (stage, verdict)
        assert "in the time that the probe has" in slow.failure.reason
        assert obstacle(probe, Method.TLS, VERIFIED) is None
        await poll(lambda: not any(peer.connections for peer in w.peers.values()), what="every connection to end")


async def test_a_slow_dns_costs_no_more_than_the_time_for_everything() -> None:
    async with world(limits=ProbeLimits(seconds=0.5)) as w:
        w.dns.flag(DOMAIN, "timeout")
        began = time.monotonic()
        probe = await w.probe()
        assert time.monotonic() - began < 2
        assert probe.status == "error"


async def test_a_probe_that_is_cancelled_leaves_nothing_behind() -> None:
    async with world(Mx(behaviour=Behaviour(greeting=stall()))) as w:
        task = asyncio.create_task(w.prober.probe([Address.parse(f"x@{DOMAIN}")]))
        await poll(lambda: w.peers[MX].connections, what="the connection")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await poll(lambda: not w.peers[MX].connections, what="the connection to end")
