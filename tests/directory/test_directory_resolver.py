"""Answers, failures, and the difference between "there is none" and "nobody could tell"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config.outbound import Dns
from gateway.directory import DnsError, DnsResolver
from gateway.directory.resolver import Server, system_servers
from gateway.testing import DnsServer, FakeClock, Flag, free_port, poll

MakeResolver = Callable[..., DnsResolver]

ZONE = """
a.example. 300 A 192.0.2.1
a.example. 300 A 192.0.2.2
alias.example. 60 CNAME a.example.
text.example. 300 TXT "x"
"""


async def test_records_come_back_with_their_canonical_name(resolver_on: MakeResolver) -> None:
    async with DnsServer(ZONE) as server:
        answer = await resolver_on(server).query("Alias.Example.", "a")
        assert {record.to_text() for record in answer.records} == {"192.0.2.1", "192.0.2.2"}
        assert (answer.exists, answer.canonical, answer.secure, answer.ttl) == (True, "a.example", False, 60)


async def test_no_such_name_and_no_such_type_are_different_answers(resolver_on: MakeResolver) -> None:
    async with DnsServer(ZONE) as server:
        resolver = resolver_on(server)
        gone, empty = await resolver.query("nowhere.example", "A"), await resolver.query("a.example", "MX")
        assert (gone.exists, gone.records) == (False, ())
        assert (empty.exists, empty.records) == (True, ())


@pytest.mark.parametrize("flag", ["servfail", "bogus", "refused", "timeout", "garbage", "wrong_id"])
async def test_a_failure_is_never_an_empty_answer(resolver_on: MakeResolver, flag: Flag) -> None:
    async with DnsServer(ZONE) as server:
        server.flag("a.example", flag)
        with pytest.raises(DnsError) as failed:
            await resolver_on(server, timeout=0.4).query("a.example", "A")
        assert (failed.value.name, failed.value.rdtype) == ("a.example", "A")
        assert failed.value.reason


async def test_a_truncated_answer_is_fetched_over_tcp(resolver_on: MakeResolver) -> None:
    async with DnsServer(ZONE) as server:
        server.flag("a.example", "truncate")
        answer = await resolver_on(server).query("a.example", "A")
        assert len(answer.records) == 2
        assert [query.transport for query in server.queries] == ["udp", "tcp"]


async def test_at_most_a_hundred_records_are_used(resolver_on: MakeResolver) -> None:
    async with DnsServer(ZONE) as server:
        server.flag("a.example", "many", value=400)
        assert len((await resolver_on(server).query("a.example", "A")).records) == 100


@pytest.mark.parametrize(("links", "works"), [(8, True), (9, False)])
async def test_a_chain_of_aliases_ends(resolver_on: MakeResolver, links: int, works: bool) -> None:  # noqa: FBT001 - a parameter
    chain = "".join(f"c{n}.example. CNAME c{n + 1}.example.\n" for n in range(links))
    async with DnsServer(chain + f"c{links}.example. A 192.0.2.7\n") as server:
        resolver = resolver_on(server)
        if works:
            assert (await resolver.query("c0.example", "A")).records
        else:
            with pytest.raises(DnsError, match="aliases"):
                await resolver.query("c0.example", "A")


async def test_aliases_in_a_circle_are_a_failure(resolver_on: MakeResolver) -> None:
    async with DnsServer("x.example. CNAME y.example.\ny.example. CNAME x.example.\n") as server:
        with pytest.raises(DnsError):
            await resolver_on(server).query("x.example", "A")


@pytest.mark.parametrize(
    ("trust_ad", "believed"),
    [("auto", True), (True, True), (False, False)],
)
async def test_ad_is_believed_from_loopback_unless_told_otherwise(
    resolver_on: MakeResolver,
    trust_ad: bool | str,  # noqa: FBT001 - a parameter
    believed: bool,  # noqa: FBT001 - a parameter
) -> None:
    async with DnsServer(ZONE) as server:
        server.flag("a.example", "secure")
        resolver = resolver_on(server, trust_ad=trust_ad)
        assert (await resolver.query("a.example", "A")).secure is believed
        assert (await resolver.query("alias.example", "A")).secure is False  # a link of the chain is not signed


def test_ad_of_a_resolver_elsewhere_is_not_believed_by_itself(resolver_on: MakeResolver) -> None:
    assert [server.trusted for server in resolver_on("192.0.2.53:53", "127.0.0.1:53").servers] == [False, True]
    assert resolver_on("192.0.2.53:53", trust_ad=True).servers[0].trusted


async def test_the_next_server_is_asked_when_one_fails(resolver_on: MakeResolver) -> None:
    dead = f"127.0.0.1:{free_port('127.0.0.1')}"
    async with DnsServer(ZONE) as server:
        resolver = resolver_on(dead, server, timeout=4.0)
        started = asyncio.get_running_loop().time()
        assert (await resolver.query("a.example", "A")).records
        first = asyncio.get_running_loop().time() - started
        assert (await resolver.query("text.example", "TXT")).records  # the dead one is now asked last
        assert asyncio.get_running_loop().time() - started < 2 * first


async def test_a_resolver_that_does_not_validate_never_overrules_one_that_does(clock: FakeClock) -> None:
    async with DnsServer(ZONE) as validating, DnsServer(ZONE, address="127.0.0.9") as blind:
        validating.flag("a.example", "bogus")
        resolver = DnsResolver(Dns.model_validate({"resolvers": ["127.0.0.1:53"], "timeout": 2.0}), clock)
        resolver.servers = (
            Server(validating.address, validating.port, trusted=True),
            Server(blind.address, blind.port, trusted=False),
        )
        with pytest.raises(DnsError, match="SERVFAIL"):
            await resolver.query("a.example", "A")
        assert blind.queries == []


async def test_an_answer_is_kept_for_its_ttl(resolver_on: MakeResolver, clock: FakeClock) -> None:
    async with DnsServer(ZONE) as server:
        resolver = resolver_on(server)
        for _ in range(3):
            await resolver.query("a.example", "A")
        assert server.asked("a.example") == 1
        await clock.advance(301)
        await resolver.query("a.example", "A")
        assert server.asked("a.example") == 2


async def test_ttls_are_bounded_on_both_sides(resolver_on: MakeResolver, clock: FakeClock) -> None:
    async with DnsServer("zero.example. 0 A 192.0.2.1\nlong.example. 999999 A 192.0.2.1\n") as server:
        resolver = resolver_on(server)
        for name in ("zero.example", "long.example"):
            await resolver.query(name, "A")
            await resolver.query(name, "A")
        assert server.asked("zero.example") == 1
        await clock.advance(6)
        await resolver.query("zero.example", "A")
        assert server.asked("zero.example") == 2
        await clock.advance(3600)
        await resolver.query("long.example", "A")
        assert server.asked("long.example") == 2


async def test_a_failure_is_forgotten_after_seconds(resolver_on: MakeResolver, clock: FakeClock) -> None:
    async with DnsServer(ZONE) as server:
        server.flag("a.example", "servfail")
        resolver = resolver_on(server)
        for _ in range(2):
            with pytest.raises(DnsError):
                await resolver.query("a.example", "A")
        asked = server.asked("a.example")
        server.unflag("a.example")
        await clock.advance(6)
        assert (await resolver.query("a.example", "A")).records
        assert server.asked("a.example") == asked + 1


async def test_questions_asked_together_share_one_flight(resolver_on: MakeResolver) -> None:
    async with DnsServer(ZONE) as server:
        resolver = resolver_on(server)
        answers = await asyncio.gather(*(resolver.query("a.example", "A") for _ in range(50)))
        assert len(answers) == 50
        assert server.asked("a.example") == 1


async def test_one_who_gives_up_does_not_take_the_answer_from_the_others(resolver_on: MakeResolver) -> None:
    async with DnsServer(ZONE) as server:
        server.flag("a.example", "slow", value=0.2)
        resolver = resolver_on(server)
        hasty = asyncio.create_task(resolver.query("a.example", "A"))
        patient = asyncio.create_task(resolver.query("a.example", "A"))
        await asyncio.sleep(0)
        hasty.cancel()
        assert (await patient).records
        assert hasty.cancelled() or hasty.cancelling()
        assert server.asked("a.example") == 1


async def test_what_cannot_be_asked_is_an_error_of_the_same_kind(resolver_on: MakeResolver) -> None:
    resolver = resolver_on("127.0.0.1:9")
    for name in ("a" * 64 + ".example", "a..example"):
        with pytest.raises(DnsError):
            await resolver.query(name, "A")


async def test_closing_ends_what_is_under_way(resolver_on: MakeResolver) -> None:
    async with DnsServer(ZONE) as server:
        server.flag("a.example", "timeout")
        resolver = resolver_on(server, timeout=60.0)
        waiting = asyncio.create_task(resolver.query("a.example", "A"))
        await poll(lambda: server.queries)
        await resolver.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def test_the_systems_resolvers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# x\nsearch example\nnameserver 192.0.2.53\nnameserver nonsense\nnameserver 2001:db8::53 # y\n")
    assert system_servers(file) == ("192.0.2.53", "2001:db8::53")
    assert system_servers(tmp_path / "none") == ("127.0.0.1",)
