"""What comes back to a notice: reports and the formats of systems that know none; nothing of it ever raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.bounce import LIMIT, read_bounce


def report(action: str = "failed", status: str = "5.1.1", kind: str = "message/delivery-status") -> bytes:
    return (
        "From: mailer-daemon@mx.example\r\nSubject: Undelivered Mail\r\n"
        'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nWe are sorry, 550 5.1.1 in words.\r\n"
        f"--b\r\nContent-Type: {kind}\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n"
        f"Final-Recipient: rfc822; pat@isp.example\r\nAction: {action}\r\nStatus: {status}\r\n"
        "Diagnostic-Code: smtp; 550 5.1.1\r\n  no such user\r\n\r\n--b--\r\n"
    ).encode()


@pytest.mark.parametrize("kind", ["message/delivery-status", "message/global-delivery-status"])
@pytest.mark.parametrize(
    ("action", "status", "final"),
    [("failed", "5.1.1", True), ("Failed", "4.4.7", True), ("delayed", "4.4.1", False), ("relayed", "2.0.0", False)],
)
def test_a_report_says_it_by_its_action(kind: str, action: str, status: str, *, final: bool) -> None:
    found = read_bounce(report(action, status, kind))
    assert found is not None
    assert (found.final, found.status) == (final, status)
    assert found.reason == "smtp; 550 5.1.1 no such user"


TEXTS = {
    "qmail": (
        (
            b"Hi. This is the qmail-send program at mx.example.\r\nI'm afraid I was not able to deliver it.\r\n"
            b"This is a permanent error; I've given up.\r\n\r\n<pat@isp.example>:\r\n"
            b"Remote host said: 550 5.1.1 no mailbox here\r\n"
        ),
        True,
    ),
    "exim": (
        (
            b"This message was created automatically by mail delivery software.\r\n"
            b"A message that you sent could not be delivered to all of its recipients. This is a permanent error.\r\n"
            b"  pat@isp.example\r\n    Unrouteable address\r\n"
        ),
        True,
    ),
    "basic code": (b"<pat@isp.example>: host mx said: 554 rejected\r\n", True),
    "delay": (b"Your message has been delayed. No action is required on your part; we will keep trying.\r\n", False),
    "soft": (b"<pat@isp.example>: 4.2.2 the mailbox is full, delivery has failed for now\r\n", False),
}


@pytest.mark.parametrize("name", TEXTS)
def test_systems_that_know_no_reports_are_understood(name: str) -> None:
    body, final = TEXTS[name]
    found = read_bounce(b"From: mailer-daemon@mx.example\r\nSubject: returned\r\n\r\n" + body)
    assert found is not None
    assert found.final is final
    assert found.reason


@pytest.mark.parametrize(
    "data",
    [
        b"Subject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\n550 5.1.1 this mailbox is unavailable\r\n",
        b"Subject: Re: your notice\r\n\r\nThank you, I have read it.\r\n",
        (
            b'Content-Type: multipart/report; report-type=disposition-notification; boundary="b"\r\n\r\n--b\r\n'
            b"Content-Type: message/disposition-notification\r\n\r\nDisposition: displayed\r\n\r\n--b--\r\n"
        ),
        b"no header at all",
        b"",
    ],
)
def test_what_says_nothing_about_a_delivery_is_none(data: bytes) -> None:
    assert read_bounce(data) is None


@given(st.one_of(st.binary(max_size=3000), st.binary(max_size=300).map(lambda data: report()[:300] + data)))
def test_nothing_makes_it_raise_and_what_it_quotes_is_clean(data: bytes) -> None:
    found = read_bounce(data)
    if found is not None:
        assert found.reason.isprintable()
        assert len(found.reason) <= 300


def test_a_large_one_is_read_to_a_limit_in_time() -> None:
    hostile = b"Content-Type: multipart/report\r\n\r\n" + b"status: 5.1.1\r\n " * (LIMIT // 8)
    assert read_bounce(hostile) is None
    assert read_bounce(b"Subject: x\r\n\r\n" + b"1.1." * LIMIT) is None
