"""What policy changes in a message arrives changed, everything else as it was, and the trace says what was done."""

from __future__ import annotations

import email
import email.policy
import hashlib
from collections.abc import Mapping
from dataclasses import replace

import pytest

from gateway.delivery.rendered import Renderer
from gateway.delivery.transaction import Transaction
from gateway.mail.address import Address
from gateway.mail.edits import Edits, Footer
from gateway.mail.edits.rendering import Rendering
from gateway.mail.envelope import Envelope, Recipient
from gateway.mail.envelope import Message as Accepted
from gateway.mail.protection import Method, Requirement
from gateway.queue.records import NewMessage, NewRecipient
from gateway.testing import OK, Behaviour, poll, reply
from tests.scenario.conftest import Build
from tests.scenario.test_scenario_content import ASCII, HEADER, SEVEN, below
from tests.scenario.world import MAIL, MX, SUBJECT, TO, Host, World

TAGGED = MAIL.replace(SUBJECT, b"Re: [secure] " + SUBJECT)
STRIP = Edits(strip_tags=frozenset({"secure"}))
EVERYTHING = Edits(
    strip_tags=frozenset({"secure"}),
    remove_headers=frozenset({"message-id"}),
    add_headers=(("X-Sent-By", "gateway"),),
    prepend_subject=("[Clinic]",),
    footers=(Footer("sent safely"),),
)


def ask(world: World, edits: Edits) -> None:
    """From now on policy asks for these changes to mail that no rule speaks of."""
    policy = world.gateway._current.policy
    object.__setattr__(policy, "unmatched", replace(policy.unmatched, transforms=edits))


async def accepted(world: World, raw: bytes, wanted: Mapping[str, Edits], *, eight_bit: bool = False) -> str:
    """A message that the gateway took, for these recipients with these changes."""
    queue = world.gateway._queue
    message_id = world.gateway._intake.new_id()
    spool = queue.store.spool(message_id)
    await spool.write(raw)
    body = await spool.finish()
    policy = world.gateway._current.policy
    recipients = tuple(
        NewRecipient(Recipient(Address.parse(address)), replace(policy.unmatched, transforms=edits))
        for address, edits in wanted.items()
    )
    envelope = Envelope(
        Address.parse("dr@clinic.example"), tuple(r.recipient for r in recipients), "app", "127.0.0.1", "app"
    )
    digest = hashlib.sha256(raw).hexdigest()
    message = Accepted(message_id, world.clock.time(), envelope, len(raw), digest)
    await queue.accept(NewMessage(message, body, recipients, eight_bit=eight_bit))
    queue.wake.set()
    return message_id


async def test_what_was_asked_is_done_and_told_and_what_was_accepted_stays(build: Build) -> None:
    world = await build()
    ask(world, EVERYTHING)
    held = len(TAGGED)
    message = await world.send(raw=TAGGED)
    entry = await world.delivered(message)
    (found,) = world.peer.messages
    assert (
        below(found)
        == b"X-Sent-By: gateway\r\n"
        + TAGGED.replace(b"Re: [secure] " + SUBJECT, b"[Clinic] Re: " + SUBJECT).replace(
            b"Message-ID: <m1@clinic.example>\r\n", b""
        )
        + b"\r\nsent safely\r\n"
    )
    assert int(found.sender_parameters["SIZE"]) == len(found.raw)
    assert [(each["action"], each["detail"], each["done"]) for each in entry["decision"]["actions"]] == [
        ("strip_tag", "secure", True),
        ("remove_header", "message-id", True),
        ("add_header", "X-Sent-By", True),
        ("prepend_subject", "[Clinic]", True),
        ("footer", "sent safely", True),
    ]
    assert (await world.trace(message))["size"] == held


async def test_where_there_is_nothing_to_change_it_arrives_byte_for_byte(build: Build) -> None:
    world = await build()
    ask(world, STRIP)
    entry = await world.delivered(await world.send())
    assert below(world.peer.messages[0]) == MAIL
    assert entry["decision"]["actions"] == []
    ask(world, Edits())
    await world.delivered(await world.send())
    assert below(world.peer.messages[1]) == MAIL


@pytest.mark.parametrize("size", [50_000, 400_000, 3_000_000])
async def test_large_messages_are_changed_in_their_header_and_streamed(build: Build, size: int) -> None:
    world = await build()
    ask(world, Edits(strip_tags=frozenset({"secure"}), add_headers=(("X-Sent-By", "gateway"),)))
    body = b"\r\n" + (b"x" * 70 + b"\r\n") * (size // 72)
    await world.delivered(await world.send(raw=HEADER.replace(b"Subject: ", b"Subject: (SECURE) ") + body))
    assert below(world.peer.messages[0]) == b"X-Sent-By: gateway\r\n" + HEADER + body


ATTACHED = (
    HEADER + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nHello\r\n--b\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n%b--b--\r\n"
)


@pytest.mark.parametrize("lines", [10, 20_000])
async def test_a_footer_goes_into_the_text_beside_an_attachment_of_any_size(build: Build, lines: int) -> None:
    world = await build(hosts={MX: Host(behaviour=SEVEN)})
    ask(world, Edits(footers=(Footer("Für Sie: sicher"),)))
    attachment = b"QUJD" * 19 + b"\r\n"
    await world.delivered(await world.send(raw=ATTACHED % (attachment * lines)))
    (found,) = world.peer.messages
    assert found.raw.isascii()
    parsed = email.message_from_bytes(found.raw, policy=email.policy.default)
    text, data = parsed.iter_parts()
    assert text.get_content().splitlines() == ["Hello", "", "Für Sie: sicher"]
    assert data.get_content() == b"ABC" * 19 * lines


async def test_an_edited_message_is_encoded_for_a_peer_without_8bitmime(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=SEVEN)})
    ask(world, EVERYTHING)
    raw = HEADER + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + "Grüße\r\n".encode()
    await world.delivered(await world.send(raw=raw, mail="BODY=8BITMIME"))
    (found,) = world.peer.messages
    parsed = email.message_from_bytes(found.raw, policy=email.policy.default)
    assert parsed["Subject"] == "[Clinic] x"
    assert parsed.get_content().replace("\r\n", "\n").split() == ["Grüße", "sent", "safely"]


async def test_recipients_whose_changes_differ_go_in_separate_transactions(build: Build) -> None:
    world = await build()
    extern = Edits(prepend_subject=("[Extern]",))
    people = {"a@good.example": STRIP, "b@good.example": extern, "c@good.example": STRIP, "d@good.example": Edits()}
    message = await accepted(world, TAGGED, people)
    await world.settled(message)
    came = {
        frozenset(recipient.address for recipient in found.recipients): below(found) for found in world.peer.messages
    }
    subject = b"Subject: Re: [secure] " + SUBJECT
    assert came == {
        frozenset({"a@good.example", "c@good.example"}): TAGGED.replace(b"[secure] ", b""),
        frozenset({"b@good.example"}): TAGGED.replace(subject, subject.replace(b": ", b": [Extern] ", 1)),
        frozenset({"d@good.example"}): TAGGED,
    }


async def test_domains_of_one_host_share_a_transaction_only_with_the_same_changes(build: Build) -> None:
    domains = {f"d{number}.example": (MX,) for number in range(6)}
    world = await build(domains=domains, delivery={"connections": {"per_site": 1}})
    people = {f"pat@{domain}": STRIP if number % 2 else Edits() for number, domain in enumerate(domains)}
    message = await accepted(world, TAGGED, people)
    await world.settled(message)
    for found in world.peer.messages:
        wanted = {people[recipient.address] for recipient in found.recipients}
        assert len(wanted) == 1
        assert (b"[secure]" in found.raw) == (wanted == {Edits()})
    assert sum(len(found.recipients) for found in world.peer.messages) == len(people)


async def test_a_retry_makes_the_same_again(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=Behaviour(dot=[reply(451, "4.3.0 later"), OK]))})
    ask(world, EVERYTHING)
    entry = await world.delivered(await world.send(raw=TAGGED))
    assert len(entry["attempts"]) == 2
    assert b"[Clinic] Re: " + SUBJECT in world.peer.messages[-1].raw


async def test_a_newer_policy_says_what_is_changed_in_waiting_mail(build: Build) -> None:
    world = await build(
        hosts={MX: Host(behaviour=Behaviour(dot=[reply(451, "4.3.0 later"), OK]))},
        protection={"methods": ["tls"]},
        delivery={"retry": {"first": "1h", "max": "1h", "expire": "1d", "delay_notice": "4h"}},
    )
    ask(world, EVERYTHING)
    message = await world.send(raw=TAGGED)
    await world.wait_state(message, "deferred")
    world.write_policy({"methods": ["tls"], "tls": "verified"})
    assert await world.gateway.reload()
    ask(world, Edits(prepend_subject=("[New]",)))
    world.jump(5000)
    entry = await world.delivered(message)
    assert below(world.peer.messages[-1]) == TAGGED.replace(b"Re: [secure]", b"[New] Re: [secure]")
    assert [each["detail"] for each in entry["decision"]["actions"]] == ["[New]"]
    assert entry["decision"]["requirement"]["tls"] == "verified"


BROKEN = b"From: dr@clinic.example\r\nno field\r\nSubject: [secure] x\r\n\r\nbody\r\n"


async def test_what_cannot_be_taken_out_keeps_the_message_here_with_an_alarm(build: Build) -> None:
    world = await build()
    message = await accepted(world, BROKEN, {TO: STRIP})
    entry = await world.wait_state(message, "deferred", attempts=1)
    assert "what policy changes could not be changed: the header block cannot be read" in entry["last_error"]
    assert not world.peer.messages
    await poll(lambda: world.metric("gateway_alarms_total", kind="rendering_failed") >= 1, what="the alarm")


async def test_what_was_only_to_be_added_is_left_out_where_it_cannot_be(build: Build) -> None:
    world = await build()
    message = await accepted(world, BROKEN, {TO: Edits(prepend_subject=("[Ext]",), footers=(Footer("x"),))})
    entry = await world.delivered(message)
    assert below(world.peer.messages[0]) == BROKEN
    assert [(each["action"], each["done"]) for each in entry["decision"]["actions"]] == [
        ("prepend_subject", False),
        ("footer", False),
    ]
    assert "line 2 is not a field" in entry["decision"]["actions"][0]["detail"]


class Faulty(Renderer):
    async def _rendering(self, transaction: Transaction, edits: Edits) -> Rendering:
        raise ZeroDivisionError


async def test_a_fault_of_our_own_neither_loses_nor_bares_a_message(build: Build) -> None:
    world = await build()
    ask(world, Edits(add_headers=(("X-Sent-By", "gateway"),)))
    deliverer = world.gateway._scheduler._deliverer
    sound, deliverer.renderer = deliverer.renderer, Faulty()
    message = await world.send()
    entry = await world.wait_state(message, "deferred", attempts=1)
    assert "a fault of our own" in entry["last_error"]
    assert not world.peer.messages
    deliverer.renderer = sound
    await world.delivered(message)
    assert below(world.peer.messages[0]) == b"X-Sent-By: gateway\r\n" + MAIL


async def test_mail_of_an_observing_connector_is_not_changed(build: Build) -> None:
    world = await build(connector={"stage": "observe"})
    ask(world, EVERYTHING)
    entry = await world.delivered(await world.send(raw=TAGGED))
    assert entry["method"] == Method.PLAIN
    assert below(world.peer.messages[0]) == TAGGED


async def test_a_requirement_from_before_there_were_changes_is_carried_out_as_it_was(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=ASCII)})
    assert "transforms" not in Requirement().as_json()
    message = await accepted(world, TAGGED, {TO: Edits()})
    await world.delivered(message)
    assert below(world.peer.messages[0]) == TAGGED
