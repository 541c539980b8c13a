"""A verb killed at its N-th statement: ``python -m tests.store.killed_at SOURCE WORK N,N,... VERB``.

For each N the directory SOURCE is copied to WORK/N, and the verb run on WORK/N/gateway.yaml in a child, which sends
itself SIGKILL where a connection is about to execute its N-th statement. Prints the numbers at which it was killed, as
JSON; a verb that ends before is the last.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from gateway.cli import gateway


def die_at(number: int) -> None:
    """Count what all connections of this process execute from now on."""
    seen = 0

    def count(_statement: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    @event.listens_for(Engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.set_trace_callback(count)


def run(directory: Path, number: int, verb: Sequence[str]) -> bool:
    """Whether it was killed. Raises ``RuntimeError`` where it failed by itself."""
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)  # what the verb says is not for the test
        die_at(number)
        words = [word.replace("DIRECTORY", str(directory)) for word in verb]
        gateway.main([*words, "--config", str(directory / "gateway.yaml")])
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"{' '.join(verb)} failed in {directory}")
    return False


def main(source: Path, work: Path, numbers: Sequence[int], verb: Sequence[str]) -> None:
    """All of it."""
    killed = []
    for number in numbers:
        directory = work / str(number)
        shutil.copytree(source, directory)
        if not run(directory, number, verb):
            break
        killed.append(number)
    print(json.dumps(killed))  # noqa: T201  what the test reads


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(text) for text in sys.argv[3].split(",")], sys.argv[4:])
