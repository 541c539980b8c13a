"""What operators do: only what the table allows, each with its event, nothing behind a worker's back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.errors import QueueError
from gateway.mail.envelope import Notify
from gateway.mail.protection import Disposition, Method, Requirement
from gateway.queue import operate
from gateway.queue.queue import Queue
from gateway.queue.records import Outcome
from gateway.queue.states import State, StateEvent
from tests.queue.queue_world import World

Verb = Callable[[Queue, str, int], Awaitable[State]]
VERBS: dict[str, Verb] = {
    "retry": lambda queue, message, n: operate.retry(queue, message, n, operator="root"),
    "hold": lambda queue, message, n: operate.hold(queue, message, n, operator="root", reason="why", seconds=60),
    "release": lambda queue, message, n: operate.release(queue, message, n, operator="root", reason="why"),
    "cancel": lambda queue, message, n: operate.cancel(queue, message, n, operator="root", reason="why"),
}


async def in_state(here: World, state: State) -> str:
    """A message whose only recipient is in this state."""
    if state is State.HELD:
        return await here.held()
    message = await here.accept()
    if state is State.QUEUED:
        return message
    (claim,) = await here.claim(1)
    event = {State.DEFERRED: StateEvent.DEFER, State.BOUNCED: StateEvent.FAIL}.get(state)
    if event is not None:
        await here.end(claim, event)
    return message


@pytest.mark.parametrize("verb", sorted(VERBS))
@pytest.mark.parametrize("state", [State.QUEUED, State.DEFERRED, State.DELIVERING, State.HELD, State.BOUNCED])
async def test_each_verb_does_what_the_table_allows(here: World, verb: str, state: State) -> None:
    allowed = {
        ("retry", State.QUEUED): State.QUEUED,
        ("retry", State.DEFERRED): State.QUEUED,
        ("hold", State.QUEUED): State.HELD,
        ("hold", State.DEFERRED): State.HELD,
        ("release", State.HELD): State.QUEUED,
        ("cancel", State.QUEUED): State.CANCELLED,
        ("cancel", State.DEFERRED): State.CANCELLED,
        ("cancel", State.HELD): State.CANCELLED,
    }
    message = await in_state(here, state)
    expected = allowed.get((verb, state))
    if expected is None:
        with pytest.raises(QueueError):
            await VERBS[verb](here.queue, message, 1)
        assert await here.state(message) is state
        return
    assert await VERBS[verb](here.queue, message, 1) is expected
    assert await here.state(message) is expected
    last = (await here.trace(message))["recipients"][0]["events"][-1]
    assert (last["kind"], last["data"]["operator"], last["data"]["event"]) == (str(expected), "root", verb)
    if verb != "retry":
        assert last["data"]["reason"] == "why"


@pytest.mark.parametrize("verb", sorted(VERBS))
async def test_nobody_can_act_on_what_is_not_there(here: World, verb: str) -> None:
    message = await here.accept()
    for target, n in ((message, 2), ("019b76da-a800-7000-8000-000000000000", 1)):
        with pytest.raises(QueueError, match="no recipient"):
            await VERBS[verb](here.queue, target, n)


async def test_what_is_on_its_way_cannot_be_held_behind_the_workers_back(here: World) -> None:
    """It was: the outcome was lost then, and a release sent the message a second time."""
    claim = await here.claimed()
    with pytest.raises(QueueError, match="being delivered right now"):
        await VERBS["hold"](here.queue, claim.message.id, 1)
    await here.end(claim, StateEvent.DELIVERED)
    assert await here.state(claim.message.id) is State.DELIVERED


async def test_retry_makes_it_due_now(here: World) -> None:
    claim = await here.claimed()
    await here.end(claim, StateEvent.DEFER, next_attempt=here.clock.time() + 5000)
    here.queue.wake.clear()
    await VERBS["retry"](here.queue, claim.message.id, 1)
    assert here.queue.wake.is_set()
    (again,) = await here.claim(1)
    assert again.recipients[0].attempts == 2


async def test_release_approves_the_rules_that_hold_it(here: World) -> None:
    message = await here.held(rule="review", hold_until=here.clock.time() + 10 * 86400)
    await here.clock.advance(6 * 86400)  # longer than mail is tried
    await VERBS["release"](here.queue, message, 1)
    (claim,) = await here.claim(1)
    (recipient,) = claim.recipients
    assert recipient.approvals == {"review"}
    assert recipient.requirement.disposition is Disposition.DELIVER
    assert recipient.requirement.hold_rules == ()
    assert recipient.expires >= here.clock.time() + 3600
    row = await here.row(message)
    assert (row.hold_reason, row.hold_until, row.losses) == (None, None, 0)
    held_again = Requirement(disposition=Disposition.HOLD, hold_rules=("second",))
    await here.end(claim, StateEvent.HOLD, hold_reason="x", hold_until=9e9, requirement=held_again)
    await VERBS["release"](here.queue, message, 1)
    assert json.loads((await here.row(message)).approvals) == ["review", "second"]


async def test_nothing_is_released_that_no_method_may_carry(here: World) -> None:
    contradiction = Requirement(methods=frozenset({Method.TLS})).join(Requirement(methods=frozenset({Method.PGP})))
    message = await here.held(requirement=contradiction)
    with pytest.raises(QueueError, match="no protection method"):
        await VERBS["release"](here.queue, message, 1)
    assert await here.state(message) is State.HELD
    assert await VERBS["cancel"](here.queue, message, 1) is State.CANCELLED


async def test_cancelling_tells_the_sender_and_shreds(here: World) -> None:
    message = await here.accept()
    await VERBS["cancel"](here.queue, message, 1)
    (text,) = await here.notices(message)
    assert "cancelled the delivery. why" in " ".join(text.split())
    assert not await here.has_body(message)
    assert here.heard.ended == [("", "cancelled")]


async def test_an_operators_hold_without_end_outlives_the_queue(here: World) -> None:
    message = await here.accept()
    await operate.hold(here.queue, message, 1, operator="root", reason="look", seconds=None)
    await here.clock.advance(60 * 86400)
    assert await here.queue.expire_holds() == 0
    assert await here.state(message) is State.HELD


# -- holds end ------------------------------------------------------------------------------------------------------


async def test_a_hold_that_nobody_released_bounces(here: World) -> None:
    message = await here.held(hold_until=here.clock.time() + 60)
    await here.clock.advance(59)
    assert await here.queue.expire_holds() == 0
    await here.clock.advance(1)
    assert await here.queue.expire_holds() == 1
    assert await here.state(message) is State.BOUNCED
    (text,) = await here.notices(message)
    assert "nobody approved" in " ".join(text.split())
    assert not await here.has_body(message)
    assert await here.queue.expire_holds() == 0


@pytest.mark.parametrize(
    ("how", "state", "notices"),
    [
        ({"sender": None}, State.DROPPED, 0),
        ({"notify": frozenset({Notify.NEVER})}, State.BOUNCED, 0),
        ({}, State.BOUNCED, 1),
    ],
)
async def test_who_hears_that_a_hold_ended(here: World, how: dict[str, Any], state: State, notices: int) -> None:
    message = await here.held(hold_until=here.clock.time(), **how)
    await here.queue.expire_holds()
    assert await here.state(message) is state
    assert len(await here.notices(message)) == notices


async def test_many_holds_end_a_batch_at_a_time(here: World) -> None:
    await here.held(*(f"a{n}@x.example" for n in range(60)), hold_until=here.clock.time(), sender=None)
    assert [await here.queue.expire_holds() for _ in range(3)] == [50, 10, 0]


class Meddling(Queue):
    """A queue whose operator is quicker than the clockwork: he acts between its look and its act."""

    meddle: Callable[[], Awaitable[object]] | None = None

    async def end_by_operator_or_time(self, *args: object, **kwargs: object) -> State:
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            await meddle()
        return await super().end_by_operator_or_time(*args, **kwargs)  # type: ignore[arg-type]  # handed through


@pytest.mark.parametrize("verb", ["release", "hold longer"])
async def test_a_hold_that_a_person_just_changed_does_not_end(here: World, verb: str) -> None:
    message = await here.held(hold_until=here.clock.time())
    await here.clock.advance(1)
    old = here.queue
    queue = Meddling(
        old.store,
        old.settings,
        old.clock,
        old.chance,
        old.wake,
        old.flights,
        old.shredder,
        old.observer,
        old.timekeeper,
    )

    async def meddle() -> None:
        await VERBS["release"](old, message, 1)
        if verb == "hold longer":
            await VERBS["hold"](old, message, 1)

    queue.meddle = meddle
    assert await queue.expire_holds() == 0
    assert await here.state(message) is (State.QUEUED if verb == "release" else State.HELD)
    assert not [text for text in await here.notices(message) if "Action: failed" in text]


async def test_an_operators_command_is_a_process_of_its_own(here: World) -> None:
    message = await here.accept()
    command = World(here.data_dir, clock=here.clock)
    command.open()
    await VERBS["cancel"](command.queue, message, 1)
    await command.close()
    assert await here.state(message) is State.CANCELLED
    (dsn,) = await here.claim(10)
    await here.queue.record(dsn, [Outcome(1, StateEvent.DELIVERED)])
    assert await here.queue.shredder.step()
