"""The clouds' lists: as shipped, from SPF records, and through the command."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import gateway
from gateway.ingress.connectors import Network
from gateway.ingress.networks import NetworkList, NetworksError, load_networks, read_shipped, refreshed, save
from gateway.ingress.seams import LookupFailed, LookupTxt
from gateway.ingress.spf import spf_networks
from gateway.testing import DnsServer


def nets(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def zone(**records: str) -> LookupTxt:
    async def lookup(name: str) -> Sequence[bytes]:
        text = records.get(name.replace(".", "_"), "")
        if text == "fail":
            raise LookupFailed("timeout")
        return [each.encode() for each in text.split("|") if each]

    return lookup


def test_shipped_lists_are_what_the_services_publish() -> None:
    microsoft, google = read_shipped("microsoft365"), read_shipped("google")
    assert ipaddress.ip_network("40.92.0.0/15") in microsoft.networks
    assert len(microsoft.networks) == 11
    assert ipaddress.ip_network("209.85.128.0/17") in google.networks
    assert len(google.forwarding) == 3
    assert not microsoft.forwarding


async def test_includes_and_redirects_are_followed() -> None:
    lookup = zone(
        a_example="other text|v=spf1 include:b.example ip4:192.0.2.0/24 -ip4:198.51.100.0/24 a mx redirect=c.example",
        b_example="V=SPF1 +ip6:2001:db8::/32 include:a.example ?ip4:203.0.113.0/24 ~all",
        c_example="v=spf1 ip4:192.0.2.200 exists:%{i}.x.example -all",
    )
    assert await spf_networks(("a.example",), lookup) == list(nets("2001:db8::/32", "192.0.2.0/24", "192.0.2.200/32"))


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ({}, "no SPF record"),
        ({"a_example": "v=spf1 -all|v=spf1 -all"}, "more than one"),
        ({"a_example": "fail"}, "timeout"),
        ({"a_example": "v=spf1 ip4:192.0.2.0/24 include:b.example"}, "b.example: no SPF record"),
        ({"a_example": "v=spf1 ip4:nonsense"}, "not a network"),
        ({"a_example": "v=spf1 ip4:0.0.0.0/0"}, "not a network of a mail service"),
        ({"a_example": "v=spf1 ip6:::/0"}, "not a network of a mail service"),
        ({"a_example": "v=spf1 ip4:2001:db8::/32"}, "not a network of a mail service"),
        ({"a_example": "v=spf1 include:bad..name"}, "label"),
        ({f"n{n}_example": f"v=spf1 include:n{n + 1}.example" for n in range(30)}, "look-ups"),
    ],
)
async def test_half_a_list_is_none(records: dict[str, str], why: str) -> None:
    start = "n0.example" if "n0_example" in records else "a.example"
    with pytest.raises(NetworksError, match=why):
        await spf_networks((start,), zone(**records))


OLD = NetworkList("google", ("a.example",), nets("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"))


def test_a_refresh_replaces_the_list_and_keeps_the_rest() -> None:
    fresh = refreshed(OLD, nets("192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32"))
    assert fresh.networks == nets("192.0.2.0/24", "2001:db8::/32")
    assert fresh.records == OLD.records


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ((), "no networks"),
        (nets("192.0.2.0/24"), "no IPv6"),
        (nets("2001:db8::/32"), "no IPv4"),
        (nets("10.0.0.0/8", "2001:db8::/32"), "ten times as many IPv4"),
        (nets("192.0.2.0/24", "2001:d00::/24"), "ten times as many IPv6"),
        (nets(*(f"192.0.2.{n}/32" for n in range(0, 120, 2)), "2001:db8::/32"), "ten times as many networks"),
    ],
)
def test_a_refresh_that_is_no_news_but_an_accident_is_not_taken(found: tuple[Network, ...], why: str) -> None:
    with pytest.raises(NetworksError, match=why):
        refreshed(OLD, found)


def test_a_kept_list_wins_and_a_broken_one_is_reported(tmp_path: Path) -> None:
    path = save(tmp_path, OLD)
    lists, faults = load_networks(tmp_path)
    assert lists.lists["google"].networks == OLD.networks
    assert lists.lists["google"].source == str(path)
    assert lists.lists["microsoft365"].source == "shipped"
    assert not faults
    assert [each.name for each in path.parent.iterdir()] == ["google.json"]
    for content in (b"not json", b"{}", b'{"records": [], "networks": [], "forwarding": []}', b'{"networks": 7}'):
        path.write_bytes(content)
        lists, faults = load_networks(tmp_path)
        assert lists.lists["google"] == read_shipped("google")
        assert len(faults) == 1
        assert str(path) in faults[0]


async def test_the_command_asks_dns_keeps_and_shows(tmp_path: Path) -> None:
    records = (
        '_spf.google.com. TXT "v=spf1 include:_netblocks.google.com ~all"\n'
        '_netblocks.google.com. TXT "v=spf1 ip4:74.125.0.0/16 ip4:209.85.128.0/17 ip6:2a00:1450:4000::/36 ~all"\n'
        'spf.protection.outlook.com. TXT "v=spf1 -all"\n'
    )
    async with DnsServer(records) as server:
        config = tmp_path / "gateway.yaml"
        config.write_text(
            f"hostname: gw.clinic.example\npostmaster: p@clinic.example\ndata_dir: {tmp_path}\n"
            f"dns: {{resolvers: ['{server.resolver}']}}\n"
        )
        code, out, err = await _run(config, "refresh", "--json")
        assert code == 1
        assert "microsoft365: the SPF records name no networks" in err
        results = {each["name"]: each for each in json.loads(out)["networks"]}
        assert results["google"]["after"] == 3
        assert "64.233.160.0/19" in results["google"]["removed"]
        assert (await _run(config, "refresh", "google"))[0] == 0
        code, out, _ = await _run(config, "list", "--json")
        assert code == 0
        shown = {each["name"]: each for each in json.loads(out)["networks"]}
        assert shown["google"]["networks"] == ["74.125.0.0/16", "209.85.128.0/17", "2a00:1450:4000::/36"]
        assert shown["microsoft365"]["source"] == "shipped"
        code, out, _ = await _run(config, "list")
        assert "google: 3 networks" in out
        assert "only with foreign_from: forward" in out


async def _run(config: Path, *words: str) -> tuple[int, str, str]:
    """The command in a thread: it runs an event loop of its own."""
    import asyncio

    def invoke() -> tuple[int, str, str]:
        result = CliRunner().invoke(gateway, ["networks", words[0], "--config", str(config), *words[1:]])
        return result.exit_code, result.stdout, result.stderr

    return await asyncio.to_thread(invoke)
