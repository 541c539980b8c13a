"""What leaves is signed as the very last thing, by the rules of who is signed for; what has a signature keeps it."""

from __future__ import annotations

import base64
import re
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dkim
import pytest

from gateway.delivery.signing import Signer
from gateway.delivery.transaction import Transaction
from gateway.mail.dkim.keys import SigningKey
from gateway.mail.edits import Edits, Footer
from gateway.queue.records import Claim
from gateway.testing import OK, Behaviour, Message, poll, reply
from tests.scenario.conftest import Build
from tests.scenario.test_scenario_content import HEADER, SEVEN, below
from tests.scenario.test_scenario_edits import ask
from tests.scenario.world import HOME, MAIL, MX, SENDER, TO, Host, World

REFERENCE: Any = dkim  # it has no types
RSA, ED25519 = SigningKey.generate("rsa"), SigningKey.generate("ed25519")
OWN = SigningKey.generate("rsa")
RECORDS = {
    b"s1._domainkey.clinic.example.": RSA.record.encode(),
    b"e1._domainkey.clinic.example.": ED25519.record.encode(),
    b"own._domainkey.clinic.example.": OWN.record.encode(),
    b"s1._domainkey.gw.clinic.example.": RSA.record.encode(),
}
SIGNATURE = re.compile(rb"DKIM-Signature: (?:[^\r]|\r\n[ \t])*\r\n")


@pytest.fixture
def keys(tmp_path: Path) -> Mapping[str, Any]:
    """The `dkim` section for clinic.example with an RSA key."""
    path = tmp_path / "s1.pem"
    path.write_bytes(RSA.pem)
    (tmp_path / "e1.pem").write_bytes(ED25519.pem)
    return {"dkim": {"clinic.example": [{"selector": "s1", "key": f"file:{path}"}]}}


def verifies(raw: bytes, index: int = 0) -> bool:
    """By an independent implementation."""
    try:
        return bool(REFERENCE.DKIM(raw).verify(index, dnsfunc=lambda name, **_: RECORDS.get(bytes(name))))
    except REFERENCE.ValidationError:
        return False


def selectors(raw: bytes) -> list[str]:
    return [
        match.group(1).decode() for each in SIGNATURE.findall(raw) if (match := re.search(rb"[ ;\t]s=([^;]+)", each))
    ]


def theirs(raw: bytes) -> bytes:
    """The message with a signature by the sender's own system."""
    line = REFERENCE.sign(raw, b"own", b"clinic.example", OWN.pem, include_headers=[b"from", b"subject", b"to"])
    return bytes(line) + raw


def told(entry: Mapping[str, Any]) -> list[tuple[str, bool | None]]:
    return [(each["detail"], each["done"]) for each in entry["decision"]["actions"] if each["action"] == "dkim"]


async def sent(world: World, raw: bytes = MAIL, *, mail: str = "") -> tuple[Message, Mapping[str, Any]]:
    entry = await world.delivered(await world.send(raw=raw, mail=mail))
    return world.peer.messages[-1], entry


async def test_unsigned_mail_is_signed_below_our_trace_fields(build: Build, keys: Mapping[str, Any]) -> None:
    world = await build(settings=keys)
    found, entry = await sent(world)
    rest = below(found)
    assert SIGNATURE.match(rest)
    assert SIGNATURE.sub(b"", rest) == MAIL
    assert verifies(found.raw)
    assert not verifies(found.raw.replace(b"subject-marker", b"subject marker"))
    assert not verifies(found.raw.replace(b"body-marker", b"body marker"))
    assert not verifies(b"From: Mallory <m@evil.example>\r\n" + found.raw)
    assert int(found.sender_parameters["SIZE"]) == len(found.raw)
    assert told(entry) == [("signed for clinic.example with s1", True)]


async def test_each_key_signs(build: Build, keys: Mapping[str, Any], tmp_path: Path) -> None:
    both = [*keys["dkim"]["clinic.example"], {"selector": "e1", "key": f"file:{tmp_path / 'e1.pem'}"}]
    world = await build(settings={"dkim": {"clinic.example": both}})
    found, entry = await sent(world)
    assert selectors(found.raw) == ["s1", "e1"]
    assert verifies(found.raw, 0)
    assert verifies(found.raw, 1)
    assert told(entry) == [("signed for clinic.example with s1, e1", True)]


async def test_what_carries_its_own_signature_keeps_it_and_gets_none_of_ours(
    build: Build, keys: Mapping[str, Any]
) -> None:
    world = await build(settings=keys)
    raw = theirs(MAIL)
    found, entry = await sent(world, raw)
    assert below(found) == raw
    assert verifies(found.raw)
    assert told(entry) == [("not signed: its own signature of clinic.example (own) stays", False)]


async def test_a_signature_that_a_change_does_not_break_stays_alone(build: Build, keys: Mapping[str, Any]) -> None:
    world = await build(settings=keys)
    ask(world, Edits(add_headers=(("X-Sent-By", "gateway"),)))
    found, _ = await sent(world, theirs(MAIL))
    assert selectors(found.raw) == ["own"]
    assert verifies(found.raw)


@pytest.mark.parametrize("edits", [Edits(footers=(Footer("Sent safely"),)), Edits(prepend_subject=("[Clinic]",))])
@pytest.mark.parametrize("size", [100, 400_000])
async def test_a_signature_that_a_change_broke_is_replaced_by_ours(
    build: Build, keys: Mapping[str, Any], edits: Edits, size: int
) -> None:
    world = await build(settings=keys)
    ask(world, edits)
    found, entry = await sent(world, theirs(MAIL + b"A line of  text \t\r\n" * (size // 20)))
    assert selectors(found.raw) == ["s1"]
    assert (b"Sent safely" in found.raw) or (b"[Clinic]" in found.raw)
    assert verifies(found.raw)
    assert told(entry) == [("signed for clinic.example with s1", True)]


async def test_what_is_rewritten_for_a_peer_without_8bitmime_is_signed_as_it_is_sent(
    build: Build, keys: Mapping[str, Any]
) -> None:
    world = await build(hosts={MX: Host(behaviour=SEVEN)}, settings=keys)
    raw = HEADER + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + "Grüße\r\n".encode()
    found, entry = await sent(world, theirs(raw), mail="BODY=8BITMIME")
    assert found.raw.isascii()
    assert selectors(found.raw) == ["s1"]
    assert verifies(found.raw)
    assert told(entry) == [("signed for clinic.example with s1", True)]


async def test_8_bit_mail_is_signed_as_it_is(build: Build, keys: Mapping[str, Any]) -> None:
    world = await build(settings=keys)
    raw = HEADER + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + "Grüße\r\n".encode()
    found, _ = await sent(world, raw, mail="BODY=8BITMIME")
    assert SIGNATURE.sub(b"", below(found)) == raw
    assert verifies(found.raw)


@pytest.mark.parametrize("body", [b"\r\n", b"", b"\r\n\r\n \r\n\r\n"], ids=["empty", "none", "blank lines"])
async def test_bodies_of_nothing_are_signed(build: Build, keys: Mapping[str, Any], body: bytes) -> None:
    world = await build(settings=keys)
    found, _ = await sent(world, HEADER + body)
    assert verifies(found.raw if body else found.raw + b"\r\n")  # dkimpy wants the empty line


async def test_strangers_are_never_signed_for(build: Build, keys: Mapping[str, Any]) -> None:
    """A forwarded stranger's From, though the key is there: the connector does not send for it."""
    world = await build(connector={"senders": ["other.example"], "foreign_from": "forward"}, settings=keys)
    message = await world.send(raw=MAIL, sender="fwd@other.example")
    entry = await world.delivered(message)
    assert below(world.peer.messages[0]) == MAIL
    assert told(entry) == [("not signed: the connector 'app' may not send for clinic.example", False)]


async def test_mail_of_an_observing_connector_is_not_signed(build: Build, keys: Mapping[str, Any]) -> None:
    world = await build(connector={"stage": "observe"}, settings=keys)
    found, entry = await sent(world)
    assert below(found) == MAIL
    ((reason, done),) = told(entry)
    assert "observes" in reason
    assert done is False


@pytest.mark.parametrize("domain", ["lab.clinic.example", "example", "xclinic.example"])
async def test_only_the_very_domain_of_from_is_signed_for(build: Build, keys: Mapping[str, Any], domain: str) -> None:
    world = await build(settings=keys)
    raw = MAIL.replace(b"dr@clinic.example", f"dr@{domain}".encode())
    found, entry = await sent(world, raw)
    assert below(found) == raw
    assert told(entry) == []


async def test_our_own_notices_are_signed(build: Build, keys: Mapping[str, Any]) -> None:
    world = await build(
        hosts={MX: Host(behaviour=Behaviour(rcpt=reply(550, "5.1.1 nobody"))), HOME: Host()}, settings=keys
    )
    message = await world.send(sender=SENDER)
    await world.bounced(message)
    (notice,) = await world.notices(message)
    assert selectors(notice.raw) == ["s1"]
    assert verifies(notice.raw)


async def test_recipients_that_share_a_transaction_share_its_signature(build: Build, keys: Mapping[str, Any]) -> None:
    domains = {f"d{number}.example": (MX,) for number in range(4)}
    world = await build(domains=domains, settings=keys, delivery={"connections": {"per_site": 1}})
    message = await world.send([f"pat@{domain}" for domain in domains])
    for entry in await world.settled(message):
        assert told(entry) == [("signed for clinic.example with s1", True)]
    assert all(verifies(found.raw) for found in world.peer.messages)


async def test_a_new_key_counts_from_the_reload_on(build: Build, keys: Mapping[str, Any], tmp_path: Path) -> None:
    world = await build(settings=keys)
    await sent(world)
    assert await world.change(dkim={"clinic.example": [{"selector": "e1", "key": f"file:{tmp_path / 'e1.pem'}"}]})
    found, _ = await sent(world)
    assert selectors(found.raw) == ["e1"]
    assert verifies(found.raw)
    (tmp_path / "e1.pem").write_text("no key")
    assert not await world.gateway.reload()
    assert selectors((await sent(world))[0].raw) == ["e1"]


async def test_a_large_message_is_signed_without_being_held(build: Build, keys: Mapping[str, Any]) -> None:
    world = await build(settings=keys)
    line = base64.b64encode(bytes(range(57))) + b"\r\n"
    raw = MAIL + line * 100_000
    claims: list[int] = []
    deliverer = world.gateway._scheduler._deliverer
    sound = deliverer.signer

    class Measured(Signer):
        async def finish(self, claim: Claim, transaction: Transaction) -> Transaction:
            tracemalloc.start()
            try:
                return await sound.finish(claim, transaction)
            finally:
                claims.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()

    deliverer.signer = Measured(sound.settings, sound.clock)
    found, _ = await sent(world, raw)
    assert verifies(found.raw)
    assert claims[0] < 3_000_000 < len(raw)


class Faulty(Signer):
    async def _finish(self, claim: Claim, transaction: Transaction) -> Transaction:
        raise ZeroDivisionError


async def test_where_signing_breaks_down_the_message_waits_with_an_alarm(build: Build, keys: Mapping[str, Any]) -> None:
    world = await build(settings=keys)
    deliverer = world.gateway._scheduler._deliverer
    sound, deliverer.signer = deliverer.signer, Faulty(deliverer.settings, deliverer.clock)
    message = await world.send()
    entry = await world.wait_state(message, "deferred", attempts=1)
    assert "it could not be signed" in entry["last_error"]
    assert not world.peer.messages
    await poll(lambda: world.metric("gateway_alarms_total", kind="signing_failed") >= 1, what="the alarm")
    deliverer.signer = sound
    await world.delivered(message)
    assert verifies(world.peer.messages[0].raw)


async def test_each_try_signs_anew(build: Build, keys: Mapping[str, Any]) -> None:
    later = Host(behaviour=Behaviour(dot=[reply(451, "4.3.0 later"), OK]))
    world = await build(hosts={MX: later}, settings=keys)
    message = await world.send(TO)
    await world.delivered(message)
    assert [verifies(found.raw) for found in world.peer.messages] == [True] * len(world.peer.messages)
