"""What policy says is done: at the door, at each attempt, and after it has changed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from gateway.errors import QueueError
from gateway.mail.protection import Method
from gateway.queue import operate
from gateway.testing import Behaviour, poll, reply
from tests.scenario.conftest import Build
from tests.scenario.world import BODY, HOME, MAIL, MX, PLAIN_ALLOWED, ROOT, SENDER, TO, Host, Refused, World

STRICT = {"methods": ["tls"], "tls": "encrypted"}
BUSY = Behaviour(mail=reply(451, "4.3.0 busy"))
NO_TLS = Host(certificate=None)


def no(name: str = "no", **when: Any) -> dict[str, Any]:
    return {"name": name, "when": when or {"recipient": "no@good.example"}, "reject": "Not to this one"}


def keep(**when: Any) -> dict[str, Any]:
    return {"name": "keep", "when": when, "hold": {"for": "review", "expires": "24h"}}


# -- at the door ------------------------------------------------------------------------------------------------------


async def test_a_reject_that_needs_only_the_envelope_answers_rcpt(build: Build) -> None:
    world = await build(rules=[no()])
    client = await world.client()
    await client.must(b"MAIL FROM:<dr@clinic.example>\r\n")
    reply = await client.say(b"RCPT TO:<no@good.example>\r\n")
    assert reply.startswith(b"550 5.7.1 Not to this one (rule no)")
    await client.must(b"RCPT TO:<pat@good.example>\r\n")
    await client.close()


SUBJECT_RULE = no(all=[{"recipient": "no@good.example"}, {"subject": {"contains": "subject-marker"}}])


async def test_some_rejected_is_taken_and_told_to_the_sender(build: Build) -> None:
    world = await build(rules=[SUBJECT_RULE])
    message = await world.send(["no@good.example", TO])
    assert (await world.recipient(message, "no@good.example"))["state"] == "rejected"
    await world.delivered(message, TO)
    (notice,) = await world.notices(message)
    assert b"Status: 5.7.1\r\n" in notice.raw
    assert b"Final-Recipient: rfc822; no@good.example\r\n" in notice.raw
    assert b"Message-ID: <m1@clinic.example>\r\n" in notice.raw
    assert b"Final-Recipient: rfc822; pat@good.example" not in notice.raw


async def test_the_notice_about_a_large_message_quotes_it_too(build: Build) -> None:
    world = await build(rules=[SUBJECT_RULE])
    message = await world.send(["no@good.example", TO], raw=MAIL + b"x" * 78 + (b"\r\n" + b"x" * 78) * 5000 + b"\r\n")
    (notice,) = await world.notices(message)
    assert b"Message-ID: <m1@clinic.example>\r\n" in notice.raw


async def test_some_rejected_of_a_null_senders_mail_is_dropped(build: Build) -> None:
    world = await build(rules=[SUBJECT_RULE])
    message = await world.send(["no@good.example", TO], sender=None)
    assert (await world.recipient(message, "no@good.example"))["state"] == "dropped"
    await world.delivered(message, TO)
    assert await world.all_ids() == [message]


async def test_all_rejected_is_refused_and_nothing_is_kept(build: Build) -> None:
    world = await build(rules=[no(subject={"contains": "subject-marker"})])
    with pytest.raises(Refused, match=r"550 5\.7\.1 Not to this one"):
        await world.send([TO, "other@good.example"])
    assert await world.all_ids() == []


async def test_soft_turns_a_permanent_refusal_into_one_that_passes(build: Build) -> None:
    world = await build(connector={"stage": "soft"}, rules=[no(subject={"contains": "subject-marker"}), no("envelope")])
    with pytest.raises(Refused) as refused:
        await world.send()
    assert (refused.value.code, refused.value.enhanced) == (451, "4.7.1")
    with pytest.raises(Refused) as refused:
        await world.send("no@good.example")
    assert (refused.value.code, refused.value.enhanced) == (451, "4.7.1")
    assert world.metric("gateway_alarms_total", kind="soft_refusal") >= 1
    await poll(world.alarms, what="the alarm as an event")
    assert {event["alarm"] for event in await world.alarms()} == {"soft_refusal"}


async def test_soft_answers_451_for_all_where_one_recipient_would_be_rejected(build: Build) -> None:
    world = await build(connector={"stage": "soft"}, rules=[SUBJECT_RULE])
    with pytest.raises(Refused) as refused:
        await world.send(["no@good.example", TO])
    assert (refused.value.code, refused.value.enhanced) == (451, "4.7.1")
    assert await world.all_ids() == []


async def test_observe_lets_everything_out_as_plain_and_records_what_policy_would_have_said(build: Build) -> None:
    world = await build(
        hosts={MX: NO_TLS},
        connector={"stage": "observe"},
        rules=[no(), {"name": "phi", "when": {"recipient": TO}, "require": {"tls": "verified"}}],
    )
    message = await world.send(["no@good.example", TO])
    for address in ("no@good.example", TO):
        entry = await world.delivered(message, address)
        assert entry["method"] == "plain"
        rules = {rule["name"]: rule["effect"] for rule in entry["decision"]["rules"]}
        assert rules["stage observe"].startswith("observed only: ")
    assert "tls verified; deliver" in rules["stage observe"]
    assert "observe_stage" in str(world.gateway.metrics.registry.collect()) or world.metric(
        "gateway_alarms_total", kind="observe_stage"
    )


# -- hold -------------------------------------------------------------------------------------------------------------


async def test_what_is_held_waits_for_a_person_and_then_leaves_as_it_must(build: Build) -> None:
    world = await build(rules=[keep(recipient=TO)], protection=STRICT)
    message = await world.send()
    entry = await world.recipient(message)
    assert (entry["state"], entry["hold_reason"]) == ("held", "review")
    assert world.peer.sessions == []
    await operate.release(world.gateway._queue, message, 1, operator="ann", reason="looked at it")
    entry = await world.delivered(message)
    assert entry["method"] == "tls"


async def test_a_hold_that_nobody_releases_bounces(build: Build) -> None:
    world = await build(rules=[keep(recipient=TO)])
    message = await world.send()
    world.jump(86400 + 1)
    await world.bounced(message)
    _, notice = await world.notices(message, 2)
    assert b"nobody approved it in time" in b" ".join(notice.raw.split())


async def test_contradicting_rules_hold_and_release_cannot_pass_them(build: Build) -> None:
    rules = [
        {"name": "one", "when": {"recipient": TO}, "require": {"methods": ["tls"]}},
        {"name": "two", "when": {"subject": {"contains": "subject-marker"}}, "require": {"methods": ["portal"]}},
    ]
    world = await build(rules=rules)
    message = await world.send()
    assert (await world.recipient(message))["hold_reason"] == "contradiction"
    with pytest.raises(QueueError):
        await operate.release(world.gateway._queue, message, 1, operator="ann", reason="go")
    assert world.peer.sessions == []


# -- control fields ---------------------------------------------------------------------------------------------------


async def test_a_protect_header_narrows(build: Build) -> None:
    world = await build(hosts={MX: NO_TLS}, protection=PLAIN_ALLOWED)
    await world.delivered(await world.send())
    entry = await world.bounced(await world.send(fields="X-Gateway-Protect: tls\r\n"))
    assert entry["decision"]["requirement"]["methods"] == ["tls"]


async def test_a_protect_header_never_widens_and_plain_in_it_is_ignored_with_an_event(build: Build) -> None:
    world = await build(hosts={MX: NO_TLS}, protection=STRICT)
    message = await world.send(fields="X-Gateway-Protect: plain\r\n")
    await world.bounced(message)
    accepted = (await world.trace(message))["events"][0]
    assert accepted["data"]["ignored"] == "plain in X-Gateway-Protect"
    world.nothing_sent_to(MX)


async def test_a_protect_header_that_names_nothing_we_know_holds(build: Build) -> None:
    world = await build(protection=PLAIN_ALLOWED)
    message = await world.send(fields="X-Gateway-Protect: magic\r\n")
    assert (await world.recipient(message))["state"] == "held"


async def test_a_tag_makes_a_require_match(build: Build) -> None:
    tagged = {"name": "tagged", "when": {"subject": {"tag": "secure"}}, "require": {"tls": "verified"}}
    world = await build(hosts={MX: NO_TLS}, protection=PLAIN_ALLOWED, rules=[tagged])
    await world.delivered(await world.send())
    entry = await world.bounced(await world.send(fields="X-Gateway-Tag: secure\r\n"))
    assert [rule["name"] for rule in entry["decision"]["rules"]] == ["tagged"]


async def test_a_repeated_submission_with_its_key_is_answered_with_the_first_id(build: Build) -> None:
    world = await build()
    fields = "X-Gateway-Idempotency-Key: order-4711\r\n"
    first = await world.send(fields=fields)
    assert await world.send(fields=fields) == first
    await world.delivered(first)
    assert await world.send(fields=fields) == first
    with pytest.raises(Refused, match=r"550 5\.6\.0"):
        await world.send(raw=MAIL + b"more\r\n", fields=fields)
    other = await world.send(sender="nurse@clinic.example", fields=fields)
    assert other != first
    await world.delivered(other)
    assert len(world.peer.messages) == 2


# -- changes ----------------------------------------------------------------------------------------------------------


async def waiting(world: World) -> str:
    message = await world.send()
    await world.wait_state(message, "deferred", attempts=1)
    return message


async def test_a_stricter_policy_applies_to_what_waits(build: Build) -> None:
    world = await build(hosts={MX: Host(certificate=None, behaviour=BUSY)}, protection=PLAIN_ALLOWED)
    message = await waiting(world)
    assert BODY not in world.peer.received
    world.write_policy(STRICT)
    assert await world.gateway.reload()
    world.peer.behaviour = Behaviour()
    entry = await world.bounced(message)
    assert entry["decision"]["requirement"]["methods"] == ["tls"]
    assert BODY not in world.peer.received


async def test_a_looser_policy_does_not_loosen_what_waits(build: Build) -> None:
    world = await build(
        hosts={MX: Host(certificate=None, behaviour=Behaviour(greeting=reply(421, "4.3.2 busy")))}, protection=STRICT
    )
    message = await waiting(world)
    world.write_policy(PLAIN_ALLOWED)
    assert await world.gateway.reload()
    world.peer.behaviour = Behaviour()
    await world.bounced(message)
    world.nothing_sent_to(MX)
    await world.delivered(await world.send())  # what comes now may


async def test_neither_does_a_round_trip_through_a_stricter_one(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=BUSY)}, protection=PLAIN_ALLOWED)
    message = await waiting(world)
    for protection in (STRICT | {"tls": "verified"}, PLAIN_ALLOWED):
        world.write_policy(protection)
        assert await world.gateway.reload()
        before = len((await world.recipient(message))["attempts"])
        await world.wait_state(message, "deferred", attempts=before + 2)
    requirement = (await world.recipient(message))["decision"]["requirement"]
    assert requirement == {"methods": ["tls"], "tls": "verified"}


async def test_a_later_policy_may_hold_or_reject_what_waits(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=BUSY)}, protection=STRICT)
    held, rejected = await waiting(world), await world.send("no@good.example")
    await world.wait_state(rejected, "deferred", attempts=1)
    world.write_policy(STRICT, [keep(subject={"contains": "subject-marker"}), no()])
    assert await world.gateway.reload()
    entry = await world.wait_state(held, "held")
    assert entry["hold_reason"] == "review"
    await world.wait_state(rejected, "rejected")
    (notice,) = await world.notices(rejected)
    assert b"Not to this one" in notice.raw
    world.peer.behaviour = Behaviour()
    await operate.release(world.gateway._queue, held, 1, operator="ann", reason="fine")
    await world.delivered(held)


async def test_an_invalid_reload_changes_nothing_at_all(build: Build) -> None:
    world = await build(hosts={MX: NO_TLS}, protection=STRICT)
    before = world.gateway._current
    (world.directory / "policy.yaml").write_text("version: 1\nprotection: {methods: [plain], tls: nonsense}\n")
    assert not await world.change(delivery={"allow_networks": []})
    assert world.gateway._current is before
    assert world.metric("gateway_alarms_total", kind="reload_failed") == 1
    await world.bounced(await world.send())


@pytest.mark.parametrize(
    "section",
    [
        {"listeners": [{"address": "127.0.0.1:1", "tls": "required"}]},
        {"tls": {"trust": "/nonexistent.pem"}},
        {"hostname": "other.clinic.example"},
        {"data_dir": "elsewhere"},
        {"nonsense": {}},
    ],
    ids=lambda section: next(iter(section)),
)
async def test_one_bad_section_keeps_all_the_others_from_being_taken_over(
    build: Build, section: dict[str, Any]
) -> None:
    world = await build(protection=STRICT)
    before = world.gateway._current
    world.write_policy(PLAIN_ALLOWED)
    assert not await world.change(**section)
    assert world.gateway._current is before
    await world.delivered(await world.send())


async def test_a_renewed_certificate_is_taken_over_by_itself(build: Build) -> None:
    world = await build()
    first, second = ROOT.issue("gw.clinic.example"), ROOT.issue("gw.clinic.example")
    chain, key = first.write(world.directory, "listener")
    tls = {"certificate": str(chain), "key": str(key)}
    assert await world.change(tls=tls, listeners=[{"address": "127.0.0.1:0", "tls": "implicit"}])
    port = world.gateway._ingress.bound[0].port

    async def shown() -> bytes:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=ROOT.client_context(), server_hostname="gw.clinic.example"
        )
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert (await reader.readline()).startswith(b"220")
        writer.write(b"QUIT\r\n")
        assert (await reader.readline()).startswith(b"221")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return found

    assert await shown() == first.der
    second.write(world.directory, "listener")

    async def renewed() -> bool:
        return await shown() == second.der

    await poll(renewed, 10, interval=0.2, what="the new certificate")


async def test_the_notice_of_a_policy_names_its_rule_and_tells_no_content(build: Build) -> None:
    world = await build(rules=[SUBJECT_RULE])
    message = await world.send(["no@good.example", TO])
    (notice,) = await world.notices(message)
    assert b"(rule no)" in b" ".join(notice.raw.split())
    assert BODY not in notice.raw
    assert notice.addresses == [SENDER]
    assert world.peers[HOME].messages == [notice]


async def test_methods_that_are_not_built_are_never_chosen(build: Build) -> None:
    for method in (Method.SMIME, Method.PGP, Method.PDF):
        world = await build(protection={"methods": [str(method)]})
        entry = await world.bounced(await world.send())
        assert f"{method}: not available in this version" in entry["last_error"]
        assert world.peer.sessions == []
