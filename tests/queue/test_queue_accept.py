"""Accepting is one transaction: everything that a 250 promises, or nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.errors import Refusal
from gateway.mail.address import Address
from gateway.mail.dsn import Action
from gateway.mail.envelope import Recipient
from gateway.mail.protection import Assurance, Requirement, RuleMatch
from gateway.queue.accept import MAX_SIGNATURE_USES, AlreadyAccepted
from gateway.queue.notices import NoticeEntry, make_notice
from gateway.queue.records import Idempotency, NewRecipient
from gateway.queue.states import State
from gateway.queue.views import counts
from gateway.store.schema import messages, recipients
from tests.queue.queue_world import BODY, World
from tests.store.store_world import body_files, count, read_body


async def test_what_is_accepted_waits_and_is_due_at_once(here: World) -> None:
    message = await here.accept("bob@payer.example", "eve@Other.example")
    assert [await here.state(message, n) for n in (1, 2)] == [State.QUEUED, State.QUEUED]
    row = await here.row(message, 2)
    assert (row.address, row.domain, row.attempts, row.claimed_by) == ("eve@other.example", "other.example", 0, None)
    assert row.next_attempt == here.clock.time()
    assert row.expires == here.clock.time() + 432000.0
    assert await here.next_due() == here.clock.time()
    assert await read_body(here.store, message) == BODY
    assert here.queue.wake.is_set()
    assert (await here.trace(message))["events"][0]["kind"] == "accepted"
    assert await here.kinds(message) == ["decided"]
    assert (await here.store.read(counts))["queued"] == 2


async def test_states_at_the_door_are_kept_and_only_live_ones_counted(here: World) -> None:
    def entry(address: str, state: State, error: str = "") -> NewRecipient:
        until = here.clock.time() + 60 if state is State.HELD else None
        return NewRecipient(Recipient(Address.parse(address)), Requirement(reason="why"), state, until, error)

    message = await here.accept(
        entry("a@x.example", State.QUEUED),
        entry("b@x.example", State.HELD),
        entry("c@x.example", State.REJECTED, "5.7.1 no"),
        entry("d@x.example", State.DELIVERED),
    )
    assert [await here.state(message, n) for n in range(1, 5)] == ["queued", "held", "rejected", "delivered"]
    assert (await here.row(message, 2)).hold_reason == "why"
    assert (await here.row(message, 3)).last_error == "5.7.1 no"
    assert here.heard.ended == [("", "rejected"), ("", "delivered")]
    found = await here.store.read(lambda c: c.execute(select(messages.c.live)).scalar_one())
    assert found == 2


async def test_where_nobody_is_live_no_body_is_kept(here: World) -> None:
    message = await here.accept("a@x.example", state=State.REJECTED, data=b"A: b\r\n\r\n" + bytes(200_000))
    assert not await here.has_body(message)
    await here.accept("b@x.example")  # what follows the first commit has happened by now
    assert body_files(here.data_dir) == []


async def test_the_first_claim_may_come_with_it(here: World) -> None:
    strict = Requirement(tls=Assurance.VERIFIED)
    new = await here.new(
        "a@one.example",
        "b@two.example",
        "c@one.example",
        NewRecipient(Recipient(Address.parse("d@one.example")), strict),
        NewRecipient(Recipient(Address.parse("e@one.example")), Requirement(), State.HELD, here.clock.time() + 60),
    )
    claims = await here.queue.accept(new, claim=True)
    assert [[entry.n for entry in claim.recipients] for claim in claims] == [[1, 3], [2], [4]]
    assert {claim.plain for claim in claims} == {BODY}
    assert claims[0].domain == "one.example"
    assert len({entry.requirement.tls for claim in claims for entry in claim.recipients[:1]}) == 2
    row = await here.row(new.message.id)
    assert (row.state, row.attempts, row.claimed_by) == ("delivering", 1, here.store.incarnation.id)
    assert row.next_attempt > here.clock.time() + 40
    assert await here.kinds(new.message.id) == ["decided", "claimed"]
    assert await here.claim(10) == ()


async def test_those_who_need_more_do_not_share_a_session_with_those_who_need_less(here: World) -> None:
    """Grouped by domain alone, the strictest of them decided for all: mail bounced that was allowed to go."""
    strict = Requirement(tls=Assurance.VERIFIED, rules=(RuleMatch("strict", "require verified"),))
    new = await here.new("a@one.example", NewRecipient(Recipient(Address.parse("b@one.example")), strict))
    at_accept = await here.queue.accept(new, claim=True)
    assert [[entry.requirement.tls for entry in claim.recipients] for claim in at_accept] == [
        [Assurance.ENCRYPTED],
        [Assurance.VERIFIED],
    ]


async def test_a_repeated_submission_hears_the_first_id(here: World) -> None:
    key = Idempotency(b"scope", b"content")
    first = await here.accept(idempotency=key)
    with pytest.raises(AlreadyAccepted) as repeated:
        await here.accept(idempotency=key)
    assert repeated.value.message == first
    with pytest.raises(Refusal) as other:
        await here.accept(idempotency=Idempotency(b"scope", b"other"))
    assert other.value.line.startswith("550 5.6.0 ")
    await here.accept(idempotency=Idempotency(b"another scope", b"content"))
    assert await count(here.store, messages) == 2
    await here.clock.advance(86401)
    await here.accept(idempotency=Idempotency(b"scope", b"other"))


async def test_the_same_submission_twice_at_once_is_accepted_once(here: World) -> None:
    key = Idempotency(b"scope", b"content")
    new = [await here.new(idempotency=key) for _ in range(5)]
    results = await asyncio.gather(*(here.queue.accept(one) for one in new), return_exceptions=True)
    taken = [one.message.id for one, result in zip(new, results, strict=True) if result == ()]
    assert len(taken) == 1
    assert {result.message for result in results if isinstance(result, AlreadyAccepted)} == set(taken)
    assert await count(here.store, messages) == 1


async def test_a_signature_that_is_seen_too_often_is_a_replay(here: World) -> None:
    for _ in range(MAX_SIGNATURE_USES):
        await here.accept(signature=b"s")
    with pytest.raises(Refusal) as replay:
        await here.accept(signature=b"s")
    assert (replay.value.reply_code, replay.value.reason) == (451, "dkim_replay")
    await here.accept(signature=b"other")
    assert await count(here.store, messages) == MAX_SIGNATURE_USES + 1
    await here.clock.advance(86401)
    await here.accept(signature=b"s")


async def test_a_refusal_takes_its_traces_with_it(here: World) -> None:
    for _ in range(MAX_SIGNATURE_USES):
        await here.accept(signature=b"s")
    key = Idempotency(b"scope", b"content")
    with pytest.raises(Refusal):
        await here.accept(signature=b"s", idempotency=key)
    await here.accept(idempotency=key)  # the key was not used up by what was refused


async def test_notices_are_accepted_with_what_causes_them_or_not_at_all(here: World) -> None:
    new = await here.new("a@x.example", state=State.REJECTED)
    entry = NoticeEntry(new.recipients[0].recipient, "5.7.1", "no")
    notice = await make_notice(
        here.store, here.settings(), here.clock, new.message, Action.FAILED, [entry], header=BODY[:40] + b"\r\n"
    )
    assert notice is not None
    broken = replace(notice, recipients=(*notice.recipients, *notice.recipients), message=new.message)
    with pytest.raises(Exception, match=r"(?i)unique"):  # the same id twice: our own fault, whatever it is
        await here.queue.accept(new, also=[broken])
    assert await count(here.store, messages) == 0
    assert await count(here.store, recipients) == 0
    await here.queue.accept(new, also=[notice])
    assert await count(here.store, messages) == 2
    assert (await here.trace(new.message.id))["notices"] == [notice.message.id]


async def test_who_hangs_up_during_the_commit_does_not_undo_it(here: World) -> None:
    new = await here.new()
    accepting = asyncio.create_task(here.queue.accept(new))
    await asyncio.sleep(0)
    accepting.cancel()
    await asyncio.wait({accepting})
    await here.accept()
    assert await here.state(new.message.id) is State.QUEUED


async def test_what_was_accepted_is_there_after_a_crash(tmp_path: Path) -> None:
    here = World(tmp_path)
    here.open()
    small, large = await here.accept(), await here.accept(data=b"A: b\r\n\r\n" + bytes(300_000))
    here.crash()
    here.open()
    assert await read_body(here.store, small) == BODY
    assert len(await read_body(here.store, large)) == 300_008
    await here.check()
    await here.close()
