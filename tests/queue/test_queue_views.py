"""What people see of the queue has the shape of the contract, page by page."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.mail.attempt import TlsEvidence
from gateway.mail.protection import Assurance, Decision, Method, Requirement
from gateway.queue.records import Outcome
from gateway.queue.states import State, StateEvent
from gateway.queue.views import (
    Filter,
    counts,
    list_recipients,
    oldest_received,
    parse_id,
    recipient_id,
    select_recipients,
)
from tests.queue.queue_world import World, attempt


async def listed(here: World, wanted: Filter | None = None, **page: Any) -> list[dict[str, Any]]:
    return await here.store.read(lambda c: list_recipients(select_recipients(c, wanted or Filter(), **page)))


async def test_a_listing_has_the_shape_of_the_contract(here: World) -> None:
    claim = await here.claimed("a@x.example", "b@x.example")
    when = here.clock.time() + 60
    await here.queue.record(
        claim, [Outcome(1, StateEvent.DEFER, error="421 later", next_attempt=when), Outcome(2, StateEvent.DELIVERED)]
    )
    (entry,) = await listed(here)
    message = claim.message.id
    assert {
        "id": f"{message}.1",
        "message": message,
        "recipient": "a@x.example",
        "state": "deferred",
        "attempts": 1,
        "next_attempt": when,
        "last_error": "421 later",
    }.items() <= entry.items()
    json.dumps(entry)


async def test_a_trace_has_the_shape_of_the_contract(here: World) -> None:
    claim = await here.claimed("a@x.example")
    tls = TlsEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", Assurance.VERIFIED, "ok", "ok", "ab" * 32)
    tried = replace(attempt(here.clock), tls=tls)
    decision = Decision(Requirement(), Method.TLS).as_json("a@x.example", tls.as_json())
    await here.queue.record(
        claim, [Outcome(1, StateEvent.DELIVERED, method="tls", attempts=(tried,), decision=decision)]
    )
    found = await here.trace(claim.message.id)
    assert {"id", "received", "connector", "sender", "size", "kind", "recipients"} <= found.keys()
    assert (found["id"], found["connector"], found["sender"]) == (claim.message.id, "office", "anna@clinic.example")
    assert (found["size"], found["kind"], found["received"]) == (claim.message.size, "ordinary", here.clock.time())
    (recipient,) = found["recipients"]
    assert {"recipient", "state", "method", "decision", "attempts", "events"} <= recipient.keys()
    assert (recipient["recipient"], recipient["state"], recipient["method"]) == ("a@x.example", "delivered", "tls")
    assert {
        "recipient",
        "disposition",
        "method",
        "requirement",
        "rules",
        "passed_over",
        "evidence",
        "actions",
    } <= recipient["decision"].keys()
    (shown,) = recipient["attempts"]
    assert {"time", "host", "address", "tls", "reply", "outcome"} <= shown.keys()
    assert {"version", "cipher", "assurance", "chain", "name", "spki_sha256"} <= shown["tls"].keys()
    assert shown["tls"]["assurance"] == "verified"
    assert shown["reply"] == {"code": 250, "enhanced": "2.0.0", "text": "ok"}
    assert [sorted(event) for event in recipient["events"]] == [["data", "kind", "time"]] * 4
    json.dumps(found)


async def test_before_any_try_the_trace_tells_what_is_required(here: World) -> None:
    message = await here.accept(sender=None, requirement=Requirement(tls=Assurance.VERIFIED))
    found = await here.trace(message)
    assert found["sender"] == "<>"
    decision = found["recipients"][0]["decision"]
    assert (decision["method"], decision["requirement"]["tls"]) == (None, "verified")


async def test_a_trace_of_nothing_is_empty(here: World) -> None:
    with pytest.raises(ValueError, match="unpack"):
        await here.trace("019b76da-a800-7000-8000-000000000000")


async def test_filters_narrow_and_pages_follow_one_another(here: World) -> None:
    messages = []
    for number in range(5):
        messages.append(await here.accept(f"a{number}@x.example", "same@y.example", sender=f"s{number}@z.example"))
        await here.clock.advance(1)
    held = await here.held("h@x.example")
    assert len(await listed(here)) == 11
    assert [entry["message"] for entry in await listed(here, limit=4)] == [messages[0]] * 2 + [messages[1]] * 2
    following = await listed(here, after=(messages[1], 1), limit=2)
    assert [entry["id"] for entry in following] == [f"{messages[1]}.2", f"{messages[2]}.1"]
    for wanted, number in (
        (Filter(domain="Y.example"), 5),
        (Filter(to="SAME@y.example"), 5),
        (Filter(sender="s3@z.example"), 2),
        (Filter(states=frozenset({State.HELD})), 1),
        (Filter(ids=(messages[0],)), 2),
        (Filter(ids=(f"{messages[0]}.2", messages[1])), 3),
        (Filter(ids=(messages[0],), to="a1@x.example"), 0),
        (Filter(since=here.clock.time() - 1), 3),
        (Filter(states=frozenset({State.BOUNCED})), 0),
    ):
        assert len(await listed(here, wanted)) == number, wanted
    (entry,) = await listed(here, Filter(ids=(held,)))
    assert (entry["next_attempt"], entry["hold_reason"]) == (None, "look at it")
    assert entry["hold_until"] == here.clock.time() + 86400


async def test_what_has_ended_is_listed_only_where_asked_for(here: World) -> None:
    message = await here.accept("a@x.example", state=State.REJECTED)
    assert await listed(here) == []
    assert len(await listed(here, Filter(ids=(message,)))) == 1
    assert len(await listed(here, Filter(to="a@x.example"))) == 1
    assert len(await listed(here, Filter(states=frozenset({State.REJECTED})))) == 1


async def test_gauges_come_from_counters_and_an_index(here: World) -> None:
    assert await here.store.read(oldest_received) is None
    first = here.clock.time()
    claim = await here.claimed()
    await here.clock.advance(10)
    await here.held()
    assert await here.store.read(oldest_received) == first
    found = await here.store.read(counts)
    assert (found["delivering"], found["held"], found["queued"]) == (1, 1, 0)
    await here.end(claim, StateEvent.DELIVERED)
    assert await here.store.read(oldest_received) == first + 10


def test_ids_are_read_as_they_are_written() -> None:
    message = "019b76da-a800-7000-8000-000000000000"
    assert parse_id(message) == (message, None)
    assert parse_id(recipient_id(message, 12)) == (message, 12)
    for text in ("", "x", message[:-1], f"{message}.x", f"{message}x.1", f"{message}.", f"{message}.-1"):
        with pytest.raises(ValueError, match="is no message id"):
            parse_id(text)
    assert Filter().empty
    assert not Filter(to="a").empty
