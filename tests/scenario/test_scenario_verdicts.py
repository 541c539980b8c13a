"""What ends an attempt is one of four, over one host and over sets of hosts."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from gateway.store.schema import recipients
from gateway.testing import (
    Behaviour,
    ByAddress,
    Certificate,
    PerSession,
    Tls,
    drop,
    garbage,
    reply,
    self_signed,
    stall,
)
from tests.scenario.conftest import Build
from tests.scenario.world import BODY, HOME, MX, PLAIN_ALLOWED, Host

SECOND = "mx2.good.example"
TWO = {"good.example": (MX, SECOND)}
NO_TLS = Host(certificate=None)
TRY_LATER = Host(behaviour=Behaviour(starttls=reply(454, "4.7.0 TLS not available")))
STRICT = {"methods": ["tls"], "tls": "encrypted"}


# -- definite -----------------------------------------------------------------------------------------------------


async def test_definite_moves_to_plain_at_once_where_policy_allows_it(build: Build) -> None:
    world = await build(hosts={MX: NO_TLS}, protection=PLAIN_ALLOWED)
    entry = await world.delivered(await world.send())
    assert entry["method"] == "plain"
    assert [attempt["outcome"] for attempt in entry["attempts"]] == ["STARTTLS is not offered", "delivered"]
    claims = [event for event in entry["events"] if event["kind"] == "claimed"]
    assert len(claims) == 1  # the same attempt, not a later one
    assert BODY in world.peer.sessions[-1].clear_bytes
    assert world.metric("gateway_fallbacks_total", **{"from": "tls", "to": "plain", "reason": "definite"}) == 1


async def test_definite_with_nothing_left_bounces_naming_the_reason_of_each_method(build: Build) -> None:
    world = await build(hosts={MX: NO_TLS})
    message = await world.send()
    entry = await world.bounced(message)
    assert entry["last_error"].startswith("5.7.10 ")
    assert "tls: STARTTLS is not offered" in entry["last_error"]
    for method in ("smime", "pgp", "pdf"):
        assert f"{method}: not available in this version" in entry["last_error"]
    assert "portal: no portal is set up" in entry["last_error"]
    world.nothing_sent_to(MX)
    (notice,) = await world.notices(message)
    text = notice.raw.decode()
    assert "Status: 5.7.10\r\n" in text
    assert "STARTTLS is not offered" in " ".join(text.split())
    assert "Action: failed\r\n" in text
    assert "Subject: Your message could not be delivered\r\n" in text
    assert BODY not in notice.raw
    assert b"subject-marker" not in notice.raw


@pytest.mark.parametrize(
    ("certificate", "word"),
    [
        (self_signed(MX), "chain"),
        (self_signed("other.example"), "chain"),
    ],
)
async def test_a_certificate_below_the_level_is_definite(build: Build, certificate: Certificate, word: str) -> None:
    world = await build(hosts={MX: Host(certificate=certificate)}, protection={"methods": ["tls"], "tls": "verified"})
    entry = await world.bounced(await world.send())
    assert word in entry["last_error"]
    assert entry["attempts"][0]["tls"]["assurance"] == "encrypted"
    assert entry["attempts"][0]["stage"] == "judge"


# -- assurance-temporary ------------------------------------------------------------------------------------------


async def test_a_tls_failure_that_may_pass_defers_and_its_clock_never_resets(build: Build) -> None:
    world = await build(
        hosts={MX: TRY_LATER},
        protection=PLAIN_ALLOWED | {"fallback_after": "1h"},
        delivery={"retry": RETRY, "connections": {"idle": "0.01s"}},
    )
    message = await world.send()
    await world.wait_state(message, "deferred", attempts=2)
    world.peer.behaviour = Behaviour(mail=reply(451, "4.3.0 busy"))  # a good session in between
    await world.wait_state(message, "deferred", attempts=4)
    world.peer.behaviour = TRY_LATER.behaviour
    entry = await world.wait_state(message, "deferred", attempts=6)
    assert BODY not in world.peer.received
    unsure = await _unsure_since(world, message)
    assert unsure == pytest.approx(entry["attempts"][0]["time"], abs=1.0)
    world.jump(3600)
    entry = await world.delivered(message)
    assert entry["method"] == "plain"
    assert "for longer than fallback_after" in entry["decision"]["passed_over"][0]["reason"]
    assert entry["decision"]["passed_over"][0]["definite"] is False
    labels = {"from": "tls", "to": "plain", "reason": "fallback_after"}
    assert world.metric("gateway_fallbacks_total", **labels) == 1


async def test_a_tls_failure_that_passes_in_time_is_forgotten(build: Build) -> None:
    first_only = Behaviour(starttls=[reply(454, "4.7.0 TLS not available"), reply(220, "2.0.0 go ahead")])
    world = await build(hosts={MX: Host(behaviour=first_only)}, protection=PLAIN_ALLOWED)
    entry = await world.delivered(await world.send())
    assert entry["method"] == "tls"
    assert entry["attempts"][0]["outcome"] == "STARTTLS was refused"


async def test_at_the_end_of_the_fallback_clock_with_nothing_left_it_bounces(build: Build) -> None:
    world = await build(hosts={MX: TRY_LATER}, protection=STRICT | {"fallback_after": "0.5s"})
    entry = await world.bounced(await world.send())
    assert entry["last_error"].startswith("5.7.10 ")
    assert "STARTTLS was refused" in entry["last_error"]
    world.nothing_sent_to(MX)


async def test_the_attempt_after_the_fallback_clock_comes_when_it_ends_and_not_with_the_schedule(build: Build) -> None:
    world = await build(
        hosts={MX: TRY_LATER},
        protection=PLAIN_ALLOWED | {"fallback_after": "2s"},
        delivery={"retry": {"first": "1h", "max": "1h"}},
    )
    entry = await world.delivered(await world.send())
    assert entry["method"] == "plain"
    assert len([event for event in entry["events"] if event["kind"] == "claimed"]) == 2


# -- ordinary temporary -------------------------------------------------------------------------------------------

RETRY = {"first": "0.1s", "max": "0.2s"}


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(greeting=reply(554, "5.3.2 not today")),
        Behaviour(greeting=reply(421, "4.3.2 busy")),
        Behaviour(greeting=drop()),
        Behaviour(ehlo=reply(550, "5.7.1 no")),
        Behaviour(mail=reply(451, "4.3.0 later")),
        Behaviour(rcpt=reply(450, "4.2.0 greylisted")),
        Behaviour(data=reply(451, "4.3.0 later")),
        Behaviour(dot=reply(452, "4.3.1 full")),
        Behaviour(mail=drop()),
        Behaviour(rcpt=reply(421, "4.3.2 closing")),
    ],
    ids=lambda behaviour: next(
        step
        for step in ("greeting", "ehlo", "mail", "rcpt", "data", "dot")
        if getattr(behaviour, step) != Behaviour().ehlo
    ),
)
async def test_ordinary_trouble_defers_and_keeps_the_method_however_long_it_lasts(
    build: Build, behaviour: Behaviour
) -> None:
    world = await build(
        hosts={MX: Host(behaviour=behaviour)},
        protection=PLAIN_ALLOWED | {"fallback_after": "0.01s"},
        delivery={"retry": RETRY},
    )
    message = await world.send()
    await world.wait_state(message, "deferred", attempts=3)
    assert not any(BODY in session.clear_bytes for session in world.peer.sessions)
    world.peer.behaviour = Behaviour()
    entry = await world.delivered(message)
    assert entry["method"] == "tls"
    assert len(world.peer.messages) == 1


async def test_a_host_that_is_down_defers_until_it_is_back(build: Build) -> None:
    world = await build(hosts={MX: Host(up=False)}, protection=PLAIN_ALLOWED | {"fallback_after": "0.01s"})
    message = await world.send()
    entry = await world.wait_state(message, "deferred", attempts=2)
    assert entry["last_error"] == "Connection refused"
    await world.peer.start()
    assert (await world.delivered(message))["method"] == "tls"


# -- final ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
async def test_a_final_refusal_in_a_good_session_bounces_and_never_changes_the_method(build: Build, step: str) -> None:
    script: Any = reply(550, "5.7.1 we do not like it")
    world = await build(hosts={MX: Host(behaviour=Behaviour(**{step: script}))}, protection=PLAIN_ALLOWED)
    message = await world.send()
    entry = await world.bounced(message)
    assert entry["method"] == "tls"
    assert entry["attempts"][-1]["reply"] == {"code": 550, "enhanced": "5.7.1", "text": "we do not like it"}
    assert len(world.peer.sessions) == 1
    (notice,) = await world.notices(message)
    assert b"Status: 5.7.1\r\n" in notice.raw
    assert b"Diagnostic-Code: smtp; 550 5.7.1 we do not like it\r\n" in notice.raw
    assert b"Remote-MTA: dns; mx1.good.example\r\n" in notice.raw


async def test_recipients_of_one_transaction_end_each_in_its_own_way(build: Build) -> None:
    choice = ByAddress(
        {"gone@good.example": reply(550, "5.1.1 no such user"), "full@good.example": reply(452, "4.2.2 full")}
    )
    world = await build(hosts={MX: Host(behaviour=Behaviour(rcpt=choice))})
    message = await world.send(["pat@good.example", "gone@good.example", "full@good.example"])
    await world.delivered(message, "pat@good.example")
    await world.bounced(message, "gone@good.example")
    await world.wait_state(message, "deferred", "delivering", to="full@good.example", attempts=2)
    (notice,) = await world.notices(message)
    assert b"gone@good.example" in notice.raw
    assert b"pat@good.example" not in notice.raw.replace(b"To: Pat <pat@good.example>", b"")
    assert len(world.peer.messages) == 1


# -- sets of hosts ----------------------------------------------------------------------------------------------------

BAD_HOSTS = {
    "no TLS": NO_TLS,
    "454": TRY_LATER,
    "down": Host(up=False),
    "greets 554": Host(behaviour=Behaviour(greeting=reply(554, "5.3.2 no"))),
    "greets 421": Host(behaviour=Behaviour(greeting=reply(421, "4.3.2 busy"))),
    "says nothing": Host(behaviour=Behaviour(greeting=stall())),
    "refuses EHLO": Host(behaviour=Behaviour(ehlo=reply(502, "5.5.1 what"))),
    "garbage": Host(behaviour=Behaviour(greeting=garbage())),
    "broken handshake": Host(behaviour=Behaviour(tls=Tls(handshake="drop"))),
}


@pytest.mark.parametrize("bad", BAD_HOSTS)
async def test_one_good_host_among_bad_ones_delivers(build: Build, bad: str) -> None:
    timeouts = dict.fromkeys(("connect", "ehlo", "starttls", "mail", "rcpt", "data", "block", "dot"), "10s")
    world = await build(
        hosts={MX: BAD_HOSTS[bad], SECOND: Host()},
        domains=TWO,
        delivery={"timeouts": timeouts | {"greeting": "0.5s"}},
    )
    entry = await world.delivered(await world.send())
    assert [attempt["host"] for attempt in entry["attempts"][-2:]] == [MX, SECOND]
    assert entry["method"] == "tls"
    world.nothing_sent_to(MX)


async def test_all_hosts_definite_is_definite(build: Build) -> None:
    world = await build(hosts={MX: NO_TLS, SECOND: NO_TLS}, domains=TWO, protection=PLAIN_ALLOWED)
    entry = await world.delivered(await world.send())
    assert entry["method"] == "plain"
    assert [attempt["host"] for attempt in entry["attempts"]] == [MX, SECOND, MX]


async def test_a_definite_host_beside_one_that_is_down_starts_the_fallback_clock(build: Build) -> None:
    world = await build(
        hosts={MX: NO_TLS, SECOND: Host(up=False)},
        domains=TWO,
        protection=PLAIN_ALLOWED | {"fallback_after": "1h"},
        delivery={"retry": RETRY},
    )
    message = await world.send()
    entry = await world.wait_state(message, "deferred", attempts=4)
    assert {"STARTTLS is not offered", "Connection refused"} <= {a["outcome"] for a in entry["attempts"]}
    assert await _unsure_since(world, message) is not None
    world.nothing_sent_to(MX)
    world.jump(3600)
    assert (await world.delivered(message))["method"] == "plain"


async def test_hosts_that_were_not_tried_are_not_found_wanting(build: Build) -> None:
    zone = "\n".join(f"mx1.good.example. A 127.0.0.{number}" for number in range(40, 48))
    world = await build(hosts={MX: NO_TLS}, zone=zone, protection=STRICT | {"fallback_after": "1h"})
    message = await world.send()
    entry = await world.wait_state(message, "deferred", attempts=6)
    assert any(attempt["outcome"].startswith("not tried") for attempt in entry["attempts"])


async def test_a_failed_delivery_is_told_to_the_sender_only_once(build: Build) -> None:
    world = await build(hosts={MX: NO_TLS})
    message = await world.send()
    await world.bounced(message)
    await world.notices(message)
    (notice,) = (await world.trace(message))["notices"]
    await world.delivered(notice)
    assert len(world.peers[HOME].messages) == 1


async def test_a_peer_that_closes_each_session_after_one_mail_still_gets_all(build: Build) -> None:
    greedy = Behaviour(mail=PerSession([reply(250, "2.1.0 ok"), reply(421, "4.7.0 one is enough")]))
    world = await build(hosts={MX: Host(behaviour=greedy)}, delivery={"connections": {"per_site": 1, "idle": "1s"}})
    for message in [await world.send() for _ in range(5)]:
        entry = await world.delivered(message)
        assert len(entry["attempts"]) == 1  # a 421 on a reused connection is no attempt
    assert len(world.peer.messages) == 5


async def _unsure_since(world: Any, message: str) -> float | None:
    query = select(recipients.c.unsure_since).where(recipients.c.message == message)
    value: float | None = await world.gateway._store.read(lambda connection: connection.execute(query).scalar())
    return value
