"""What arrives is what was sent - or, where the peer cannot take it as it is, the one change that helps, or nothing."""

from __future__ import annotations

import email
import email.policy
import random
import re

import pytest

from gateway.testing import Behaviour, Message
from tests.scenario.conftest import Build
from tests.scenario.world import BODY, MX, PLAIN_ALLOWED, TO, Host, World

HEADER = b"From: dr@clinic.example\r\nTo: pat@good.example\r\nSubject: x\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n"
SEVEN = Behaviour(extensions=("PIPELINING", "SIZE 157286400", "SMTPUTF8", "DSN"))
ASCII = Behaviour(extensions=("PIPELINING", "SIZE 157286400", "8BITMIME", "DSN"))
TOP = re.compile(rb"X-Gateway-Id: [0-9a-f-]{36}\r\nX-Gateway-Loop: (?:[^\r]|\r\n )*\r\nReceived: (?:[^\r]|\r\n\t)*\r\n")


def below(message: Message) -> bytes:
    """What stands below our own trace fields."""
    match = TOP.match(message.raw)
    assert match is not None, message.raw[:500]
    return message.raw[match.end() :]


def some_bytes(size: int) -> bytes:
    """Lines of all lengths and octets but CR, LF and NUL; many begin with dots."""
    source = random.Random(size)
    lines = bytearray()
    while len(lines) < size:
        lines += b"." * source.choice((0, 0, 1, 2))
        lines += (
            bytes(source.choices([n for n in range(1, 256) if n not in {10, 13}], k=source.randrange(200))) + b"\r\n"
        )
    return bytes(lines)


ODD = {
    "dots": b"\r\n.\r\n..\r\n...\r\n.x\r\nx.\r\n. \r\n",
    "ends with a dot": b"\r\nlast line\r\n.\r\n",
    "empty body": b"\r\n",
    "header only": b"",
    "no empty line at all and a strange last field": b"X-Last: \r\n",
    "blank lines": b"\r\n\r\n\r\n\r\n",
    "a line of 10,000 octets": b"\r\n" + b"x" * 10_000 + b"\r\n",
    "a header line of 5,000 octets": b"X-Long: " + b"y" * 5000 + b"\r\n\r\nbody\r\n",
    "8-bit": "\r\nGrüße aus der Klinik €\r\n".encode(),
    "not UTF-8": b"\r\n\xff\xfe\xfa\x80\r\n",
    "control characters": b"\r\n\x01\x02\x0b\x0c\x1b[31m\x7f\r\n",
    "looks like commands": b"\r\nQUIT\r\nMAIL FROM:<x@y.example>\r\n354 go\r\n",
    "looks like the end": b"\r\n\r\n.\r\n.\r\n\r\n",
    "mixed-up field order and case": b"x-A: 1\r\nX-a:2\r\nsUbJeCt2:\t tabs \t\r\n\tfolded\r\n\r\nz\r\n",
    "megabytes": b"\r\n" + some_bytes(5_000_000),
}


@pytest.mark.parametrize("name", ODD)
async def test_what_is_odd_but_legal_arrives_byte_for_byte(build: Build, name: str) -> None:
    world = await build()
    raw = HEADER + ODD[name]
    message = await world.send(raw=raw, mail="BODY=8BITMIME")
    await world.delivered(message)
    (found,) = world.peer.messages
    assert below(found) == raw
    assert f"X-Gateway-Id: {message}\r\n".encode() in found.raw


async def test_our_received_field_tells_of_the_receiving_session_and_of_no_recipient(build: Build) -> None:
    world = await build()
    message = await world.send(["pat@good.example", "secret-copy@good.example"])
    await world.settled(message)
    top = world.peer.messages[0].raw.removesuffix(below(world.peer.messages[0])).decode("ascii")
    assert "Received: from app.clinic.example ([127.0.0.1])\r\n" in top
    assert f"by gw.clinic.example with ESMTP id {message};\r\n" in top
    assert "good.example" not in top
    assert max(map(len, top.split("\r\n"))) <= 78 + len(message)


async def test_an_8_bit_message_is_encoded_for_a_peer_without_8bitmime(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=SEVEN)})
    text = "Grüße\r\n.Punkt am Anfang\r\n" + "lang " * 100 + "ä\r\n"
    raw = (
        HEADER
        + b"DKIM-Signature: v=1; a=rsa-sha256; d=clinic.example; b=AAAA\r\n"
        + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + text.encode()
    )
    await world.delivered(await world.send(raw=raw, mail="BODY=8BITMIME"))
    (found,) = world.peer.messages
    assert found.raw.isascii()
    assert "BODY" not in found.sender_parameters
    assert int(found.sender_parameters["SIZE"]) == len(found.raw)
    parsed = email.message_from_bytes(found.raw, policy=email.policy.default)
    assert parsed["Content-Transfer-Encoding"] in {"quoted-printable", "base64"}
    assert parsed.get_content().replace("\n", "\r\n").replace("\r\r", "\r") == text
    assert parsed["DKIM-Signature"] is None


SIGNED = (
    HEADER + b'MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary="b"; micalg=sha-256;'
    b' protocol="application/pkcs7-signature"\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n'
    b"Content-Transfer-Encoding: 8bit\r\n\r\n" + "Grüße ".encode() + BODY + b"\r\n--b\r\n"
    b"Content-Type: application/pkcs7-signature\r\n\r\nAAAA\r\n--b--\r\n"
)


@pytest.mark.parametrize("plain", [False, True])
async def test_a_signed_message_is_not_rewritten_but_bounced(build: Build, *, plain: bool) -> None:
    world = await build(
        hosts={MX: Host(behaviour=SEVEN)},
        protection=PLAIN_ALLOWED if plain else None,
    )
    message = await world.send(raw=SIGNED, mail="BODY=8BITMIME")
    entry = await world.bounced(message)
    assert "the peer lacks 8BITMIME" in entry["last_error"]
    assert BODY not in world.peer.received
    (notice,) = await world.notices(message)
    assert b"Status: 5.6.3\r\n" in notice.raw


async def test_a_7_bit_message_needs_nothing_of_the_peer(build: Build) -> None:
    bare = Behaviour(extensions=())
    world = await build(hosts={MX: Host(behaviour=bare)})
    raw = HEADER + b"\r\n.dot\r\nplain text\r\n"
    await world.delivered(await world.send(raw=raw))
    (found,) = world.peer.messages
    assert below(found) == raw
    assert found.sender_parameters == {}


async def test_an_internationalised_recipient_goes_through_where_the_peer_knows_them(build: Build) -> None:
    world = await build()
    raw = HEADER.replace(b"pat@", "pät@".encode()) + b"\r\nx\r\n"
    message = await world.send("pät@good.example", raw=raw, mail="SMTPUTF8 BODY=8BITMIME")
    await world.delivered(message, "pät@good.example")
    assert world.peer.messages[0].addresses == ["pät@good.example"]
    assert "SMTPUTF8" in world.peer.messages[0].sender_parameters


async def test_an_internationalised_recipient_bounces_at_a_peer_that_does_not(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=ASCII)})
    message = await world.send(["pät@good.example", TO], mail="SMTPUTF8 BODY=8BITMIME")
    await world.bounced(message, "pät@good.example")
    await world.delivered(message, TO)
    (notice,) = await world.notices(message)
    assert b"Status: 5.6.7\r\n" in notice.raw
    assert "pät@good.example".encode() in notice.raw


async def test_internationalised_headers_bounce_at_a_peer_that_does_not_take_them(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=ASCII)})
    raw = HEADER.replace(b"Subject: x", "Subject: Befund für Müller".encode()) + b"\r\nx\r\n"
    message = await world.send(raw=raw, mail="SMTPUTF8 BODY=8BITMIME")
    await world.bounced(message)
    (notice,) = await world.notices(message)
    assert b"Status: 5.6.7\r\n" in notice.raw
    assert b"MAIL" not in world.peer.received


async def test_the_clients_word_about_smtputf8_is_not_passed_on_where_nothing_needs_it(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=ASCII)})
    await world.delivered(await world.send(mail="SMTPUTF8"))


async def test_a_message_larger_than_the_peer_takes_bounces_without_being_sent(build: Build) -> None:
    small = Behaviour(extensions=("PIPELINING", "SIZE 5000", "8BITMIME"))
    world = await build(hosts={MX: Host(behaviour=small)})
    message = await world.send(raw=HEADER + b"\r\n" + (b"x" * 78 + b"\r\n") * 100)
    await world.bounced(message)
    (notice,) = await world.notices(message)
    assert b"Status: 5.3.4\r\n" in notice.raw
    assert b"xxxxxx" not in world.peer.received


async def test_the_blind_copy_field_and_our_own_controls_never_leave(build: Build) -> None:
    world = await build()
    fields = "Bcc: hidden@x.example\r\nX-Gateway-Tag: a\r\nX-GATEWAY-PROTECT: tls\r\nX-Gateway-Nonsense: 1\r\n"
    await world.delivered(await world.send(fields=fields))
    raw = world.peer.messages[0].raw
    assert not re.search(rb"(?im)^(bcc|x-gateway-(tag|protect|nonsense)):", raw)
    assert b"hidden@x.example" not in raw


async def _sent_and_received(world: World, raw: bytes) -> bytes:
    before = len(world.peer.messages)
    await world.delivered(await world.send(raw=raw, mail="BODY=8BITMIME"))
    return below(world.peer.messages[before])


async def test_many_random_bodies_come_through_one_connection_unchanged(build: Build) -> None:
    world = await build(delivery={"connections": {"idle": "3s"}})
    source = random.Random(5)
    for _ in range(15):
        raw = HEADER + b"\r\n" + some_bytes(source.randrange(1, 70_000))
        assert await _sent_and_received(world, raw) == raw
    assert len(world.peer.sessions) == 1
