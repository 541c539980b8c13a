"""Addresses of a host: both families, and the destinations that a stranger's record must not lead to."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.directory import DestinationGuard, DnsError, DnsResolver, find_addresses, ipv6_usable
from gateway.testing import DnsServer

MakeResolver = Callable[..., DnsResolver]

GUARD = DestinationGuard()
OPEN = DestinationGuard([ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.255", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "169.254.1.1", "100.64.0.1", "100.127.255.255", "168.63.129.16", "192.0.0.192",
        "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1",
        "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "4000::1", "100::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::10.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001:0:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "fe80::1%eth0", "nonsense", "", "127.1", "0x7f000001", "127.0.0.1/8",
    ],
)  # fmt: skip
def test_destinations_that_are_refused(address: str) -> None:
    assert GUARD.refusal(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2a00:1450:4001::1a", "2002:808:808::1", "64:ff9b::808:808"],
)
def test_destinations_that_are_allowed(address: str) -> None:
    assert GUARD.refusal(address) is None


def test_the_administrators_exception_opens_just_that_network() -> None:
    guard = DestinationGuard([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd12::/16")])
    assert guard.refusal("127.0.0.2") is None
    assert guard.refusal("fd12::1") is None
    assert guard.refusal("10.0.0.1") == "private"
    assert guard.refusal("fd13::1") == "private"
    assert guard.refusal("::ffff:127.0.0.2") is None  # the same destination in another dress


@given(st.ip_addresses(v=4))
def test_no_ipv6_dress_makes_a_refused_ipv4_address_acceptable(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    dresses = (
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(number),
        ipaddress.IPv6Address(0x0064_FF9B << 96 | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1),
        ipaddress.IPv6Address(0x2001_0000 << 96 | number << 64),
    )
    if GUARD.refusal(str(inner)):
        assert all(GUARD.refusal(str(dress)) for dress in dresses)


@given(st.ip_addresses())
def test_what_is_not_global_by_the_standard_library_is_never_accepted(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if not address.is_global or address.is_multicast:
        embedded = isinstance(address, ipaddress.IPv6Address) and (
            address.sixtofour
            or address.teredo
            or address.ipv4_mapped
            or address in ipaddress.ip_network("64:ff9b::/96")
        )
        assert GUARD.refusal(str(address)) or embedded


async def test_both_families_in_the_order_asked_for(resolver_on: MakeResolver) -> None:
    async with DnsServer("h.example. A 192.0.2.1\nh.example. AAAA 2001:db8::1\n") as server:
        resolver = resolver_on(server)
        found = await find_addresses(resolver, "h.example", OPEN)
        assert found.addresses == ("2001:db8::1", "192.0.2.1")
        found = await find_addresses(resolver, "h.example", OPEN, ("ipv4",))
        assert found.addresses == ("192.0.2.1",)


async def test_a_failing_family_beside_a_good_one_is_passed_over(resolver_on: MakeResolver) -> None:
    async with DnsServer("h.example. A 192.0.2.1\n") as server:
        server.flag("h.example", "servfail", rdtype="AAAA")
        found = await find_addresses(resolver_on(server), "h.example", OPEN)
        assert found.addresses == ("192.0.2.1",)


async def test_a_failing_family_beside_an_empty_one_is_a_failure(resolver_on: MakeResolver) -> None:
    async with DnsServer("h.example. A 192.0.2.1\n") as server:
        server.flag("h.example", "servfail", rdtype="A")
        with pytest.raises(DnsError):
            await find_addresses(resolver_on(server), "h.example", OPEN)


async def test_refused_addresses_are_named_and_the_others_used(resolver_on: MakeResolver) -> None:
    async with DnsServer("h.example. A 192.0.2.1\nh.example. A 127.0.0.1\nh.example. A 10.0.0.1\n") as server:
        found = await find_addresses(resolver_on(server), "h.example", OPEN)
        assert found.addresses == ("192.0.2.1",)
        assert set(found.refused) == {"127.0.0.1 (loopback)", "10.0.0.1 (private)"}


async def test_one_secure_family_is_enough_for_dane(resolver_on: MakeResolver) -> None:
    async with DnsServer("h.example. A 192.0.2.1\nh.example. AAAA 2001:db8::1\n") as server:
        resolver = resolver_on(server)
        assert not (await find_addresses(resolver, "h.example", OPEN)).secure
        resolver.clear()
        server.flag("h.example", "secure", rdtype="A")
        assert (await find_addresses(resolver, "h.example", OPEN)).secure


async def test_a_host_that_is_not_there(resolver_on: MakeResolver) -> None:
    async with DnsServer("h.example. A 192.0.2.1\n") as server:
        found = await find_addresses(resolver_on(server), "no.example", OPEN)
        assert (found.exists, found.addresses) == (False, ())


async def test_at_most_ten_addresses_of_a_host_are_tried(resolver_on: MakeResolver) -> None:
    zone = "".join(f"h.example. A 192.0.2.{n}\n" for n in range(1, 60))
    async with DnsServer(zone) as server:
        assert len((await find_addresses(resolver_on(server), "h.example", OPEN)).addresses) == 10


def test_ipv6_by_way_of_loopback_is_no_way_to_the_world() -> None:
    assert ipv6_usable("::1") is False
