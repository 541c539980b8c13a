"""Work grows with what is due, never with what waits: plans, and steps of SQLite's machine, counted."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert

from gateway.mail.protection import Requirement
from gateway.queue.claims import claim_turns, make_due
from gateway.queue.records import Claim
from gateway.queue.recovery import recover, strange_owners
from gateway.queue.retry import RetrySchedule
from gateway.queue.shares import Shares
from gateway.queue.states import State, StateEvent
from gateway.queue.turns import MAX_SEEKS, Look, Place, look_for_turns
from gateway.queue.views import Filter, counts, oldest_received, select_recipients
from gateway.store.database import open_engine
from gateway.store.migrate import require_current
from gateway.store.schema import HELD, LIVE_MESSAGES, READY, WAITING, messages, recipients
from gateway.store.writer import Transaction
from tests.queue.queue_world import World, shares

NOW = 1_767_225_600.0
BULK, LETTERS = 7, 5
REQUIREMENT = json.dumps(Requirement().as_json())


def message(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:036d}",
        "received": NOW,
        "connector": "office",
        "client": "192.0.2.1",
        "sender": "anna@clinic.example",
        "size": 1,
        "digest": "",
        "kind": "ordinary",
        "observed": False,
        "system": False,
        "parent": None,
        "envelope": '{"helo": "", "tls": null, "ret": null, "envid": null, "body": null, "smtputf8": false,'
        ' "requiretls": false, "protocol": "ESMTP", "eight_bit": false}',
        "live": 1,
        "ring_key": None,
        "data_key": None,
    }


def recipient(number: int, **different: Any) -> dict[str, Any]:
    return {
        "message": f"{number:036d}",
        "n": 1,
        "address": f"u{number}@x.example",
        "key": f"u{number}@x.example",
        "domain": "x.example",
        "origin": BULK,
        "notify": "",
        "orcpt": "",
        "state": "deferred",
        "since": NOW,
        "attempts": 1,
        "next_attempt": NOW + 3600 + number,
        "expires": NOW + 432000,
        "claimed_by": None,
        "losses": 0,
        "unsure_since": None,
        "delay_notified": False,
        "requirement": REQUIREMENT,
        "decision": None,
        "method": None,
        "last_error": None,
        "hold_reason": None,
        "hold_until": None,
        "approvals": "[]",
        **different,
    }


def driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


class Backlog:
    """A store without a gateway, filled at will; counts the steps that SQLite's machine takes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._number = 0

    def add(self, rows: int, different: Callable[[int], dict[str, Any]] = lambda _: {}) -> None:
        numbers = range(self._number, self._number + rows)
        self._number += rows
        with self._engine.connect() as connection, connection.begin():
            connection.execute(insert(messages), [message(number) for number in numbers])
            connection.execute(
                insert(recipients),
                [recipient(number, **different(place)) for place, number in enumerate(numbers)],
            )

    def steps(self, job: Callable[[Connection], object]) -> int:
        """Steps of the virtual machine (in tens) that ``job`` takes; what it writes is undone."""
        taken = 0

        def count() -> int:
            nonlocal taken
            taken += 1
            return 0

        with self._engine.connect() as connection, connection.begin() as running:
            connection.exec_driver_sql("select 1")
            driver_of(connection).set_progress_handler(count, 10)
            job(connection)
            driver_of(connection).set_progress_handler(None, 0)
            running.rollback()
        return taken

    def run(self, job: Callable[[Connection], Any]) -> Any:
        with self._engine.connect() as connection, connection.begin():
            return job(connection)


@pytest.fixture
def backlog(tmp_path: Path) -> Iterator[Backlog]:
    engine = open_engine("sqlite", tmp_path, writes=True)
    require_current(engine)
    yield Backlog(engine)
    engine.dispose()


def look(most: int, taken: Shares | None = None, place: Place | None = None) -> Callable[[Connection], Look]:
    return lambda connection: look_for_turns(connection, most, taken or shares(), place or Place())


def claim(most: int, taken: Shares) -> Callable[[Connection], tuple[Claim, ...]]:
    def job(connection: Connection) -> tuple[Claim, ...]:
        found = look_for_turns(connection, most, taken, Place())
        with closing(connection.connection.cursor()) as cursor:
            transaction = Transaction(connection, cursor, NOW)
            return claim_turns(transaction, "me", RetrySchedule(), random.Random(1), found.turns)

    return job


def due(connection: Connection) -> int:
    with closing(connection.connection.cursor()) as cursor:
        return make_due(Transaction(connection, cursor, NOW))


BUSY = shares(["busy.example"])


def a_few_due(backlog: Backlog) -> None:
    backlog.add(5, lambda n: {"state": "queued", "origin": LETTERS, "domain": f"d{n}.example", "next_attempt": NOW})
    backlog.add(5, lambda _: {"next_attempt": NOW - 1})
    backlog.add(5, lambda n: {"state": "held", "hold_until": NOW - n})
    backlog.add(5, lambda n: {"state": "delivering", "claimed_by": "dead" if n else "me"})


@pytest.mark.parametrize(
    "waiting",
    [
        lambda n: {"domain": f"d{n}.example", "origin": n},
        lambda _: {},
        lambda n: {"state": "queued", "domain": "busy.example", "next_attempt": NOW - n},
        lambda n: {"state": "held", "hold_until": NOW + 1 + n},
        lambda _: {"state": "delivered"},
    ],
    ids=["deferred everywhere", "deferred at one domain", "due at a busy domain", "held", "history"],
)
def test_ten_times_the_backlog_takes_no_step_more(backlog: Backlog, waiting: Callable[[int], dict[str, Any]]) -> None:
    a_few_due(backlog)
    jobs: dict[str, Callable[[Connection], object]] = {
        "look": look(10, BUSY),
        "look with nothing free": look(0),
        "claim": claim(10, BUSY),
        "make due": due,
        "owners": lambda connection: strange_owners(connection, "me"),
        "counters": counts,
        "oldest": oldest_received,
        "holds": lambda connection: connection.execute(
            recipients.select().where(HELD, recipients.c.hold_until <= NOW).order_by(recipients.c.hold_until).limit(50)
        ).all(),
        "dead worker": lambda connection: connection.execute(
            recipients.select().where(recipients.c.claimed_by == "dead")
        ).all(),
    }
    backlog.add(500, waiting)
    before = {name: backlog.steps(job) for name, job in jobs.items()}
    backlog.add(5000, waiting)
    after = {name: backlog.steps(job) for name, job in jobs.items()}
    assert after == pytest.approx(before, abs=3)
    assert max(after.values()) < 1500


def page(after: tuple[str, int]) -> Callable[[Connection], object]:
    return lambda connection: select_recipients(connection, Filter(), after=after, limit=50)


def test_a_page_of_the_listing_costs_a_page(backlog: Backlog) -> None:
    backlog.add(500)
    pages = [page(("", 0)), page((f"{250:036d}", 1))]
    before = [backlog.steps(one) for one in pages]
    backlog.add(5000)
    assert [backlog.steps(one) for one in pages] == pytest.approx(before, abs=3)


def test_every_question_is_answered_by_its_index(backlog: Backlog) -> None:
    a_few_due(backlog)
    statements: list[str] = []

    def ask(connection: Connection) -> None:
        driver = driver_of(connection)
        driver.set_trace_callback(statements.append)
        claim(10, BUSY)(connection)
        due(connection)
        strange_owners(connection, "me")
        select_recipients(connection, Filter())
        driver.set_trace_callback(None)

    def plan(connection: Connection, statement: str) -> str:
        return " / ".join(row[-1] for row in driver_of(connection).execute(f"EXPLAIN QUERY PLAN {statement}"))

    backlog.run(ask)
    plans = backlog.run(
        lambda connection: {
            statement: plan(connection, statement)
            for statement in statements
            if "recipients" in statement and not statement.startswith("INSERT")
        }
    )
    assert len(plans) >= 8
    for statement, found in plans.items():
        assert "SCAN" not in found.replace("SCAN recipients USING INDEX ix_recipients_waiting", ""), statement
        assert "TEMP B-TREE" not in found, statement
        if str(READY) in statement:
            assert "ix_recipients_ready" in found, statement
        if str(WAITING) in statement:
            assert "ix_recipients_waiting" in found, statement
        if str(LIVE_MESSAGES) in statement:
            assert "ix_messages_live" in found, statement
        if "claimed_by >" in statement:
            assert "ix_recipients_claimed_by" in found, statement


def test_a_busy_domain_costs_a_seek_and_not_its_backlog(backlog: Backlog) -> None:
    backlog.add(3000, lambda _: {"state": "queued", "domain": "a.example", "origin": BULK})
    backlog.add(1, lambda _: {"state": "queued", "domain": "b.example", "origin": BULK})
    found = backlog.run(look(10, shares(["a.example"])))
    assert [(turn.domain, turn.recipients) for turn in found.turns] == [("b.example", 1)]
    assert found.passed_domains == {"a.example"}
    assert found.whole


def test_senders_take_turns_and_a_bulk_job_gets_what_is_left(backlog: Backlog) -> None:
    backlog.add(2000, lambda n: {"state": "queued", "domain": f"d{n}.example", "origin": BULK})
    backlog.add(3, lambda n: {"state": "queued", "domain": "x.example", "origin": 100 + n})
    found = backlog.run(look(40))
    by_origin: dict[int, int] = {}
    for turn in found.turns:
        by_origin[turn.origin] = by_origin.get(turn.origin, 0) + turn.recipients
    assert by_origin == {BULK: 37, 100: 1, 101: 1, 102: 1}


def test_the_domains_of_one_sender_take_turns(backlog: Backlog) -> None:
    backlog.add(500, lambda _: {"state": "queued", "domain": "a.example"})
    backlog.add(1, lambda _: {"state": "queued", "domain": "z.example"})
    place = Place()
    looks = [backlog.run(look(5, place=place)) for _ in range(2)]
    assert "z.example" in [turn.domain for found in looks for turn in found.turns]
    assert all(sum(turn.recipients for turn in found.turns) == 5 for found in looks)


def test_recipients_of_one_message_stay_together(backlog: Backlog) -> None:
    backlog.add(40, lambda n: {"state": "queued", "domain": f"d{n // 10}.example"})
    place = Place()
    looks = [backlog.run(look(10, place=place)) for _ in range(2)]
    assert [[turn.recipients for turn in found.turns] for found in looks] == [[10], [10]]


def test_more_senders_than_there_is_room_for_all_get_a_turn(backlog: Backlog) -> None:
    backlog.add(300, lambda n: {"state": "queued", "origin": n % 30})
    place, seen = Place(), set()
    for _ in range(6):
        seen |= {turn.origin for turn in backlog.run(look(5, place=place)).turns}
    assert seen == set(range(30))


def test_no_sender_gets_more_than_its_share(backlog: Backlog) -> None:
    backlog.add(50, lambda n: {"state": "queued", "domain": f"d{n}.example"})
    taken = Shares(16, 100)
    taken.take(BULK, "d0.example", 2)
    found = backlog.run(look(40, taken))
    assert sum(turn.recipients for turn in found.turns) == 10  # three quarters of sixteen, with those two
    for turn in found.turns:
        taken.take(turn.origin, turn.domain, turn.recipients)
    assert backlog.run(look(40, taken)).passed_origins == {BULK}


def test_a_look_is_bounded_and_the_next_one_goes_on(backlog: Backlog) -> None:
    """However many senders wait for one busy domain, what another domain waits for is found, in parts."""
    backlog.add(3000, lambda n: {"state": "queued", "domain": "busy.example", "origin": n})
    backlog.add(1, lambda _: {"state": "queued", "domain": "free.example", "origin": 9000})
    place, looks = Place(), 0
    while True:
        looks += 1
        found = backlog.run(look(50, BUSY, place))
        if found.turns:
            break
        assert not found.whole
        assert looks <= 2 + 9 * 3001 // MAX_SEEKS
    assert [turn.domain for turn in found.turns] == ["free.example"]


def test_what_falls_due_does_so_in_batches(backlog: Backlog) -> None:
    backlog.add(1200, lambda n: {"next_attempt": NOW - 2000 + n})
    assert [backlog.run(due) for _ in range(4)] == [500, 500, 200, 0]


async def test_a_dead_workers_claims_come_back_whatever_else_waits(here: World) -> None:
    for number in range(3):
        await here.accept(f"w{number}@x.example")
    worker = World(here.data_dir, clock=here.clock)
    worker.open()
    await worker.claim(2)
    worker.crash()
    found = await here.store.write(lambda tx: recover(tx, here.store, worker.store.incarnation.id))
    assert found.recipients == 2


async def test_a_sibling_that_was_faster_leaves_the_rest(here: World) -> None:
    """Two processes that look at the same moment take different recipients, and no one is taken twice."""
    await here.accept(*(f"a{n}@x.example" for n in range(30)))
    other = World(here.data_dir, clock=here.clock)
    other.open()
    taken = await asyncio.gather(*(one.queue.take(10, shares()) for one in (here, other, here)))
    seen = [entry.n for one in taken for claim in one.claims for entry in claim.recipients]
    assert len(seen) == len(set(seen)) == 30
    await other.close()


async def test_what_is_due_again_is_claimed_in_one_step(here: World) -> None:
    claim = await here.claimed()
    await here.end(claim, StateEvent.DEFER, next_attempt=here.clock.time() + 60)
    await here.clock.advance(60)
    taken = await here.queue.take(10, shares())
    assert [found.message.id for found in taken.claims] == [claim.message.id]
    assert await here.state(claim.message.id) is State.DELIVERING
