"""Generator and sink of the bench are right: a figure taken with instruments that miscount would say nothing."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.__main__ import measure
from bench.generator import body_of
from bench.memory import held, watching
from bench.processes import settle, tree, worked
from bench.relays import Sink, direct, sink
from bench.report import Scenario
from gateway.testing.ca import CA

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("bench")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Sink]:
    with sink(tmp_path, CA().issue("sink.example")) as running:
        yield running


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(size=4096, messages=45, per_connection=20, connections=3),
        Scenario(size=4096, messages=7, per_connection=1, connections=2),
        Scenario(size=3_000_000, messages=3, per_connection=20, connections=1),
    ],
    ids=lambda scenario: scenario.label,
)
def test_what_the_generator_sends_the_sink_counts(target: Sink, scenario: Scenario) -> None:
    rate = measure(direct(target), target, scenario)
    assert rate.complete, rate.errors
    assert rate.per_second > 0
    counted = target.count()
    assert counted.messages == scenario.messages
    assert counted.sessions >= scenario.messages / scenario.per_connection
    assert (counted.distinct, counted.duplicates, counted.strays) == (scenario.messages, 0, 0)
    assert abs(counted.octets / scenario.messages - scenario.size) < 0.1 * scenario.size


def test_the_end_of_data_is_found_at_every_split(target: Sink) -> None:
    """Also where the dot is the first line, where it is only text, and where commands stand right behind it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    content = b"a\r\n..\r\n.b\r\n\r\n.\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
    empty = b".\r\nQUIT\r\n"
    with socket.create_connection((target.address, target.port), timeout=10) as plain:
        plain.recv(1024)
        plain.sendall(b"STARTTLS\r\n")
        plain.recv(1024)
        with context.wrap_socket(plain) as secure:
            replies = secure.makefile("rb")
            secure.sendall(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
            answers = [replies.readline()[:3] for _ in range(3)]
            for split in range(1, len(content)):
                secure.sendall(content[:split])
                secure.sendall(content[split:])
                answers += [replies.readline()[:3] for _ in range(4)]
            secure.sendall(empty)
            answers += [replies.readline()[:3] for _ in range(2)]
            replies.close()
    assert answers == [b"250", b"250", b"354"] + [b"250", b"250", b"250", b"354"] * (len(content) - 1) + [
        b"250",
        b"221",
    ]
    assert target.count().messages == len(content)


def test_what_comes_twice_or_from_another_run_is_told_apart(target: Sink) -> None:
    target.reset("now")
    recipients = ("now-0000000001", "now-0000000002", "now-0000000001", "then-0000000003", "now-0000000004")
    with socket.create_connection((target.address, target.port), timeout=10) as connection:
        replies = connection.makefile("rb")
        replies.readline()
        for recipient in recipients:
            connection.sendall(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<%b@sink.example>\r\n" % recipient.encode())
            connection.sendall(b"DATA\r\nhello\r\n.\r\n")
            assert [replies.readline()[:3] for _ in range(4)] == [b"250", b"250", b"354", b"250"]
        replies.close()
    counted = target.count()
    assert (counted.messages, counted.distinct, counted.duplicates, counted.strays) == (4, 3, 1, 1)


def test_generator_and_sink_speak_without_tls_and_at_a_given_rate(target: Sink) -> None:
    target.reset("open")
    told = json.loads(
        subprocess.run(
            [
                *(sys.executable, "-m", "bench.generator", "--address", target.address, "--port", str(target.port)),
                *("--plain", "--rate", "100", "--messages", "30", "--connections", "3", "--run", "open"),
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        ).stdout
    )
    assert told["accepted"] == target.count().distinct == 30
    assert told["ended"] - told["begun"] >= 0.29  # the thirtieth begins 0.29 s after the first
    assert 0 < told["waits_p50"] <= told["waits_p99"] < told["ended"] - told["begun"]


def test_work_is_counted_over_the_whole_tree_also_of_those_that_ended() -> None:
    """A shell that starts a child which works and ends, and stays: as a supervisor and its worker."""
    script = 'python3 -c "sum(range(6000000))"; echo done; read line'
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"done\n"
        assert tree(shell.pid)[0] == shell.pid
        assert shell.pid in tree(os.getpid())
        assert worked(tree(shell.pid)) > 0.04
        assert settle(lambda: tree(shell.pid)) >= worked([shell.pid]) > 0
    assert worked([shell.pid]) == 0


def test_bodies_have_the_size_asked_for() -> None:
    assert [abs(len(body_of(size)) + 400 - size) < 100 for size in (4096, 65536, 5_000_000)] == [True] * 3
    assert body_of(1).endswith(b"\r\n")


def test_memory_that_comes_and_goes_is_seen(target: Sink) -> None:
    pids = [target.process.pid]
    before = held(pids)
    assert before.rss >= before.pss > 1_000_000
    with watching(lambda: pids) as watch:
        pass
    assert watch.peak.pss >= watch.before.pss
    assert held([2**22 + 1]).rss == 0
