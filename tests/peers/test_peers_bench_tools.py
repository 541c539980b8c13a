"""Generator and sink of the bench are right: a figure taken with instruments that miscount would say nothing."""

from __future__ import annotations

import io
import json
import os
import socket
import ssl
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.generator import body_of
from bench.measure import Rate, generate, measure, measure_crowd, measure_slow
from bench.memory import held, watching
from bench.plot import bars, plot
from bench.processes import settle, tree, worked
from bench.relays import Relay, Sink, direct, sink
from bench.report import Results, show, surroundings, write
from bench.scenarios import Scenario
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
        Scenario("test", size=4096, messages=45, per_connection=20, connections=3),
        Scenario("test", size=4096, messages=7, per_connection=1, connections=2),
        Scenario("test", size=3_000_000, messages=3, per_connection=20, connections=1),
    ],
    ids=lambda scenario: scenario.label,
)
def test_what_the_generator_sends_the_sink_counts(target: Sink, scenario: Scenario) -> None:
    rate = measure(direct(target), target, scenario)
    assert rate.complete, rate.errors
    assert not rate.errors
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


def test_a_crowd_stands_and_a_stream_passes_beside_it(target: Sink) -> None:
    relay = direct(target)
    crowd = measure_crowd(relay, target, idle=20, stream=Scenario("crowd", 4096, 20, 5, 2))
    assert (crowd.stand, crowd.delivered, crowd.unanswered) == (20, 20, 0)
    assert 0 < crowd.banner_p50 <= crowd.banner_p99 < 1
    slowed = measure_slow(relay, target, slow=8, stream=Scenario("slow", 4096, 20, 5, 2, rate=100))
    assert (slowed.stand, slowed.alone.delivered, slowed.beside.delivered) == (8, 20, 20)


def test_a_relay_that_answers_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        relay = Relay("silent", "127.0.0.1", silent.getsockname()[1], list, tls=True)
        told = generate(relay, Scenario("test", 4096, 3, 1, 2), "none", patience=0.3)
    assert (told["accepted"], told["refused"]) == (0, 3)


def test_reports_tell_medians_spread_and_what_is_missing(tmp_path: Path) -> None:
    stream = Scenario("4k20", 4096, 10, 5, 2)
    whole = Rate("gateway", "4k20", 10, 10, 0, 0, 200.0, 210.0, 2.0, 0.1, 0.1, 0.01, 0.02, 0.0, 0.01, 2, [])
    torn = replace(whole, delivered=9, refused=1, per_second=100.0, errors=["<&>"])
    results = Results(scenarios=[stream], rates=[whole, replace(whole, per_second=300.0), torn])
    console = Console(width=160, record=True, file=io.StringIO())
    show(results, console)
    bars(results, console)
    told = console.export_text()
    assert "200 (100-300)!" in told
    assert "gateway, 4k20: 9 of 10 arrived, 0 twice, 1 refused" in told
    facts = surroundings(tmp_path)
    assert str(facts["file_system"]) != "unknown"
    write(tmp_path / "figures.json", results, facts)
    plot(tmp_path / "figures.svg", results, facts)
    assert json.loads((tmp_path / "figures.json").read_text())["rates"][2]["delivered"] == 9
    assert ET.parse(tmp_path / "figures.svg").getroot().tag.endswith("svg")
    assert not results.complete


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
