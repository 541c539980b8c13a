"""P7 in the portal over ``kill -9``: what a recipient has seen is written down as read before any of it is shown.

A recipient signs in by HTTP, as a browser does, and opens one message after the other; each time the whole gateway is
killed at a random moment of that. Whatever of the content came through, the trace has the message as ``picked_up``; the
session goes on after each start, and what was not seen yet can be read then.
"""

from __future__ import annotations

import asyncio
import random
import re
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.testing import CA, DnsServer, SmtpPeer, free_port, poll
from tests.crash.scene import budget
from tests.peers.gateway_process import GatewayProcess

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(900)]

MX, TO = "127.0.0.61", "pat@good.example"
POLICY = {"version": 1, "protection": {"methods": ["portal"]}}


@dataclass
class Clinic:
    """A gateway with a portal, and the recipient's mail host."""

    gateway: GatewayProcess
    peer: SmtpPeer
    url: str

    def text(self, number: int) -> str:
        """A mail of ours at the recipient's, without soft line breaks."""
        return self.peer.messages[number].raw.decode().replace("=\r\n", "").replace("=3D", "=")

    async def start(self) -> None:
        await asyncio.to_thread(self.gateway.start, seconds=120)

    def send(self, number: int) -> None:
        with smtplib.SMTP(self.gateway.address, self.gateway.port, timeout=30) as client:
            raw = f"From: dr@clinic.example\r\nTo: {TO}\r\nSubject: s{number}\r\n\r\nseen-{number}-seen\r\n"
            client.sendmail("dr@clinic.example", [TO], raw)


@asynccontextmanager
async def clinic(directory: Path) -> AsyncIterator[Clinic]:
    ca = CA()
    port, web = free_port(MX), free_port()
    async with DnsServer(f"good.example. MX 10 mx.good.example.\nmx.good.example. A {MX}\n") as dns:
        peer = SmtpPeer(MX, port, certificate=ca.issue("mx.good.example"), hostname="mx.good.example")
        await peer.start()
        url = f"http://127.0.0.1:{web}"
        gateway = GatewayProcess(
            directory,
            resolver=dns.resolver,
            trust=ca,
            settings={
                "delivery": {"port": port},
                "portal": {"url": url, "listen": f"127.0.0.1:{web}"},
            },
            policies={"policy.yaml": POLICY},
        )
        try:
            yield Clinic(gateway, peer, url)
        finally:
            await asyncio.to_thread(gateway.kill9)
            await peer.stop()


async def signed_in(here: Clinic, client: httpx.AsyncClient) -> None:
    """Follow the first link, ask for a code, and enter it."""
    link = re.search(rf"{re.escape(here.url)}(/m/\w+)", here.text(0))
    assert link is not None
    before = len(here.peer.messages)
    await send_form(client, await client.get(link[1]), "/m/")
    await poll(lambda: len(here.peer.messages) > before, 30, what="the code's mail")
    code = re.search(r"^  ([0-9]{6})\r$", here.text(before), re.MULTILINE)
    assert code is not None
    answer = await send_form(client, await client.get("/code"), "/code", code=code[1])
    assert answer.url.path.startswith("/read/"), answer.url


async def send_form(client: httpx.AsyncClient, page: httpx.Response, action: str, **values: str) -> httpx.Response:
    """Send the form of a page that goes there, with its hidden fields."""
    for form in re.findall(r"<form .*?</form>", page.text, re.DOTALL):
        goes = re.search(r'action="([^"]*)"', form)
        assert goes is not None
        if action in goes[1]:
            hidden = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form))
            headers = {"Sec-Fetch-Site": "same-origin"}
            return await client.post(goes[1], data={**hidden, **values}, headers=headers, follow_redirects=True)
    raise AssertionError(page.text)


async def looked_at(client: httpx.AsyncClient, id_: str) -> str:
    """What came through of a message until the connection broke."""
    seen = ""
    with suppress(httpx.HTTPError):
        for path in (f"/read/{id_}", f"/read/{id_}/body"):
            async with client.stream("GET", path) as answer:
                async for piece in answer.aiter_text():
                    seen += piece
    return seen


async def test_what_was_seen_is_written_down_whenever_the_kill_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, chance = int(budget("READ_KILLS", 3)), random.Random(int(budget("SEED", 20260302)))
    saw = 0
    async with clinic(tmp_path) as here:
        await here.start()
        for number in range(wanted + 1):
            await asyncio.to_thread(here.send, number)
        await poll(lambda: len(here.peer.messages) > wanted, 60, what="the notices")
        listed = await asyncio.to_thread(here.gateway.portal_list)
        ids = [entry["id"] for entry in listed]
        async with httpx.AsyncClient(base_url=here.url, timeout=30) as client:
            await signed_in(here, client)  # and the page that follows shows the first one
            for id_ in ids[1:]:
                looking = asyncio.create_task(looked_at(client, id_))
                await asyncio.sleep(chance.uniform(0, 0.06))
                await asyncio.to_thread(here.gateway.kill9)
                seen = await looking
                await here.start()
                state = await asyncio.to_thread(state_of, here.gateway, id_)
                if "-seen" in seen:
                    saw += 1
                    assert state == "picked_up", id_
                assert "-seen" in await looked_at(client, id_), "what was not seen can be read after the start"
                assert await asyncio.to_thread(state_of, here.gateway, id_) == "picked_up"
    with capsys.disabled():
        print(f"\nreading: {wanted} kills, {saw} messages were seen before theirs")  # noqa: T201 - what the run is for


def state_of(gateway: GatewayProcess, id_: str) -> str:
    return {entry["id"]: str(entry["state"]) for entry in gateway.portal_list()}[id_]
