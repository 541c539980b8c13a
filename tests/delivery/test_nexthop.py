"""Where mail goes and what a session there must show: routes, pins, MX sets; no two demands under one key."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.config.model import Settings
from gateway.delivery.nexthop import NextHop, Unreachable, find_next_hop, route_for
from gateway.directory import DnsResolver
from gateway.mail.address import Address
from gateway.mail.attempt import Verdict
from gateway.mail.protection import Assurance, Method
from gateway.testing import DnsServer, FakeClock

ZONE = """
good.example. MX 10 mx1.good.example.
good.example. MX 20 mx2.good.example.
null.example. MX 0 .
"""
NONE, ENCRYPTED, VERIFIED, AUTHENTICATED = Assurance


def settings(**delivery: Any) -> Settings:
    values: Any = {"hostname": "gw.clinic.example", "postmaster": "p@clinic.example", "delivery": delivery}
    return Settings.model_validate(values)


async def hop_of(
    to: str = "pat@good.example",
    method: Method = Method.TLS,
    required: Assurance = ENCRYPTED,
    *,
    secure: bool = False,
    system: bool = False,
    **delivery: Any,
) -> NextHop | Unreachable:
    async with DnsServer(ZONE) as dns:
        if secure:
            dns.flag("good.example", "secure")
        given = settings(**delivery)
        given = given.model_copy(update={"dns": given.dns.model_validate({"resolvers": [dns.resolver]})})
        resolver = DnsResolver(given.dns, FakeClock())
        return await find_next_hop(
            resolver, given, Address.parse(to), method, required, system=system, chance=random.Random(1)
        )


async def next_hop(*args: Any, **kwargs: Any) -> NextHop:
    found = await hop_of(*args, **kwargs)
    assert isinstance(found, NextHop), found
    return found


async def test_by_mx_each_host_must_show_its_own_name() -> None:
    hop = await next_hop(required=VERIFIED)
    assert [(each.host, each.names, each.exempt) for each in hop.hops] == [
        ("mx1.good.example", ("mx1.good.example",), False),
        ("mx2.good.example", ("mx2.good.example",), False),
    ]
    assert (hop.policy.require, hop.policy.starttls, hop.policy.host_authenticated) == (VERIFIED, "must", False)


@pytest.mark.parametrize("required", Assurance)
async def test_method_tls_never_asks_for_less_than_encryption(required: Assurance) -> None:
    hop = await next_hop(required=required)
    assert hop.policy.require == max(required, ENCRYPTED)
    assert hop.policy.starttls == "must"


async def test_method_plain_tries_tls_and_asks_for_nothing() -> None:
    hop = await next_hop(method=Method.PLAIN, required=NONE, pins={"good.example": {"hosts": ["other.example"]}})
    assert (hop.policy.require, hop.policy.starttls) == (NONE, "try")
    assert len(hop.hops) == 2


async def test_a_signed_mx_set_makes_its_names_trustworthy() -> None:
    assert (await next_hop(secure=True)).policy.host_authenticated


async def test_a_pin_narrows_the_hosts_and_raises_what_is_asked() -> None:
    hop = await next_hop(pins={"good.example": {"hosts": ["mx2.good.example"]}})
    assert [each.host for each in hop.hops] == ["mx2.good.example"]
    assert (hop.policy.require, hop.policy.host_authenticated) == (AUTHENTICATED, True)
    ((name, failure),) = hop.excluded
    assert (name, failure.verdict) == ("mx1.good.example", Verdict.DEFINITE)


async def test_a_pin_of_one_domain_does_not_reach_its_parent_or_its_children() -> None:
    for pinned in ("example", "sub.good.example", "good.example.org"):
        hop = await next_hop(pins={pinned: {"hosts": ["mx9.good.example"]}})
        assert hop.policy.require == ENCRYPTED


async def test_two_hops_with_different_demands_have_different_keys() -> None:
    relay: dict[str, Any] = {"host": "mx1.good.example", "final": True, "tls": "verified"}
    hops = [
        await next_hop(),
        await next_hop(required=VERIFIED),
        await next_hop(secure=True),
        await next_hop(method=Method.PLAIN, required=NONE),
        await next_hop(pins={"good.example": {"hosts": ["mx1.good.example", "mx2.good.example"]}}),
        await next_hop(pins={"good.example": {"spki": ["00" * 32]}}),
        await next_hop(pins={"good.example": {"hosts": ["mx1.good.example"]}}),
        await next_hop(routes={"good.example": relay}),
        await next_hop(routes={"good.example": relay | {"name": "other.example"}}),
        await next_hop(routes={"good.example": relay | {"port": 26}}),
        await next_hop(routes={"good.example": relay | {"auth": {"username": "u", "password": "p"}}}),
        await next_hop(to="pat@[192.0.2.1]"),
    ]
    assert len({hop.key for hop in hops}) == len(hops)


async def test_the_same_demand_has_the_same_key_whatever_the_order_of_equal_hosts() -> None:
    assert (await next_hop()).key == (await next_hop(to="other@good.example")).key


async def test_a_route_given_as_an_address_is_dialled_without_asking_dns() -> None:
    for host in ("192.0.2.7", "2001:db8::7"):
        (hop,) = (await next_hop(routes={"good.example": {"host": host, "final": True}})).hops
        assert (hop.address, hop.names, hop.exempt) == (host, (host,), True)


async def test_tls_over_a_route_that_is_not_final_is_definitely_not_possible() -> None:
    found = await hop_of(routes={"*": "relay.example:25"})
    assert isinstance(found, Unreachable)
    assert found.failure.verdict is Verdict.DEFINITE
    plain = await next_hop(method=Method.PLAIN, required=NONE, routes={"*": "relay.example:25"})
    assert (plain.hops[0].host, plain.policy.require) == ("relay.example", ENCRYPTED)  # the route's own floor


async def test_mail_of_our_own_passes_a_smart_host_that_is_not_final_and_takes_one_that_is() -> None:
    by_mx = await next_hop(system=True, routes={"*": "relay.example:25"})
    assert by_mx.hops[0].host == "mx1.good.example"
    final = await next_hop(system=True, routes={"good.example": {"host": "relay.example", "final": True}})
    assert final.hops[0].host == "relay.example"


async def test_domains_that_take_no_mail() -> None:
    for to, status in (("a@null.example", "5.1.10"), ("a@nosuch.test", "5.1.2")):
        found = await hop_of(to)
        assert isinstance(found, Unreachable)
        assert (found.failure.verdict, found.status) == (Verdict.FINAL, status)


def test_the_nearest_route_counts() -> None:
    routes = settings(
        routes={"*": "any.example", "a.example": "own.example", "b.a.example": "deep.example"}
    ).delivery.routes
    assert [(found[0].host, found[1]) for name in ("a.example", "b.a.example", "c.a.example", "x.test")
            if (found := route_for(routes, name))] == [
        ("own.example", True), ("deep.example", True), ("any.example", False), ("any.example", False),
    ]  # fmt: skip
    assert route_for({}, "a.example") is None
