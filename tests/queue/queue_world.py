"""A queue over a real store, a clock that stands still, and short ways to say what a test is about."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from gateway.clock import SteadyClock
from gateway.config.inbound import Connector
from gateway.config.model import Notify as Notices
from gateway.config.model import Settings
from gateway.mail.address import Address
from gateway.mail.attempt import Attempt
from gateway.mail.envelope import Envelope, Kind, Message, Notify, Recipient
from gateway.mail.ids import uuid7
from gateway.mail.protection import Disposition, Requirement
from gateway.mail.reply import Reply
from gateway.queue.queue import Queue, QueueObserver
from gateway.queue.records import Claim, Idempotency, NewMessage, NewRecipient, Outcome
from gateway.queue.shares import Shares
from gateway.queue.states import LIVE, State, StateEvent
from gateway.queue.turns import Place, look_for_turns
from gateway.queue.views import trace_messages
from gateway.store.counting import counted
from gateway.store.schema import bodies, messages, recipients
from gateway.store.store import Store
from gateway.testing import FakeClock
from tests.store import store_world

BODY = (
    b"From: anna@clinic.example\r\nTo: bob@payer.example\r\nSubject: the diagnosis\r\n"
    b"Message-ID: <1@clinic.example>\r\n\r\nsecret\r\n"
)
SENDER = "anna@clinic.example"


class Heard(QueueObserver):
    """Remembers what the queue told."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.duplicates = 0
        self.lost_letters = 0

    def letter_lost(self) -> None:
        self.lost_letters += 1

    def terminal(self, method: str, state: str) -> None:
        self.ended.append((method, state))

    def possible_duplicates(self, number: int) -> None:
        self.duplicates += number


@dataclass
class World:
    """One data directory and the queue that has it open; :meth:`crash` and :meth:`restart` change processes."""

    data_dir: Path
    clock: FakeClock = field(default_factory=FakeClock)
    heard: Heard = field(default_factory=Heard)
    connectors: tuple[Connector, ...] = ()
    notify: Notices = field(default_factory=Notices)
    queue: Queue = field(init=False)

    @property
    def store(self) -> Store:
        return self.queue.store

    def settings(self) -> Settings:
        return store_world.settings(self.data_dir).model_copy(
            update={"connectors": self.connectors, "notify": self.notify}
        )

    def open(self) -> None:
        steady = SteadyClock(self.clock)
        store = Store.open(self.settings(), steady, environ={})
        self.queue = Queue.over(store, self.settings, steady, chance=random.Random(1), observer=self.heard)

    async def close(self) -> None:
        self.queue.close()
        await self.store.close()

    def crash(self) -> None:
        """As ``kill -9``: the lock is free, the flight record and the claims stay as they are."""
        store_world.kill(self.store)
        self.queue.flights._map.close()

    async def restart(self) -> None:
        await self.close()
        self.open()

    async def new(
        self,
        *to: str | NewRecipient,
        sender: str | None = SENDER,
        data: bytes = BODY,
        kind: Kind = Kind.ORDINARY,
        state: State = State.QUEUED,
        notify: frozenset[Notify] = frozenset(),
        requirement: Requirement | None = None,
        hold_until: float | None = None,
        idempotency: Idempotency | None = None,
        signature: bytes | None = None,
    ) -> NewMessage:
        """A message that is ready to be accepted."""
        message_id = uuid7(self.clock.time(), os.urandom(10))
        body = await store_world.spooled(self.store, data, message_id)
        entries = tuple(
            entry
            if isinstance(entry, NewRecipient)
            else NewRecipient(Recipient(Address.parse(entry), notify), requirement or Requirement(), state, hold_until)
            for entry in to or ("bob@payer.example",)
        )
        envelope = Envelope(
            None if sender is None else Address.parse(sender),
            tuple(entry.recipient for entry in entries),
            "office",
            "192.0.2.1",
            "client.clinic.example",
        )
        message = Message(message_id, self.clock.time(), envelope, body.size, body.digest, kind)
        return NewMessage(message, body, entries, signature=signature, idempotency=idempotency)

    async def accept(self, *to: str | NewRecipient, **how: Any) -> str:
        """An accepted message's id."""
        new = await self.new(*to, **how)
        await self.queue.accept(new)
        return new.message.id

    async def claimed(self, *to: str | NewRecipient, **how: Any) -> Claim:
        """The only claim of a new message."""
        await self.accept(*to, **how)
        (claim,) = await self.claim(100)
        return claim

    async def claim(self, limit: int, busy: Collection[str] = ()) -> tuple[Claim, ...]:
        """What the scheduler would claim with so much room, and none at these domains."""
        return (await self.queue.take(limit, shares(busy))).claims

    async def next_due(self, busy: Collection[str] = ()) -> float | None:
        """When there is something to claim: now, at the time of the next that waits, or never."""
        look = await self.store.read(lambda connection: look_for_turns(connection, 1, shares(busy), Place()))
        return self.clock.time() if look.turns else look.first_waiting

    async def end(self, claim: Claim, event: StateEvent, **how: Any) -> None:
        """The same outcome for every recipient of a claim."""
        await self.queue.record(claim, [Outcome(entry.n, event, **how) for entry in claim.recipients])

    async def held(self, *to: str, rule: str = "review", hold_until: float | None = None, **how: Any) -> str:
        """An accepted message that a rule holds for a day."""
        requirement = Requirement(disposition=Disposition.HOLD, reason="look at it", hold_rules=(rule,), digest="p1")
        until = self.clock.time() + 86400.0 if hold_until is None else hold_until
        how.setdefault("requirement", requirement)
        return await self.accept(*to, state=State.HELD, hold_until=until, **how)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def row(self, message: str, n: int = 1) -> Any:
        query = select(recipients).where(recipients.c.message == message, recipients.c.n == n)
        return await self.store.read(lambda c: c.execute(query).one())

    async def state(self, message: str, n: int = 1) -> State:
        return State((await self.row(message, n)).state)

    async def trace(self, message: str) -> dict[str, Any]:
        (found,) = await self.store.read(lambda c: trace_messages(c, [message]))
        return found

    async def kinds(self, message: str, n: int = 1) -> list[str]:
        """The kinds of a recipient's events, in order."""
        found = await self.trace(message)
        return [event["kind"] for event in found["recipients"][n - 1]["events"]]

    async def notices(self, message: str) -> list[str]:
        """The texts of the notices about a message, oldest first."""
        found = (await self.trace(message))["notices"]
        return [(await store_world.read_body(self.store, notice)).decode() for notice in sorted(found)]

    async def has_body(self, message: str) -> bool:
        query = select(messages.c.data_key, bodies.c.message).outerjoin_from(
            messages, bodies, bodies.c.message == messages.c.id
        )
        row = await self.store.read(lambda c: c.execute(query.where(messages.c.id == message)).one())
        assert (row[0] is None) is (row[1] is None)
        return row[1] is not None

    async def check(self) -> None:
        """What holds whatever happened: counters, live counts, bodies, chains."""

        def load(connection: Any) -> tuple[Any, Any, dict[str, int]]:
            return (
                connection.execute(select(recipients)).all(),
                connection.execute(
                    select(
                        messages.c.id, messages.c.live, messages.c.data_key, bodies.c.blob, bodies.c.message
                    ).outerjoin_from(messages, bodies, bodies.c.message == messages.c.id)
                ).all(),
                counted(connection),
            )

        rows, found, numbers = await self.store.read(load)
        for state in State:
            number = sum(row.state == state for row in rows)
            if state in LIVE:
                assert numbers[f"recipients.{state}"] == number, state
            else:
                assert f"recipients.{state}" not in numbers
        files = {path.name for path in store_world.body_files(self.data_dir)}
        for message in found:
            live = sum(row.message == message.id and State(row.state) in LIVE for row in rows)
            assert message.live == live
            assert (message.data_key is not None) is (message.message is not None) is (live > 0)
            assert message.blob is None or message.blob in files
        for row in rows:
            assert (row.claimed_by is not None) is (row.state == State.DELIVERING)
        assert set((await store_world.stream_faults(self.store)).values()) == {""}


def shares(busy: Collection[str] = ()) -> Shares:
    """Of so many slots that no share is ever reached, but at these domains."""
    made = Shares(1_000_000, 1000)
    for domain in busy:
        made.take(-1, domain, 1000)
    return made


@asynccontextmanager
async def world(data_dir: Path, connectors: Sequence[Connector] = ()) -> AsyncGenerator[World, None]:
    """A world that checks itself at its end."""
    made = World(data_dir, connectors=tuple(connectors))
    made.open()
    try:
        yield made
        await made.check()
    finally:
        await made.close()


def attempt(clock: FakeClock, outcome: str = "delivered", code: int = 250) -> Attempt:
    """Evidence of one try."""
    return Attempt(clock.time(), "mx.payer.example", "192.0.2.7", None, Reply(code, "2.0.0", "ok"), outcome)
