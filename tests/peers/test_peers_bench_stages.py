"""The profile's stages: sampled stacks of the hot path each come to the stage that they belong to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.profile import Samples, divided
from bench.stages import STAGES, Frame, parse, stage_of

ROOT = Path(__file__).parents[2]
LOOP = Frame("Runner.run", "asyncio/runners.py", 118)


def line_of(path: str, says: str) -> int:
    """The number of the first line of a source file on which that pattern is found."""
    for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
        if re.search(says, line):
            return number
    raise AssertionError(f"{path} has no line with {says}: the rules of bench/stages.py have become untrue")


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        ([LOOP], "event loop in C"),
        ([LOOP, Frame("SSLObject.write", "ssl.py", 930)], "TLS and sockets"),
        ([LOOP, Frame("SmtpSession.run", "gateway/ingress/session.py", 1)], "ingress session"),
        ([LOOP, Frame("evaluate", "gateway/policy/evaluate.py", 1)], "policy"),
        ([LOOP, Frame("f", "gateway/ingress/intake.py", 1), Frame("dumps", "json/__init__.py", 1)], "ingress session"),
        ([LOOP, Frame("to_json", "gateway/jsontext.py", 1), Frame("dumps", "json/__init__.py", 1)], "events and JSON"),
        ([LOOP, Frame("msg", "structlog/_output.py", 1), Frame("dumps", "json/__init__.py", 1)], "log"),
        ([Frame("Writer._run", "gateway/store/writer.py", 1)], None),
        ([Frame("_worker", "concurrent/futures/thread.py", 81)], None),
        ([Frame("do_commit", "sqlalchemy/engine/default.py", 954)], "SQLite in C"),
        ([Frame("main", "elsewhere.py", 1)], "other"),
        ([], "other"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_a_stack_comes_to_its_stage(frames: list[Frame], stage: str | None) -> None:
    assert stage_of(frames) == stage


@pytest.mark.parametrize(
    ("path", "says", "stage"),
    [
        ("gateway/ingress/connection.py", r"\.write\(", "TLS and sockets"),
        ("gateway/delivery/protocol.py", r"\.write\(", "TLS and sockets"),
        ("gateway/store/prepared.py", r"\.execute\(", "SQLite in C"),
    ],
)
def test_a_call_into_c_is_told_by_the_line_that_makes_it(path: str, says: str, stage: str) -> None:
    assert stage_of([LOOP, Frame("some_function", path, line_of(path, says))]) == stage


def test_every_room_on_the_way_of_a_message_has_a_stage() -> None:
    rooms = ("ingress", "policy", "store", "queue", "directory", "protect", "delivery", "audit", "observe")
    for room in rooms:
        for path in (ROOT / "gateway" / room).glob("*.py"):
            assert stage_of([LOOP, Frame("f", f"gateway/{room}/{path.name}", 0)]) in set(STAGES) - {"other"}, path


def test_raw_lines_of_py_spy_are_read() -> None:
    thread, name, frames, count = parse(
        "thread (17900): store-write;Thread.run (threading.py:982);<lambda> (<string>:3);f (gateway/store/a b.py:70) 12"
    )
    assert (thread, name, count) == (17900, "store-write", 12)
    assert frames == [
        Frame("Thread.run", "threading.py", 982),
        Frame("<lambda>", "<string>", 3),
        Frame("f", "gateway/store/a b.py", 70),
    ]


def test_a_threads_own_time_is_shared_out_by_its_samples(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text(
        "thread (7): MainThread;run (asyncio/runners.py:118) 30\n"
        "thread (7): MainThread;run (asyncio/runners.py:118);f (gateway/policy/evaluate.py:1) 10\n"
        "thread (8): store-write;Writer._run (gateway/store/writer.py:214) 99\n"
        "thread (8): store-write;do_commit (sqlalchemy/engine/default.py:954) 1\n"
    )
    parts = divided({7: 4.0, 8: 2.0, 9: 0.5}, Samples(tmp_path))
    assert parts["event loop"] == {"event loop in C": 3.0, "policy": 1.0}
    assert parts["writer"] == {"SQLite in C": 2.0}
    assert parts["others"] == {"other": 0.5}
