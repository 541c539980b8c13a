"""What stands above a message when it leaves: it can carry nothing that a stranger wrote into it."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import SMTP

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.trace_fields import trace_fields
from gateway.mail.address import Address
from gateway.mail.envelope import Envelope, Message, ReceivedTls, Recipient
from gateway.mail.headers import fields

ID = "0192f0c1-2345-7abc-8def-0123456789ab"
TO = tuple(Address.parse(f"pat{number}@good.example") for number in range(9))


def top(helo: str = "app.example", client: str = "192.0.2.1", tls: ReceivedTls | None = None, to: int = 1) -> bytes:
    envelope = Envelope(None, tuple(map(Recipient, TO)), "app", client, helo, tls)
    return trace_fields(Message(ID, 1_767_225_600.5, envelope, 1, ""), "gw.clinic.example", b"k" * 32, TO[:to])


@given(st.text(max_size=300), st.sampled_from(["192.0.2.1", "2001:db8::1", ""]))
def test_whatever_a_client_calls_itself_it_stays_three_clean_fields(helo: str, client: str) -> None:
    raw = top(helo, client)
    assert raw.isascii()
    assert raw.endswith(b"\r\n")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\0" not in raw
    names = [field.name for field in fields(raw)]
    assert names == ["x-gateway-id", "x-gateway-loop", *(["received"] if client else [])]
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))


def test_no_recipient_can_be_read_and_the_order_of_recipients_tells_nothing() -> None:
    raw = top(to=9)
    assert b"pat" not in raw
    assert b"good.example" not in raw
    envelope = Envelope(None, (), "app", "192.0.2.1", "app.example")
    message = Message(ID, 1_767_225_600.5, envelope, 1, "")
    assert trace_fields(message, "gw.clinic.example", b"k" * 32, reversed(TO)) == raw


def test_the_received_field_reads_as_rfc_5321_has_it() -> None:
    raw = top(client="2001:db8::7", tls=ReceivedTls("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
    received = message_from_bytes(raw, policy=SMTP)["Received"]
    assert received.replace("\t", " ") == (
        "from app.example ([IPv6:2001:db8::7]) (using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)"
        f" by gw.clinic.example with ESMTP id {ID}; Thu, 01 Jan 2026 00:00:00 +0000"
    )


def test_mail_of_our_own_was_received_from_nobody() -> None:
    assert b"Received" not in top(client="")
