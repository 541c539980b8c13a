"""What comes in, over the whole gateway: loops, the end of data, room, sizes; stopping and starting again."""

from __future__ import annotations

import asyncio

import pytest

from gateway.testing import Behaviour, delay, poll, reply, stall
from tests.scenario.conftest import Build
from tests.scenario.world import BODY, MAIL, MX, SENDER, TO, Client, Host, Refused

HEADER = MAIL.partition(b"\r\n\r\n")[0] + b"\r\n"


# -- loops ------------------------------------------------------------------------------------------------------------


async def test_what_has_passed_here_three_times_is_a_loop(build: Build) -> None:
    world = await build()
    raw = MAIL
    for passes in range(3):
        await world.delivered(await world.send(raw=raw))
        raw = world.peer.messages[passes].raw
    assert raw.count(b"X-Gateway-Loop: ") == 3
    with pytest.raises(Refused) as refused:
        await world.send(raw=raw)
    assert (refused.value.code, refused.value.enhanced) == (554, "5.4.6")


async def test_a_loop_of_one_recipient_is_no_loop_of_another(build: Build) -> None:
    world = await build()
    raw = MAIL
    for passes in range(3):
        await world.delivered(await world.send(raw=raw))
        raw = world.peer.messages[passes].raw
    await world.delivered(await world.send("other@good.example", raw=raw))
    message = await world.send([TO, "third@good.example"], raw=raw)
    assert (await world.recipient(message, TO))["state"] == "rejected"
    await world.delivered(message, "third@good.example")
    (notice,) = await world.notices(message)
    assert b"Status: 5.4.6\r\n" in notice.raw


async def test_a_mark_that_was_guessed_or_copied_does_nothing(build: Build) -> None:
    world = await build(hosts={MX: Host(certificate=None)})
    fields = "".join(
        f"X-Gateway-Loop: 0192f0c1-2345-7abc-8def-0123456789{n:02d} ABCDEFGHIJKLMNOP\r\nX-Gateway-Id: 1\r\n"
        for n in range(4)
    )
    entry = await world.bounced(await world.send(fields=fields))  # neither a loop nor past the policy
    assert entry["last_error"].startswith("5.7.10")


async def test_thirty_received_fields_are_a_loop(build: Build) -> None:
    world = await build()
    line = "Received: from a.example by b.example; Mon, 05 Jan 2026 10:00:00 +0000\r\n"
    await world.delivered(await world.send(fields=line * 29))
    with pytest.raises(Refused) as refused:
        await world.send(fields=line * 30)
    assert (refused.value.code, refused.value.enhanced) == (554, "5.4.6")


# -- the end of data --------------------------------------------------------------------------------------------------

SMUGGLED = (
    b"MAIL FROM:<evil@clinic.example>\r\nRCPT TO:<pat@good.example>\r\nDATA\r\n"
    b"Subject: smuggled\r\n\r\nsmuggled\r\n.\r\n"
)
FAKE_ENDS = [
    b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\n\n.\r\n", b"\r\r\n.\r\n", b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n", b"\x00\r\n.\r\n", b"\r\n.\r\r\n", b"\n.\r\r\n", b"\x00", b"\r", b"\n",
]  # fmt: skip


async def test_no_false_end_of_data_lets_anything_through(build: Build) -> None:
    world = await build()
    for fake in FAKE_ENDS:
        for split in {0, 1, len(fake) // 2, len(fake)}:
            client = await world.client()
            await client.must(b"MAIL FROM:<dr@clinic.example>\r\n")
            await client.must(b"RCPT TO:<pat@good.example>\r\n")
            await client.must(b"DATA\r\n", 354)
            client.writer.write(HEADER + b"\r\nfirst" + fake[:split])
            await client.writer.drain()
            await asyncio.sleep(0)
            answers = await _answers(client, fake[split:] + SMUGGLED + b"\r\n.\r\nQUIT\r\n")
            assert answers[0].startswith(b"550 5.6.0"), (fake, split, answers)
            await client.close()
    assert await world.all_ids() == []
    for peer in world.peers.values():
        assert peer.sessions == []


async def _answers(client: Client, data: bytes) -> list[bytes]:
    """Everything that is answered to this, until the session ends."""
    client.writer.write(data)
    found = []
    while line := await client.reply():
        found.append(line)
    return found


async def test_no_stray_octet_ever_leaves_over_many_odd_messages(build: Build) -> None:
    """What was taken in goes out without a bare CR, LF or NUL, and ends where it ended: the peer is strict about it."""
    lax = Behaviour(lax_end_of_data=True)
    world = await build(hosts={MX: Host(behaviour=lax)}, delivery={"connections": {"idle": "2s"}})
    tails = [b".", b"..", b".\r\n.", b"\r\n.", b"x", b"", b". ", b".\r\n\r\n.", b"MAIL FROM:<x@y.example>"]
    for tail in tails:
        message = await world.send(raw=HEADER + b"\r\n" + tail + b"\r\n")
        await world.delivered(message)
    for found, tail in zip(world.peer.messages, tails, strict=True):
        assert found.raw.endswith(b"\r\n\r\n" + tail + b"\r\n")
        lines = found.wire.split(b"\r\n")
        assert not any(character in b"".join(lines) for character in (b"\r", b"\n", b"\0"))
        assert b"." not in lines
    assert len(world.peer.messages) == len(tails)


# -- room -------------------------------------------------------------------------------------------------------------


async def test_below_the_floor_of_free_space_mail_waits_with_its_sender_and_it_heals_by_itself(build: Build) -> None:
    world = await build()
    assert await world.problems() == []
    assert await world.change(limits={"free_space": "900000TB"})
    await poll(lambda: bool(world.gateway._store.space.problem), what="the space watch")
    with pytest.raises(Refused) as refused:
        await world.send()
    assert (refused.value.code, refused.value.enhanced) == (452, "4.3.1")
    assert await world.problems() != []
    assert await world.change(limits={"free_space": "1MB"})
    await poll(lambda: not world.gateway._store.space.problem, what="room")
    await world.delivered(await world.send())
    assert await world.problems() == []


async def test_a_message_that_is_too_large_is_refused_whether_or_not_it_says_so(build: Build) -> None:
    world = await build(connector={"limits": {"message_size": "10KB"}})
    with pytest.raises(Refused) as refused:
        await world.send(mail="SIZE=20000")
    assert (refused.value.code, refused.value.enhanced) == (552, "5.3.4")
    with pytest.raises(Refused) as refused:
        await world.send(raw=MAIL + (b"x" * 78 + b"\r\n") * 200)
    assert (refused.value.code, refused.value.enhanced) == (552, "5.3.4")
    await world.delivered(await world.send())
    assert len(await world.all_ids()) == 1


async def test_a_client_that_leaves_before_its_answer_has_still_handed_its_message_over(build: Build) -> None:
    world = await build()
    client = await world.client()
    await client.must(b"MAIL FROM:<dr@clinic.example>\r\n")
    await client.must(b"RCPT TO:<pat@good.example>\r\n")
    await client.must(b"DATA\r\n", 354)
    client.writer.write(MAIL + b".\r\n")
    await client.writer.drain()
    await client.close()
    (found,) = await world.peer.wait_messages(1)
    assert BODY in found.raw


async def test_a_client_that_leaves_before_the_final_dot_has_handed_over_nothing(build: Build) -> None:
    world = await build()
    client = await world.client()
    await client.must(b"MAIL FROM:<dr@clinic.example>\r\n")
    await client.must(b"RCPT TO:<pat@good.example>\r\n")
    await client.must(b"DATA\r\n", 354)
    client.writer.write(MAIL + b"\r\n.\r")
    await client.writer.drain()
    await client.close()
    await poll(lambda: world.gateway._ingress.connections == 0, what="the end of the session")
    assert await world.all_ids() == []


async def test_mail_of_our_own_domain_ends_here_and_strangers_in_it_do_not_exist(build: Build) -> None:
    world = await build(settings={"local": {"domain": "notices.clinic.example"}})
    message = await world.send("notices+token@notices.clinic.example")
    assert (await world.recipient(message))["state"] == "delivered"
    with pytest.raises(Refused, match=r"550 5\.1\.1"):
        await world.send("somebody@notices.clinic.example")
    for peer in world.peers.values():
        assert peer.sessions == []


async def test_mail_to_our_postmaster_goes_to_the_person(build: Build) -> None:
    world = await build()
    await world.delivered(await world.send("postmaster@gw.clinic.example"))
    (found,) = await world.peers["home.clinic.example"].wait_messages(1)
    assert found.addresses == ["postmaster@clinic.example"]


# -- stopping and starting --------------------------------------------------------------------------------------------


async def test_what_waits_is_delivered_after_a_restart(build: Build) -> None:
    world = await build(hosts={MX: Host(up=False)})
    big = MAIL + (b"x" * 78 + b"\r\n") * 10_000
    messages = [await world.send(), await world.send(raw=big), await world.send(fields="X-Gateway-Protect: tls\r\n")]
    for message in messages:
        await world.wait_state(message, "deferred", attempts=1)
    await world.stop()
    await world.peer.start()
    await world.start()
    for message in messages:
        await world.delivered(message)
    assert sorted(len(found.raw) > 100_000 for found in world.peer.messages) == [False, False, True]


async def test_stopping_lets_what_is_under_way_end(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=Behaviour(dot=delay(1.0)))})
    message = await world.send()
    await poll(lambda: "DATA" in [verb for session in world.peer.sessions for verb in session.verbs], what="DATA")
    await world.stop()
    assert len(world.peer.messages) == 1
    await world.start()
    entry = await world.delivered(message)
    assert len(entry["attempts"]) == 1
    assert len(world.peer.messages) == 1


async def test_while_stopping_it_is_not_ready_and_takes_nothing(build: Build) -> None:
    slow = Behaviour(dot=delay(2.0))
    world = await build(
        hosts={MX: Host(behaviour=slow)},
    )
    client, port = await world.client(), world.gateway._ingress.bound[0].port
    await world.send()
    await poll(lambda: "DATA" in [verb for session in world.peer.sessions for verb in session.verbs], what="DATA")
    stopping = asyncio.ensure_future(world.stop())
    await poll(lambda: world.gateway._intake.stopping, what="stopping")
    assert (await client.reply()).startswith(b"421 4.3.2")
    assert await world.problems() != []
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await stopping


async def test_a_restart_keeps_the_fallback_clock_the_hold_and_the_requirement(build: Build) -> None:
    later = Behaviour(starttls=reply(454, "4.7.0 not now"))
    world = await build(
        hosts={MX: Host(behaviour=later)},
        protection={"methods": ["tls", "plain"], "tls": "encrypted", "fallback_after": "1h"},
        rules=[{"name": "keep", "when": {"recipient": "held@good.example"}, "hold": {"for": "review"}}],
    )
    message, held = await world.send(), await world.send("held@good.example")
    await world.wait_state(message, "deferred", attempts=1)
    await world.stop()
    world.clock.offset += 3600
    await world.start()
    assert (await world.delivered(message))["method"] == "plain"
    assert (await world.recipient(held))["state"] == "held"


async def test_a_claim_that_cannot_end_is_left_for_the_next_start_and_not_lost(build: Build) -> None:
    world = await build(hosts={MX: Host(behaviour=Behaviour(dot=stall()))}, delivery={"timeouts": {"dot": "60s"}})
    message = await world.send()
    await poll(lambda: "DATA" in [verb for session in world.peer.sessions for verb in session.verbs], what="DATA")
    await world.gateway._scheduler.stop(0.1)
    await world.stop()
    world.peer.behaviour = Behaviour()
    await world.start()
    entry = await world.delivered(message)
    lost = next(event for event in entry["events"] if event["data"].get("event") == "lost")
    assert lost["data"]["possible_duplicate"] is True


async def test_a_hundred_messages_at_once_all_arrive_once(build: Build) -> None:
    world = await build()
    sent = await asyncio.gather(
        *(world.send([f"p{n}@good.example"], sender=SENDER, raw=MAIL + b"%d\r\n" % n) for n in range(100))
    )
    for message in sent:
        await world.delivered(message)
    assert sorted(found.addresses[0] for found in world.peer.messages) == sorted(
        f"p{n}@good.example" for n in range(100)
    )
