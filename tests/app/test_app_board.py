"""What a process tells survives it, whole: boards, reports and what a successor goes on with."""

from __future__ import annotations

import os
import signal
import zlib

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest

from gateway.app.board import _HALF, _HEADER, Board
from gateway.app.children import Backoff, describe_status
from gateway.app.seat import Seat
from gateway.config.shares import Share
from gateway.observe.aggregate import GAUGES, Merged, Snapshot, lasting, merge, snapshot
from gateway.observe.metrics import Metrics


def test_the_last_text_stands() -> None:
    board = Board("test")
    assert board.read() == b""
    for text in (b"one", b"two, which is longer", b"3", b""):
        board.write(text)
        assert board.read() == text
    board.close()


def test_another_process_reads_it_and_the_writers_death_changes_nothing() -> None:
    board = Board("test")
    pid = os.fork()
    if not pid:
        board.write(b"from the child")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert board.read() == b"from the child"
    board.write(b"from its successor")
    assert board.read() == b"from its successor"
    board.close()


def test_a_writer_that_died_in_the_middle_leaves_the_text_before() -> None:
    board = Board("test")
    board.write(b"whole")
    start = 2 % 2 * _HALF
    os.pwrite(board._handle, b"ha", start + _HEADER.size)
    assert board.read() == b"whole"
    os.pwrite(board._handle, _HEADER.pack(2, 4, zlib.crc32(b"half")), start)
    assert board.read() == b"whole"
    board.close()


def test_too_much_is_an_error_and_changes_nothing() -> None:
    board = Board("test")
    board.write(b"kept")
    with pytest.raises(ValueError, match="too much"):
        board.write(bytes(_HALF))
    assert board.read() == b"kept"
    board.close()


def sample(connector: str = "app", *, messages: int = 0, open_now: int = 0) -> Snapshot:
    made = Metrics("1")
    made.messages_received.labels(connector, "accepted").inc(messages)
    made.connections.labels("smtp").inc(open_now)
    made.certificate_expiry.labels("listener").set(100 + open_now)
    made.committed(0.003, messages)
    return snapshot(made.registry)


def value(families: Snapshot, name: str, **labels: str) -> float:
    registry = CollectorRegistry()
    registry.register(Merged(families))
    found = registry.get_sample_value(name, labels)
    assert found is not None, generate_latest(registry).decode()
    return found


def test_counters_and_histograms_add_up_and_gauges_do_as_they_are_declared() -> None:
    merged = merge([sample(messages=2, open_now=1), sample(messages=3, open_now=4), sample("other", messages=1)])
    assert value(merged, "gateway_messages_received_total", connector="app", result="accepted") == 5
    assert value(merged, "gateway_messages_received_total", connector="other", result="accepted") == 1
    assert value(merged, "gateway_store_batch_size_sum") == 6
    assert value(merged, "gateway_store_batch_size_bucket", le="2.0") == 2
    assert value(merged, "gateway_smtp_connections", listener="smtp") == 5
    assert value(merged, "gateway_certificate_expiry_timestamp_seconds", use="listener") == 100
    assert value(merged, "gateway_build_info", version="1") == 1
    assert value(merged, "gateway_alarms_total", kind="worker_died") == 0


def test_every_gauge_says_how_several_become_one() -> None:
    gauges = {family.name for family in Metrics("1").registry.collect() if family.type == "gauge"}
    assert gauges == set(GAUGES)


def test_a_successor_goes_on_counting_but_has_no_connections_of_the_dead() -> None:
    seat = Seat(Share(2, 2))
    assert seat.read() is None
    seat.report(1, [], sample(messages=7, open_now=9))
    report = seat.read()
    assert report is not None
    after = merge([lasting(report["metrics"]), sample(messages=1, open_now=1)])
    assert value(after, "gateway_messages_received_total", connector="app", result="accepted") == 8
    assert value(after, "gateway_smtp_connections", listener="smtp") == 1
    seat.close()


def test_what_is_merged_looks_as_it_did() -> None:
    registry = CollectorRegistry()
    Counter("a", "counts", ["x"], registry=registry).labels("1").inc()
    Gauge("b", "stands", registry=registry).set(2)
    Histogram("c", "spreads", buckets=(1, 2), registry=registry).observe(1.5)
    again = CollectorRegistry()
    again.register(Merged(merge([snapshot(registry)])))
    assert generate_latest(again) == generate_latest(registry)
    assert GaugeMetricFamily("b", "stands", value=2).samples[0].value == 2


def test_who_dies_waits_longer_each_time_and_starts_afresh_after_a_good_minute() -> None:
    backoff = Backoff()
    assert [backoff.died(1.0) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert [backoff.died(60.0), backoff.died(1.0)] == [0, 1]


def test_how_a_process_ended_in_words() -> None:
    assert describe_status(signal.SIGKILL) == "killed by SIGKILL"
    assert describe_status(3 << 8) == "ended with 3"


@pytest.mark.parametrize("processes", range(1, 9))
@pytest.mark.parametrize("limit", [1, 2, 5, 8, 20, 2001])
def test_shares_are_the_limit_together_and_never_nothing(limit: int, processes: int) -> None:
    shares = [Share(number, processes).of(limit) for number in range(1, processes + 1)]
    assert min(shares) >= 1
    assert max(shares) - min(shares) <= 1
    assert sum(shares) == max(limit, processes)
    assert Share().of(limit) == limit
