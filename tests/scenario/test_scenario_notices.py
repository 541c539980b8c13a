"""DSNs: who is told what, over which way, and who never is."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

from gateway.testing import Behaviour, Message, reply, self_signed
from tests.scenario.conftest import Build
from tests.scenario.world import BODY, HOME, MX, SENDER, SUBJECT, TO, Host, World

GONE = Behaviour(rcpt=reply(550, "5.1.1 no such user"))
NO_DSN = Behaviour(extensions=("PIPELINING", "8BITMIME", "SMTPUTF8"))


def parsed(notice: Message) -> EmailMessage:
    message = email.message_from_bytes(notice.raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


async def the_notice_of(world: World, message: str) -> dict[str, object]:
    (notice,) = (await world.trace(message))["notices"]
    return await world.wait_state(notice, "delivered", "dropped", "bounced")


def back(**route: object) -> dict[str, object]:
    return {"return_route": {"host": HOME, "port": "PORT", **route}}


async def test_a_bounce_is_a_proper_report_that_tells_no_content(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE)})
    message = await world.send(mail="ENVID=order+2B4711 RET=FULL", rcpt="ORCPT=rfc822;pat+2Bx@good.example")
    await world.bounced(message)
    (notice,) = await world.notices(message)
    assert (notice.sender, notice.addresses) == ("", [SENDER])
    assert SUBJECT not in notice.raw
    assert BODY not in notice.raw
    report = parsed(notice)
    assert report.get_content_type() == "multipart/report"
    assert report["Auto-Submitted"] == "auto-replied" or report["Auto-Submitted"] == "auto-generated"
    text = notice.raw.decode()
    for line in (
        "Original-Envelope-Id: order+4711",
        "Original-Recipient: rfc822; pat+x@good.example",
        "Final-Recipient: rfc822; pat@good.example",
        "Action: failed",
        "Status: 5.1.1",
        "Message-ID: <m1@clinic.example>",
        "Reporting-MTA: dns; gw.clinic.example",
    ):
        assert f"{line}\r\n" in text


async def test_without_a_return_route_a_notice_goes_by_mx_and_never_in_clear(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE), HOME: Host(certificate=None)})
    message = await world.send()
    await world.bounced(message)
    notice = await the_notice_of(world, message)
    assert notice["state"] == "dropped"
    world.nothing_sent_to(HOME)
    assert world.metric("gateway_recipients_total", method="none", outcome="dropped") == 1


async def test_without_a_return_route_any_encryption_is_enough(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE), HOME: Host(certificate=self_signed(HOME))})
    message = await world.send()
    await world.bounced(message)
    (notice,) = await world.notices(message)
    assert notice.tls is not None


async def test_a_return_route_is_taken_at_its_own_level(build: Build) -> None:
    world = await build(
        hosts={MX: Host(behaviour=GONE)}, zone="", connector=back(tls="verified"), domains={"good.example": (MX,)}
    )
    world.dns.remove("clinic.example", "MX")  # only the route leads home
    message = await world.send()
    await world.bounced(message)
    await world.notices(message)
    notice = await the_notice_of(world, message)
    assert notice["method"] == "tls"


async def test_a_notice_whose_return_route_falls_short_is_dropped_and_not_sent_in_clear(build: Build) -> None:
    world = await build(
        hosts={MX: Host(behaviour=GONE), HOME: Host(certificate=self_signed(HOME))}, connector=back(tls="verified")
    )
    message = await world.send()
    await world.bounced(message)
    assert (await the_notice_of(world, message))["state"] == "dropped"
    world.nothing_sent_to(HOME)


async def test_a_notice_may_go_in_clear_only_where_the_return_route_says_so(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE), HOME: Host(certificate=None)}, connector=back(tls="none"))
    message = await world.send()
    await world.bounced(message)
    (notice,) = await world.notices(message)
    assert notice.tls is None


async def test_a_notice_that_waits_while_its_clear_route_is_taken_away_does_not_leave_in_clear(build: Build) -> None:
    world = await build(
        hosts={MX: Host(behaviour=GONE), HOME: Host(certificate=None, up=False)}, connector=back(tls="none")
    )
    message = await world.send()
    await world.bounced(message)
    (notice,) = (await world.trace(message))["notices"]
    await world.wait_state(notice, "deferred", attempts=1)
    connector = {**world.settings()["connectors"][0], "return_route": None}
    assert await world.change(connectors=[connector])
    # An attempt that had begun before the change goes by what was decided then: let it come to nothing first.
    begun = len((await world.recipient(notice))["attempts"])
    await world.wait_state(notice, "deferred", attempts=begun + 2)
    await world.peers[HOME].start()
    await world.wait_state(notice, "dropped")
    world.nothing_sent_to(HOME)


async def test_a_smart_host_for_other_peoples_mail_does_not_swallow_notices(build: Build) -> None:
    world = await build(
        hosts={MX: Host(behaviour=GONE)},
        delivery={"routes": {"*": {"host": MX, "port": "PORT"}}},
        protection={"methods": ["tls", "plain"]},
    )
    message = await world.send()
    await world.bounced(message)
    await world.notices(message)


async def test_nobody_is_told_about_a_notice_that_fails(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE), HOME: Host(behaviour=GONE)})
    message = await world.send()
    await world.bounced(message)
    assert (await the_notice_of(world, message))["state"] == "dropped"
    assert len(await world.all_ids()) == 2


async def test_mail_from_the_null_sender_that_fails_is_dropped(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE)})
    message = await world.send(sender=None)
    await world.wait_state(message, "dropped")
    assert await world.all_ids() == [message]


async def test_notify_never_is_obeyed(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE)})
    message = await world.send(rcpt="NOTIFY=NEVER")
    await world.bounced(message)
    assert await world.all_ids() == [message]


async def test_notify_success_alone_means_that_failures_are_not_told(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE)})
    message = await world.send(rcpt="NOTIFY=SUCCESS")
    await world.bounced(message)
    assert await world.all_ids() == [message]


async def test_success_is_reported_as_relayed_where_the_peer_will_not_report(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=NO_DSN)})
    message = await world.send(mail="ENVID=abc", rcpt="NOTIFY=SUCCESS,FAILURE")
    await world.delivered(message)
    (notice,) = await world.notices(message)
    assert b"Action: relayed\r\n" in notice.raw
    assert b"Status: 2.0.0\r\n" in notice.raw
    assert b"Original-Envelope-Id: abc\r\n" in notice.raw
    (found,) = world.peer.messages
    assert "ENVID" not in found.sender_parameters
    assert found.recipients[0].parameters == {}


async def test_parameters_are_passed_on_to_a_peer_that_reports_and_we_say_nothing(build: Build) -> None:
    world = await build()
    message = await world.send(
        mail="ENVID=order+2B4711 RET=HDRS", rcpt="NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;pat+2Bx@good.example"
    )
    await world.delivered(message)
    (found,) = world.peer.messages
    assert found.sender_parameters["ENVID"] == "order+2B4711"
    assert found.sender_parameters["RET"] == "HDRS"
    parameters = found.recipients[0].parameters
    assert set(parameters["NOTIFY"].split(",")) == {"SUCCESS", "FAILURE"}
    assert parameters["ORCPT"] == "rfc822;pat+2Bx@good.example"
    assert await world.all_ids() == [message]


async def test_a_delay_is_told_once_and_only_to_those_who_want_to_hear_it(build: Build) -> None:
    busy = Behaviour(mail=reply(451, "4.3.0 busy"))
    world = await build(hosts={MX: Host(behaviour=busy)})
    message = await world.send([TO])
    quiet = await world.send(["quiet@good.example"], rcpt="NOTIFY=FAILURE")
    await world.wait_state(message, "deferred", attempts=1)
    await world.wait_state(quiet, "deferred", attempts=1)
    assert world.peers[HOME].messages == []
    world.jump(4 * 3600)
    (notice,) = await world.notices(message)
    assert b"Action: delayed\r\n" in notice.raw
    assert b"Will-Retry-Until: " in notice.raw
    assert b"Status: 4.3.0\r\n" in notice.raw
    before = len((await world.recipient(message))["attempts"])
    await world.wait_state(message, "deferred", attempts=before + 2)
    await world.wait_state(quiet, "deferred", attempts=before)
    assert len(world.peers[HOME].messages) == 1
    world.peer.behaviour = Behaviour()
    await world.delivered(message)
    await world.delivered(quiet)


async def test_what_cannot_be_delivered_in_time_expires_and_its_sender_is_told(build: Build) -> None:
    busy = Behaviour(mail=reply(451, "4.3.0 busy"))
    world = await build(hosts={MX: Host(behaviour=busy)})
    message = await world.send(rcpt="NOTIFY=FAILURE")
    await world.wait_state(message, "deferred", attempts=1)
    world.jump(86400 + 60)
    await world.wait_state(message, "expired")
    (notice,) = await world.notices(message)
    assert b"Status: 5.4.7\r\n" in notice.raw
    assert b"busy" in notice.raw


async def test_a_peers_strange_words_do_no_harm_in_a_notice(build: Build) -> None:
    strange = Behaviour(rcpt=reply(550, "5.1.1 no\x1b[31m such \u202euser" + "x" * 400))
    world = await build(hosts={MX: Host(behaviour=strange)})
    message = await world.send()
    await world.bounced(message)
    (notice,) = await world.notices(message)
    assert b"\x1b" not in notice.raw
    assert "\u202e".encode() not in notice.raw
    assert max(len(line) for line in notice.raw.split(b"\r\n")) <= 998
