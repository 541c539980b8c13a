"""Routes: the administrator's own next hops, and what method ``tls`` means over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.testing import Behaviour, Tls, self_signed
from tests.scenario.conftest import Build
from tests.scenario.world import BODY, MX, PLAIN_ALLOWED, ROOT, Host

RELAY = "relay.hoster.example"
TLS_ONLY = {"methods": ["tls"], "tls": "encrypted"}


def route(**changes: Any) -> dict[str, Any]:
    return {"routes": {"good.example": {"host": RELAY, "port": "PORT", **changes}}}


async def test_tls_over_a_smart_host_that_is_not_the_recipients_own_is_not_possible(build: Build) -> None:
    world = await build(hosts={RELAY: Host(), MX: Host()}, delivery=route(), protection=TLS_ONLY)
    entry = await world.bounced(await world.send())
    assert "tls: next hop is not the recipient's: the route is not marked `final`" in entry["last_error"]
    assert world.peers[RELAY].sessions == world.peers[MX].sessions == []


async def test_plain_goes_over_a_smart_host_with_the_tls_that_its_route_asks_for(build: Build) -> None:
    world = await build(hosts={RELAY: Host()}, delivery=route(tls="verified"), protection=PLAIN_ALLOWED)
    entry = await world.delivered(await world.send())
    assert entry["method"] == "plain"
    assert world.peers[RELAY].messages[0].tls is not None


async def test_the_tls_of_a_route_is_a_floor_that_plain_does_not_pass_under(build: Build) -> None:
    world = await build(hosts={RELAY: Host(certificate=None)}, delivery=route(), protection=PLAIN_ALLOWED)
    await world.bounced(await world.send())
    assert BODY not in world.peers[RELAY].received


async def test_a_final_route_of_one_domain_counts_as_authenticated(build: Build) -> None:
    world = await build(
        hosts={RELAY: Host()},
        delivery=route(final=True, tls="verified"),
        protection={"methods": ["tls"], "tls": "authenticated"},
    )
    entry = await world.delivered(await world.send())
    assert entry["attempts"][-1]["tls"]["assurance"] == "authenticated"


async def test_a_route_of_the_domain_comes_before_the_one_for_all(build: Build) -> None:
    routes = {
        "*": {"host": "elsewhere.example", "port": "PORT"},
        "good.example": {"host": RELAY, "port": "PORT", "final": True},
    }
    world = await build(hosts={RELAY: Host(), "elsewhere.example": Host()}, delivery={"routes": routes})
    await world.delivered(await world.send())
    assert len(world.peers[RELAY].messages) == 1


async def test_the_name_of_a_route_is_the_one_that_its_certificate_must_carry(build: Build) -> None:
    world = await build(
        hosts={RELAY: Host(certificate=ROOT.issue("frontend.hoster.example"))},
        delivery=route(final=True, tls="verified", name="frontend.hoster.example"),
    )
    await world.delivered(await world.send())
    assert world.peers[RELAY].sessions[0].sni == "frontend.hoster.example"


async def test_without_it_the_host_is(build: Build) -> None:
    world = await build(
        hosts={RELAY: Host(certificate=ROOT.issue("frontend.hoster.example"))},
        delivery=route(final=True, tls="verified"),
    )
    assert "name:" in (await world.bounced(await world.send()))["last_error"]
    world.nothing_sent_to(RELAY)


async def test_what_a_route_says_about_a_host_is_not_believed_for_mail_that_finds_it_by_mx(build: Build) -> None:
    """The same host, port and level; but only the route says that it may carry another name."""
    world = await build(
        hosts={MX: Host(certificate=ROOT.issue("frontend.hoster.example"))},
        domains={"good.example": (MX,), "other.example": (MX,)},
        delivery={
            "routes": {
                "good.example": {
                    "host": MX,
                    "port": "PORT",
                    "final": True,
                    "tls": "verified",
                    "name": "frontend.hoster.example",
                },
            },
            "connections": {"idle": "5s"},
        },
        protection={"methods": ["tls"], "tls": "verified"},
    )
    await world.delivered(await world.send())
    other = await world.bounced(await world.send("pat@other.example"))
    assert "name:" in other["last_error"]
    assert [found.addresses for found in world.peer.messages] == [["pat@good.example"]]


async def test_a_route_logs_in_only_under_tls(build: Build) -> None:
    login = Behaviour(credentials=("gateway", "hush-hush"), require_auth=True)
    world = await build(
        hosts={RELAY: Host(behaviour=login)},
        delivery=route(auth={"username": "gateway", "password": "hush-hush"}),
        protection=PLAIN_ALLOWED,
    )
    await world.delivered(await world.send())
    session = world.peers[RELAY].sessions[0]
    assert session.authenticated == "gateway"
    assert session.verbs_under_tls(tls=False) == ["EHLO", "STARTTLS"]


async def test_a_route_whose_password_is_wrong_keeps_the_mail(build: Build) -> None:
    login = Behaviour(credentials=("gateway", "right"), require_auth=True)
    world = await build(
        hosts={RELAY: Host(behaviour=login)},
        delivery=route(auth={"username": "gateway", "password": "wrong"}),
        protection=PLAIN_ALLOWED,
    )
    message = await world.send()
    entry = await world.wait_state(message, "deferred", attempts=2)
    assert "AUTH was refused" in entry["last_error"]
    assert "wrong" not in str(entry)
    world.peers[RELAY].behaviour = Behaviour(credentials=("gateway", "wrong"))
    await world.delivered(message)


async def test_a_route_shows_its_client_certificate(build: Build, tmp_path: Path) -> None:
    ours = ROOT.issue("gw.clinic.example", eku="client")
    chain, key = ours.write(tmp_path, "client")
    asking = Behaviour(tls=Tls(client_ca=ROOT, client_required=True))
    world = await build(
        hosts={RELAY: Host(behaviour=asking)},
        delivery=route(final=True, client_certificate={"certificate": str(chain), "key": str(key)}),
    )
    await world.delivered(await world.send())
    tls = world.peers[RELAY].messages[0].tls
    assert tls is not None
    assert tls.client_certificate == ours.der


async def test_a_host_named_by_its_address_must_have_that_address_in_its_certificate(build: Build) -> None:
    address = "127.0.0.2"  # the first host of a scene
    world = await build(
        hosts={RELAY: Host(certificate=ROOT.issue(address))},
        delivery={"routes": {"good.example": {"host": address, "port": "PORT", "final": True, "tls": "verified"}}},
    )
    entry = await world.delivered(await world.send())
    assert entry["attempts"][-1]["tls"]["name"] == "ok"
    assert world.dns.asked(address) == 0


async def test_a_host_named_by_its_address_with_another_one_in_its_certificate_gets_nothing(build: Build) -> None:
    world = await build(
        hosts={RELAY: Host(certificate=ROOT.issue("127.0.0.99"))},
        delivery={"routes": {"good.example": {"host": "127.0.0.2", "port": "PORT", "final": True, "tls": "verified"}}},
    )
    assert "name:" in (await world.bounced(await world.send()))["last_error"]
    world.nothing_sent_to(RELAY)


async def test_routes_are_the_administrators_word_and_may_lead_to_private_addresses(build: Build) -> None:
    world = await build(hosts={RELAY: Host()}, delivery=route(final=True) | {"allow_networks": []})
    await world.delivered(await world.send())


@pytest.mark.parametrize("final", [True, False])
async def test_the_trace_shows_the_evidence_of_a_route_whatever_it_asks_for(build: Build, *, final: bool) -> None:
    world = await build(
        hosts={RELAY: Host(certificate=self_signed(RELAY))},
        delivery=route(final=final, tls="encrypted" if final else "none"),
        protection=PLAIN_ALLOWED,
    )
    entry = await world.delivered(await world.send())
    assert entry["method"] == ("tls" if final else "plain")
    tls = entry["attempts"][-1]["tls"]
    assert (tls["assurance"], tls["name"]) == ("encrypted", "ok")
    assert tls["chain"] != "ok"


async def test_a_connection_of_a_route_to_a_private_address_is_not_lent_to_mail_that_dns_sent_there(
    build: Build,
) -> None:
    world = await build(
        domains={"good.example": (MX,), "other.example": (MX,)},
        delivery={
            "allow_networks": [],
            "routes": {"good.example": {"host": MX, "port": "PORT", "tls": "none"}},
            "connections": {"idle": "5s"},
        },
        protection={"methods": ["plain"]},
    )
    assert (await world.delivered(await world.send()))["method"] == "plain"
    message = await world.send("pat@other.example")
    entry = await world.wait_state(message, "deferred", attempts=1)
    assert "private or special address" in entry["last_error"]
    assert len(world.peer.messages) == 1


async def test_recipients_of_many_domains_that_go_to_one_smart_host_share_a_transaction(build: Build) -> None:
    hop = {"host": RELAY, "port": "PORT", "tls": "verified"}
    world = await build(hosts={RELAY: Host()}, delivery={"routes": {"*": hop}}, protection=PLAIN_ALLOWED)
    to = [f"pat@{name}.example" for name in ("good", "vanity", "open", "other")]
    message = await world.send([*to, "kim@good.example"])
    for address in (*to, "kim@good.example"):
        await world.wait_state(message, "delivered", to=address)
    (found,) = world.peers[RELAY].messages
    assert sorted(found.addresses) == sorted([*to, "kim@good.example"])
    assert not any(address.encode() in found.raw for address in to[1:])
