"""A program that writes to a database all the time, keeping invariants: ``python -m tests.store.page_writer``.

Arguments: the data directory, a seed, and ``turn`` where it waits for its turn. It ends with its standard input.
"""

from __future__ import annotations

import random
import select
import sqlite3
import sys
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

from gateway.store.turnstile import Turnstile

__all__ = ["ROWS", "make_table"]

ROWS = 3000


def make_table(data_dir: Path) -> None:
    """The values of all rows sum up to zero; what is logged never has a hole behind its oldest entry."""
    (data_dir / "run").mkdir(parents=True)
    with closing(sqlite3.connect(data_dir / "queue.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, pad BLOB)")
        connection.execute("CREATE TABLE log (n INTEGER PRIMARY KEY AUTOINCREMENT)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES (?, 0, randomblob(2000))", ((n,) for n in range(ROWS)))
        connection.execute("COMMIT")


def main(data_dir: Path, seed: int, *, in_turn: bool) -> None:
    """Each transaction keeps the invariants, and touches pages all over the file."""
    chance = random.Random(seed)
    turnstile = Turnstile(data_dir / "run")
    with closing(sqlite3.connect(data_dir / "queue.db", isolation_level=None, timeout=30)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA secure_delete = ON")
        while not select.select([sys.stdin], [], [], 0)[0]:
            turn: AbstractContextManager[Any] = turnstile.turn() if in_turn else nullcontext()
            with turn:
                change(connection, chance)


def change(connection: sqlite3.Connection, chance: random.Random) -> None:
    """Move a value from one row to another, write an entry of the log, sometimes remove the oldest."""
    value = chance.randrange(100)
    connection.execute("BEGIN IMMEDIATE")
    for sign in (1, -1):
        row = chance.randrange(ROWS)
        connection.execute("UPDATE t SET v = v + ?, pad = randomblob(2000) WHERE id = ?", (sign * value, row))
    connection.execute("INSERT INTO log DEFAULT VALUES")
    if chance.random() < 0.1:
        connection.execute("DELETE FROM log WHERE n <= (SELECT max(n) FROM log) - 50")
    connection.execute("COMMIT")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), in_turn=sys.argv[3] == "turn")
