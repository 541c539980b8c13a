"""A notification is a valid report, tells nothing of the content, and no stranger's text changes its shape."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.mail.dsn import Action, Report, ReportedRecipient, build_report, quoted_fields

HEADER = (
    b"Received: from inside\r\nFrom: Anna <anna@clinic.example>\r\nTo: bob@payer.example\r\n"
    b"Subject: the diagnosis\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@clinic.example>\r\n"
    b"X-Secret: inside\r\n"
)
RECIPIENT = ReportedRecipient(
    Address.parse("bob@payer.example"), "5.1.1", "It was refused.", "550 5.1.1 no such user", "mx.payer.example"
)
REPORT = Report(
    id="019b76da-a800-7000-8000-000000000001",
    action=Action.FAILED,
    to=Address.parse("anna@clinic.example"),
    postmaster=Address.parse("postmaster@clinic.example"),
    hostname="gw.clinic.example",
    message="019b76da-a800-7000-8000-000000000000",
    arrived=1_767_225_600.0,
    now=1_767_225_700.0,
    recipients=(RECIPIENT,),
)


def parsed(data: bytes) -> tuple[EmailMessage, EmailMessage, list[dict[str, str]], EmailMessage]:
    """The whole, the words, the status blocks (fields by name), the part with the original's fields."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    assert not message.defects
    words, status, original = message.iter_parts()
    assert isinstance(words, EmailMessage)
    assert isinstance(status, EmailMessage)
    assert isinstance(original, EmailMessage)
    assert words.get_content_type() == "text/plain"
    text = raw_part(data, message, 1)
    blocks = []
    for block in text.strip().split("\r\n\r\n"):
        fields: dict[str, str] = {}
        for line in block.replace("\r\n ", " ").replace("\r\n\t", " ").split("\r\n"):
            name, colon, value = line.partition(":")
            assert colon, line
            assert name not in fields, name
            fields[name] = value.strip()
        blocks.append(fields)
    return message, words, blocks, original


def raw_part(data: bytes, message: EmailMessage, number: int) -> str:
    boundary = b"--" + message["Content-Type"].params["boundary"].encode()
    part = data.split(boundary)[number + 1]
    return part.split(b"\r\n\r\n", 1)[1].decode()


def test_a_failure_is_told_with_the_fields_of_the_standard() -> None:
    data = build_report(replace(REPORT, envid="QQ1"), HEADER)
    message, words, blocks, original = parsed(data)
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["To"].addresses[0].addr_spec == "anna@clinic.example"
    assert message["From"].addresses[0].addr_spec == "postmaster@clinic.example"
    assert message["Message-ID"] == f"<{REPORT.id}@gw.clinic.example>"
    assert message["MIME-Version"] == "1.0"
    assert message["Date"].datetime.timestamp() == REPORT.now
    about, recipient = blocks
    assert about["Original-Envelope-Id"] == "QQ1"
    assert about["Reporting-MTA"] == "dns; gw.clinic.example"
    assert "Arrival-Date" in about
    assert recipient["Final-Recipient"] == "rfc822; bob@payer.example"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")
    assert recipient["Remote-MTA"] == "dns; mx.payer.example"
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert REPORT.message in words.get_content()
    assert "bob@payer.example" in words.get_content()
    assert original.get_content_type() == "text/rfc822-headers"
    data.decode("ascii")
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))
    assert b"\n" not in data.replace(b"\r\n", b"")


def test_nothing_of_content_or_subject_is_quoted() -> None:
    data = build_report(REPORT, HEADER)
    assert b"diagnosis" not in data
    assert b"X-Secret" not in data
    assert b"Received: from inside" not in data
    assert quoted_fields(HEADER) == (
        b"Message-ID: <1@clinic.example>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n"
        b"From: Anna <anna@clinic.example>\r\nTo: bob@payer.example\r\n"
    )


@pytest.mark.parametrize("block", [b"not a header\r\n", b" folded\r\n", b"From: x\r\n" * 900])
def test_a_broken_or_endless_header_is_not_quoted(block: bytes) -> None:
    assert quoted_fields(block) == b""
    parsed(build_report(REPORT, block))


def test_a_delay_says_until_when() -> None:
    report = replace(REPORT, action=Action.DELAYED, retry_until=REPORT.now + 3600)
    _, words, (_, recipient), _ = parsed(build_report(report, HEADER))
    assert recipient["Action"] == "delayed"
    assert "01:01:40" in recipient["Will-Retry-Until"]
    assert "do not need to send it again" in " ".join(words.get_content().split())


def test_each_recipient_has_a_block_of_its_own() -> None:
    other = ReportedRecipient(
        Address.parse('"c d"@payer.example'), "5.7.10", "no protection", orcpt="rfc822;c@x.example"
    )
    _, _, blocks, _ = parsed(build_report(replace(REPORT, recipients=(RECIPIENT, other)), HEADER))
    assert [block.get("Final-Recipient") for block in blocks[1:]] == [
        "rfc822; bob@payer.example",
        'rfc822; "c d"@payer.example',
    ]
    assert blocks[2]["Original-Recipient"] == "rfc822; c@x.example"
    assert "Remote-MTA" not in blocks[2]


def test_an_international_address_makes_an_international_report() -> None:
    report = replace(REPORT, recipients=(replace(RECIPIENT, address=Address.parse("björn@payer.example")),))
    data = build_report(report, HEADER)
    message = email.message_from_bytes(data, policy=email.policy.default)
    parts = list(message.iter_parts())
    assert [part.get_content_type() for part in parts[1:]] == [
        "message/global-delivery-status",
        "message/global-headers",
    ]
    assert "Final-Recipient: utf-8; björn@payer.example".encode() in data


NASTY = st.text(st.one_of(st.characters(), st.sampled_from(list("\r\n\t :;<>-=\0\x1b\u202e\u2028ä…"))), max_size=120)


@given(NASTY, NASTY, NASTY, NASTY, NASTY)
@example("x\r\n\r\nAction: delivered", "", "", "", "")
@example("", "mx\r\nBcc: all@x.example", "rfc822;a\r\nStatus: 2.0.0", "id\r\nX: y", "--=_019b76da")
@example("é" * 120, "é" * 300, "é;" + "é" * 600, "é" * 120, "é" * 900)
def test_text_of_strangers_adds_no_field_no_part_and_no_eight_bit_to_a_seven_bit_part(
    diagnostic: str, remote: str, orcpt: str, envid: str, explanation: str
) -> None:
    recipient = replace(RECIPIENT, diagnostic=diagnostic, remote=remote, orcpt=orcpt, explanation=explanation)
    data = build_report(replace(REPORT, recipients=(recipient,), envid=envid), HEADER)
    message, _, blocks, _ = parsed_loosely(data)
    assert len(blocks) == 2
    assert set(blocks[0]) <= {"Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"}
    assert set(blocks[1]) <= {
        "Original-Recipient",
        "Final-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
    }
    assert blocks[1]["Action"] == "failed"
    assert blocks[1]["Status"] == "5.1.1"
    assert set(message.keys()) == {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    }
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))
    assert b"\n" not in data.replace(b"\r\n", b"")
    assert b"\r" not in data.replace(b"\r\n", b"")
    assert b"\0" not in data


def parsed_loosely(data: bytes) -> tuple[EmailMessage, str, list[dict[str, str]], str]:
    """As :func:`parsed`, the declared encodings checked instead of the standard library's view of status parts."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    pieces = data.split(b"--" + message["Content-Type"].params["boundary"].encode())
    assert len(pieces) == 5
    assert pieces[4] == b"--\r\n"
    texts = []
    for piece in pieces[1:4]:
        head, _, body = piece.partition(b"\r\n\r\n")
        if b"Content-Transfer-Encoding: 7bit" in head:
            assert body.isascii()
        texts.append(body.decode())
    blocks = []
    for block in texts[1].strip("\r\n").split("\r\n\r\n"):
        fields: dict[str, str] = {}
        for line in block.split("\r\n"):
            if line[0] in " \t":
                continue
            name, colon, value = line.partition(":")
            assert colon
            assert name not in fields
            fields[name] = value.strip()
        blocks.append(fields)
    return message, texts[0], blocks, texts[2]
