"""What is in a message decides how it goes: content, attachments, kinds, exceptions, copies, at the door and later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.testing import Behaviour, ByAddress, reply, self_signed
from tests.scenario.conftest import Build
from tests.scenario.world import BODY, MX, SENDER, TO, Host, Refused

WEAK = Host(certificate=self_signed(MX))
HEAD = b"From: dr@clinic.example\r\nTo: pat@good.example\r\nSubject: Results\r\n"
SSN = b"SSN 536-22-8726"
FILLER = (b"nothing to see here, a line of seventy characters as people write them\r\n") * 5000

PHI = {"name": "phi", "when": {"content": {"detects": "us_ssn"}}, "require": {"tls": "verified"}}
HOLD = {"name": "phi-held", "when": {"content": {"detects": "us_ssn"}}, "hold": {"for": "review", "expires": "24h"}}
EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def plain(body: bytes) -> bytes:
    return HEAD + b"Content-Type: text/plain\r\n\r\n" + body + b"\r\n"


async def test_a_number_in_the_body_asks_for_more_than_its_host_can_show(build: Build) -> None:
    world = await build(hosts={MX: WEAK}, rules=[PHI])
    entry = await world.bounced(await world.send(raw=plain(SSN)))
    assert [rule["name"] for rule in entry["decision"]["rules"]] == ["phi"]
    assert SSN not in world.peer.received
    entry = await world.delivered(await world.send(raw=plain(b"nothing of the kind")))
    assert entry["decision"]["rules"] == []


@pytest.mark.parametrize("before", [b"", FILLER, FILLER * 4])
async def test_it_is_found_in_messages_of_every_size(build: Build, before: bytes) -> None:
    world = await build(rules=[{**PHI, "reject": "No numbers"}])
    with pytest.raises(Refused, match=r"550 5\.7\.1 No numbers \(rule phi\)"):
        await world.send(raw=plain(before + SSN))
    assert await world.all_ids() == []
    await world.delivered(await world.send(raw=plain(before + b"no number")))


async def test_encoded_it_is_found_all_the_same(build: Build) -> None:
    world = await build(rules=[HOLD])
    encoded = HEAD + b"Content-Transfer-Encoding: base64\r\n\r\nU1NOIDUzNi0yMi04NzI2\r\n"
    entry = await world.wait_state(await world.send(raw=encoded), "held")
    assert entry["hold_reason"] == "review"


async def test_what_cannot_be_read_is_no_reason_for_less_care(build: Build) -> None:
    strange = b"Content-Type: application/pdf\r\nContent-Disposition: attachment\r\n\r\n%PDF-1.7 whatever\r\n"
    raw = (
        HEAD
        + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n"
        + strange
        + b"--b--\r\n"
    )
    world = await build(rules=[HOLD])
    entry = await world.wait_state(await world.send(raw=raw), "held")
    assert "cannot be known" in entry["decision"]["rules"][0]["effect"]


async def test_an_exception_lowers_the_rule_it_names_for_whom_it_is_meant_until_it_ends(build: Build) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    exempt: dict[str, Any] = {"to": TO, "rules": ["phi"], "tls": "encrypted", "owner": "ops", "reason": "renewal"}
    world = await build(
        hosts={MX: WEAK}, rules=[PHI], policy={"exceptions": [{**exempt, "until": f"{tomorrow:%Y-%m-%d}"}]}
    )
    entry = await world.delivered(await world.send(raw=plain(SSN)))
    assert "lowered by exception of ops (renewal, until " in entry["decision"]["rules"][0]["effect"]
    await world.bounced(await world.send("kim@good.example", raw=plain(SSN)), to="kim@good.example")
    world.write_policy(None, [PHI], exceptions=[{**exempt, "until": "2026-01-01"}])
    assert await world.gateway.reload()
    await world.bounced(await world.send(raw=plain(SSN)))


async def test_a_copy_goes_to_whom_a_rule_names_once_and_its_failure_is_not_the_senders(build: Build) -> None:
    behaviour = Behaviour(rcpt=ByAddress({"archive@good.example": reply(550, "5.1.1 none")}))
    world = await build(
        rules=[{**PHI, "do": [{"copy_to": ["archive@good.example", TO]}]}], hosts={MX: Host(behaviour=behaviour)}
    )
    message = await world.send([TO, "kim@good.example"], raw=plain(SSN))
    await world.delivered(message, TO)
    await world.delivered(message, "kim@good.example")
    await world.bounced(message, "archive@good.example")
    assert await world.notices(message, 0) == []
    assert len(await world.settled(message)) == 3


async def test_a_tag_is_taken_out_on_the_way_and_nothing_else_changes(build: Build) -> None:
    rule = {"name": "secure", "when": {"subject": {"tag": "secure"}}, "do": [{"strip_tag": "secure"}]}
    world = await build(rules=[rule])
    raw = plain(BODY).replace(b"Subject: Results", b"Subject: [secure] Results")
    entry = await world.delivered(await world.send(raw=raw))
    assert entry["decision"]["actions"][0]["action"] == "strip_tag"
    received = world.peer.messages[0].raw
    assert received.endswith(raw.replace(b"[secure] ", b""))


async def test_a_receipt_is_never_turned_into_a_riddle(build: Build) -> None:
    report = HEAD + b"Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n--b--\r\n"
    portal = {"name": "portal", "when": {"recipient": TO}, "require": {"methods": ["portal"]}}
    world = await build(rules=[portal])
    message = await world.send(raw=report)
    entry = await world.recipient(message)
    assert entry["state"] == "dropped"
    assert "kind receipt" in [rule["name"] for rule in entry["decision"]["rules"]]


async def test_waiting_mail_is_held_by_a_rule_on_content_that_came_later(build: Build) -> None:
    world = await build(hosts={MX: Host(up=False)}, delivery={"retry": {"first": "1s", "max": "1s"}})
    small, large = await world.send(raw=plain(SSN)), await world.send(raw=plain(FILLER + SSN))
    harmless = await world.send(raw=plain(b"no number"))
    for message in (small, large, harmless):
        await world.wait_state(message, "deferred", attempts=1)
    settings = world.settings()
    world.write_policy(None, [HOLD])
    settings["policies"] = ["policy.yaml"]
    world.write(settings)
    assert await world.gateway.reload()
    await world.peer.start()
    await world.delivered(harmless)
    for message in (small, large):
        entry = await world.wait_state(message, "held")
        assert entry["hold_reason"] == "review"
    assert SSN not in world.peer.received


async def test_the_connector_and_the_time_are_known_to_rules(build: Build) -> None:
    rules = [
        {"name": "by-app", "when": {"connector": "app"}, "do": [{"add_header": {"X-Came-By": "app"}}]},
        {"name": "always", "when": {"time": {"days": EVERY_DAY}}, "require": {"tls": "verified"}},
        {"name": "many", "when": {"recipient_count": {"over": 1}}, "hold": True},
        {"name": "to-himself", "when": {"from": SENDER, "recipient": SENDER}, "hold": True},
    ]  # fmt: skip
    world = await build(rules=rules)
    entry = await world.delivered(await world.send(raw=plain(b"hello")))
    assert [rule["name"] for rule in entry["decision"]["rules"]] == ["always", "by-app"]
    assert b"X-Came-By: app\r\n" in world.peer.messages[0].raw
