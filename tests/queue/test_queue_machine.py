"""Any course of events, with crashes: every accepted recipient is in exactly one state, and all records agree.

A model of dictionaries walks beside the queue. Two processes share the store; each may die at any moment and be
replaced. After every step the counters, live counts, bodies and chains of the store must agree with the rows, and
the rows with the model.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import QueueError
from gateway.mail.address import Address
from gateway.mail.dsn import Action
from gateway.mail.envelope import Kind, Notify, Recipient
from gateway.mail.protection import Disposition, Requirement
from gateway.queue import operate
from gateway.queue.notices import NoticeEntry, make_notice
from gateway.queue.outcomes import LeaseLost
from gateway.queue.records import Claim, NewMessage, NewRecipient, Outcome
from gateway.queue.states import LIVE, TABLE, State, StateEvent, advance
from gateway.queue.views import PAGE, Filter, select_recipients
from gateway.testing import PostgresServer
from tests.both_databases import use_database
from tests.queue.queue_world import World

T = TypeVar("T")
Key = tuple[str, int]

OUTCOMES = sorted(event for (state, event) in TABLE if state is State.DELIVERING and event is not StateEvent.LOST)
HELD = Requirement(disposition=Disposition.HOLD, reason="look", hold_rules=("review",))


class QueueMachine(RuleBasedStateMachine):
    """The queue against a model: ``state``, ``owner`` and ``losses`` of every recipient."""

    claims = Bundle("claims")
    server: ClassVar[PostgresServer | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="queue-machine-"))
        self.database = ""
        self.worlds: list[World] = []
        self.state: dict[Key, State] = {}
        self.owner: dict[Key, str] = {}
        self.losses: dict[Key, int] = {}
        self.silent: dict[str, bool] = {}
        self.held_until: dict[Key, float] = {}
        self.dead: set[str] = set()
        self.ended: set[str] = set()  # in order: what they left behind is no loss

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        if self.server is not None:
            self.database = self.server.create_database()
            use_database(self.directory, self.server.url(self.database))
        first = World(self.directory)
        self.worlds = [first, World(self.directory, clock=first.clock)]
        for world in self.worlds:
            world.open()

    def open(self, world: World) -> None:
        """A start after a long pause doubts the clock, and ends nothing; a person says that it is right."""
        world.open()
        if world.queue.timekeeper.in_doubt:
            self.do(world.queue.timekeeper.accept(operator="root"))

    def teardown(self) -> None:
        for world in self.worlds:
            self.do(world.close())
        self.runner.close()
        if self.server is not None:
            self.server.drop_database(self.database)
        shutil.rmtree(self.directory)

    @property
    def now(self) -> float:
        return self.worlds[0].clock.time()

    # -- events -------------------------------------------------------------------------------------------------------

    @rule(
        who=st.integers(0, 1),
        states=st.lists(
            st.sampled_from([State.QUEUED, State.QUEUED, State.HELD, State.REJECTED]), min_size=1, max_size=4
        ),
        large=st.booleans(),
        sender=st.sampled_from(["anna@clinic.example", None]),
        kind=st.sampled_from([Kind.ORDINARY, Kind.AUTO_REPLY]),
        never=st.booleans(),
        claim=st.booleans(),
        target=claims,
    )
    def accept(
        self,
        who: int,
        states: list[State],
        large: bool,  # noqa: FBT001  drawn by hypothesis, by name
        sender: str | None,
        kind: Kind,
        never: bool,  # noqa: FBT001  the same
        claim: bool,  # noqa: FBT001  the same
    ) -> tuple[int, tuple[Claim, ...]]:
        world = self.worlds[who]
        notify = frozenset({Notify.NEVER} if never else set())
        entries = [
            NewRecipient(
                Recipient(Address.parse(f"r{number}@d{number % 2}.example"), notify),
                HELD if state is State.HELD else Requirement(),
                state,
                self.now + 600 if state is State.HELD else None,
            )
            for number, state in enumerate(states)
        ]
        data = b"From: x\r\n\r\n" + bytes(150_000 if large else 20)

        async def work() -> tuple[NewMessage, tuple[Claim, ...]]:
            new = await world.new(*entries, sender=sender, kind=kind, data=data)
            return new, await world.queue.accept(new, claim=claim)

        new, made = self.do(work())
        self.learn(new)
        for one in made:
            self.take(world, one)
        return who, made

    def learn(self, new: NewMessage) -> None:
        message = new.message
        self.silent[message.id] = message.envelope.sender is None or message.kind in {Kind.AUTO_REPLY, Kind.DSN}
        for n, entry in enumerate(new.recipients, 1):
            key = (message.id, n)
            self.state[key] = entry.state
            self.losses[key] = 0
            if entry.hold_until is not None:
                self.held_until[key] = entry.hold_until

    def take(self, world: World, claim: Claim) -> None:
        for entry in claim.recipients:
            key = (claim.message.id, entry.n)
            assert self.state[key] in {State.QUEUED, State.DEFERRED}
            self.state[key] = State.DELIVERING
            self.owner[key] = world.store.incarnation.id

    @rule(who=st.integers(0, 1), limit=st.integers(1, 6), target=claims)
    def claim(self, who: int, limit: int) -> tuple[int, tuple[Claim, ...]]:
        found = self.do(self.worlds[who].claim(limit))
        assert sum(len(claim.recipients) for claim in found) <= limit
        taken = {(claim.message.id, entry.n) for claim in found for entry in claim.recipients}
        for key, row in self.rows().items():  # others whose time has come may have fallen due
            if row.state == State.QUEUED and self.state[key] is State.DEFERRED and key not in taken:
                assert row.next_attempt <= self.now
                self.state[key] = State.QUEUED
        for claim in found:
            self.take(self.worlds[who], claim)
        return who, found

    @rule(
        taken=claims,
        events=st.lists(st.sampled_from(OUTCOMES), min_size=4, max_size=4),
        wait=st.sampled_from([0.0, 60.0, 1e4]),
        told=st.booleans(),
    )
    def outcome(
        self,
        taken: tuple[int, tuple[Claim, ...]],
        events: list[StateEvent],
        wait: float,
        told: bool,  # noqa: FBT001  drawn by hypothesis
    ) -> None:
        who, found = taken
        world = self.worlds[who]
        for claim in found:
            keys = [(claim.message.id, entry.n) for entry in claim.recipients]
            mine = all(
                self.state[key] is State.DELIVERING and self.owner.get(key) == world.store.incarnation.id
                for key in keys
            )
            outcomes = [
                Outcome(key[1], event, error="e", next_attempt=self.now + wait, hold_until=self.now + wait)
                for key, event in zip(keys, events, strict=False)
            ]
            notices = self.do(self.notices(world, claim, told=told))
            try:
                recorded = self.do(world.queue.record(claim, outcomes, notices))
            except LeaseLost:
                assert not mine
                continue
            assert mine
            for notice in notices:
                self.learn(notice)
            for key, one in zip(keys, outcomes, strict=True):
                after = advance(State.DELIVERING, one.event, can_tell=not self.silent[key[0]]).state
                assert recorded.states[key[1]] is after
                self.state[key] = after
                del self.owner[key]
                if after is State.HELD and one.hold_until is not None:
                    self.held_until[key] = one.hold_until

    async def notices(self, world: World, claim: Claim, *, told: bool) -> list[NewMessage]:
        if not told:
            return []
        known = await world.has_body(claim.message.id)
        entries = [NoticeEntry(entry.recipient, "5.0.0", "no") for entry in claim.recipients]
        made = await make_notice(
            world.store,
            world.settings(),
            world.clock,
            claim.message,
            Action.FAILED,
            entries,
            header=None if known else b"",
        )
        assert made is None or not self.silent[claim.message.id]
        return [] if made is None else [made]

    @rule(who=st.integers(0, 1), flying=st.booleans())
    def crash(self, who: int, flying: bool) -> None:  # noqa: FBT001  drawn by hypothesis
        world = self.worlds[who]
        if flying:
            for message, _ in self.owner:
                world.queue.flights.take_off(message)
        self.dead.add(world.store.incarnation.id)
        world.crash()
        self.open(world)

    @rule(who=st.integers(0, 1))
    def recover(self, who: int) -> None:
        found = self.do(self.worlds[who].queue.recover())
        lost = [key for key, owner in self.owner.items() if owner in self.dead]
        poisoned = 0
        for key in lost:
            died = self.owner.pop(key) not in self.ended
            self.losses[key] += died
            if died and self.losses[key] >= 3:
                poisoned += 1
                self.state[key] = State.HELD
                self.held_until.pop(key, None)
            else:
                self.state[key] = State.DEFERRED
        assert (found.recipients, found.poisoned) == (len(lost), poisoned)

    @rule(seconds=st.sampled_from([1.0, 61.0, 700.0, 20_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.worlds[0].clock.advance(seconds))

    @rule(who=st.integers(0, 1))
    def holds_end(self, who: int) -> None:
        self.do(self.worlds[who].queue.expire_holds())
        rows = self.rows()
        for key, state in list(self.state.items()):
            if state is State.HELD:
                until = self.held_until.get(key)
                if until is None:  # poison: held until the message expires
                    if rows[key].state != State.HELD:
                        self.state[key] = State.DROPPED if self.silent[key[0]] else State.BOUNCED
                elif until <= self.now:
                    self.state[key] = State.DROPPED if self.silent[key[0]] else State.BOUNCED
        self.learn_notices(rows)

    @precondition(lambda self: self.state)
    @rule(
        who=st.integers(0, 1),
        place=st.integers(0, 10_000),
        verb=st.sampled_from(["retry", "hold", "release", "cancel"]),
    )
    def operator(self, who: int, place: int, verb: str) -> None:
        key = sorted(self.state)[place % len(self.state)]
        queue, state = self.worlds[who].queue, self.state[key]
        event = StateEvent(verb)
        try:
            if verb == "retry":
                after = self.do(operate.retry(queue, *key, operator="o"))
            elif verb == "hold":
                after = self.do(operate.hold(queue, *key, operator="o", reason="", seconds=600))
                self.held_until[key] = self.now + 600
            elif verb == "release":
                after = self.do(operate.release(queue, *key, operator="o", reason=""))
                self.losses[key] = 0
            else:
                after = self.do(operate.cancel(queue, *key, operator="o", reason=""))
        except QueueError:
            assert (state, event) not in TABLE or (state is State.DELIVERING and verb == "hold")
            return
        assert after is advance(state, event, can_tell=not self.silent[key[0]]).state
        self.state[key] = after
        self.learn_notices(self.rows())

    @rule(who=st.integers(0, 1))
    def restart_in_order(self, who: int) -> None:
        world = self.worlds[who]
        name = world.store.incarnation.id
        self.do(world.restart())
        self.dead.add(name)
        self.ended.add(name)

    # -- what must hold -----------------------------------------------------------------------------------------------

    def rows(self) -> dict[Key, Any]:
        found: dict[Key, Any] = {}
        after, wanted = ("", 0), Filter(states=frozenset(State))
        while True:
            page = self.do(self.worlds[0].store.read(partial(select_recipients, wanted=wanted, after=after)))
            found |= {(row.message, row.n): row for row in page}
            if len(page) < PAGE:
                return found
            after = (page[-1].message, page[-1].n)

    def learn_notices(self, rows: dict[Key, Any]) -> None:
        """Notices that the queue made by itself are ordinary queued messages with nobody to tell."""
        for key in rows.keys() - self.state.keys():
            assert rows[key].state == State.QUEUED
            assert rows[key].kind == Kind.DSN
            self.state[key], self.losses[key], self.silent[key[0]] = State.QUEUED, 0, True

    @invariant()
    def the_model_agrees(self) -> None:
        if not self.worlds:
            return
        rows = self.rows()
        assert {key: State(row.state) for key, row in rows.items()} == self.state
        assert {key: row.claimed_by for key, row in rows.items() if row.claimed_by} == self.owner
        assert {key: row.losses for key, row in rows.items() if State(row.state) in LIVE} == {
            key: losses for key, losses in self.losses.items() if self.state[key] in LIVE
        }
        self.do(self.worlds[0].check())


TestQueueMachine = pytest.mark.slow(QueueMachine.TestCase)
TestQueueMachine.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


class PostgresMachine(QueueMachine):
    """The same courses of events on PostgreSQL."""


@pytest.fixture
def machine_server(postgres_server: PostgresServer) -> Iterator[None]:
    """The server of the machine, which pytest's fixtures do not reach."""
    PostgresMachine.server = postgres_server
    yield
    PostgresMachine.server = None


TestPostgresMachine = pytest.mark.usefixtures("machine_server")(pytest.mark.slow(PostgresMachine.TestCase))
TestPostgresMachine.settings = settings(max_examples=6, stateful_step_count=25, deadline=None)
