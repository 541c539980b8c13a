"""A clock that jumps: nothing ends by it, tries go on by the other one, until time agrees or a person accepts it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection, text

from gateway.clock import SteadyClock
from gateway.errors import QueueError
from gateway.queue.states import State, StateEvent
from gateway.store.incarnation import boot_id
from gateway.store.schema import recipients
from gateway.store.timekeeping import LONGEST_PAUSE, MAX_STEP, ClockRecord, judged, save
from gateway.testing import FakeClock
from tests.queue.queue_world import World

HOUR, DAY = 3600.0, 86400.0
WALL, MONO = 1_000_000.0, 500.0
GOOD = ClockRecord("this", WALL - MONO)
JUMPED = replace(GOOD, doubt="jump", since=WALL)
STARTED = replace(GOOD, doubt="start", since=WALL, last=WALL - 8 * DAY)


@pytest.mark.parametrize(
    ("record", "boot", "moved", "doubt"),
    [
        (GOOD, "this", 0.0, ""),
        (GOOD, "this", MAX_STEP, ""),
        (GOOD, "this", MAX_STEP + 1, "jump"),
        (GOOD, "this", -MAX_STEP - 1, "jump"),
        (GOOD, "next", 5 * DAY, ""),
        (JUMPED, "this", 10 * HOUR, "jump"),
        (JUMPED, "this", 10.0, ""),
        (JUMPED, "next", 10.0, "reboot"),
        (replace(JUMPED, doubt="reboot"), "this", 0.0, "reboot"),
        (STARTED, "this", 0.0, "start"),
        (STARTED, "next", 60.0, "start"),
        (STARTED, "this", -2 * DAY, ""),
        (STARTED, "this", 30 * DAY, "start"),
        (replace(STARTED, last=WALL + 8 * DAY), "this", 2 * DAY, ""),
    ],
)
def test_what_two_clocks_say(record: ClockRecord, boot: str, moved: float, doubt: str) -> None:
    found = judged(record, boot, WALL + moved, MONO)
    assert found.doubt == doubt
    assert judged(found, boot, WALL + moved, MONO) == found
    if doubt != "jump":  # else the old distance is what time is told by
        assert found.boot == boot
        assert abs(found.offset + MONO - WALL - moved) <= MAX_STEP


async def test_a_steady_clock_goes_on_where_the_wall_is_set() -> None:
    wall = FakeClock(WALL)
    clock = SteadyClock(wall)
    wall.jump(100)
    assert (clock.time(), clock.jumped) == (WALL + 100, False)
    wall.jump(10 * HOUR)
    await wall.advance(5)
    assert (clock.time(), clock.wall(), clock.jumped) == (WALL + 5, WALL + 105 + 10 * HOUR, True)
    clock.believe(wall.time() - wall.monotonic())
    assert (clock.time(), clock.jumped) == (clock.wall(), False)


async def kinds(here: World) -> list[str]:
    """Events of the clock, in order."""

    def read(connection: Connection) -> str:
        found = connection.execute(text("select kinds from events where kinds like '%clock%' order by time, seq"))
        return "".join(row[0] for row in found)

    return (await here.store.read(read)).split()


@pytest.mark.parametrize("hours", [10, -10])
async def test_a_jump_ends_nothing_and_tries_go_on(here: World, hours: int) -> None:
    held = await here.held(hold_until=here.clock.time() + HOUR)
    claim = await here.claimed("late@x.example")
    await here.end(claim, StateEvent.DEFER, next_attempt=here.clock.time() + 60)
    here.clock.jump(hours * HOUR)
    assert here.queue.timekeeper.in_doubt  # before anybody has looked
    assert await here.claim(10) == ()
    assert await here.queue.expire_holds() == 0
    await here.queue.timekeeper.step()
    assert "was set to" in here.queue.timekeeper.problem
    await here.clock.advance(60)
    (again,) = await here.claim(10)
    row = await here.row(again.message.id)
    assert 90 <= row.next_attempt - (here.clock.time() - hours * HOUR) <= 150
    assert await here.state(held) is State.HELD
    assert await kinds(here) == ["clock_doubted"]


async def test_what_is_over_ends_once_a_person_accepts_the_clock(here: World) -> None:
    held = await here.held(hold_until=here.clock.time() + HOUR)
    other = World(here.data_dir, clock=here.clock)
    other.open()
    here.clock.jump(10 * HOUR)
    for world in (here, other):
        await world.queue.timekeeper.step()
        assert world.queue.timekeeper.in_doubt
    await here.clock.advance(1)
    await other.queue.timekeeper.accept(operator="root", reason="the clock had stood still")
    await here.queue.timekeeper.step()
    assert not here.queue.timekeeper.in_doubt
    assert here.queue.timekeeper.problem == ""
    assert await here.queue.expire_holds() == 1
    assert await here.state(held) is State.BOUNCED
    assert await kinds(here) == ["clock_doubted", "clock_accepted"]
    with pytest.raises(QueueError, match="not in doubt"):
        await here.queue.timekeeper.accept(operator="root")
    await other.close()


async def test_it_is_over_when_time_agrees_again(here: World) -> None:
    here.clock.jump(5 * HOUR)
    await here.queue.timekeeper.step()
    here.clock.jump(-5 * HOUR + 20)
    await here.queue.timekeeper.step()
    assert not here.queue.timekeeper.in_doubt
    assert await kinds(here) == ["clock_doubted", "clock_agrees"]


async def test_a_doubt_survives_a_restart(here: World) -> None:
    here.clock.jump(5 * HOUR)
    await here.restart()
    assert here.queue.timekeeper.in_doubt
    await here.clock.advance(60)
    await here.restart()
    assert here.queue.timekeeper.record.doubt == "jump"
    here.clock.jump(-5 * HOUR)
    await here.queue.timekeeper.step()
    assert not here.queue.timekeeper.in_doubt


async def test_a_reboot_does_not_take_a_doubt_away(here: World) -> None:
    here.clock.jump(5 * HOUR)
    await here.queue.timekeeper.step()
    record = replace(here.queue.timekeeper.record, boot="before the power cut")
    await here.store.write(lambda tx: save(tx.connection, record))
    await here.restart()
    assert here.queue.timekeeper.record.doubt == "reboot"
    assert "before the machine was restarted" in here.queue.timekeeper.problem
    await here.queue.timekeeper.accept(operator="root")
    assert not here.queue.timekeeper.in_doubt


@pytest.mark.parametrize("days", [8, -8])
async def test_a_start_more_than_a_week_from_the_last_event_is_doubted(here: World, days: int) -> None:
    held = await here.held(hold_until=here.clock.time() + HOUR)
    claim = await here.claimed()
    await here.end(claim, StateEvent.DEFER, next_attempt=here.clock.time() + 60)
    other_boot = replace(here.queue.timekeeper.record, boot="another")  # nothing but the last event to compare with
    await here.store.write(lambda tx: save(tx.connection, other_boot))
    await here.close()
    here.clock.jump(days * DAY)
    here.open()
    record = here.queue.timekeeper.record
    assert (record.doubt, record.boot) == ("start", boot_id())
    assert "more than a week" in here.queue.timekeeper.problem
    assert await here.queue.expire_holds() == 0
    await here.queue.bring_forward()
    await here.clock.advance(120)
    assert len(await here.claim(10)) == 1  # tries go on, also where their time is a week ahead
    assert await here.state(held) is State.HELD
    await here.restart()
    assert here.queue.timekeeper.in_doubt
    here.clock.jump(-days * DAY)
    await here.queue.timekeeper.step()
    assert not here.queue.timekeeper.in_doubt


async def test_a_start_within_a_week_is_not(here: World) -> None:
    await here.accept()
    await here.close()
    await here.clock.advance(LONGEST_PAUSE - 60)
    here.open()
    assert not here.queue.timekeeper.in_doubt


async def test_what_a_wrong_clock_put_off_is_brought_forward(here: World) -> None:
    claim = await here.claimed("a@x.example", "b@x.example")
    await here.end(claim, StateEvent.DEFER, next_attempt=here.clock.time() + 8 * DAY)
    later = await here.claimed("c@x.example")
    await here.end(later, StateEvent.DEFER, next_attempt=here.clock.time() + 3 * HOUR)
    assert await here.queue.bring_forward() == 2
    assert await here.queue.bring_forward() == 0
    rows = await here.store.read(lambda c: c.execute(recipients.select().order_by(recipients.c.next_attempt)).all())
    assert [row.next_attempt - here.clock.time() for row in rows] == [60, 60, 3 * HOUR]
