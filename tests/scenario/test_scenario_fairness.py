"""A bulk job and single letters: whoever writes one letter does not wait for the end of somebody else's thousands."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import update

from gateway.store.schema import WAITING, recipients
from gateway.testing import Behaviour, delay, poll
from tests.scenario.conftest import Build
from tests.scenario.world import MX, Host, World

#: Seconds that a letter may take from its 250 to the 250 of its recipient's host, on a machine that is busy besides.
BOUND = 4.0
#: Each message takes the peer a moment, so that the job lasts, and fills its site, while the letters are written.
BIG = Behaviour(dot=delay(0.02))


async def hand_in(world: World, address: str, sender: str, recipients: list[str]) -> list[str]:
    """One connection, a message a recipient; their ids."""
    port = world.gateway._ingress.bound[0].port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))

    async def reply(code: bytes) -> str:
        while (line := await reader.readline())[3:4] == b"-":
            pass
        assert line.startswith(code), line
        return line.decode().split()[-1]

    await reply(b"220")
    writer.write(b"EHLO client.example\r\n")
    await reply(b"250")
    ids = []
    for recipient in recipients:
        envelope = f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
        writer.write(envelope.encode())
        for code in (b"250", b"250", b"354"):
            await reply(code)
        writer.write(f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: x\r\n\r\nx\r\n.\r\n".encode())
        ids.append(await reply(b"250"))
    writer.close()
    return ids


async def letter(world: World, address: str, sender: str, recipient: str) -> float:
    """Seconds from the 250 until it was delivered."""
    (message,) = await hand_in(world, address, sender, [recipient])
    begun = time.monotonic()
    await world.delivered(message)
    return time.monotonic() - begun


async def busy_world(build: Build) -> World:
    office = {"name": "office", "accept": {"networks": ["127.0.0.1/32"]}, "senders": ["*"]}
    ward = {"name": "ward", "accept": {"networks": ["127.0.0.99/32"]}, "senders": ["*"]}
    generous = {"limits": {"messages_per_minute": 1_000_000, "connections": 100}}
    return await build(
        hosts={MX: Host(behaviour=BIG), "mx1.other.example": Host()},
        domains={"good.example": (MX,), "other.example": ("mx1.other.example",)},
        settings={"connectors": [{**office, **generous}, {**ward, **generous}]},
        delivery={"connections": {"per_site": 6, "idle": "2s"}, "retry": {"first": "1m"}},
    )


async def bulk(world: World, messages: int) -> None:
    """From ten connections at once, one sender."""
    parts = [[f"p{number}@good.example" for number in range(part, messages, 10)] for part in range(10)]
    await asyncio.gather(*(hand_in(world, "127.0.0.1", "bulk@clinic.example", part) for part in parts))


async def letters(world: World, *recipients: str) -> list[float]:
    """Now and then one of another sender of the same connector, and one by another connector, to each."""
    waits: list[float] = []
    for number in range(5):
        for recipient in recipients:
            waits += await asyncio.gather(
                letter(world, "127.0.0.1", f"dr{number}@clinic.example", recipient),
                letter(world, "127.0.0.99", "nurse@ward.example", recipient),
            )
    return waits


async def test_letters_pass_a_bulk_job_that_has_filled_their_site(build: Build) -> None:
    world = await busy_world(build)
    job = asyncio.create_task(bulk(world, 2000))
    await poll(lambda: len(world.peer.messages) > 100, 60, what="the bulk job to run")
    before, begun = len(world.peer.messages), time.monotonic()
    waits = await letters(world, "pat@good.example", "sam@other.example")
    passed, seconds = len(world.peer.messages) - before, time.monotonic() - begun
    assert max(waits) < BOUND, sorted(waits)
    assert before + passed < 2000, "the job was over before the letters"
    assert passed > len(waits) + 5 * seconds, "the job was starved meanwhile"
    await job
    await poll(lambda: len(world.peer.messages) == 2000 + len(waits) // 2, 90, what="the end of the bulk job")


async def test_what_was_queued_before_a_start_is_delivered_in_turn(build: Build) -> None:
    """A restart with a bulk job in the queue: the letter that came last is among the first."""
    world = await busy_world(build)
    await world.peer.stop()
    world.peers[MX].behaviour = Behaviour()
    await bulk(world, 500)
    (message,) = await hand_in(world, "127.0.0.99", "nurse@ward.example", ["pat@good.example"])
    await world.stop()
    await world.peer.start()
    await world.start()
    await retried(world, message)


async def retried(world: World, message: str) -> None:
    """Make what waits for its time due, all at once, and see the letter through."""
    await world.gateway._store.write(
        lambda tx: tx.connection.execute(update(recipients).where(WAITING).values(next_attempt=tx.now)) and None
    )
    world.gateway._queue.wake.set()
    begun = time.monotonic()
    await world.delivered(message)
    assert time.monotonic() - begun < BOUND
