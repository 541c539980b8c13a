"""What reaches the log: never a subject, body, password or full address."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.observe.log import Redaction, set_up


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    set_up(level="info", output="json", addresses=False, stream=stream)
    yield stream
    structlog.reset_defaults()
    logging.getLogger().handlers[:], _ = before
    logging.getLogger().setLevel(before[1])


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("key", ["subject", "body", "content", "password", "secret", "token", "header_block"])
def test_what_must_not_be_logged_is_taken_out_by_its_name(log: io.StringIO, key: str) -> None:
    structlog.get_logger().info("accepted", message="0192", **{key: "HIV test results"})
    (event,) = written(log)
    assert event[key] == "[redacted]"
    assert event["message"] == "0192"
    assert "HIV" not in log.getvalue()


def test_it_is_taken_out_at_any_depth(log: io.StringIO) -> None:
    structlog.get_logger().info("accepted", detail={"subject": "HIV test results", "list": [{"Password": "hunter2"}]})
    assert "HIV" not in log.getvalue()
    assert "hunter2" not in log.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("dr.who@clinic.example", "…@clinic.example"),
        ("<dr.who@clinic.example>", "<…@clinic.example>"),
        ("to: a@b.example,c@d.example;", "to: …@b.example,…@d.example;"),
        ('"john doe"@clinic.example', "…@clinic.example"),
        ("o'brien@clinic.example", "…@clinic.example"),
        ("user@bücher.example", "…@bücher.example"),
        ("root@localhost", "…@localhost"),
        ("pat+tag@[192.0.2.1]", "…@[192.0.2.1]"),
        ("jürgen@clinic.example", "…@clinic.example"),
        (["a@b.example", {"rcpt": "c@d.example"}], ["…@b.example", {"rcpt": "…@d.example"}]),
        ("no address here", "no address here"),
    ],
)
def test_addresses_are_cut_to_their_domain(log: io.StringIO, value: object, expected: object) -> None:
    structlog.get_logger().info("refused", what=value)
    assert written(log)[0]["what"] == expected


def test_addresses_stay_where_the_operator_wants_them() -> None:
    event = Redaction(addresses=True)(None, "info", {"who": "dr.who@clinic.example", "subject": "x"})
    assert event == {"who": "dr.who@clinic.example", "subject": "[redacted]"}


@given(local=st.text("abcdefghijklmnopqrstuvwxyz0123456789.!#$%&'*+-/=?^_`{|}~", min_size=3, max_size=30))
def test_no_local_part_survives(local: str) -> None:
    text = f"550 5.1.1 <{local}zqz@clinic.example> unknown"
    event = Redaction()(None, "info", {"reply": text})
    assert f"{local}zqz" not in str(event["reply"])
    assert "zqz" not in str(event["reply"])


def test_long_text_of_strangers_is_cut(log: io.StringIO) -> None:
    structlog.get_logger().info("attempt", reply="x" * 100_000)
    assert len(log.getvalue()) < 3000


def test_text_made_to_keep_the_redaction_busy_does_not(log: io.StringIO) -> None:
    begun = time.monotonic()
    for text in ("@" + "x" * 1999, '"' * 1000 + "@", "a." * 1000 + "@", "@" * 2000):
        structlog.get_logger().info("attempt", reply=text)
    assert time.monotonic() - begun < 1


def test_an_event_is_one_line_whatever_it_holds(log: io.StringIO) -> None:
    structlog.get_logger().warning("refused", detail='a\r\n{"event": "ready"}\x00\x1b[2J\u2028')
    (event,) = written(log)
    assert (event["event"], event["level"]) == ("refused", "warning")
    assert event["timestamp"].endswith("Z")
    assert "\x1b" not in log.getvalue()


def test_an_exception_keeps_its_place_and_loses_addresses(log: io.StringIO) -> None:
    try:
        int("dr.who@clinic.example")
    except ValueError:
        structlog.get_logger().exception("task_failed")
    (event,) = written(log)
    assert "test_observe_log.py" in event["exception"]
    assert "dr.who" not in log.getvalue()


def test_below_the_level_nothing_is_written(log: io.StringIO) -> None:
    structlog.get_logger().debug("noise")
    assert log.getvalue() == ""


def test_libraries_do_not_chatter(log: io.StringIO) -> None:
    for name in ("mail.log", "asyncio", "alembic", "uvicorn.access"):
        logging.getLogger(name).info("DATA line: Subject: HIV test results")
    assert log.getvalue() == ""


def test_for_people() -> None:
    stream = io.StringIO()
    set_up(level="info", output="console", addresses=False, stream=stream)
    try:
        structlog.get_logger().info("ready", sender="dr.who@clinic.example")
    finally:
        structlog.reset_defaults()
    assert "ready" in stream.getvalue()
    assert "dr.who" not in stream.getvalue()
    assert not stream.getvalue().startswith("{")
