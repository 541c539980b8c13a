"""Deadlines, slow clients, draining and reloading; time is moved by hand."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.ingress.server import ServerError
from gateway.testing import FakeClock, poll
from tests.ingress.ingress_harness import HEADER, Running, Talker, connector, running, settings_of

BODY = HEADER + b"\r\nhello\r\n"


async def in_data(run: Running) -> Talker:
    client = await run.client()
    await client.hello()
    await client.envelope()
    await client.expect("DATA", 354)
    return client


async def test_a_silent_client_gets_a_421(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(settings_of(tmp_path, limits={"command_timeout": 60.0}), clock=clock) as run:
        client = await run.client()
        await clock.advance(59)
        await client.expect("NOOP", 250)
        await clock.advance(59)
        await client.expect("NOOP", 250)
        await clock.advance(61)
        assert (await client.reply())[0] == 421
        assert await client.at_end()
        await poll(lambda: run.metrics.reasons == ["timeout"])
        assert run.events("refused")[0]["detail"] == "COMMAND"
        await client.close()


async def test_a_client_that_stalls_in_data_gets_a_421(tmp_path: Path) -> None:
    clock = FakeClock()
    settings = settings_of(tmp_path, limits={"data_timeout": 20.0})
    async with running(settings, clock=clock) as run:
        client = await in_data(run)
        client.send(BODY)
        await poll(lambda: run.intake.spools)
        await clock.advance(22)
        assert (await client.reply())[0] == 421
        assert await client.at_end()
        await poll(lambda: run.metrics.results == [("app", "incomplete")])
        assert run.intake.spools[0].aborted
        assert run.metrics.reasons == ["timeout"]
        await client.close()


async def test_a_slow_loris_is_cut_off_after_30_seconds(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(settings_of(tmp_path, limits={"min_data_rate": 100}), clock=clock) as run:
        client = await in_data(run)
        for byte in HEADER[:28]:
            client.send(bytes([byte]))
            await clock.advance(1)
            await client.writer.drain()
        assert not run.metrics.reasons
        await clock.advance(5)
        assert (await client.reply())[1].startswith("4.4.2 Data comes too slowly")
        await poll(lambda: run.metrics.reasons == ["too_slow"])
        await client.close()


async def test_time_that_we_take_ourselves_is_not_the_clients(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(settings_of(tmp_path, limits={"min_data_rate": 1_000_000}), clock=clock) as run:
        run.intake.gate = asyncio.Event()
        client = await in_data(run)
        client.send(BODY + b".\r\n")
        await poll(lambda: run.intake.committing)
        await clock.advance(4000)
        assert not run.metrics.reasons
        run.intake.gate.set()
        assert (await client.reply())[0] == 250
        await client.close()


async def test_a_client_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(settings_of(tmp_path), clock=clock) as run:
        client = await run.client()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined] # a private name of asyncio
        (session,) = run.server._sessions
        # The kernel would take in megabytes of replies before anybody has to wait.
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert session._wire is not None
        session._wire.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

        def stuck() -> bool:
            # Replies pile up until the server's own buffers are full and it waits for the client to read.
            if client.writer.transport.get_write_buffer_size() < 2**20:
                client.send(b"NOOP\r\n" * 20_000)
            return bool(session._paused)  # type: ignore[attr-defined] # of asyncio's flow control

        await poll(stuck, 20)
        await clock.advance(302)
        await clock.advance(10)
        await poll(lambda: run.server.connections == 0)
        client.writer.transport.abort()


async def test_draining_lets_data_finish_and_sends_idle_ones_away(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        idle, busy = await run.client(), await in_data(run)
        draining = asyncio.create_task(run.server.drain(10))
        assert (await idle.reply())[0] == 421
        assert await idle.at_end()
        with pytest.raises(OSError):
            await run.client()
        assert not draining.done()
        busy.send(BODY + b".\r\nNOOP\r\n")
        assert (await busy.reply())[0] == 250
        assert (await busy.reply())[0] == 421
        assert await draining is True
        assert len(run.intake.accepted) == 1
        for client in (idle, busy):
            await client.close()


async def test_draining_ends_even_where_a_client_does_not(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await in_data(run)
        client.send(BODY)
        assert await run.server.drain(0.1) is False
        assert await client.at_end()
        assert not run.intake.accepted
        await client.close()


async def test_a_reload_is_seen_by_the_next_transaction(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        listener = [{"address": "127.0.0.1:0", "tls": "none"}]
        fresh = settings_of(tmp_path, connectors=[connector(senders=["new.example"])], listeners=listener)
        port = run.port
        await run.server.reload(fresh)
        assert [each.port for each in run.server.bound] == [port]
        assert (await client.data(BODY))[0] == 250, "the open transaction keeps its configuration"
        await client.expect("MAIL FROM:<ann@clinic.example>", 550)
        await client.expect("MAIL FROM:<ann@new.example>", 250)
        other = await run.client()
        assert "STARTTLS" not in await other.hello(), "the same socket, new terms"
        for each in (client, other):
            await each.close()


async def test_listeners_come_and_go_and_a_failing_one_changes_nothing(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        (first,) = run.server.bound
        two = [{"address": "127.0.0.1:0", "name": "a"}, {"address": "127.0.0.1:0", "name": "b"}]
        await run.server.reload(settings_of(tmp_path, listeners=two))
        assert [each.listener for each in run.server.bound] == ["a", "b"]
        assert run.server.bound[0].port == first.port
        taken = [{"address": "127.0.0.1:0", "name": "a"}, {"address": str(run.server.bound[1]), "name": "x"}]
        with pytest.raises(ServerError, match=str(run.server.bound[1].port)):
            await run.server.reload(settings_of(tmp_path, listeners=taken))
        assert [each.listener for each in run.server.bound] == ["a", "b"]
        await (await Talker.connect(run.server.bound[1].port)).close()
        await run.server.reload(settings_of(tmp_path, listeners=two[:1]))
        assert [each.listener for each in run.server.bound] == ["a"]


async def test_what_cannot_start_says_so(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        listeners = [{"address": f"127.0.0.1:{run.port}"}]
        with pytest.raises(ServerError, match=str(run.port)):
            async with running(settings_of(tmp_path, listeners=listeners), clock=SystemClock()):
                pass
    with pytest.raises(ServerError, match=r"tls\.certificate"):
        async with running(settings_of(tmp_path, tls={})):
            pass
