"""Mail that waits for a person: who hears of it, what a release approves, what a new decision changes - and alarms."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.delivery.redecide import Operator, Redecided, redecide
from gateway.errors import QueueError
from gateway.queue import operate
from gateway.testing import Behaviour, Message, poll, reply
from tests.scenario.conftest import Build
from tests.scenario.world import BODY, HOME, MX, PLAIN_ALLOWED, SENDER, SUBJECT, TO, Host, World

STRICT = {"methods": ["tls"], "tls": "encrypted"}
BUSY = Behaviour(mail=reply(451, "4.3.0 busy"))
GONE = Behaviour(rcpt=reply(550, "5.1.1 no such user"))
EYES, OPS = "eyes@clinic.example", "ops@clinic.example"
TOLD = {"notify": {"alerts": [OPS], "reviewers": [EYES]}}


def keep(name: str = "keep", reason: str = "review", **when: Any) -> dict[str, Any]:
    return {"name": name, "when": when or {"recipient": TO}, "hold": {"for": reason, "expires": "24h"}}


def stop(**when: Any) -> dict[str, Any]:
    return {"name": "stop", "when": when or {"recipient": TO}, "reject": "No longer allowed"}


async def letters(world: World, to: str, count: int = 1) -> list[Message]:
    """What came for this address."""

    def there() -> list[Message]:
        return [found for found in world.peers[HOME].messages if found.addresses == [to]]

    await poll(lambda: len(there()) >= count, 30.0, what=f"{count} letters to {to}")
    return there()


async def release(world: World, message: str, n: int = 1) -> None:
    await operate.release(world.gateway._queue, message, n, operator="ann", reason="fine")


async def anew(world: World, message: str, **how: Any) -> Redecided | QueueError:
    gateway = world.gateway
    by = Operator("ann", **how)
    done = await redecide(gateway._queue, gateway._current.policy, gateway._scanners, message, [1], by)
    return done[1]


async def reload(world: World, protection: dict[str, Any] | None = None, *rules: dict[str, Any]) -> None:
    world.write_policy(STRICT if protection is None else protection, rules)
    assert await world.gateway.reload()


# -- who hears --------------------------------------------------------------------------------------------------------


async def test_the_sender_and_the_reviewers_hear_of_held_mail_and_nothing_of_what_is_in_it(build: Build) -> None:
    world = await build(rules=[keep()], settings=TOLD)
    message = await world.send()
    (notice,) = await world.notices(message)
    (letter,) = await letters(world, EYES)
    assert (notice.addresses, notice.sender, letter.sender) == ([SENDER], "", "")
    assert b"Your message waits for review" in notice.raw
    assert b"Message-ID: <m1@clinic.example>" in notice.raw
    assert f'gateway queue release {message} --reason "..."'.encode() in letter.raw
    for found in (notice, letter):
        assert found.tls is not None
        assert SUBJECT not in found.raw
        assert BODY not in found.raw


async def test_a_rule_that_notifies_is_told_of_as_the_message_is_accepted(build: Build) -> None:
    watched = {"name": "watched", "when": {"recipient": TO}, "do": [{"notify": EYES}]}
    world = await build(rules=[watched])
    message = await world.send([TO, "other@good.example"])
    (letter,) = await letters(world, EYES)
    assert b"watched matched" in letter.raw
    assert message.encode() in letter.raw
    assert TO.encode() in letter.raw
    assert b"other@good.example" not in letter.raw
    assert SUBJECT not in letter.raw
    await world.delivered(message, TO)


# -- release ----------------------------------------------------------------------------------------------------------


async def test_held_mail_is_left_alone_by_a_reload_and_decided_anew_once_it_is_released(build: Build) -> None:
    world = await build(rules=[keep()], protection=STRICT)
    message = await world.send()
    await reload(world, None, keep(), keep("second", "another look", subject={"contains": "subject-marker"}))
    entry = await world.recipient(message)
    assert (entry["state"], entry["hold_reason"]) == ("held", "review")
    await release(world, message)
    entry = await poll_hold(world, message, "another look")
    assert world.peer.sessions == []
    await release(world, message)
    await world.delivered(message)
    approved = [event["data"] for event in entry["events"] if event["data"].get("event") == "release"]
    assert [data["approves"] for data in approved] == [["keep"]]
    assert approved[0]["content"] == (await world.trace(message))["digest"]
    assert (approved[0]["operator"], approved[0]["reason"]) == ("ann", "fine")


async def poll_hold(world: World, message: str, reason: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def there() -> bool:
        found.update(await world.recipient(message))
        return bool(found["state"] == "held" and found["hold_reason"] == reason)

    await poll(there, 30.0, what=f"a hold for {reason}")
    return found


async def test_the_rule_that_was_approved_does_not_hold_again_after_a_reload(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=BUSY)}, rules=[keep()], protection=STRICT)
    message = await world.send()
    await release(world, message)
    await world.wait_state(message, "deferred", attempts=1)
    await reload(world, None, keep(recipient_domain="good.example"))
    attempts = len((await world.recipient(message))["attempts"])
    await world.wait_state(message, "deferred", attempts=attempts + 2)
    world.peer.behaviour = Behaviour()
    await world.delivered(message)


async def test_held_mail_that_a_new_policy_rejects_is_rejected_once_it_is_released(build: Build) -> None:
    world = await build(rules=[keep()], protection=STRICT)
    message = await world.send()
    await reload(world, None, stop())
    assert (await world.recipient(message))["state"] == "held"
    await release(world, message)
    await world.wait_state(message, "rejected")
    world.nothing_sent_to(MX)


# -- decided anew -----------------------------------------------------------------------------------------------------


async def deferred(build: Build, **scene: Any) -> tuple[World, str]:
    """A message that waits for six hours from now."""
    scene.setdefault("protection", STRICT)
    world = await build(
        hosts={MX: Host(behaviour=BUSY, certificate=scene.pop("certificate", "good"))},
        delivery={"retry": {"first": "6h", "max": "6h", "expire": "5d", "delay_notice": "1d"}},
        settings=TOLD,
        **scene,
    )
    message = await world.send()
    await world.wait_state(message, "deferred", attempts=1)
    return world, message


async def test_a_stricter_new_rule_holds_at_once_and_is_told(build: Build) -> None:
    world, message = await deferred(build)
    await reload(world, None, keep())
    result = await anew(world, message)
    assert isinstance(result, Redecided)
    assert (str(result.state), result.changed) == ("held", True)
    entry = await world.recipient(message)
    assert (entry["state"], entry["hold_reason"]) == ("held", "review")
    await world.notices(message)
    await letters(world, EYES)
    (event,) = [event["data"] for event in entry["events"] if event["kind"] == "redecided"]
    assert event["operator"] == "ann"
    assert not event["allow_weaker"]
    assert (event["before"]["disposition"], event["after"]["disposition"]) == ("deliver", "hold")


async def test_what_a_new_rule_rejects_ends_at_once_and_its_sender_is_told(build: Build) -> None:
    world, message = await deferred(build)
    await reload(world, None, stop())
    result = await anew(world, message)
    assert isinstance(result, Redecided)
    assert str(result.state) == "rejected"
    (notice,) = await world.notices(message)
    assert b"No longer allowed" in notice.raw
    assert b"Action: failed" in notice.raw


async def test_without_a_word_for_it_nothing_is_ever_loosened(build: Build) -> None:
    world, message = await deferred(build, certificate=None, protection={**PLAIN_ALLOWED, "methods": ["tls", "plain"]})
    await reload(world)
    first = await anew(world, message)
    assert isinstance(first, Redecided)
    assert first.after.as_json()["methods"] == ["tls"]
    await reload(world, PLAIN_ALLOWED)
    again = await anew(world, message)
    assert isinstance(again, Redecided)
    assert again.after.as_json()["methods"] == ["tls"]
    assert not again.changed
    loosened = await anew(world, message, reason="ticket 4711", allow_weaker=True)
    assert isinstance(loosened, Redecided)
    assert set(loosened.after.as_json()["methods"]) == {"tls", "plain"}
    world.peer.behaviour = Behaviour()
    await operate.retry(world.gateway._queue, message, 1, operator="ann")
    entry = await world.delivered(message)
    assert entry["method"] == "plain"
    event = [event["data"] for event in entry["events"] if event["kind"] == "redecided"][-1]
    assert (event["reason"], event["allow_weaker"]) == ("ticket 4711", True)
    assert (event["before"]["methods"], sorted(event["after"]["methods"])) == (["tls"], ["plain", "tls"])


async def test_a_contradiction_is_solved_by_other_rules_and_a_word_for_it(build: Build) -> None:
    rules = [
        {"name": "one", "when": {"recipient": TO}, "require": {"methods": ["tls"]}},
        {"name": "two", "when": {"subject": {"contains": "subject-marker"}}, "require": {"methods": ["portal"]}},
    ]
    world = await build(rules=rules, settings=TOLD)
    message = await world.send()
    (letter,) = await letters(world, EYES)
    assert b"--allow-weaker" in letter.raw
    await reload(world, None, rules[0])
    same = await anew(world, message)
    assert isinstance(same, Redecided)
    assert str(same.state) == "held"
    await anew(world, message, reason="rule two is gone", allow_weaker=True)
    await world.delivered(message)


async def test_a_hold_that_policy_did_not_begin_is_not_ended_by_policy(build: Build) -> None:
    world, message = await deferred(build)
    await operate.hold(world.gateway._queue, message, 1, operator="ann", reason="wrong file", seconds=None)
    for _ in range(2):
        result = await anew(world, message, reason="x", allow_weaker=True)
        assert isinstance(result, Redecided)
        assert str(result.state) == "held"
        await reload(world, None, keep())
    await reload(world)
    await anew(world, message, reason="x", allow_weaker=True)
    entry = await world.recipient(message)
    assert (entry["state"], entry["hold_reason"]) == ("held", "wrong file")


async def test_what_policy_did_not_decide_is_not_decided_anew(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE), HOME: Host(behaviour=BUSY)}, connector={"stage": "observe"})
    message = await world.send()
    await world.bounced(message)
    (notice,) = (await world.trace(message))["notices"]
    with pytest.raises(QueueError, match="stage observe"):
        await anew(world, message)
    with pytest.raises(QueueError, match="mail of our own"):
        await anew(world, notice)
    with pytest.raises(QueueError, match="no message"):
        await anew(world, "019b76da-a800-7000-8000-000000000000")


async def test_what_has_ended_is_not_decided_anew(build: Build) -> None:
    world = await build()
    message = await world.send()
    await world.delivered(message)
    result = await anew(world, message)
    assert isinstance(result, QueueError)
    assert "nothing left to decide" in str(result)


# -- alarms -----------------------------------------------------------------------------------------------------------


async def test_an_alarm_comes_by_mail_with_what_to_do(build: Build) -> None:
    world = await build(settings=TOLD)
    world.write({**world.settings(), "nonsense": {}})
    assert not await world.gateway.reload()
    assert not await world.gateway.reload()
    (letter,) = await letters(world, OPS)
    assert b"Alarm: reload_failed" in letter.raw
    assert b"What to do: `gateway check` names them." in letter.raw
    assert letter.tls is not None


async def test_the_end_of_an_alarm_comes_by_mail(build: Build) -> None:
    world = await build(settings=TOLD)
    space = world.gateway._store.space
    floor, space.floor = space.floor, 2**62
    (first,) = await letters(world, OPS)
    assert b"Alarm: space" in first.raw
    space.floor = floor
    second = (await letters(world, OPS, 2))[1]
    assert b"Over: space" in second.raw


async def test_a_letter_about_an_alarm_that_is_lost_causes_no_other(build: Build) -> None:
    world = await build(hosts={MX: Host(), HOME: Host(behaviour=GONE)}, settings=TOLD)
    world.gateway.alarm("worker_died")
    await poll(world.alarms, what="the alarm")
    await poll(lambda: world.metric("gateway_alarms_total", kind="dropped") == 1, what="the loss of the letter")
    await world.gateway._watch.look()
    assert len(await world.all_ids()) == 1
    assert [event["alarm"] for event in await world.alarms()] == ["worker_died"]
