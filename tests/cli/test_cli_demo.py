"""``gateway demo --once``: all goes as told; what does not is found; nothing stays behind, however it ends."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from gateway.demo.neighbours import NEIGHBOURS, Neighbour, Papers
from gateway.demo.screen import Screen
from gateway.demo.tour import Tour
from gateway.testing import Behaviour, poll, reply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
PATIENCE = 150.0


@asynccontextmanager
async def demo(directory: Path, *arguments: str) -> AsyncIterator[Process]:
    """The program as a process of its own, with its temporary files below ``directory``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from gateway.cli import main; main()", "demo", *arguments),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def excerpt() -> list[str]:
    """What README.md shows of it, a paragraph for each recipient."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## See it work")[2].partition("\n## ")[0]
    shown = "".join(line.removeprefix("    ") for line in section.splitlines(keepends=True) if line.startswith("    "))
    paragraphs = re.split(r"^(?=  \S)", shown, flags=re.MULTILINE)[1:]
    assert len(paragraphs) == 4
    return paragraphs


def processes_of(directory: Path) -> list[int]:
    """Whoever was started for a demo below ``directory``."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(directory) in word for word in process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def nothing_stays(directory: Path) -> None:
    await poll(lambda: not processes_of(directory), 30.0, what="the end of all processes")
    await poll(lambda: not list(directory.iterdir()), 30.0, what="the end of the directory")


async def test_every_recipient_ends_as_told(tmp_path: Path) -> None:
    async with demo(tmp_path, "--once") as process, asyncio.timeout(PATIENCE):
        output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    assert "16 recipients, each ended as told." in text
    assert "do not know a byte of the patient's number" in text
    assert "Subject as received:  Invoice 2041" in text
    assert "  |   rule:      mistyped-tag" in text  # what the reviewer was told
    assert "release: 1 of 1 recipients" in text
    assert "The recipient's mail system refused it for good." in text  # the bounce itself
    assert "got four words to tell by phone" in text
    assert "\x1b" not in text
    assert all(paragraph in text for paragraph in excerpt())
    prose = [line for line in text.splitlines() if not line.startswith(("    $", "  |"))]
    assert max(map(len, prose)) <= 100
    await nothing_stays(tmp_path)


def broken(neighbour: Neighbour) -> Neighbour:
    """As it is, but for two who do not do what the tour tells of them."""
    match neighbour.domain:
        case "lab.example":
            return replace(neighbour, papers=Papers.EXPIRED)
        case "greylist.example":
            return replace(neighbour, behaviour=Behaviour(rcpt=reply(451, "4.7.1 Never")))
        case _:
            return neighbour


async def test_a_neighbour_that_breaks_its_word_is_found_out() -> None:
    paper = io.StringIO()
    screen = Screen(Console(file=paper, width=100, highlight=False))
    neighbours = tuple(map(broken, NEIGHBOURS))
    assert await Tour(screen, once=True, neighbours=neighbours, patience=8.0).run() == 1
    told = " ".join(paper.getvalue().partition("Not everything ended as told")[2].split())
    assert "- bob@lab.example: assurance is encrypted, but should be verified" in told
    assert "- bob@lab.example: state is deposited, but should be delivered" in told
    assert "- eve@greylist.example: state is deferred, but should be delivered" in told
    assert told.count("eve@greylist.example: state") == 1
    assert "dan@selfsigned.example" not in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
async def test_nothing_stays_behind_when_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    async with demo(tmp_path) as process, asyncio.timeout(PATIENCE):
        assert process.stdout is not None
        while b"One message" not in (line := await process.stdout.readline()):
            assert line, "it ended before it began"
        assert processes_of(tmp_path)
        process.send_signal(number)
        await process.communicate()
        assert process.returncode == (-number if number == signal.SIGKILL else 1)
        await nothing_stays(tmp_path)
