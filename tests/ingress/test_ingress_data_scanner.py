"""One reading of where a message ends: pure, at every split, and over the wire."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ingress.data import DataScanner, HeaderCollector, Violation
from tests.ingress.ingress_harness import HEADER, running, settings_of

#: What some server somewhere takes for the end of data. None of them is one; each makes the message void.
SMUGGLING = [
    b"\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\n.\r",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
]
#: The thirteenth is only a line that begins with a dot: unstuffed, and no end either.
HARMLESS = b"\r\n. \r\n"


def scan(wire: bytes, *cuts: int) -> tuple[bytes, DataScanner]:
    """Feed ``wire`` cut at these places; stop at the end of data, as a session does."""
    scanner, clean = DataScanner(), b""
    edges = [0, *sorted(cuts), len(wire)]
    for start, end in itertools.pairwise(edges):
        if scanner.done:
            scanner.rest += wire[start:]
            break
        if end > start:
            clean += scanner.feed(wire[start:end])
    return clean, scanner


def reference(wire: bytes) -> tuple[bytes, bytes, bool]:
    """An independent reading by the letter of RFC 5321: message, what follows, whether it is void."""
    end = re.search(rb"(?:\A|\r\n)\.\r\n", wire)
    assert end is not None
    body = wire[: end.start() + 2] if end.start() or wire[:2] == b"\r\n" else b""
    lines = body.split(b"\r\n")[:-1]
    message = b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in lines)
    void = any(set(line) & {0, 10, 13} for line in lines)
    return message, wire[end.end() :], void


WIRE = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"\0", b"a", b" ", b"\r\n.", b"\r\n..", b"text"]), max_size=14
).map(b"".join)


@settings(max_examples=600, deadline=None)
@given(WIRE, st.data())
def test_scanner_agrees_with_an_independent_reading_at_any_split(prefix: bytes, data: st.DataObject) -> None:
    wire = prefix + b"\r\n.\r\nQUIT\r\n"
    message, rest, void = reference(wire)
    cuts = data.draw(st.lists(st.integers(1, len(wire) - 1), max_size=8))
    clean, scanner = scan(wire, *cuts)
    assert scanner.done
    assert scanner.rest == rest
    assert scanner.received == len(wire) - len(rest)
    assert (scanner.violation is not None) == void
    if not void:
        assert clean == message


@pytest.mark.parametrize("variant", SMUGGLING)
def test_smuggling_at_every_split_is_a_violation_and_never_the_end(variant: bytes) -> None:
    wire = b"Subject: x\r\n\r\nfirst" + variant + b"MAIL FROM:<eve@evil.example>\r\n.\r\nNOOP\r\n"
    for first in range(1, len(wire)):
        for second in range(first, min(first + 8, len(wire))):
            clean, scanner = scan(wire, first, second)
            assert scanner.done
            assert scanner.rest == b"NOOP\r\n"
            assert scanner.violation is not None
            assert b"eve" not in clean


def test_a_dot_with_a_space_is_a_line() -> None:
    clean, scanner = scan(b"first" + HARMLESS + b"second\r\n.\r\n")
    assert clean == b"first\r\n \r\nsecond\r\n"
    assert scanner.violation is None


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n"),
        (b"...\r\n.\r\n", b"..\r\n"),
    ],
)
def test_edges_byte_by_byte(wire: bytes, expected: bytes) -> None:
    clean, scanner = scan(wire, *range(1, len(wire)))
    assert (clean, scanner.done, scanner.violation) == (expected, True, None)


def test_each_violation_has_its_name() -> None:
    for wire, violation in ((b"a\rb", Violation.BARE_CR), (b"a\nb", Violation.BARE_LF), (b"a\0b", Violation.NUL)):
        assert scan(wire + b"\r\n.\r\n")[1].violation is violation


def test_scanning_is_not_done_line_by_line() -> None:
    chunk = (b"x" * 74 + b"\r\n") * 1700
    scanner = DataScanner()
    started = time.process_time()
    for _ in range(200):
        scanner.feed(chunk)
    rate = 200 * len(chunk) / (time.process_time() - started)
    assert rate > 60e6, f"{rate / 1e6:.0f} MB/s"  # far below what it does, far above what a loop over lines can do


@given(WIRE, st.integers(1, 30))
def test_header_collector_splits_where_the_whole_would_be_split(content: bytes, step: int) -> None:
    content = content.replace(b"\0", b"")
    collector, body = HeaderCollector(10_000), b""
    for start in range(0, len(content), step):
        piece = content[start : start + step]
        body += piece if collector.complete else (collector.feed(piece) or b"")
    collector.finish()
    assert collector.block + body == content
    if content.startswith(b"\r\n"):
        assert collector.block == b""
    elif b"\r\n\r\n" in content:
        assert len(collector.block) == content.index(b"\r\n\r\n") + 2


@pytest.mark.parametrize("size", [100, 101])
def test_header_limit_is_exact(size: int) -> None:
    for complete in (b"\r\n\r\nbody", b"\r\n"):
        collector = HeaderCollector(100)
        for byte in b"x" * (size - 2) + complete:
            if not collector.complete and not collector.overflow:
                collector.feed(bytes([byte]))
        if not collector.overflow:
            collector.finish()
        assert collector.overflow == (size > 100)


@pytest.mark.parametrize("variant", SMUGGLING)
async def test_smuggling_over_the_wire_at_every_split(tmp_path: Path, variant: bytes) -> None:
    inner = b"EHLO evil\r\nMAIL FROM:<ann@clinic.example>\r\nRCPT TO:<victim@v.example>\r\nDATA\r\n"
    content = HEADER + b"\r\nfirst" + variant + inner + HEADER + b"\r\nsmuggled\r\n"
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        for cut in range(len(variant) + 1):
            await client.envelope()
            await client.expect("DATA", 354)
            edge = content.index(b"first" + variant) + 5 + cut
            client.send(content[:edge])
            await client.writer.drain()
            client.send(content[edge:] + b".\r\n")
            code, text = await client.reply()
            assert (code, text[:5]) == (550, "5.6.0")
            # Exactly one reply: the session is in step, nothing of the inside was taken for commands.
            await client.expect("NOOP", 250)
        assert not run.intake.accepted
        assert set(run.metrics.reasons) == {"smuggling"}
        await client.close()


async def test_twenty_megabytes_pass_with_flat_memory_and_arrive_whole(tmp_path: Path) -> None:
    line = b"y" * 76 + b"\r\n"
    body = line * (20_000_000 // len(line))
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        await client.expect("DATA", 354)
        started = time.monotonic()
        for start in range(0, len(body), 1_000_000):
            client.send(body[start : start + 1_000_000] if start else HEADER + b"\r\n" + body[:1_000_000])
            await client.writer.drain()
        client.send(b".\r\n")
        assert (await client.reply())[0] == 250
        assert time.monotonic() - started < 10
        assert run.intake.accepted[0].data == HEADER + b"\r\n" + body
        await client.close()
