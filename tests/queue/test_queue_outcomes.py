"""How an attempt ended is one transaction: state, evidence, counters, notices, and the end of the body."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from gateway.mail.address import Address
from gateway.mail.dsn import Action
from gateway.mail.envelope import Kind, Notify, Recipient
from gateway.mail.protection import Assurance, Disposition, Requirement
from gateway.queue.notices import NoticeEntry, make_notice
from gateway.queue.outcomes import LeaseLost
from gateway.queue.records import Claim, NewMessage, Outcome
from gateway.queue.states import LIVE, TABLE, State, StateEvent
from gateway.store.schema import messages, recipients
from tests.queue.queue_world import World, attempt
from tests.store.store_world import body_files, count, files_of

#: How an attempt can end; what becomes of a deposit is the portal's to test.
OUTCOMES = [
    event
    for (state, event) in TABLE
    if state is State.DELIVERING and event not in (StateEvent.LOST, StateEvent.DEPOSIT)
]


async def notice(here: World, claim: Claim, action: Action = Action.FAILED) -> list[NewMessage]:
    entries = [NoticeEntry(entry.recipient, "5.1.1", "no") for entry in claim.recipients]
    made = await make_notice(here.store, here.settings(), here.clock, claim.message, action, entries)
    return [] if made is None else [made]


@pytest.mark.parametrize("event", OUTCOMES)
@pytest.mark.parametrize("sender", ["anna@clinic.example", None])
async def test_every_outcome_leads_where_the_table_says(here: World, event: StateEvent, sender: str | None) -> None:
    claim = await here.claimed("a@x.example", sender=sender)
    message = claim.message.id
    outcome = Outcome(1, event, error="why", method="tls", attempts=(attempt(here.clock),), hold_until=9e9)
    recorded = await here.queue.record(claim, [outcome])
    expected = TABLE[State.DELIVERING, event].state
    if sender is None and TABLE[State.DELIVERING, event].notice == "failure":
        expected = State.DROPPED
    assert recorded.states == {1: expected}
    assert await here.state(message) is expected
    row = await here.row(message)
    assert (row.claimed_by, row.last_error, row.method) == (None, "why", "tls")
    assert await here.has_body(message) is (expected in LIVE)
    assert recorded.deleted is (expected not in LIVE)
    assert await here.kinds(message) == ["decided", "claimed", "attempt", str(expected)]
    assert here.heard.ended == ([] if expected in LIVE else [("tls", str(expected))])


async def test_the_body_goes_with_the_last_recipient(here: World) -> None:
    await here.accept("a@x.example", "b@y.example", "c@z.example", data=b"A: b\r\n\r\n" + bytes(200_000))
    claims = await here.claim(10)
    message = claims[0].message.id
    for number, claim in enumerate(claims):
        assert await here.has_body(message)
        assert len(body_files(here.data_dir)) == 1
        recorded = await here.queue.record(claim, [Outcome(claim.recipients[0].n, StateEvent.DELIVERED)])
        assert recorded.deleted is (number == 2)
    assert not await here.has_body(message)
    await here.accept()
    assert body_files(here.data_dir) == []
    assert [event["kind"] for event in (await here.trace(message))["events"]] == ["accepted", "deleted"]


async def test_evidence_of_each_recipient_is_its_own(here: World) -> None:
    claim = await here.claimed("a@x.example", "b@x.example")
    good, bad = attempt(here.clock), attempt(here.clock, "550 no", 550)
    decision = {"recipient": "a@x.example", "passed_over": [{"method": "pgp", "reason": "no key", "definite": True}]}
    await here.queue.record(
        claim,
        [
            Outcome(1, StateEvent.DELIVERED, method="tls", attempts=(good,), decision=decision),
            Outcome(2, StateEvent.FAIL, error="550 no", attempts=(bad, bad)),
        ],
    )
    one, two = (await here.trace(claim.message.id))["recipients"]
    assert (one["attempts"], two["attempts"]) == ([good.as_json()], [bad.as_json()] * 2)
    assert (one["decision"], one["method"], two["method"]) == (decision, "tls", None)
    assert one["events"][-1]["data"]["passed_over"] == decision["passed_over"]


async def test_what_a_deferral_learnt_is_kept_and_forgets_nothing(here: World) -> None:
    claim = await here.claimed()
    now = here.clock.time()
    stricter = Requirement(tls=Assurance.VERIFIED, digest="p2")
    await here.end(
        claim,
        StateEvent.DEFER,
        error="454",
        next_attempt=now + 30,
        unsure_since=now,
        delay_notified=True,
        requirement=stricter,
    )
    await here.clock.advance(30)
    (again,) = await here.claim(1)
    (recipient,) = again.recipients
    assert (recipient.unsure_since, recipient.delay_notified, recipient.requirement) == (now, True, stricter)
    await here.end(again, StateEvent.DEFER, error="other")
    row = await here.row(claim.message.id)
    assert (row.unsure_since, row.delay_notified, row.last_error) == (now, True, "other")
    assert 96 <= row.next_attempt - here.clock.time() <= 144  # as its claim had set it


async def test_what_is_given_back_untouched_has_lost_no_try(here: World) -> None:
    claim = await here.claimed()
    await here.clock.advance(5)
    await here.end(claim, StateEvent.UNCLAIM)
    row = await here.row(claim.message.id)
    assert (row.state, row.attempts, row.next_attempt) == ("queued", 0, here.clock.time())


async def test_a_hold_is_written_with_reason_and_end(here: World) -> None:
    claim = await here.claimed()
    until = here.clock.time() + 60
    await here.end(claim, StateEvent.HOLD, hold_reason="contradiction", hold_until=until)
    row = await here.row(claim.message.id)
    assert (row.state, row.hold_reason, row.hold_until) == ("held", "contradiction", until)


async def test_the_notice_comes_in_the_same_transaction(here: World) -> None:
    claim = await here.claimed()
    made = await notice(here, claim)
    await here.queue.record(claim, [Outcome(1, StateEvent.FAIL, error="550 no")], made)
    (text,) = await here.notices(claim.message.id)
    assert "Final-Recipient: rfc822; bob@payer.example" in text
    assert "diagnosis" not in text
    (dsn,) = await here.claim(10)
    assert (dsn.message.kind, dsn.message.envelope.sender, dsn.system) == (Kind.DSN, None, True)
    assert str(dsn.recipients[0].recipient.address) == "anna@clinic.example"
    assert dsn.parent == claim.message.id


@pytest.mark.parametrize("how", ["other owner", "other state"])
async def test_a_claim_that_is_not_ours_any_more_writes_nothing(here: World, how: str) -> None:
    claim = await here.claimed("a@x.example", "b@x.example")
    made = await notice(here, claim)
    change = {"claimed_by": "somebody else"} if how == "other owner" else {"state": "deferred"}
    query = update(recipients).where(recipients.c.n == 2)
    await here.store.write(lambda tx: tx.connection.execute(query.values(**change)) and None)
    before = [tuple(await here.row(claim.message.id, n)) for n in (1, 2)]
    with pytest.raises(LeaseLost):
        await here.queue.record(claim, [Outcome(n, StateEvent.FAIL) for n in (1, 2)], made)
    assert [tuple(await here.row(claim.message.id, n)) for n in (1, 2)] == before
    assert await count(here.store, messages) == 1
    assert await here.kinds(claim.message.id) == ["decided", "claimed"]
    back = {"claimed_by": here.store.incarnation.id, "state": "delivering"}
    await here.store.write(lambda tx: tx.connection.execute(query.values(**back)) and None)


async def test_an_outcome_is_written_once(here: World) -> None:
    claim = await here.claimed()
    await here.end(claim, StateEvent.DELIVERED)
    with pytest.raises(LeaseLost):
        await here.end(claim, StateEvent.DELIVERED)
    assert await here.state(claim.message.id) is State.DELIVERED


async def test_possible_duplicates_are_told_and_kept(here: World) -> None:
    claim = await here.claimed()
    await here.end(claim, StateEvent.DEFER, possible_duplicate=True)
    assert here.heard.duplicates == 1
    assert (await here.trace(claim.message.id))["recipients"][0]["events"][-1]["data"]["possible_duplicate"] is True


# -- notices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notify", "action", "wanted"),
    [
        ((), Action.FAILED, True),
        ((), Action.DELAYED, True),
        ((), Action.RELAYED, False),
        (("NEVER",), Action.FAILED, False),
        (("NEVER",), Action.DELAYED, False),
        (("SUCCESS",), Action.FAILED, False),
        (("SUCCESS",), Action.RELAYED, True),
        (("FAILURE",), Action.FAILED, True),
        (("FAILURE",), Action.DELAYED, False),
        (("DELAY",), Action.DELAYED, True),
    ],
)
async def test_the_sender_hears_what_was_asked_for(
    here: World,
    notify: tuple[str, ...],
    action: Action,
    wanted: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    claim = await here.claimed(notify=frozenset(Notify(word) for word in notify))
    assert bool(await notice(here, claim, action)) is wanted


@pytest.mark.parametrize("kind", [Kind.DSN, Kind.AUTO_REPLY, Kind.RECEIPT])
async def test_nobody_hears_of_automatic_mail(here: World, kind: Kind) -> None:
    claim = await here.claimed(kind=kind)
    assert not claim.can_tell
    assert await notice(here, claim) == []
    await here.end(claim, StateEvent.FAIL)
    assert await here.state(claim.message.id) is State.DROPPED


async def test_a_notice_about_a_notice_is_never_made_its_failure_is_dropped(here: World) -> None:
    claim = await here.claimed()
    await here.queue.record(claim, [Outcome(1, StateEvent.FAIL)], await notice(here, claim))
    (dsn,) = await here.claim(10)
    assert not dsn.can_tell
    assert await notice(here, dsn) == []
    await here.end(dsn, StateEvent.EXPIRE, error="no route back")
    assert await here.state(dsn.message.id) is State.DROPPED
    assert await here.notices(dsn.message.id) == []
    assert not await here.has_body(dsn.message.id)


async def test_a_notice_goes_back_by_the_route_of_its_connector_and_never_in_clear(here: World) -> None:
    claim = await here.claimed()
    (made,) = await notice(here, claim)
    requirement = made.recipients[0].requirement
    assert (sorted(requirement.methods), requirement.tls) == (["tls"], Assurance.ENCRYPTED)
    assert requirement.disposition is Disposition.DELIVER
    assert made.message.envelope.sender is None
    assert made.message.envelope.connector == "office"


async def test_a_damaged_body_does_not_keep_the_sender_from_being_told(here: World) -> None:
    claim = await here.claimed(data=b"From: x\r\n\r\n" + bytes(200_000))
    files_of(here.store).path(claim.message.id).unlink()
    (made,) = await notice(here, claim)
    assert made.body.size > 0
    await here.queue.record(claim, [Outcome(1, StateEvent.FAIL)], [made])
    assert await here.state(claim.message.id) is State.BOUNCED


async def test_an_international_sender_gets_an_international_notice(here: World) -> None:
    claim = await here.claimed(sender="jürgen@clinic.example")
    (made,) = await notice(here, claim)
    assert made.message.envelope.smtputf8
    assert made.eight_bit
    assert made.recipients[0].recipient == Recipient(Address.parse("jürgen@clinic.example"), frozenset({Notify.NEVER}))
