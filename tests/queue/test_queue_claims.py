"""Claim before connect: the try is counted and the next one moved before anybody dials."""

from __future__ import annotations

from pathlib import Path

from gateway.mail.protection import Assurance, Requirement
from gateway.queue.records import Outcome
from gateway.queue.states import State, StateEvent
from tests.queue.queue_world import World


async def test_only_what_is_due_is_claimed_the_oldest_due_first(here: World) -> None:
    ids = []
    for n in range(4):
        ids.append(await here.accept(f"a{n}@x{n}.example"))
        await here.clock.advance(1)
    claims = await here.claim(2)
    assert sorted(claim.message.id for claim in claims) == ids[:2]
    claims = await here.claim(10)
    assert sorted(claim.message.id for claim in claims) == ids[2:]
    assert await here.claim(10) == ()


async def test_a_claim_counts_the_try_and_moves_the_next_one_forward(here: World) -> None:
    claim = await here.claimed()
    (recipient,) = claim.recipients
    row = await here.row(claim.message.id)
    assert (row.state, row.attempts, row.claimed_by) == ("delivering", 1, here.store.incarnation.id)
    assert 48 <= row.next_attempt - here.clock.time() <= 72
    assert (recipient.attempts, recipient.expires) == (1, row.expires)
    assert await here.kinds(claim.message.id) == ["decided", "claimed"]
    assert claim.can_tell
    assert await here.next_due() is None


async def test_what_is_not_due_yet_waits(here: World) -> None:
    claim = await here.claimed()
    when = here.clock.time() + 100
    await here.end(claim, StateEvent.DEFER, next_attempt=when)
    assert await here.next_due() == when
    await here.clock.advance(99)
    assert await here.claim(10) == ()
    await here.clock.advance(1)
    (again,) = await here.claim(10)
    assert again.recipients[0].attempts == 2
    row = await here.row(claim.message.id)
    assert 96 <= row.next_attempt - here.clock.time() <= 144


async def test_a_busy_domain_is_passed_by(here: World) -> None:
    dead, alive = await here.accept("a@dead.example"), await here.accept("b@alive.example")
    busy = ["dead.example", "other.example"]
    assert [claim.message.id for claim in await here.claim(10, busy)] == [alive]
    assert await here.next_due(busy) is None
    assert await here.next_due() == here.clock.time()
    assert [claim.message.id for claim in await here.claim(10)] == [dead]


async def test_recipients_of_one_domain_and_requirement_are_claimed_together(here: World) -> None:
    new = await here.new("a@one.example", "b@two.example", "c@one.example", "d@one.example")
    strict = Requirement(tls=Assurance.VERIFIED)
    entries = list(new.recipients)
    entries[3] = type(entries[3])(entries[3].recipient, strict)
    await here.queue.accept(type(new)(new.message, new.body, tuple(entries)))
    claims = await here.claim(10)
    assert sorted(tuple(entry.n for entry in claim.recipients) for claim in claims) == [(1, 3), (2,), (4,)]
    for claim in claims:
        assert len({entry.requirement for entry in claim.recipients}) == 1
        assert claim.message.envelope.recipients == tuple(entry.recipient for entry in claim.recipients)
        assert claim.plain is None


async def test_the_limit_counts_recipients(here: World) -> None:
    await here.accept(*(f"a{n}@x.example" for n in range(7)))
    taken = [sum(len(claim.recipients) for claim in await here.claim(3)) for _ in range(4)]
    assert taken == [3, 3, 1, 0]


async def test_two_processes_never_claim_the_same(here: World, tmp_path: Path) -> None:
    await here.accept(*(f"a{n}@x.example" for n in range(20)))
    other = World(tmp_path, clock=here.clock)
    other.open()
    seen: list[int] = []
    for one in (here, other) * 6:
        for claim in await one.claim(3):
            seen += [entry.n for entry in claim.recipients]
            await one.queue.record(claim, [Outcome(entry.n, StateEvent.DELIVERED) for entry in claim.recipients])
    assert sorted(seen) == list(range(1, 21))
    await other.close()


async def test_held_and_ended_mail_is_never_claimed(here: World) -> None:
    await here.held()
    await here.accept(state=State.REJECTED)
    await here.clock.advance(1000)
    assert await here.claim(10) == ()
    assert await here.next_due() is None
