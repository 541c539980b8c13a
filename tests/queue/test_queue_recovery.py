"""What a dead worker had comes back, once at once, then by the schedule, then to a person."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from sqlalchemy import select, update

from gateway.queue.flights import Flights, flights_path, read_flights
from gateway.queue.records import Outcome
from gateway.queue.recovery import Recovered, sweep_run_dir
from gateway.queue.states import State, StateEvent
from gateway.store.incarnation import LEASE, Incarnation
from gateway.store.schema import incarnations, recipients
from gateway.testing import FakeClock, poll
from tests.queue.queue_world import World


def beside(here: World) -> World:
    """Another process on the same store."""
    other = World(here.data_dir, clock=here.clock)
    other.open()
    return other


async def test_what_a_living_worker_has_is_left_alone(here: World) -> None:
    worker = beside(here)
    claim = await worker.claimed()
    await here.clock.advance(100_000)  # however old: the lock tells
    assert await here.queue.recover() == Recovered()
    await worker.end(claim, StateEvent.DELIVERED)
    await worker.close()


@pytest.mark.parametrize("how", ["lock", "no lock file", "ended", "no row", "other boot"])
async def test_death_is_known_for_certain(here: World, how: str) -> None:
    worker = beside(here)
    message = (await worker.claimed()).message.id
    name = worker.store.incarnation.id
    if how == "ended":
        await worker.close()
        worker.queue.flights._path.write_bytes(b"")
    else:
        worker.crash()
    if how == "no lock file":
        worker.store.incarnation.lock_path.unlink()
    change = {"other boot": {"boot": "before the power cut"}, "no row": {"id": "renamed"}}.get(how)
    if change:
        query = update(incarnations).where(incarnations.c.id == name).values(**change)
        await here.store.write(lambda tx: tx.connection.execute(query) and None)
    assert (await here.queue.recover()).recipients == 1
    assert await here.state(message) is State.DEFERRED
    await poll(lambda: not list((here.data_dir / "run").glob(f"{name}.flights")))


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_claims_that_a_frozen_process_has_locked_hold_nobody_up(here: World) -> None:
    worker = beside(here)
    locked, free = (await worker.claimed()).message.id, (await worker.claimed()).message.id
    worker.crash()
    with here.store.writer._engine.connect() as frozen:
        frozen.execute(select(recipients).where(recipients.c.message == locked).with_for_update())
        async with asyncio.timeout(5):  # less than it would wait for the lock
            assert (await here.queue.recover()).recipients == 1
        assert (await here.state(locked), await here.state(free)) == (State.DELIVERING, State.DEFERRED)
        frozen.rollback()
    assert (await here.queue.recover()).recipients == 1
    assert await here.state(locked) is State.DEFERRED


async def test_on_another_host_only_the_lease_tells(here: World) -> None:
    worker = beside(here)
    await worker.claimed()
    name = worker.store.incarnation.id
    worker.crash()
    query = update(incarnations).where(incarnations.c.id == name).values(host="elsewhere", place="elsewhere")
    await here.store.write(lambda tx: tx.connection.execute(query) and None)

    async def dead() -> bool:
        return await here.store.read(lambda c: here.store.lives.is_dead(c, name))

    await here.clock.advance(10_000)  # when it was last heard of is told by its clock, which may be wrong
    assert not await dead()
    await here.clock.advance(LEASE)
    assert not await dead()
    here.clock.jump(10_000)
    assert not await dead()
    await here.clock.advance(1)
    assert await dead()
    assert (await here.queue.recover()).recipients == 1


async def test_every_heartbeat_from_another_host_begins_the_lease_anew(here: World) -> None:
    worker = beside(here)
    claim = await worker.claimed()
    name = worker.store.incarnation.id
    query = update(incarnations).where(incarnations.c.id == name).values(host="elsewhere", place="elsewhere")
    await here.store.write(lambda tx: tx.connection.execute(query) and None)
    for _ in range(6):
        assert await here.queue.recover() == Recovered()
        await here.clock.advance(LEASE * 0.7)
        await worker.queue.heartbeat()
    assert worker.queue.holds_lease()
    await worker.end(claim, StateEvent.DELIVERED)
    await worker.close()


async def test_a_lease_lasts_as_long_as_its_holder_says(here: World) -> None:
    """Two gateways with different settings must not disagree about when one of them is dead."""
    worker = beside(here)
    await worker.claimed()
    name = worker.store.incarnation.id
    worker.crash()
    query = update(incarnations).where(incarnations.c.id == name).values(host="x", place="x", lease=600.0)
    await here.store.write(lambda tx: tx.connection.execute(query) and None)
    assert await here.queue.recover() == Recovered()
    await here.clock.advance(600)
    assert await here.queue.recover() == Recovered()
    await here.clock.advance(1)
    assert (await here.queue.recover()).recipients == 1


async def lose(here: World, *, flying: bool) -> Recovered:
    """A worker claims what is due and dies."""
    worker = beside(here)
    for claim in await worker.claim(10):
        if flying:
            worker.queue.flights.take_off(claim.message.id)
    worker.crash()
    await here.clock.advance(0.5)  # so that the order of events of two processes is plain
    return await here.queue.recover()


async def test_the_first_loss_is_due_at_once_the_second_waits_the_third_is_poison(here: World) -> None:
    message = await here.accept()
    assert await lose(here, flying=False) == Recovered(1, 0, 0)
    row = await here.row(message)
    assert (row.state, row.losses, row.attempts, row.next_attempt) == ("deferred", 1, 1, here.clock.time())

    assert await lose(here, flying=False) == Recovered(1, 0, 0)
    row = await here.row(message)
    assert (row.state, row.losses, row.attempts) == ("deferred", 2, 2)
    assert 95 <= row.next_attempt - here.clock.time() <= 144
    assert await here.claim(1) == ()

    await here.clock.advance(144)
    assert await lose(here, flying=False) == Recovered(1, 0, 1)
    row = await here.row(message)
    assert (row.state, row.losses, row.hold_reason, row.claimed_by) == ("held", 3, "poison", None)
    assert row.hold_until == row.expires
    assert "alarm" in await here.kinds(message)
    assert await here.has_body(message)


async def test_what_was_on_a_connection_may_have_arrived(here: World) -> None:
    message = await here.accept()
    assert await lose(here, flying=True) == Recovered(1, 1, 0)
    row = await here.row(message)
    assert (row.state, row.losses) == ("deferred", 1)
    assert 47 <= row.next_attempt - here.clock.time() <= 72  # as its claim had set it
    assert here.heard.duplicates == 1
    assert (await here.trace(message))["recipients"][0]["events"][-1]["data"]["possible_duplicate"] is True


async def test_only_what_was_flying_counts(here: World) -> None:
    flying, waiting = await here.accept("a@x.example"), await here.accept("b@y.example")
    worker = beside(here)
    claims = await worker.claim(10)
    worker.queue.flights.take_off(flying)
    worker.queue.flights.take_off(waiting)
    worker.queue.flights.land(waiting)
    assert len(claims) == 2
    worker.crash()
    assert await here.queue.recover() == Recovered(2, 1, 0)
    assert await here.next_due() == (await here.row(waiting)).next_attempt == here.clock.time()


async def test_after_a_power_cut_no_flight_record_is_believed(here: World) -> None:
    message = await here.accept()
    worker = beside(here)
    await worker.claim(1)
    worker.crash()
    query = update(incarnations).where(incarnations.c.id == worker.store.incarnation.id).values(boot="before")
    await here.store.write(lambda tx: tx.connection.execute(query) and None)
    assert await here.queue.recover() == Recovered(1, 1, 0)
    assert (await here.row(message)).next_attempt > here.clock.time()


async def test_a_worker_that_stopped_in_order_is_no_loss(here: World) -> None:
    """Restarts while a slow peer has the message must not make it look like poison."""
    message = await here.accept()
    for tries in range(1, 6):
        worker = beside(here)
        (claim,) = await worker.claim(1)
        worker.queue.flights.take_off(claim.message.id)
        await worker.close()
        assert await here.queue.recover() == Recovered(1, 1, 0)
        row = await here.row(message)
        assert (row.state, row.losses, row.attempts) == ("deferred", 0, tries)
        await here.clock.advance(row.next_attempt - here.clock.time())


async def test_an_outcome_of_the_dead_comes_too_late(here: World) -> None:
    worker = beside(here)
    claim = await worker.claimed()
    query = update(incarnations).where(incarnations.c.id == worker.store.incarnation.id)
    await here.store.write(lambda tx: tx.connection.execute(query.values(ended=1.0)) and None)
    assert (await here.queue.recover()).recipients == 1
    with pytest.raises(Exception, match="claimed by somebody else"):
        await worker.queue.record(claim, [Outcome(1, StateEvent.DELIVERED)])
    assert await here.state(claim.message.id) is State.DEFERRED
    await worker.close()


async def test_the_clockwork_takes_over_and_survives_what_goes_wrong(here: World) -> None:
    message = await here.accept()
    worker = beside(here)
    await worker.claim(1)
    worker.crash()
    wrong = here.data_dir / "run" / f"{worker.store.incarnation.id}.lock"
    wrong.unlink()
    wrong.mkdir()  # a look at this lock is an error of the system
    turning = asyncio.create_task(here.queue.maintain())
    before = here.store.incarnation.heartbeat_at
    for _ in range(13):
        await turn(here.clock)
    await poll(lambda: here.store.incarnation.heartbeat_at > before)
    assert await here.state(message) is State.DELIVERING
    wrong.rmdir()
    for _ in range(3):
        await turn(here.clock)
    assert await here.state(message) is State.DEFERRED
    assert not turning.done()
    turning.cancel()
    await asyncio.wait({turning})


async def turn(clock: FakeClock) -> None:
    """One turn of the clockwork: its steps are real work on other threads, then it sleeps on the clock."""
    await poll(lambda: clock.sleepers > 0)
    await clock.advance(1)


async def test_the_lease_ends_before_another_host_may_take_over(here: World) -> None:
    assert here.queue.holds_lease()
    await here.clock.advance(LEASE * 0.75)
    assert not here.queue.holds_lease()
    await here.queue.heartbeat()
    assert here.queue.holds_lease()


def test_a_flight_record_is_read_as_it_was_left(tmp_path: Path) -> None:
    assert read_flights(tmp_path, "nobody") is None
    (tmp_path / "empty.flights").write_bytes(b"")
    assert read_flights(tmp_path, "empty") == frozenset()


def test_a_flight_record_has_its_room_from_the_start(tmp_path: Path) -> None:
    """A mapped page that finds the disk full ends the process with a signal, in the middle of a delivery."""
    flights = Flights(tmp_path, "somebody")
    status = flights_path(tmp_path, "somebody").stat()
    assert status.st_blocks * 512 >= status.st_size > 100_000
    flights.close()


async def test_what_dead_processes_leave_behind_is_removed_and_the_living_are_left_alone(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    living, dead, owing = (Incarnation.begin(run_dir) for _ in range(3))
    for incarnation in (living, dead, owing):
        flights_path(run_dir, incarnation.id).touch()
    other = run_dir / "store.lock"
    other.touch()
    for incarnation in (dead, owing):
        os.close(incarnation._handle)  # what the kernel does at the moment of death

    assert sweep_run_dir(run_dir, {owing.id}) == 1

    assert not dead.lock_path.exists()
    assert not flights_path(run_dir, dead.id).exists()
    assert living.lock_path.exists()
    assert flights_path(run_dir, living.id).exists()
    assert flights_path(run_dir, owing.id).exists()
    assert other.exists()
    living.release()
