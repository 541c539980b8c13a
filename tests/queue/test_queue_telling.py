"""Who is told of holds, matched rules and alarms: once an hour each, the rest counted, nothing lost."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.config.inbound import Connector
from gateway.config.model import Notify as Notices
from gateway.config.outbound import Route
from gateway.mail.address import Address
from gateway.mail.envelope import Kind, Notify, Recipient
from gateway.mail.headers import split_message
from gateway.mail.protection import Assurance, Disposition, Method, Requirement, RuleMatch
from gateway.queue import operate
from gateway.queue.accept import AlreadyAccepted
from gateway.queue.announce import tell_alarm, tell_over
from gateway.queue.records import Claim, Idempotency, NewRecipient
from gateway.queue.states import State, StateEvent
from gateway.queue.system_mail import home_of
from gateway.store.schema import messages, tellings, untold
from tests.queue.queue_world import BODY, SENDER, World
from tests.store import store_world

HEADER = split_message(BODY)[0]
OPS = Address.parse("ops@clinic.example")
EYES = Address.parse("eyes@clinic.example")
TOLD = Notices(alerts=(OPS,), reviewers=(EYES,))
HELD = Requirement(disposition=Disposition.HOLD, reason="review", hold_rules=("large",), digest="p1")


async def held(here: World, *to: str, requirement: Requirement = HELD, **how: Any) -> str:
    """Accept as the door does: held, and told of."""
    until = here.clock.time() + 86400
    new = await here.new(*to, requirement=requirement, state=State.HELD, hold_until=until, **how)
    await here.queue.accept(new, header=HEADER)
    return new.message.id


async def letters(here: World) -> list[tuple[str, str]]:
    """What was written so far: to whom, and the text on one line; oldest first, of one moment by address."""

    def load(connection: Any) -> list[Any]:
        return list(connection.execute(select(messages.c.id, messages.c.received).where(messages.c.system)))

    found = []
    for row in await here.store.read(load):
        text = (await store_world.read_body(here.store, row.id)).decode()
        to = re.search(r"^To: (.*)\r$", text, flags=re.MULTILINE)
        assert to is not None
        found.append((row.received, to.group(1).strip("<>"), " ".join(text.split())))
    await here.clock.advance(0.01)  # so that what comes later is later
    return [(to, text) for _, to, text in sorted(found)]


async def rows(here: World) -> tuple[int, int]:
    """How many tellings stand, and how many counts."""

    def load(connection: Any) -> tuple[int, int]:
        count = [connection.execute(select(func.count()).select_from(table)).scalar() for table in (tellings, untold)]
        return count[0], count[1]

    return await here.store.read(load)


async def test_the_sender_and_the_reviewers_hear_of_a_hold(here: World) -> None:
    here.notify = TOLD
    message = await held(here, "bob@payer.example", "eve@payer.example")
    (first, to_sender), (second, to_reviewers) = await letters(here)
    assert (first, second) == (SENDER, str(EYES))
    for words in (
        "Subject: Your message waits for review",
        "Why: review. Until: ",
        "Action: delayed",
        "Status: 4.7.0",
        "Message-ID: <1@clinic.example>",
        "Final-Recipient: rfc822; bob@payer.example",
        "Final-Recipient: rfc822; eve@payer.example",
        "Once it is approved it is delivered",
        "Auto-Submitted: auto-replied",
    ):
        assert words in to_sender, words
    for words in ("rule: large", "reason: review", f"gateway queue release {message} --reason"):
        assert words in to_reviewers, words
    for text in (to_sender, to_reviewers):
        assert "diagnosis" not in text
        assert "secret" not in text
    assert len((await here.trace(message))["notices"]) == 2


async def test_without_reviewers_those_who_get_alerts_are_told_and_without_both_the_sender_alone(here: World) -> None:
    here.notify = Notices(alerts=(OPS,))
    await held(here)
    assert sorted(to for to, _ in await letters(here)) == [SENDER, str(OPS)]
    here.notify = Notices()
    await held(here, sender="ben@clinic.example")
    assert [to for to, _ in (await letters(here))[2:]] == ["ben@clinic.example"]


@pytest.mark.parametrize(
    "how", [{"sender": None}, {"kind": Kind.AUTO_REPLY}, {"notify": frozenset({Notify.NEVER})}], ids=str
)
async def test_nobody_tells_a_machine_but_the_reviewers_hear(here: World, how: dict[str, Any]) -> None:
    here.notify = TOLD
    await held(here, **how)
    assert [to for to, _ in await letters(here)] == [str(EYES)]


async def test_five_hundred_held_messages_are_told_of_twice(here: World) -> None:
    here.notify = TOLD
    for _ in range(6):
        await held(here)
    await held(here, sender="ben@clinic.example")
    await held(here, requirement=replace(HELD, reason="other"))
    assert len(await letters(here)) == 6
    await here.clock.advance(3599)
    assert await here.queue.tell_rest() == 0
    await here.clock.advance(2)
    here.queue.wake.clear()
    assert await here.queue.tell_rest() == 2
    assert here.queue.wake.is_set()
    summaries = dict((await letters(here))[6:])
    assert "5 more messages that you sent have been held" in summaries[SENDER]
    assert "for the same reason: review" in summaries[SENDER]
    assert f"5 more messages of {SENDER} have been held" in summaries[str(EYES)]
    assert await rows(here) == (2, 0)  # what came alone is forgotten, what was summed up waits another hour
    await held(here)
    await here.clock.advance(3600)
    assert await here.queue.tell_rest() == 2
    assert "1 more message that you sent has been held" in dict((await letters(here))[8:])[SENDER]
    await here.clock.advance(3600)
    assert await here.queue.tell_rest() == 0
    assert await rows(here) == (0, 0)


async def test_the_hour_is_one_for_all_processes_and_over_a_restart(here: World) -> None:
    here.notify = TOLD
    other = World(here.data_dir, clock=here.clock, notify=TOLD)
    other.open()
    await held(here)
    await held(other)
    await held(here)
    assert len(await letters(here)) == 2
    await here.restart()
    await held(here)
    await here.clock.advance(3600)
    told = [await other.queue.tell_rest(), await here.queue.tell_rest()]
    assert told == [2, 0]
    assert "3 more messages that you sent" in dict((await letters(here))[2:])[SENDER]
    await other.close()


async def test_gateways_that_hold_at_the_same_moment_tell_once_and_count_all(here: World) -> None:
    here.notify = TOLD
    other = World(here.data_dir, clock=here.clock, notify=TOLD)
    other.open()
    await asyncio.gather(*(held(world) for _ in range(20) for world in (here, other)))
    assert len(await letters(here)) == 2
    await here.clock.advance(3600)
    told = await asyncio.gather(here.queue.tell_rest(), other.queue.tell_rest())
    assert sum(told) == 2
    summaries = dict((await letters(here))[2:])
    assert "39 more messages that you sent have been held" in summaries[SENDER]
    assert "39 more messages of" in summaries[str(EYES)]
    await other.close()


async def test_what_did_not_happen_is_not_told(here: World) -> None:
    here.notify = TOLD
    key = Idempotency(b"k" * 32, b"c" * 32)
    await held(here, idempotency=key)
    with pytest.raises(AlreadyAccepted):
        await held(here, idempotency=key)
    assert len(await letters(here)) == 2
    assert await rows(here) == (2, 0)


async def test_an_operators_hold_is_told_once_for_all_recipients(here: World) -> None:
    here.notify = TOLD
    message = await here.accept("bob@payer.example", "eve@payer.example", "gone@payer.example")
    await operate.cancel(here.queue, message, 3, operator="root", reason="")
    before = len(await letters(here))
    done = await operate.hold_all(
        here.queue, message, [1, 2, 3, 4], operator="ann, by root", reason="wrong file", seconds=3600
    )
    assert [str(done[n]) for n in (1, 2)] == ["held", "held"]
    assert "cannot hold" in str(done[3])
    assert "no recipient" in str(done[4])
    new = dict((await letters(here))[before:])
    assert set(new) == {SENDER, str(EYES)}
    assert "Why: wrong file." in new[SENDER]
    assert "bob@payer.example, eve@payer.example" in new[str(EYES)]
    assert "held by: ann, by root" in new[str(EYES)]
    assert f"gateway queue release {message} --reason" in new[str(EYES)]


async def test_a_hold_by_a_new_policy_is_told_when_it_is_found_at_the_claim(here: World) -> None:
    here.notify = TOLD
    claim = await here.claimed()
    await here.end(claim, StateEvent.HOLD, hold_reason="review", hold_until=here.clock.time() + 9, requirement=HELD)
    assert sorted(to for to, _ in await letters(here)) == [SENDER, str(EYES)]


async def test_damaged_mail_is_not_called_a_review(here: World) -> None:
    here.notify = TOLD
    claim = await here.claimed()
    await here.end(claim, StateEvent.HOLD, hold_reason="corrupt", hold_until=here.clock.time() + 9)
    assert await letters(here) == []


async def test_a_thousand_recipients_fit_into_a_notice(here: World) -> None:
    here.notify = TOLD
    local = "x" * 60
    reason = "because " * 100
    requirement = replace(HELD, reason=reason)
    entries = [
        NewRecipient(
            Recipient(Address.parse(f"{local}{n}@payer.example"), orcpt=f"rfc822;{'y' * 400}"),
            requirement,
            State.HELD,
            here.clock.time() + 60,
        )
        for n in range(1000)
    ]
    new = await here.new(*entries)
    await here.queue.accept(new, header=HEADER)
    texts = dict(await letters(here))
    assert "The same holds for 950 more recipients." in texts[SENDER]


# -- rules with `notify` ----------------------------------------------------------------------------------------------

MATCHED = Requirement(
    methods=frozenset({Method.TLS}),
    tls=Assurance.VERIFIED,
    rules=(RuleMatch("phi", "require tls verified; notify eyes@clinic.example"), RuleMatch("other", "allow plain")),
    notify=("eyes@clinic.example",),
)


async def test_a_rule_tells_whom_it_names_once_an_hour_a_sender(here: World) -> None:
    for sender in (SENDER, SENDER, SENDER, "ben@clinic.example"):
        new = await here.new("bob@payer.example", "eve@payer.example", requirement=MATCHED, sender=sender)
        await here.queue.accept(new, header=HEADER, claim=True)
        await here.clock.advance(0.01)
    (to, first), (_, ben) = await letters(here)
    assert to == str(EYES)
    for words in ("Rule phi matched", "bob@payer.example: to be delivered by tls; tls verified or better"):
        assert words in first, words
    assert "other" not in first
    assert "from: ben@clinic.example" in ben
    await here.clock.advance(3600)
    assert await here.queue.tell_rest() == 1
    assert "2 more messages of anna@clinic.example matched phi" in (await letters(here))[-1][1]


# -- alarms -----------------------------------------------------------------------------------------------------------


async def ring(here: World, kind: str = "space", problem: str = "1 byte free", times: int = 1) -> int:
    settings = here.settings()
    told = await here.store.write(lambda tx: tell_alarm(tx, here.store, settings, kind, problem=problem, times=times))
    await here.clock.advance(0.01)
    return told


async def test_an_alarm_is_mailed_once_an_hour_a_kind(here: World) -> None:
    here.notify = TOLD
    assert [await ring(here), await ring(here), await ring(here, times=4), await ring(here, "clock")] == [1, 0, 0, 1]
    (to, text), _ = await letters(here)
    assert to == str(OPS)
    assert "Subject: [gw.clinic.example] Alarm: space" in text
    assert "seen: 1 byte free" in text
    assert "What to do: make room" in text
    await here.clock.advance(3600)
    assert await here.queue.tell_rest() == 1
    assert "it rang 5 more times" in (await letters(here))[-1][1]


async def test_the_end_of_an_alarm_is_mailed_with_what_it_was(here: World) -> None:
    here.notify = TOLD
    settings = here.settings()

    async def over() -> int:
        return await here.store.write(
            lambda tx: tell_over(tx, here.store, settings, "space", problem="1 byte free", since=here.clock.time())
        )

    assert [await over(), await over()] == [1, 0]
    assert "The alarm space on gw.clinic.example is over" in (await letters(here))[0][1]
    await here.clock.advance(3600)
    assert await here.queue.tell_rest() == 1
    assert "came and went 1 more time" in (await letters(here))[-1][1]


async def test_where_nobody_is_named_nothing_is_kept(here: World) -> None:
    assert await ring(here) == 0
    assert await rows(here) == (0, 0)


async def test_a_letter_about_an_alarm_that_is_lost_alarms_nobody(here: World) -> None:
    here.notify = TOLD
    await ring(here, "dropped")
    (claim,) = await here.claim(10)
    await here.end(claim, StateEvent.FAIL)
    assert here.heard.lost_letters == 1
    assert here.heard.ended == []


async def test_a_review_letter_that_is_lost_does_alarm(here: World) -> None:
    here.notify = TOLD
    await held(here, sender=None)
    (claim,) = await here.claim(10)
    await here.end(claim, StateEvent.FAIL)
    assert here.heard.lost_letters == 0
    assert here.heard.ended == [("", "dropped")]


# -- the way home -----------------------------------------------------------------------------------------------------


def connector(name: str, senders: tuple[str, ...], host: str | None) -> Connector:
    route = None if host is None else Route(host=host, tls=Assurance.VERIFIED)
    return Connector.model_construct(name=name, senders=senders, return_route=route)


async def test_letters_take_the_way_back_of_the_connector_that_names_their_domain(tmp_path: Path) -> None:
    every = connector("any", ("*",), "any.example")
    ours = connector("office", ("clinic.example", "*.clinic.example"), "home.example")
    bare = connector("bare", ("other.example",), None)
    world = World(tmp_path, connectors=(every, bare, ours), notify=Notices(alerts=(OPS, Address.parse("x@y.example"))))
    world.open()
    assert home_of(world.settings(), Address.parse("ops@a.clinic.example")) == "office"
    assert home_of(world.settings(), Address.parse("ops@other.example")) == ""
    await ring(world)
    claims: dict[str, Claim] = {c.domain: c for c in await world.claim(10)}
    assert claims["clinic.example"].message.envelope.connector == "office"
    assert claims["clinic.example"].recipients[0].requirement.tls is Assurance.VERIFIED
    assert claims["y.example"].message.envelope.connector == ""
    assert claims["y.example"].recipients[0].requirement == replace(
        claims["y.example"].recipients[0].requirement, methods=frozenset({Method.TLS}), tls=Assurance.ENCRYPTED
    )
    await world.close()
