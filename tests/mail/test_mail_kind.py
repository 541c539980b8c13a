"""Kinds of mail: what real programs write, and what is none though it looks like one."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.mail.envelope import Kind
from gateway.mail.headers import fields
from gateway.mail.kind import CalendarScan, kind_of

SENDER = Address.parse("dr@clinic.example")
HEAD = b"From: dr@clinic.example\r\nTo: pat@good.example\r\nSubject: x\r\n"
MULTIPART = 'Content-Type: multipart/alternative;\r\n boundary="b1"'
INVITE = (
    b'\r\n--b1\r\nContent-Type: text/plain; charset="utf-8"\r\n\r\nJoin us\r\n--b1\r\n'
    b'Content-Type: text/calendar; charset="utf-8"; method=REQUEST\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    b"QkVHSU46VkNBTEVOREFS\r\n--b1--\r\n"
)


def kind(*lines: str, sender: Address | None = SENDER, declared: Kind | None = None, body: bytes = b"") -> Kind:
    block = HEAD + "".join(f"{line}\r\n" for line in lines).encode()
    return kind_of(fields(block), sender, frozenset() if declared is None else frozenset({declared}), body)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), Kind.ORDINARY),
        (("Content-Type: text/plain; charset=utf-8",), Kind.ORDINARY),
        # automatic answers
        (("Auto-Submitted: auto-replied",), Kind.AUTO_REPLY),
        (("auto-submitted: Auto-Replied (vacation); x=y",), Kind.AUTO_REPLY),
        (("Auto-Submitted: auto-generated", "In-Reply-To: <a@b>"), Kind.AUTO_REPLY),
        (("Auto-Submitted: auto-generated",), Kind.ORDINARY),  # an application: people wait for it
        (("Auto-Submitted: no",), Kind.ORDINARY),
        (("X-Autoreply: yes", "Precedence: bulk"), Kind.AUTO_REPLY),
        (("X-Autorespond: x",), Kind.AUTO_REPLY),
        (("Precedence: auto_reply",), Kind.AUTO_REPLY),
        (("X-Auto-Response-Suppress: All",), Kind.ORDINARY),
        (("X-Auto-Response-Suppress: DR, OOF, AutoReply",), Kind.ORDINARY),
        # receipts
        (("Content-Type: multipart/report; report-type=disposition-notification; boundary=b",), Kind.RECEIPT),
        (('Content-Type: multipart/report;\r\n\treport-type="Disposition-Notification"; boundary="b"',), Kind.RECEIPT),
        (("Content-Type: multipart/report; report-type=feedback-report; boundary=b",), Kind.ORDINARY),
        (("Disposition-Notification-To: dr@clinic.example",), Kind.ORDINARY),
        # lists
        (("List-Id: <news.clinic.example>",), Kind.LIST),
        (("List-Post: <mailto:l@clinic.example>",), Kind.LIST),
        (("Precedence: List",), Kind.LIST),
        (("Precedence: bulk",), Kind.LIST),
        (("Precedence: first-class",), Kind.ORDINARY),
        (("List-Unsubscribe: <mailto:l@clinic.example>",), Kind.ORDINARY),
        (("List-Id: <l>", "Auto-Submitted: auto-replied"), Kind.AUTO_REPLY),
        # invitations
        (("Content-Type: text/calendar; method=REPLY",), Kind.CALENDAR),
        (("Content-Type: text/calendar; charset=utf-8",), Kind.ORDINARY),
        (("Content-Type: application/ms-tnef", "Content-Class: urn:content-classes:calendarmessage"), Kind.CALENDAR),
        (("Content-Type: application/ms-tnef",), Kind.ORDINARY),
        # what only a null sender, or a declared connector, can bring
        (("Content-Type: multipart/report; report-type=delivery-status; boundary=b",), Kind.ORDINARY),
        (("X-Failed-Recipients: a@b.example",), Kind.ORDINARY),
        (("X-MS-Journal-Report:",), Kind.ORDINARY),
        # contradictions
        (("Content-Type: text/calendar; method=REPLY", "Content-Type: text/plain"), Kind.ORDINARY),
    ],
)
def test_the_header_tells(lines: tuple[str, ...], expected: Kind) -> None:
    assert kind(*lines) is expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("Content-Type: multipart/report; report-type=delivery-status; boundary=b",), Kind.DSN),
        (("X-Failed-Recipients: a@b.example",), Kind.DSN),
        (("X-MS-Exchange-Message-Is-Ndr:", "Content-Type: multipart/mixed; boundary=b"), Kind.DSN),
        (("Content-Type: multipart/report; report-type=disposition-notification; boundary=b",), Kind.RECEIPT),
        (("Auto-Submitted: auto-generated", "X-Auto-Response-Suppress: All"), Kind.AUTO_REPLY),  # Exchange's OOF
        (("Content-Type: text/plain",), Kind.ORDINARY),
    ],
)
def test_a_null_sender_can_bring_reports(lines: tuple[str, ...], expected: Kind) -> None:
    assert kind(*lines, sender=None) is expected


def test_a_journal_report_needs_a_connector_that_brings_them() -> None:
    for name in ("X-MS-Journal-Report:", "X-MS-Exchange-Organization-Journal-Report: x"):
        assert kind(name, declared=Kind.JOURNAL) is Kind.JOURNAL
        assert kind(name, declared=Kind.JOURNAL, sender=None) is Kind.JOURNAL
        assert kind(name) is Kind.ORDINARY
    assert kind(declared=Kind.JOURNAL) is Kind.ORDINARY


@pytest.mark.parametrize(
    "body",
    [
        INVITE,
        INVITE.replace(b"text/calendar; charset", b"TEXT/Calendar; name=invite.ics;\r\n\tcharset"),
        INVITE.replace(b"Content-Type: text/calendar", b"content-type:\r\n text/calendar"),
        INVITE.replace(b"method=REQUEST", b'METHOD="CANCEL"'),
        INVITE.replace(b"Join us", b"text/calendar text/calendar"),
        INVITE.replace(b"Join us", b"x" * 100_000 + b"\r\n"),
        INVITE.removeprefix(b"\r\n"),
    ],
)
def test_an_invitation_is_told_by_its_part(body: bytes) -> None:
    assert kind(MULTIPART, body=body) is Kind.CALENDAR
    assert kind(MULTIPART, "Auto-Submitted: auto-generated", body=body) is Kind.CALENDAR  # Google's
    assert kind("Content-Type: text/plain", body=body) is Kind.ORDINARY


@pytest.mark.parametrize(
    "body",
    [
        INVITE.replace(b"; method=REQUEST", b""),
        INVITE.replace(b"\r\n--b1\r\nContent-Type: text/calendar", b"\r\nContent-Type: text/calendar"),
        INVITE.replace(b"text/calendar", b"text/calendars"),
        INVITE.replace(b"Content-Type: text/calendar", b"X-Type: text/calendar"),
        b"",
    ],
)
def test_what_only_speaks_of_calendars_is_no_invitation(body: bytes) -> None:
    assert kind(MULTIPART, body=body) is Kind.ORDINARY


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(0, 5000))
def test_the_part_is_found_however_the_body_comes(cuts: list[int], before: int) -> None:
    body = b"\r\n--b1\r\nContent-Type: text/html\r\n\r\n" + b"y" * before + INVITE
    scan = CalendarScan(list(fields(HEAD + MULTIPART.encode() + b"\r\n")))
    position = 0
    for cut in [*cuts, len(body)]:
        scan.feed(body[position : position + cut])
        position += cut
    assert kind(MULTIPART, body=scan.found) is Kind.CALENDAR
    assert not scan.wanted


def test_a_body_is_looked_at_only_where_it_could_matter_and_not_for_ever() -> None:
    assert not CalendarScan(list(fields(HEAD))).wanted
    assert not CalendarScan(list(fields(HEAD + b"Content-Type: text/plain\r\n"))).wanted
    scan = CalendarScan(list(fields(HEAD + MULTIPART.encode() + b"\r\n")))
    started = time.monotonic()
    pieces = 0
    while scan.wanted:
        scan.feed((b"\r\n--x\r\ncontent-type: text/calendar;" * 2000)[:65536])
        pieces += 1
    assert pieces < 20
    assert time.monotonic() - started < 2
    assert scan.found == b""


@given(st.lists(st.sampled_from(["Content-Type: multipart/report", "Content-Type:", "; report-type=", "delivery-status",
    '"', ";", "Auto-Submitted: ", "auto-replied", "\r\n", "Precedence: (", ")", "=", "text/calendar", "; method=x"]),
    max_size=12).map("".join), st.binary(max_size=50))  # fmt: skip
def test_no_header_breaks_it(text: str, body: bytes) -> None:
    try:
        found = list(fields(text.encode()))
    except ValueError:
        return
    assert kind_of(found, None, frozenset({Kind.JOURNAL}), body) in Kind
