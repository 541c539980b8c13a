"""Connections are reused, within their limits, and never across different demands."""

from __future__ import annotations

import asyncio

from gateway.testing import CA, Behaviour, PerSession, delay, drop, poll, reply, stall
from tests.scenario.conftest import Build
from tests.scenario.world import MX, Host, World


async def send_many(world: World, to: list[str]) -> list[str]:
    return list(await asyncio.gather(*(world.send(address) for address in to)))


async def all_delivered(world: World, messages: list[str]) -> None:
    for message in messages:
        await world.delivered(message)


async def test_twenty_messages_to_one_site_use_few_connections(build: Build) -> None:
    world = await build(delivery={"connections": {"idle": "2s"}})
    await all_delivered(world, await send_many(world, [f"pat{n}@good.example" for n in range(20)]))
    assert len(world.peer.messages) == 20
    assert len(world.peer.sessions) <= 8


async def test_one_after_the_other_they_share_one_connection(build: Build) -> None:
    world = await build(delivery={"connections": {"idle": "5s"}})
    for _ in range(5):
        await world.delivered(await world.send())
    assert [session.messages for session in world.peer.sessions] == [5]


async def test_domains_with_the_same_hosts_and_the_same_policy_share_connections(build: Build) -> None:
    world = await build(
        domains={"good.example": (MX,), "vanity.example": (MX,)}, delivery={"connections": {"idle": "5s"}}
    )
    await world.delivered(await world.send())
    await world.delivered(await world.send("pat@vanity.example"))
    assert [session.messages for session in world.peer.sessions] == [2]


async def test_different_demands_on_tls_never_share_one(build: Build) -> None:
    world = await build(
        domains={"good.example": (MX,), "strict.example": (MX,), "open.example": (MX,)},
        delivery={"connections": {"idle": "5s"}},
        protection={"methods": ["tls"], "tls": "encrypted"},
        rules=[
            {"name": "strict", "when": {"recipient_domain": "strict.example"}, "require": {"tls": "verified"}},
        ],
    )
    for domain in ("good", "strict", "good", "strict"):
        await world.delivered(await world.send(f"pat@{domain}.example"))
    assert [session.messages for session in world.peer.sessions] == [2, 2]


async def test_a_broken_policy_of_one_domain_does_not_touch_another_at_the_same_hosts(build: Build) -> None:
    world = await build(
        domains={"good.example": (MX,), "vanity.example": (MX,)},
        delivery={"pins": {"vanity.example": {"hosts": ["no.such.example"]}}},
        protection={"methods": ["tls"], "tls": "encrypted"},
    )
    good, bad = await world.send(), await world.send("pat@vanity.example")
    await world.delivered(good)
    assert "pin mismatch" in (await world.bounced(bad))["last_error"]


async def test_a_connection_that_was_closed_meanwhile_costs_no_attempt(build: Build) -> None:
    behaviour = Behaviour(mail=PerSession([reply(250, "2.1.0 ok"), drop()]))
    world = await build(hosts={MX: Host(behaviour=behaviour)}, delivery={"connections": {"idle": "5s"}})
    for _ in range(3):
        entry = await world.delivered(await world.send())
        assert [attempt["outcome"] for attempt in entry["attempts"]] == ["delivered"]
    assert [session.messages for session in world.peer.sessions] == [1, 1, 1]


async def test_an_idle_connection_is_ended_politely(build: Build) -> None:
    world = await build(delivery={"connections": {"idle": "0.1s"}})
    await world.delivered(await world.send())
    (session,) = await world.peer.wait_sessions(1)
    assert session.ended == "quit"


async def test_a_connection_is_not_used_beyond_its_lifetime(build: Build) -> None:
    world = await build(delivery={"connections": {"idle": "5s", "lifetime": "0.2s"}})
    await world.delivered(await world.send())
    await asyncio.sleep(0.25)  # what is waited for is that nothing happens but time
    await world.delivered(await world.send())
    assert world.peer.sessions[0].ended == "quit"
    assert len(world.peer.sessions) <= 2


async def test_mail_that_others_are_quicker_to_take_does_not_keep_a_connection_open(build: Build) -> None:
    slow = Behaviour(dot=delay(0.05))
    world = await build(hosts={MX: Host(behaviour=slow)}, delivery={"connections": {"idle": "0.4s"}})
    await all_delivered(world, await send_many(world, [f"p{n}@good.example" for n in range(5)]))
    opened = len(world.peer.sessions)
    assert opened > 1
    for _ in range(8):
        await world.delivered(await world.send())
    await poll(lambda: sum(session.closed is None for session in world.peer.sessions) <= 1, what="one connection left")


async def test_the_limit_per_site_holds(build: Build) -> None:
    slow = Behaviour(dot=delay(0.03))
    world = await build(hosts={MX: Host(behaviour=slow)}, delivery={"connections": {"per_site": 2, "idle": "1s"}})
    await all_delivered(world, await send_many(world, [f"p{n}@good.example" for n in range(16)]))
    assert world.peer.peak <= 2


async def test_the_window_of_a_site_opens_with_success(build: Build) -> None:
    slow = Behaviour(dot=delay(0.05))
    world = await build(hosts={MX: Host(behaviour=slow)}, delivery={"connections": {"per_site": 12, "idle": "2s"}})
    await all_delivered(world, await send_many(world, [f"p{n}@good.example" for n in range(80)]))
    assert 5 < world.peer.peak <= 12


async def test_a_message_that_comes_as_the_idle_time_ends_is_not_stranded(build: Build) -> None:
    world = await build(delivery={"connections": {"idle": "0.02s"}})
    for number in range(40):
        message = await world.send()
        await world.delivered(message)
        await asyncio.sleep(0.015 + (number % 10) / 1000)  # around the moment at which the worker gives up
    assert len(world.peer.messages) == 40


async def test_a_dead_site_does_not_hold_up_another(build: Build) -> None:
    world = await build(
        hosts={MX: Host(), "dead.example": Host(behaviour=Behaviour(greeting=stall()))},
        domains={"good.example": (MX,), "dead.example": ("dead.example",)},
    )
    dead = await send_many(world, [f"p{n}@dead.example" for n in range(120)])
    good = await send_many(world, [f"p{n}@good.example" for n in range(10)])
    await all_delivered(world, good)
    assert world.peers["dead.example"].peak <= 20
    for message in dead[:3]:
        assert (await world.recipient(message))["state"] in {"delivering", "deferred", "queued"}
    await world.gateway._scheduler.stop(0.1)


async def test_new_roots_are_asked_for_the_next_message_and_not_for_the_next_connection(build: Build) -> None:
    world = await build(delivery={"connections": {"idle": "5s"}}, protection={"methods": ["tls"], "tls": "verified"})
    await world.delivered(await world.send())
    other = CA("Another Root").write_root(world.directory / "other.pem")
    assert await world.change(tls={"trust": str(other)})
    assert "chain" in (await world.bounced(await world.send()))["last_error"]
    assert len(world.peer.messages) == 1


async def test_many_dead_domains_leave_room_for_one_that_lives(build: Build) -> None:
    dead = [f"dead{number}.example" for number in range(6)]
    tarpit = Host(behaviour=Behaviour(greeting=stall()))
    timeouts = dict.fromkeys(("connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "block", "dot"), "60s")
    world = await build(
        hosts={MX: Host(), **dict.fromkeys(dead, tarpit)},
        domains={"good.example": (MX,), **{domain: (domain,) for domain in dead}},
        delivery={"timeouts": timeouts},
    )
    for domain in dead:
        for _ in range(2):
            await world.send([f"p{n}@{domain}" for n in range(100)])
    await poll(lambda: len(world.gateway._scheduler._shares._domains) == len(dead), what="all dead domains")
    await world.delivered(await world.send())
    assert world.gateway._scheduler.active >= 250
    await world.gateway._scheduler.stop(0.1)
