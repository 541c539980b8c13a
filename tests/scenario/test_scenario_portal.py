"""The way of a message through the portal, over real sockets: deposit, notice, code, phrase, reading, the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from gateway.audit.chain import happenings
from gateway.errors import QueueError, StoreCorrupt
from gateway.mail.protection import Assurance
from gateway.portal import operate
from gateway.portal.deposits import UNDO, by_address
from gateway.portal.keeper import Keeper
from gateway.portal.mailbox import Entry
from gateway.portal.sessions import ABSOLUTE, IDLE, Session
from gateway.queue.views import oldest_received
from gateway.store.schema import bodies, deposit_keys, events, messages
from gateway.store.store import Store
from gateway.testing import Behaviour, PostgresServer, reply
from tests.scenario.conftest import Build
from tests.scenario.portal_world import (
    HERE,
    LOCAL,
    PORTAL,
    Reader,
    mails,
    phrase,
    portal_settings,
    text_of,
    words_of,
)
from tests.scenario.world import BODY, HOME, MX, SENDER, SUBJECT, TO, Host, World
from tests.store.store_world import database_bytes

GONE = Behaviour(rcpt=reply(550, "5.1.1 no such user"))
CLEAR = {MX: Host(certificate=None)}
ORIGINAL = b"From: Doctor"


async def deposited(world: World, to: str = TO) -> str:
    message = await world.send(to)
    await world.wait_state(message, "deposited", to=to)
    return message


async def content_of(reader: Reader, session: Session, entry: Entry) -> bytes:
    assert await reader.mailbox.open(session, entry, HERE)
    return b"".join([piece async for piece in reader.mailbox.body(entry)])


async def only_entry(reader: Reader, session: Session) -> Entry:
    (entry,) = await reader.mailbox.inbox(session)
    found = await reader.mailbox.entry(session, entry.deposit.message, entry.deposit.n)
    assert found is not None
    return found


async def kept(world: World, message: str) -> dict[str, Any]:
    """What the store still has of a message: its own key, keys of deposits, the body."""

    def load(connection: Any) -> dict[str, Any]:
        own = connection.execute(select(messages.c.data_key).where(messages.c.id == message)).scalar()
        keys = connection.execute(
            select(deposit_keys.c.n).where(deposit_keys.c.message == message, deposit_keys.c.data_key.is_not(None))
        ).scalars()
        body = connection.execute(select(bodies.c.message).where(bodies.c.message == message)).scalar()
        return {"own": own is not None, "deposits": sorted(keys), "body": body is not None}

    return dict(await world.gateway._store.read(load))


# -- the way ----------------------------------------------------------------------------------------------------------


async def test_a_message_goes_the_whole_way(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    message = await deposited(world)
    assert await world.gateway._store.read(oldest_received) is None  # it waits for its reader, not for us
    (notice,) = await mails(world, about="secure message")
    assert notice["From"] == "Example Clinic <notices@bounces.clinic.example>"
    assert notice["Subject"] == "You have a secure message from Example Clinic"
    assert notice["Auto-Submitted"] == "auto-generated"
    for kind in ("plain", "html"):
        assert SENDER in text_of(notice, kind)
        assert text_of(notice, kind).count("https://secure.clinic.example/m/") == 1
    assert world.peers[MX].messages[0].sender.startswith("notices+")
    assert world.peers[MX].messages[0].sender.endswith(f"@{LOCAL}")
    reader = Reader(world)
    deposit = await reader.landing()
    assert deposit is not None
    assert (deposit.notice_tls, deposit.phrase, deposit.opened) == (Assurance.VERIFIED, None, None)
    session = await reader.sign_in(deposit)
    assert session.level is Assurance.VERIFIED
    entry = await only_entry(reader, session)
    assert entry.open
    body = await content_of(reader, session, entry)
    assert body.startswith(ORIGINAL)
    assert BODY in body
    told = await world.wait_state(message, "picked_up")
    assert told["method"] == "portal"
    for found in world.peers[MX].messages:
        assert SUBJECT not in found.raw
        assert BODY not in found.raw


async def test_the_portal_is_the_last_resort_where_tls_falls_short(build: Build) -> None:
    world = await build(hosts=CLEAR, protection={"methods": ["tls", "portal"]}, settings=portal_settings())
    message = await deposited(world)
    told = await world.recipient(message)
    assert [passed["method"] for passed in told["decision"]["passed_over"]] == ["tls"]
    assert told["decision"]["method"] == "portal"


async def test_without_a_portal_it_is_no_method(build: Build) -> None:
    world = await build(protection=PORTAL)
    told = await world.bounced(await world.send())
    assert told["decision"]["passed_over"][0]["reason"] == "no portal is set up (portal.url)"


async def test_mail_without_a_sender_is_no_mail_for_the_portal(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    message = await world.send(sender=None)
    told = await world.wait_state(message, "dropped", "bounced")
    assert "no sender" in str(told["decision"]["passed_over"])


async def test_the_way_is_the_same_on_postgresql(build: Build, postgres_server: PostgresServer) -> None:
    database = postgres_server.create_database()
    store = {"store": {"url": postgres_server.url(database)}}
    world = await build(hosts=CLEAR, protection=PORTAL, settings={**portal_settings(expires="30d"), **store})
    message, expires = await deposited(world), await deposited(world, "kim@good.example")
    queue, reader = world.gateway._queue, Reader(world)
    deposit = await reader.deposit(message)
    session = await reader.sign_in(deposit)
    entry = await only_entry(reader, session)
    assert await reader.mailbox.find_typed(reader.mailbox._names.typed(message, 1), HERE) is not None
    assert await reader.mailbox.enter_phrase(session, entry, "not these four words", HERE) is False
    letters = await mails(world, HOME, about="access phrase", count=2)
    (letter,) = [found for found in letters if TO in text_of(found)]
    assert await reader.mailbox.enter_phrase(session, entry, words_of(letter), HERE) is True
    session = await reader.session()
    assert BODY in await content_of(reader, session, await only_entry(reader, session))
    await operate.recall(queue, message, 1, operator="ann", reason="")
    await operate.restore(queue, message, 1, operator="ann", reason="")
    await operate.recall(queue, message, 1, operator="ann", reason="")
    world.jump(31 * 86400)
    await Keeper(queue).step()
    await world.wait_state(expires, "expired", to="kim@good.example")
    for gone in (message, expires):
        assert await kept(world, gone) == {"own": False, "deposits": [], "body": False}


# -- what a code is worth ---------------------------------------------------------------------------------------------


async def test_where_mail_travels_in_clear_the_sender_tells_four_words(build: Build) -> None:
    world = await build(hosts=CLEAR, protection=PORTAL, settings=portal_settings())
    await deposited(world)
    words = await phrase(world)
    (letter,) = await mails(world, HOME, about="access phrase")
    assert letter["To"] == SENDER
    assert world.peers[HOME].messages[0].tls is not None
    reader = Reader(world)
    deposit = await reader.landing()
    assert deposit is not None
    session = await reader.sign_in(deposit)
    assert session.level is Assurance.NONE
    entry = await only_entry(reader, session)
    assert not entry.open
    assert await reader.mailbox.enter_phrase(session, entry, "four wrong words here", HERE) is False
    assert await reader.mailbox.enter_phrase(session, entry, f" {words.upper()}\n", HERE) is True
    session = await reader.session()
    entry = await only_entry(reader, session)
    assert entry.open
    assert BODY in await content_of(reader, session, entry)
    assert words.encode() not in b"".join(found.raw for found in world.peers[MX].messages)


async def test_tries_at_the_words_are_few_and_a_restart_does_not_give_new_ones(build: Build) -> None:
    world = await build(hosts=CLEAR, protection=PORTAL, settings=portal_settings())
    await deposited(world)
    words = await phrase(world)
    reader = Reader(world)
    deposit = await reader.landing()
    assert deposit is not None
    session = await reader.sign_in(deposit)
    entry = await only_entry(reader, session)
    for _ in range(5):
        assert await reader.mailbox.enter_phrase(session, entry, "not these four words", HERE) is False
    assert await reader.mailbox.enter_phrase(session, entry, words, HERE) is None
    cookie = reader.cookie
    await world.stop()
    await world.start()
    reader = Reader(world)
    reader.cookie = cookie
    session = await reader.session()
    assert await reader.mailbox.enter_phrase(session, entry, words, HERE) is None


async def test_a_message_that_asks_for_more_than_its_code_had_needs_the_words(build: Build) -> None:
    world = await build(protection={"methods": ["tls", "portal"], "tls": "authenticated"}, settings=portal_settings())
    await deposited(world)
    deposit = await Reader(world).landing()
    assert deposit is not None
    assert (deposit.needs, deposit.notice_tls) == (Assurance.AUTHENTICATED, Assurance.VERIFIED)
    assert await phrase(world)


# -- codes ------------------------------------------------------------------------------------------------------------


async def test_a_code_works_in_the_browser_that_asked_and_once(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    await deposited(world)
    ours, theirs = Reader(world), Reader(world, browser="another")
    deposit = await ours.landing()
    assert deposit is not None
    code = await ours.code(deposit)
    assert await theirs.mailbox.enter_code(code, theirs.browser, HERE, None) is False
    signed = await ours.mailbox.enter_code(f" {code[:3]} {code[3:]} ", ours.browser, HERE, None)
    assert not isinstance(signed, bool)
    assert signed.deposit == (deposit.message, deposit.n)
    assert await ours.mailbox.enter_code(code, ours.browser, HERE, None) is False


async def test_a_code_is_void_after_five_wrong_ones_and_after_ten_minutes(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    await deposited(world)
    reader = Reader(world)
    deposit = await reader.landing()
    assert deposit is not None
    code = await reader.code(deposit)
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    for _ in range(5):
        assert await reader.mailbox.enter_code(wrong, reader.browser, HERE, None) is False
    assert await reader.mailbox.enter_code(code, reader.browser, HERE, None) is False
    code = await reader.code(deposit)
    world.jump(601)
    assert await reader.mailbox.enter_code(code, reader.browser, HERE, None) is False


async def test_two_browsers_at_one_mailbox_do_not_disturb_each_other(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    await deposited(world)
    ours, theirs = Reader(world), Reader(world, browser="another")
    deposit = await ours.landing()
    assert deposit is not None
    first, second = await ours.code(deposit), await theirs.code(deposit)
    assert not isinstance(await theirs.mailbox.enter_code(second, theirs.browser, HERE, None), bool)
    assert not isinstance(await ours.mailbox.enter_code(first, ours.browser, HERE, None), bool)


async def test_codes_are_limited_and_a_stranger_hears_no_difference(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    await deposited(world)
    reader = Reader(world)
    for address in (TO, "nobody@good.example"):
        answers = [await reader.mailbox.ask_code_for(address, reader.browser, HERE) for _ in range(6)]
        assert [asked.limited for asked in answers] == [False] * 5 + [True]
    await mails(world, about="Your code", count=5)
    mailed = [found for found in world.peers[MX].messages if b"Your code" in found.raw]
    assert {address for found in mailed for address in found.addresses} == {TO}


async def test_sessions_end_when_idle_and_at_last(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    await deposited(world)
    reader = Reader(world)
    deposit = await reader.landing()
    assert deposit is not None
    await reader.sign_in(deposit)
    for _ in range(int(ABSOLUTE // (IDLE - 10)) - 1):
        world.jump(IDLE - 10)
        assert await reader.mailbox.session(reader.cookie) is not None
    world.jump(IDLE + 1)
    assert await reader.mailbox.session(reader.cookie) is None


# -- how it ends ------------------------------------------------------------------------------------------------------


async def test_a_notice_that_is_refused_bounces_the_message_and_nothing_is_kept(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=GONE)}, protection=PORTAL, settings=portal_settings())
    message = await world.send()
    await world.bounced(message)
    (notice,) = await world.notices(message)
    assert b"the notice about it could not be delivered" in b" ".join(notice.raw.split())
    assert await kept(world, message) == {"own": False, "deposits": [], "body": False}
    assert await Reader(world).deposit(message)


REPORT = (
    "From: postmaster@good.example\r\nTo: x\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
    "--b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n"
    "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx\r\n\r\n"
    "Final-Recipient: rfc822; pat@good.example\r\nAction: {action}\r\nStatus: {status}\r\n"
    "Diagnostic-Code: smtp; 550 mailbox is gone\r\n\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    ("action", "status", "state"), [("failed", "5.1.1", "bounced"), ("delayed", "4.4.1", "deposited")]
)
async def test_a_notice_that_comes_back_later_bounces_the_message(
    build: Build, action: str, status: str, state: str
) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    message = await deposited(world)
    (notice, *_) = world.peers[MX].messages
    await world.send(notice.sender, REPORT.format(action=action, status=status).encode(), sender=None)
    told = await world.wait_state(message, state)
    events = [event for event in told["events"] if event["kind"] == "notice_came_back"]
    assert events[0]["data"]["reason"] == "smtp; 550 mailbox is gone"
    if state == "bounced":
        await world.notices(message)
        assert await kept(world, message) == {"own": False, "deposits": [], "body": False}


async def test_who_writes_to_the_address_of_a_notice_changes_nothing(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    message = await deposited(world)
    (notice, *_) = world.peers[MX].messages
    raw = REPORT.format(action="failed", status="5.1.1").encode()
    await world.send(notice.sender, raw, sender="somebody@clinic.example")
    await world.send(notice.sender.replace("notices+", "notices+x"), raw, sender=None)
    assert (await world.recipient(message))["state"] == "deposited"


async def test_a_recall_shows_at_once_can_be_taken_back_and_leaves_nothing(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    message = await deposited(world)
    reader, queue = Reader(world), world.gateway._queue
    deposit = await reader.landing()
    assert deposit is not None
    session = await reader.sign_in(deposit)
    entry = await only_entry(reader, session)
    await operate.recall(queue, message, 1, operator="ann", reason="wrong person")
    await world.wait_state(message, "recalled")
    assert await reader.landing() is None
    assert await reader.mailbox.inbox(session) == []
    assert not await reader.mailbox.open(session, entry, HERE)
    await operate.restore(queue, message, 1, operator="ann", reason="right person")
    await world.wait_state(message, "deposited")
    assert BODY in await content_of(reader, session, await only_entry(reader, session))
    before = await operate.recall(queue, message, 1, operator="ann", reason="no")
    assert before.opened is not None
    assert (await world.recipient(message))["state"] == "picked_up"
    world.jump(UNDO + 1)
    await Keeper(queue).step()
    assert await kept(world, message) == {"own": False, "deposits": [], "body": False}
    with pytest.raises(QueueError, match="is gone"):
        await operate.restore(queue, message, 1, operator="ann", reason="too late")
    with pytest.raises(StoreCorrupt):
        [piece async for piece in reader.mailbox.body(entry)]


async def test_what_nobody_reads_expires_and_its_sender_hears_of_it(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings(expires="30d"))
    message = await deposited(world)
    world.jump(30 * 86400 + 1)
    await Keeper(world.gateway._queue).step()
    await world.wait_state(message, "expired")
    (notice,) = await world.notices(message)
    assert b"did not read it in the secure portal" in b" ".join(notice.raw.split())
    assert await kept(world, message) == {"own": False, "deposits": [], "body": False}


async def test_who_has_not_read_is_reminded_a_week_and_a_day_before_the_end(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings(expires="30d"))
    await deposited(world)
    keeper = Keeper(world.gateway._queue)
    for days, count in ((22.9, 0), (0.2, 1), (5.8, 1), (0.2, 2), (0.1, 2)):
        world.jump(days * 86400)
        await keeper.step()
        await mails(world, about="secure message", count=1 + count)
        sent = [found for found in world.peers[MX].messages if b"Subject: Reminder" in found.raw]
        assert len(sent) == count


async def test_extending_and_sending_the_notice_again(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings(expires="30d"))
    message = await deposited(world)
    queue, reader = world.gateway._queue, Reader(world)
    until = world.clock.time() + 60 * 86400
    await operate.extend(queue, message, 1, until, operator="ann", reason="on holiday")
    await operate.resend(queue, message, 1, operator="ann", reason="lost")
    await mails(world, about="secure message", count=2)
    world.jump(31 * 86400)
    await Keeper(queue).step()
    assert await reader.landing() is not None


async def test_each_recipient_has_a_key_of_its_own(build: Build) -> None:
    rules = [{"name": "p", "when": {"recipient": TO}, "require": {"methods": ["portal"]}}]
    world = await build(protection={"methods": ["tls", "portal"]}, rules=rules, settings=portal_settings())
    others = ["kim@good.example", "lee@good.example"]
    message = await world.send([TO, *others])
    await world.wait_state(message, "deposited", to=TO)
    for address in others:
        await world.delivered(message, to=address)
    assert await kept(world, message) == {"own": False, "deposits": [1], "body": True}
    reader = Reader(world)
    deposit = await reader.landing()
    assert deposit is not None
    session = await reader.sign_in(deposit)
    assert BODY in await content_of(reader, session, await only_entry(reader, session))


# -- answering --------------------------------------------------------------------------------------------------------


async def test_a_reply_reaches_the_sender_threaded_and_from_our_own_domain(build: Build) -> None:
    world = await build(protection=PORTAL, settings=portal_settings())
    await deposited(world)
    reader = Reader(world)
    deposit = await reader.landing()
    assert deposit is not None
    session = await reader.sign_in(deposit)
    entry = await only_entry(reader, session)
    writer = reader.mailbox.begin_reply(entry, "Your results", "<m1@clinic.example>", "<m0@clinic.example>")
    await writer.begin("Thank you!\nPat ✓")
    await reader.mailbox.send_reply(session, entry, writer)
    (answer,) = await mails(world, HOME, about="Thank you!")
    assert answer["From"] == '"pat@good.example via Example Clinic" <notices@bounces.clinic.example>'
    assert (answer["Reply-To"], answer["To"]) == (TO, SENDER)
    assert answer["Subject"] == "Re: Your results"
    assert answer["In-Reply-To"] == "<m1@clinic.example>"
    assert answer["References"].split() == ["<m0@clinic.example>", "<m1@clinic.example>"]
    assert text_of(answer) == "Thank you!\nPat ✓\n"


@pytest.mark.parametrize("certificate", ["good", None])
async def test_words_and_replies_go_home_encrypted_though_the_way_back_asks_for_nothing(
    build: Build, certificate: str | None
) -> None:
    way_back = {"return_route": {"host": HOME, "port": "PORT", "tls": "none"}}
    hosts = {**CLEAR, HOME: Host(certificate=certificate)}
    world = await build(hosts=hosts, connector=way_back, protection=PORTAL, settings=portal_settings())
    await deposited(world)
    reader = Reader(world)
    deposit = await reader.landing()
    assert deposit is not None
    session = await reader.sign_in(deposit)
    entry = replace(await only_entry(reader, session), open=True)
    writer = reader.mailbox.begin_reply(entry, "s", "", "")
    await writer.begin("a reply for the sender alone")
    await reader.mailbox.send_reply(session, entry, writer)
    if certificate is not None:
        await phrase(world)
        await mails(world, HOME, about="a reply for the sender alone")
        assert all(found.tls is not None for found in world.peers[HOME].messages)
        return
    for letter in await world.all_ids():
        for told in (await world.settled(letter)) if letter != deposit.message else []:
            assert told["recipient"] == TO or told["state"] == "dropped"
    assert world.peers[HOME].messages == []


# -- nothing stays ----------------------------------------------------------------------------------------------------


async def wrapped_keys(world: World, message: str) -> list[bytes]:
    """The keys of its deposits as they stand in the database."""
    query = select(deposit_keys.c.data_key).where(deposit_keys.c.message == message)
    return await world.gateway._store.read(lambda connection: [bytes(key) for key in connection.scalars(query)])


async def shredded(world: World) -> int:
    """How many deletions the chain calls shredded."""
    query = select(events.c.data).where(events.c.kinds.contains(" shredded "))
    records = await world.gateway._store.read(lambda connection: list(connection.scalars(query)))
    return sum(
        int(str(event.data["deletions"])) for data in records for event in happenings(data) if event.kind == "shredded"
    )


@pytest.mark.parametrize("end", ["recall", "expiry"])
async def test_ten_minutes_after_its_end_no_key_is_left_though_people_read(build: Build, end: str) -> None:
    world = await build(protection=PORTAL, settings=portal_settings(expires="30d"))
    message, other = await deposited(world), await deposited(world)
    queue, store = world.gateway._queue, world.gateway._store
    if end == "expiry":
        until = world.clock.time() + 365 * 86400
        await operate.extend(queue, other, 1, until, operator="ann", reason="stays")
    (key,), (stays,) = await wrapped_keys(world, message), await wrapped_keys(world, other)
    directory = world.directory / "data"
    assert key in database_bytes(directory)
    before = await shredded(world)
    reading = asyncio.create_task(read_on(store))
    try:
        if end == "recall":
            await operate.recall(queue, message, 1, operator="ann", reason="wrong person")
        else:
            world.jump(30 * 86400)
        for _ in range(10):
            world.jump(60)
            await Keeper(queue).step()
            await queue.shredder.step()
        assert await shredded(world) > before
    finally:
        reading.cancel()
    data = database_bytes(directory)
    assert key not in data
    assert stays in data


async def read_on(store: Store) -> None:
    """People who read in the portal all the while."""
    while True:
        await store.read(lambda connection: by_address(connection, TO))
        await asyncio.sleep(0)
