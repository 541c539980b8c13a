"""Goal 1: no body byte, no subject, no MAIL FROM reaches a peer below the required assurance. Judged by raw bytes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.mail.protection import Assurance
from gateway.testing import Behaviour, Certificate, PerSession, Tls, drop, garbage, reply, self_signed
from tests.scenario.conftest import Build
from tests.scenario.world import (
    BODY,
    HEALTHY,
    MAIL,
    MX,
    PLAIN_ALLOWED,
    ROOT,
    SUBJECT,
    TO,
    Host,
    World,
    good_certificate,
)

NONE, ENCRYPTED, VERIFIED = Assurance.NONE, Assurance.ENCRYPTED, Assurance.VERIFIED
OLD = ssl.TLSVersion.TLSv1_1
INJECTED = b"250 2.1.0 injected\r\n"


@dataclass(frozen=True)
class Manners:
    """How a peer behaves, and what an honest judge sees in its first and in its second session."""

    first: Assurance
    second: Assurance
    behaviour: Behaviour = HEALTHY
    certificate: str = "good"

    def host(self, name: str) -> Host:
        certificates: dict[str, Certificate | None] = {
            "none": None,
            "self-signed": self_signed(name),
            "wrong name": ROOT.issue("somebody.else.example"),
            "expired": ROOT.expired(name),
            "stranger": STRANGER.issue(name),
            "good": good_certificate(name),
        }
        return Host(behaviour=self.behaviour, certificate=certificates[self.certificate])


STRANGER = type(ROOT)("A stranger's root")


def tls(**manners: Any) -> Behaviour:
    return Behaviour(tls=Tls(**manners))


PEERS = {
    "healthy": Manners(VERIFIED, VERIFIED),
    "no-tls": Manners(NONE, NONE, certificate="none"),
    "strip-later": Manners(VERIFIED, NONE, tls(offered_first=1)),
    "swap-name": Manners(VERIFIED, ENCRYPTED, tls(swap_after=1, swap_to=ROOT.issue("other.example"))),
    "swap-self": Manners(VERIFIED, ENCRYPTED, tls(swap_after=1, swap_to=self_signed("swap-self.example"))),
    "self-signed": Manners(ENCRYPTED, ENCRYPTED, certificate="self-signed"),
    "wrong-name": Manners(ENCRYPTED, ENCRYPTED, certificate="wrong name"),
    "expired": Manners(ENCRYPTED, ENCRYPTED, certificate="expired"),
    "stranger": Manners(ENCRYPTED, ENCRYPTED, certificate="stranger"),
    "starttls-454": Manners(NONE, NONE, Behaviour(starttls=reply(454, "4.7.0 TLS not available"))),
    "starttls-502": Manners(NONE, NONE, Behaviour(starttls=reply(502, "5.5.1 no such command"))),
    "starttls-250": Manners(NONE, NONE, Behaviour(starttls=reply(250, "2.0.0 sure"))),
    "starttls-drop": Manners(NONE, NONE, Behaviour(starttls=drop())),
    "starttls-garbage": Manners(NONE, NONE, Behaviour(starttls=garbage())),
    "inject": Manners(NONE, NONE, tls(inject=INJECTED)),
    "inject-late": Manners(NONE, NONE, tls(inject_late=INJECTED)),
    "old-tls": Manners(NONE, NONE, tls(minimum=ssl.TLSVersion.TLSv1, maximum=OLD)),
    "weak-cipher": Manners(
        NONE, NONE, tls(maximum=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    ),
    "handshake-garbage": Manners(NONE, NONE, tls(handshake="garbage")),
    "handshake-drop": Manners(NONE, NONE, tls(handshake="drop")),
}

#: What is asked for a recipient domain: assurance, and whether ``plain`` is allowed beside ``tls``.
NEEDS: dict[str, tuple[Assurance, bool]] = {
    "open": (ENCRYPTED, True),
    "encrypted": (ENCRYPTED, False),
    "verified": (VERIFIED, False),
    "authenticated": (Assurance.AUTHENTICATED, False),
    "signed": (Assurance.AUTHENTICATED, False),
    "pinned": (Assurance.AUTHENTICATED, False),
}


def _rank(seen: Assurance, need: str) -> Assurance:
    """What the session is worth where the host's name cannot have been forged (DNSSEC, a pin)."""
    return Assurance.AUTHENTICATED if seen is VERIFIED and need in {"signed", "pinned"} else seen


async def test_every_peer_at_every_level_gets_mail_only_over_what_is_required(build: Build) -> None:
    rare = {"authenticated", "signed"}  # no peer behaves differently there but for what its certificate is worth
    pairs = [
        (manners, need)
        for manners in PEERS
        for need in NEEDS
        if need not in rare or manners in {"healthy", "self-signed", "swap-name", "strip-later", "inject"}
    ]
    domain = {pair: f"{pair[0]}.{pair[1]}.example" for pair in pairs}
    host = {pair: f"mx.{domain[pair]}" for pair in pairs}
    world = await build(
        hosts={host[pair]: PEERS[pair[0]].host(host[pair]) for pair in pairs},
        domains={domain[pair]: (host[pair],) for pair in pairs},
        secure=[domain[pair] for pair in pairs if pair[1] == "signed"],
        delivery={
            "pins": {domain[pair]: {"hosts": [host[pair]]} for pair in pairs if pair[1] == "pinned"},
            "connections": {"idle": "0.01s"},
        },
        protection={"methods": ["tls"], "tls": "encrypted", "fallback_after": "0.5s"},
        rules=[
            {"name": "open", "when": {"recipient_domain": "*.open.example"}, "allow": {"methods": ["plain"]}},
            *(
                {"name": need, "when": {"recipient_domain": f"*.{need}.example"}, "require": {"tls": str(level)}}
                for need, (level, plain) in NEEDS.items()
                if not plain
            ),
        ],
    )
    for turn in ("first", "second"):
        before = {pair: len(world.peers[host[pair]].messages) for pair in pairs}
        message = await world.send([f"pat@{domain[pair]}" for pair in pairs])
        ends = {entry["recipient"].partition("@")[2]: entry for entry in await world.settled(message)}
        for pair in pairs:
            need, entry, peer = pair[1], ends[domain[pair]], world.peers[host[pair]]
            level, plain = NEEDS[need]
            seen = _rank(getattr(PEERS[pair[0]], turn), need)
            arrived = peer.messages[before[pair] :]
            if seen >= level:
                assert (entry["state"], entry["method"]) == ("delivered", "tls"), (turn, pair, entry)
                assert Assurance.parse(entry["attempts"][-1]["tls"]["assurance"]) >= level, (turn, pair)
                assert [found.tls is not None for found in arrived] == [True], (turn, pair)
            elif plain:
                assert (entry["state"], entry["method"]) == ("delivered", "plain"), (turn, pair, entry)
                assert len(arrived) == 1, (turn, pair)
            else:
                assert entry["state"] == "bounced", (turn, pair, entry)
                assert entry["last_error"].startswith("5.7.10 "), (turn, pair, entry)
                assert arrived == [], (turn, pair)
    for pair in pairs:
        _assert_sessions(world, host[pair], PEERS[pair[0]], pair[1])


def _assert_sessions(world: World, host: str, manners: Manners, need: str) -> None:
    """No session that showed less than required saw anything of a mail; nothing in clear where plain is not allowed."""
    level, plain = NEEDS[need]
    for session in world.peers[host].sessions:
        if plain:
            continue
        assert not any(word in session.clear_bytes for word in (b"MAIL", b"RCPT", b"DATA", SUBJECT, BODY)), host
        assert not any(word in session.handshake_bytes for word in (b"MAIL", SUBJECT, BODY)), host
        seen = manners.first if session.index == 0 else manners.second
        if _rank(seen, need) < level:
            assert not any(word in session.everything for word in (b"MAIL", b"RCPT", b"DATA", SUBJECT, BODY)), host


async def test_a_pinned_key_is_right_without_a_chain_and_wrong_with_the_best_one(build: Build) -> None:
    mine = self_signed("mx1.good.example")
    pins = {
        "good.example": {"spki": [mine.spki_sha256]},
        "bad.example": {"spki": [mine.spki_sha256]},
    }
    world = await build(
        hosts={MX: Host(certificate=mine), "mx1.bad.example": Host()},
        domains={"good.example": (MX,), "bad.example": ("mx1.bad.example",)},
        delivery={"pins": pins},
        protection=PLAIN_ALLOWED | {"methods": ["tls"], "tls": "authenticated"},
    )
    good = await world.delivered(await world.send())
    assert good["attempts"][-1]["tls"]["assurance"] == "authenticated"
    bad = await world.bounced(await world.send("pat@bad.example"))
    assert "pin mismatch" in bad["last_error"]
    world.nothing_sent_to("mx1.bad.example")


async def test_a_host_that_is_not_among_the_pinned_ones_is_not_even_dialled(build: Build) -> None:
    world = await build(
        hosts={MX: Host(), "evil.example": Host()},
        domains={"good.example": ("evil.example", MX)},
        delivery={"pins": {"good.example": {"hosts": [MX]}}},
    )
    entry = await world.delivered(await world.send())
    assert entry["attempts"][-1]["host"] == MX
    assert world.peers["evil.example"].sessions == []
    assert "not one of the hosts pinned" in entry["attempts"][0]["outcome"]


async def test_dnssec_of_another_domain_does_not_authenticate_this_one(build: Build) -> None:
    world = await build(
        domains={"good.example": (MX,), "signed.example": (MX,)},
        secure=("signed.example",),
        protection={"methods": ["tls"], "tls": "authenticated"},
    )
    signed = await world.send("pat@signed.example")
    unsigned = await world.send("pat@good.example")
    assert (await world.delivered(signed))["attempts"][-1]["tls"]["assurance"] == "authenticated"
    assert "not authenticated" in (await world.bounced(unsigned))["last_error"]
    assert [found.addresses for found in world.peer.messages] == [["pat@signed.example"]]


async def test_stripping_starttls_from_the_second_session_on_keeps_the_mail_from_it(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=tls(offered_first=1))}, delivery={"connections": {"idle": "0.01s"}})
    await world.delivered(await world.send())
    await world.peer.wait_sessions(1)
    entry = await world.bounced(await world.send())
    assert "STARTTLS is not offered" in entry["last_error"]
    assert len(world.peer.messages) == 1
    assert all(not session.tls_bytes and b"MAIL" not in session.everything for session in world.peer.sessions[1:])


async def test_a_certificate_swapped_between_two_attempts_stops_the_second(build: Build) -> None:
    swapped = Behaviour(tls=Tls(swap_after=1, swap_to=self_signed(MX)), dot=reply(451, "4.3.0 later"))
    world = await build(
        hosts={MX: Host(behaviour=swapped)},
        delivery={"connections": {"idle": "0.01s"}},
        protection={"methods": ["tls"], "tls": "verified"},
    )
    entry = await world.bounced(await world.send())
    assert "chain" in entry["last_error"]
    first, *later = world.peer.sessions
    assert BODY in first.tls_bytes
    assert later
    assert not any(b"MAIL" in session.everything for session in later)


async def test_one_recipient_with_a_higher_need_does_not_fail_those_with_a_lower_one(build: Build) -> None:
    world = await build(
        hosts={MX: Host(certificate=self_signed(MX))},
        protection={"methods": ["tls"], "tls": "encrypted"},
        rules=[{"name": "boss", "when": {"recipient": "boss@good.example"}, "require": {"tls": "verified"}}],
    )
    message = await world.send(["boss@good.example", "pat@good.example"])
    assert (await world.bounced(message, "boss@good.example"))["last_error"].startswith("5.7.10 ")
    await world.delivered(message, "pat@good.example")
    assert [found.addresses for found in world.peer.messages] == [["pat@good.example"]]


async def test_a_peer_that_greets_in_tls_only_terms_it_may_not_use_gets_nothing_over_any_retry(build: Build) -> None:
    world = await build(
        hosts={MX: Host(behaviour=Behaviour(greeting=PerSession([garbage(b"220-\xff\xfe\r\n220 hi\r\n")])))},
    )
    world.faults_expected = True
    message = await world.send()
    await world.wait_state(message, "deferred", "delivered", "delivering", attempts=1)
    assert not any(BODY in session.clear_bytes for session in world.peer.sessions)


@pytest.mark.parametrize("methods", [["tls"], ["tls", "plain"]])
async def test_the_trace_tells_what_was_attained_and_what_was_missing(build: Build, methods: list[str]) -> None:
    world = await build(hosts={MX: Host(certificate=None)}, protection={"methods": methods, "tls": "encrypted"})
    message = await world.send(TO, MAIL)
    (entry,) = await world.settled(message)
    first = entry["attempts"][0]
    assert (first["host"], first["tls"], first["outcome"]) == (MX, None, "STARTTLS is not offered")
    passed = entry["decision"]["passed_over"]
    assert passed[0] == {"method": "tls", "reason": "STARTTLS is not offered", "definite": True}
    assert entry["state"] == ("delivered" if "plain" in methods else "bounced")
