"""What DNS says about a recipient's domain, and where it may not lead us."""

from __future__ import annotations

import pytest

from tests.scenario.conftest import Build
from tests.scenario.world import MX, PLAIN_ALLOWED, ROOT, Host


@pytest.mark.parametrize(
    ("zone", "status", "words"),
    [
        ("odd.example. MX 0 .", "5.1.10", "takes no mail (null MX)"),
        ("", "5.1.2", "does not exist"),
        ("odd.example. MX 5 gw.clinic.example.", "5.4.6", "directed to this gateway itself"),
        ("odd.example. MX 5 127.0.0.1.", "5.4.4", "no usable mail host"),
    ],
)
async def test_a_domain_that_takes_no_mail_bounces_at_once(build: Build, zone: str, status: str, words: str) -> None:
    world = await build(zone=zone)
    message = await world.send("pat@odd.example")
    entry = await world.bounced(message)
    assert words in entry["last_error"]
    (notice,) = await world.notices(message)
    assert f"Status: {status}\r\n".encode() in notice.raw


async def test_hosts_behind_ourselves_in_preference_are_left_out(build: Build) -> None:
    world = await build(zone="odd.example. MX 5 mx1.good.example.\nodd.example. MX 10 gw.clinic.example.")
    await world.delivered(await world.send("pat@odd.example"))


@pytest.mark.parametrize("flag", ["servfail", "bogus", "refused"])
async def test_a_dns_failure_defers_and_never_changes_the_method(build: Build, flag: str) -> None:
    world = await build(protection=PLAIN_ALLOWED | {"fallback_after": "0.01s"})
    world.dns.flag("good.example", flag)  # type: ignore[arg-type]  # one of the flags, from the parameters above
    message = await world.send()
    entry = await world.wait_state(message, "deferred", attempts=1)
    assert "DNS: good.example MX" in entry["last_error"]
    assert entry["attempts"][0]["stage"] == "dns"
    assert world.peer.sessions == []
    world.dns.unflag("good.example")
    world.gateway._resolver._resolver.clear()
    assert (await world.delivered(message))["method"] == "tls"


async def test_a_host_whose_address_cannot_be_looked_up_defers(build: Build) -> None:
    world = await build()
    world.dns.flag(MX, "servfail")
    message = await world.send()
    await world.wait_state(message, "deferred", attempts=1)
    assert world.peer.sessions == []


async def test_a_domain_without_mx_is_its_own_host(build: Build) -> None:
    world = await build(hosts={"good.example": Host()}, domains={})
    await world.delivered(await world.send())


async def test_a_private_destination_out_of_dns_is_refused_and_the_trace_says_why(build: Build) -> None:
    world = await build(delivery={"allow_networks": []})
    message = await world.send()
    entry = await world.wait_state(message, "deferred", attempts=1)
    assert "127.0.0.2 (loopback) is a private or special address" in entry["last_error"]
    assert world.peer.sessions == []
    assert await world.change(delivery={"allow_networks": ["127.0.0.0/8"]})
    await world.delivered(message)


async def test_an_address_literal_is_delivered_to_that_address(build: Build) -> None:
    world = await build(
        hosts={MX: Host(certificate=ROOT.issue("127.0.0.2"))},
        protection={"methods": ["tls"], "tls": "verified"},
    )
    await world.delivered(await world.send("pat@[127.0.0.2]"))
    assert world.peer.messages[0].addresses == ["pat@[127.0.0.2]"]
    assert world.dns.queries == []


async def test_an_address_literal_of_a_private_address_is_refused_like_any_other(build: Build) -> None:
    world = await build(delivery={"allow_networks": []})
    message = await world.send("pat@[127.0.0.2]")
    entry = await world.wait_state(message, "deferred", "bounced", attempts=1)
    assert "private or special address" in entry["last_error"]
    assert world.peer.sessions == []


async def test_an_address_literal_can_never_be_authenticated(build: Build) -> None:
    world = await build(
        hosts={MX: Host(certificate=ROOT.issue("127.0.0.2"))},
        protection={"methods": ["tls"], "tls": "authenticated"},
    )
    assert "not authenticated" in (await world.bounced(await world.send("pat@[127.0.0.2]")))["last_error"]
    world.nothing_sent_to(MX)
