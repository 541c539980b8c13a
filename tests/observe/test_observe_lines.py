"""Several processes write one log: no line is ever torn, whatever it is written to."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from gateway.observe.lines import LineOutput
from gateway.observe.log import set_up

_LINES = 150
#: Longer than PIPE_BUF (4096), as tracebacks are; and short ones that would slip in between.
_LENGTHS = (20, 9000, 70000)


def write_all(handle: int, *, processes: int = 3) -> list[int]:
    """Children that all write at once, having inherited one output."""
    output = LineOutput(handle)
    pids = []
    for number in range(processes):
        pid = os.fork()
        if not pid:
            try:
                for line in range(_LINES):
                    text = chr(ord("a") + number) * _LENGTHS[(line + number) % len(_LENGTHS)]
                    output.write(json.dumps({"worker": number, "line": line, "text": text}) + "\n")
            finally:
                os._exit(0)
        pids.append(pid)
    return pids


def check(lines: list[str]) -> None:
    seen: dict[int, int] = {}
    for line in lines:
        event = json.loads(line)
        assert len(set(event["text"])) == 1
        assert event["line"] == seen.get(event["worker"], -1) + 1  # in order, too
        seen[event["worker"]] = event["line"]
    assert seen == dict.fromkeys(range(3), _LINES - 1)


def read_all(file: io.TextIOBase, pids: list[int]) -> list[str]:
    with file:
        lines = file.read().splitlines()
    for pid in pids:
        os.waitpid(pid, 0)
    return lines


def pipe() -> tuple[io.TextIOBase, int, Callable[[], None]]:
    reading, writing = os.pipe()
    return os.fdopen(reading), writing, lambda: os.close(writing)


def stream() -> tuple[io.TextIOBase, int, Callable[[], None]]:
    reading, writing = socket.socketpair()  # as from systemd's journal
    file = reading.makefile("r")
    reading.close()
    return file, writing.fileno(), writing.close


@pytest.mark.parametrize("make", [pipe, stream])
def test_lines_of_several_processes_stay_whole(
    make: Callable[[], tuple[io.TextIOBase, int, Callable[[], None]]],
) -> None:
    reading, writing, close = make()
    pids = write_all(writing)
    close()
    check(read_all(reading, pids))


def test_in_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        pids = write_all(file.fileno())
    for pid in pids:
        os.waitpid(pid, 0)
    check(path.read_text().splitlines())


def test_a_writer_that_dies_with_the_lock_does_not_keep_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    output = LineOutput(writing)
    pid = os.fork()
    if not pid:
        try:
            output.write("x" * 1_000_000 + "\n")  # fills the pipe, and waits in it for ever
        finally:
            os._exit(0)
    assert os.read(reading, 1) == b"x"
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.set_blocking(reading, False)
    with suppress(BlockingIOError):
        while os.read(reading, 1 << 20):
            pass
    output.write("mine\n")
    assert os.read(reading, 100) == b"mine\n"
    os.close(reading)
    output.write("nobody reads\n")
    os.close(writing)


def test_each_line_has_its_workers_number() -> None:
    log = io.StringIO()
    set_up(level="info", output="json", addresses=False, stream=log, worker=2)
    try:
        structlog.get_logger().info("accepted")
    finally:
        structlog.reset_defaults()
    assert json.loads(log.getvalue())["worker"] == 2
