"""Which hosts take mail for a domain, and in which order."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from gateway.directory import DnsError, DnsResolver, MxHost, find_mx
from gateway.testing import DnsServer

MakeResolver = Callable[..., DnsResolver]


async def test_hosts_come_by_preference_and_equals_are_shuffled(resolver_on: MakeResolver) -> None:
    zone = "".join(f"d.example. MX 20 b{n}.example.\n" for n in range(6)) + "d.example. MX 10 A.example.\n"
    async with DnsServer(zone) as server:
        resolver = resolver_on(server)
        orders = set()
        for seed in range(8):
            found = await find_mx(resolver, "d.example", rng=random.Random(seed))
            assert found.status == "mx"
            assert found.hosts[0] == MxHost("a.example", 10)
            assert [host.preference for host in found.hosts] == [10, *[20] * 6]
            orders.add(tuple(host.name for host in found.hosts))
        assert len(orders) > 1


async def test_a_domain_without_mx_is_its_own_host(resolver_on: MakeResolver) -> None:
    async with DnsServer("d.example. A 192.0.2.1\n") as server:
        found = await find_mx(resolver_on(server), "d.example")
        assert (found.status, found.hosts) == ("implicit", (MxHost("d.example", 0),))


async def test_an_alias_is_followed_for_the_mx_and_for_the_implicit_host(resolver_on: MakeResolver) -> None:
    zone = (
        "d.example. CNAME e.example.\ne.example. MX 5 m.example.\nf.example. CNAME g.example.\ng.example. A 192.0.2.1\n"
    )
    async with DnsServer(zone) as server:
        resolver = resolver_on(server)
        assert (await find_mx(resolver, "d.example")).hosts == (MxHost("m.example", 5),)
        implicit = await find_mx(resolver, "f.example")
        assert (implicit.domain, implicit.hosts) == ("f.example", (MxHost("g.example", 0),))


async def test_null_mx_takes_no_mail(resolver_on: MakeResolver) -> None:
    async with DnsServer("d.example. MX 0 .\n") as server:
        assert (await find_mx(resolver_on(server), "d.example")).status == "null"


async def test_a_null_mx_among_others_is_a_mistake_and_passed_over(resolver_on: MakeResolver) -> None:
    async with DnsServer("d.example. MX 0 .\nd.example. MX 5 m.example.\n") as server:
        found = await find_mx(resolver_on(server), "d.example")
        assert (found.status, found.hosts) == ("mx", (MxHost("m.example", 5),))
        assert found.skipped == ((".", "the root is no host"),)


async def test_no_such_domain(resolver_on: MakeResolver) -> None:
    async with DnsServer("d.example. MX 5 m.example.\n") as server:
        assert (await find_mx(resolver_on(server), "nowhere.example")).status == "nxdomain"


async def test_a_failed_look_up_is_no_implicit_mx(resolver_on: MakeResolver) -> None:
    async with DnsServer("d.example. A 192.0.2.1\n") as server:
        server.flag("d.example", "servfail")
        with pytest.raises(DnsError):
            await find_mx(resolver_on(server), "d.example")


async def test_dnssec_status_travels_along(resolver_on: MakeResolver) -> None:
    async with DnsServer("d.example. MX 5 m.example.\n") as server:
        server.flag("d.example", "secure")
        assert (await find_mx(resolver_on(server), "d.example")).secure


@pytest.mark.parametrize(
    ("own", "status", "left"),
    [
        ({"m20.example"}, "mx", ["m10.example"]),
        ({"m10.example"}, "loop", []),
        ({"m30.example"}, "mx", ["m10.example", "m20.example", "n20.example"]),
        ({"other.example"}, "mx", ["m10.example", "m20.example", "m30.example", "n20.example"]),
    ],
)
async def test_we_and_whoever_is_not_preferred_to_us_are_taken_out(
    resolver_on: MakeResolver, own: set[str], status: str, left: list[str]
) -> None:
    zone = "d.example. MX 10 m10.example.\nd.example. MX 20 m20.example.\nd.example. MX 20 n20.example.\n"
    async with DnsServer(zone + "d.example. MX 30 M30.example.\n") as server:
        found = await find_mx(resolver_on(server), "d.example", frozenset(own))
        assert (found.status, sorted(host.name for host in found.hosts)) == (status, left)


async def test_a_domain_whose_only_host_is_ourselves_is_a_loop(resolver_on: MakeResolver) -> None:
    async with DnsServer("gw.example. A 192.0.2.1\n") as server:
        assert (await find_mx(resolver_on(server), "gw.example", frozenset({"gw.example"}))).status == "loop"


async def test_names_that_are_no_host_names_are_skipped_with_the_reason(resolver_on: MakeResolver) -> None:
    zone = (
        "d.example. MX 1 192.0.2.1.\n"
        "d.example. MX 2 a\\032b.example.\n"
        "d.example. MX 3 -x-.example.\n"
        "d.example. MX 4 host.123.\n"
        "d.example. MX 5 x\\013\\010QUIT.example.\n"
        "d.example. MX 6 good.example.\n"
    )
    async with DnsServer(zone) as server:
        found = await find_mx(resolver_on(server), "d.example")
        assert [host.name for host in found.hosts] == ["good.example"]
        assert len(found.skipped) == 5
        assert all(name.isprintable() and reason for name, reason in found.skipped)


async def test_only_nonsense_leaves_an_mx_set_without_hosts(resolver_on: MakeResolver) -> None:
    async with DnsServer("d.example. MX 1 192.0.2.1.\nd.example. A 192.0.2.9\n") as server:
        found = await find_mx(resolver_on(server), "d.example")
        assert (found.status, found.hosts) == ("mx", ())


async def test_at_most_twenty_hosts_are_considered_the_best_first(resolver_on: MakeResolver) -> None:
    zone = "".join(f"d.example. MX {n} m{n}.example.\n" for n in range(60))
    async with DnsServer(zone) as server:
        found = await find_mx(resolver_on(server), "d.example")
        assert [host.preference for host in found.hosts] == list(range(20))
