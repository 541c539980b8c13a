"""Peers that break at every point: the message is kept, its slot comes free, the gateway lives."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.testing import Behaviour, ByAddress, drip, drop, drop_after, endless, garbage, poll, reply, stall
from tests.scenario.conftest import Build
from tests.scenario.world import BODY, MX, Host

SHORT = {
    "timeouts": dict.fromkeys(("connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "block"), "0.5s")
}
STEPS = ("greeting", "ehlo", "starttls", "mail", "rcpt", "data", "dot")
MISDEEDS: dict[str, Any] = {
    "stalls": stall(),
    "drops": drop(),
    "resets": drop(reset=True),
    "garbage": garbage(),
    "garbage and closes": garbage(b"\xff" * 3000, close=True),
    "endless lines": endless(pause=0.0),
    "one byte at a time": drip(0.1),
    "421": reply(421, "4.3.2 closing"),
    "a reply of no class": garbage(b"999 what\r\n"),
    "a very long line": garbage(b"250 " + b"x" * 100_000 + b"\r\n"),
    "two replies": garbage(b"250 2.0.0 ok\r\n250 2.0.0 again\r\n"),
}


async def test_a_connection_lost_after_the_final_dot_is_unknown_and_tried_again(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=Behaviour(dot=[drop_after(), reply(250, "2.0.0 ok")]))})
    message = await world.send()
    entry = await world.delivered(message)
    first, last = entry["attempts"]
    assert (first["unknown"], last["unknown"]) == (True, False)
    assert first["stage"] == "dot"
    deferred = next(event for event in entry["events"] if event["kind"] == "deferred")
    assert deferred["data"]["possible_duplicate"] is True
    assert len(world.peer.messages) == 2  # it did arrive twice, and the trace says that this may be
    assert [found.raw.count(b"Message-ID: <m1@clinic.example>") for found in world.peer.messages] == [1, 1]


async def test_a_recipient_refused_before_the_dot_is_not_unknown(build: Build) -> None:
    behaviour = Behaviour(
        rcpt=ByAddress({"gone@good.example": reply(550, "5.1.1 no such user")}), dot=[drop_after(), reply(250, "ok")]
    )
    world = await build(hosts={MX: Host(behaviour=behaviour)})
    message = await world.send(["gone@good.example", "pat@good.example"])
    gone = await world.bounced(message, "gone@good.example")
    assert [attempt["unknown"] for attempt in gone["attempts"]] == [False]
    assert (await world.delivered(message, "pat@good.example"))["attempts"][0]["unknown"] is True


async def test_a_250_is_a_250_though_the_peer_hangs_up_behind_it(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=Behaviour(dot=garbage(b"250 2.0.0 taken\r\n", close=True)))})
    entry = await world.delivered(await world.send())
    assert len(entry["attempts"]) == 1
    assert entry["attempts"][0]["unknown"] is False


async def test_a_peer_that_hangs_up_at_quit_changes_nothing(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=Behaviour(quit=drop()))}, delivery={"connections": {"idle": "0.01s"}})
    for _ in range(3):
        await world.delivered(await world.send())
    assert len(world.peer.messages) == 3


async def test_a_peer_that_never_answers_quit_holds_nobody_up(build: Build) -> None:
    world = await build(
        hosts={MX: Host(behaviour=Behaviour(quit=stall()))}, delivery={"connections": {"idle": "0.01s"}}
    )
    await world.delivered(await world.send())
    await world.peer.wait_sessions(1, timeout=5)


@pytest.mark.parametrize("step", STEPS)
async def test_whatever_a_peer_does_the_message_is_kept_and_the_slot_comes_free(build: Build, step: str) -> None:
    """All misdeeds at one point of the session, side by side, each at a host of its own; then they come to reason."""
    # In answer to EHLO two replies are a list of extensions without STARTTLS, which is definite.
    misdeeds = [deed for name, deed in MISDEEDS.items() if (step, name) != ("ehlo", "two replies")]
    hosts = {f"mx{number}.example": Host(behaviour=Behaviour(**{step: deed})) for number, deed in enumerate(misdeeds)}
    world = await build(
        hosts=hosts,
        domains={f"d{number}.example": (f"mx{number}.example",) for number in range(len(hosts))},
        delivery=SHORT | {"timeouts": SHORT["timeouts"] | {"dot": "0.7s"}},
        protection={"methods": ["tls"], "tls": "encrypted", "fallback_after": "1h"},
    )
    to = [f"pat@d{number}.example" for number in range(len(hosts))]
    message = await world.send(to)
    for address in to:
        entry = await world.wait_state(message, "deferred", "delivered", "delivering", "queued", to=address, attempts=1)
        assert entry["attempts"][0]["outcome"], (step, address)
    for peer in world.peers.values():
        peer.behaviour = Behaviour()
    for address in to:
        await world.delivered(message, address)
    for peer in world.peers.values():
        assert not any(BODY in session.clear_bytes for session in peer.sessions)
    await poll(lambda: world.gateway._scheduler.active == 0, what="free slots")
    assert await world.problems() == []


async def test_a_reply_that_comes_a_byte_at_a_time_is_a_reply_while_it_is_in_time(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=Behaviour(mail=drip(0.005), dot=drip(0.005)))})
    entry = await world.delivered(await world.send())
    assert len(entry["attempts"]) == 1


async def test_a_peer_that_leaves_in_the_middle_of_the_body_gets_the_whole_of_it_later(build: Build) -> None:
    big = b"\r\n".join([b"x" * 70] * 20_000)
    raw = b"From: dr@clinic.example\r\nSubject: x\r\n\r\n" + big + b"\r\n"
    world = await build(hosts={MX: Host(behaviour=Behaviour(drop_body_after=100_000))})
    message = await world.send(raw=raw)
    entry = await world.wait_state(message, "deferred", "delivering", attempts=1)
    assert entry["attempts"][0]["stage"] in {"body", "dot"}
    assert world.peer.messages == []
    world.peer.behaviour = Behaviour()
    await world.delivered(message)
    assert world.peer.messages[0].raw.endswith(raw)


async def test_a_refusal_in_the_middle_of_the_body_is_a_refusal(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=Behaviour(dot=reply(554, "5.7.1 we saw enough")))})
    entry = await world.bounced(await world.send())
    assert entry["attempts"][0]["reply"]["text"] == "we saw enough"


async def test_a_thousand_lines_of_reply_do_not_grow_the_gateway(build: Build) -> None:
    lines = b"".join(b"550-line %d\r\n" % number for number in range(50_000)) + b"550 end\r\n"
    world = await build(hosts={MX: Host(behaviour=Behaviour(rcpt=garbage(lines)))})
    message = await world.send()
    entry = await world.wait_state(message, "deferred", "bounced", attempts=1)
    assert len(str(entry)) < 20_000
