"""Kinds of mail over real sockets: seen in trace; automatic mail that cannot be delivered is dropped, with an event."""

from __future__ import annotations

import pytest

from gateway.testing import poll
from tests.scenario.conftest import Build
from tests.scenario.world import HOME, MAIL, MX, Host

NO_TLS = Host(certificate=None)
REPORT = (
    b"From: dr@clinic.example\r\nTo: pat@good.example\r\nSubject: report\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/report; report-type=%b; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"
)
DSN = REPORT % b"delivery-status"
RECEIPT = REPORT % b"disposition-notification"
VACATION = b"Auto-Submitted: auto-replied\r\n" + MAIL
LIST = b"List-Id: <news.clinic.example>\r\n" + MAIL
JOURNAL = b"X-MS-Journal-Report:\r\n" + MAIL
INVITE = (
    b"From: dr@clinic.example\r\nTo: pat@good.example\r\nSubject: meet\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n"
    + b"long text, a line\r\n" * 5000
    + b"--b\r\nContent-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    ("raw", "sender", "kind"),
    [
        (MAIL, "dr@clinic.example", "ordinary"),
        (INVITE, "dr@clinic.example", "calendar"),
        (VACATION, "dr@clinic.example", "auto_reply"),
        (RECEIPT, "dr@clinic.example", "receipt"),
        (DSN, None, "dsn"),
        (DSN, "dr@clinic.example", "ordinary"),
        (LIST, "dr@clinic.example", "list"),
        (JOURNAL, "dr@clinic.example", "journal"),
    ],
)
async def test_each_kind_is_known_and_stands_in_trace(build: Build, raw: bytes, sender: str | None, kind: str) -> None:
    world = await build(connector={"kinds": ["journal"]})
    message = await world.send(raw=raw, sender=sender)
    await world.delivered(message)
    assert (await world.trace(message))["kind"] == kind


async def test_a_journal_report_by_another_connector_is_ordinary_mail(build: Build) -> None:
    world = await build()
    message = await world.send(raw=JOURNAL)
    assert (await world.trace(message))["kind"] == "ordinary"


@pytest.mark.parametrize(
    ("raw", "sender"), [(VACATION, "dr@clinic.example"), (RECEIPT, "dr@clinic.example"), (DSN, None)]
)
async def test_automatic_mail_that_no_method_can_carry_is_dropped_and_nobody_is_told(
    build: Build, raw: bytes, sender: str | None
) -> None:
    world = await build(hosts={MX: NO_TLS})
    message = await world.send(raw=raw, sender=sender)
    entry = await world.wait_state(message, "dropped")
    assert "tls: STARTTLS is not offered" in entry["last_error"]
    assert entry["events"][-1]["kind"] == "dropped"
    assert entry["decision"]["passed_over"][0]["method"] == "tls"
    assert (await world.trace(message))["notices"] == []
    await poll(lambda: world.metric("gateway_alarms_total", kind="dropped") == 1, what="the alarm")
    assert not world.peers[HOME].messages
    world.nothing_sent_to(MX)


async def test_other_kinds_are_told_about(build: Build) -> None:
    world = await build(hosts={MX: NO_TLS})
    for raw in (MAIL, INVITE, LIST):
        message = await world.send(raw=raw)
        await world.bounced(message)
        await world.notices(message)


async def test_an_application_that_says_auto_generated_hears_of_its_failures(build: Build) -> None:
    world = await build(hosts={MX: NO_TLS})
    message = await world.send(raw=b"Auto-Submitted: auto-generated\r\n" + MAIL)
    await world.bounced(message)
    await world.notices(message)
