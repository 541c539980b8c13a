"""The way of a message through the portal, over real sockets: deposit, notice, code, phrase, reading, the end."""

from __future__ import annotations

from gateway.mail.protection import Assurance
from tests.scenario.conftest import Build
from tests.scenario.portal_world import PORTAL, Reader, mails, portal_settings, text_of
from tests.scenario.world import BODY, SENDER, SUBJECT, World


async def deposited(world: World, state: str = "deposited") -> str:
    message = await world.send()
    await world.wait_state(message, state)
    return message


async def test_a_message_goes_the_whole_way(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    message = await deposited(world)
    (notice,) = await mails(world, about="secure message")
    assert notice["From"] == "Example Clinic <notices@bounces.clinic.example>"
    assert notice["Subject"] == "You have a secure message from Example Clinic"
    assert SENDER in text_of(notice)
    for secret in (SUBJECT, BODY):
        assert secret not in bytes(notice)
    reader = Reader(world)
    deposit = await reader.landing()
    assert deposit is not None
    assert (deposit.notice_tls, deposit.phrase, deposit.opened) == (Assurance.VERIFIED, None, None)
    session = await reader.sign_in(deposit)
    assert session.level is Assurance.VERIFIED
    (entry,) = await reader.mailbox.inbox(session)
    assert entry.open
    assert await reader.mailbox.open(session, entry, "net")
    body = b"".join([piece async for piece in reader.mailbox.body(entry)])
    assert SUBJECT in body
    assert BODY in body
    assert body.startswith(b"From: Doctor")
    await world.wait_state(message, "picked_up")
