"""The end of DATA is found where it is and nowhere else, however the stream is cut."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.testing.smtp_body import Body, DotScanner


def scan(stream: bytes, cuts: list[int], *, lax: bool = False) -> tuple[Body, bytes | None]:
    """The body, and what follows its end (None: it did not end), with the stream cut at ``cuts``."""
    body = Body(keep=True)
    scanner = DotScanner(body, lax=lax)
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for number, (start, end) in enumerate(pairwise(places)):
        rest = scanner.feed(stream[start:end])
        if rest is not None:
            return body, rest + stream[places[number + 1] :]
    return body, None


def expected(stream: bytes) -> tuple[bytes, bytes] | None:
    """Line by line, as RFC 5321 section 4.5.2 says it: (wire, rest)."""
    wire, rest = b"", stream
    while rest:
        line, end, after = rest.partition(b"\r\n")
        if line == b"." and end:
            return wire, after
        wire, rest = wire + line + end, after
    return None


PIECES = st.sampled_from(
    [b"\r\n", b"\r\n", b".", b"..", b"\r", b"\n", b"\0", b"x", b"\r\n.\r\n", b"\n.\n", b"\xc3\xa4"]
)
STREAMS = st.lists(PIECES, max_size=14).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=6)


@given(STREAMS, CUTS)
def test_the_end_is_where_the_rfc_says_at_every_cut(stream: bytes, cuts: list[int]) -> None:
    body, rest = scan(stream, cuts)
    truth = expected(stream)
    if truth is None:
        assert rest is None
        return
    assert (bytes(body.wire), rest) == truth
    unstuffed = b"\r\n".join(line.removeprefix(b".") for line in truth[0].split(b"\r\n"))
    assert bytes(body.raw) == unstuffed
    assert (body.size, body.sha256) == (len(unstuffed), hashlib.sha256(unstuffed).hexdigest())


@given(STREAMS, CUTS)
def test_breaches_are_noted_at_every_cut(stream: bytes, cuts: list[int]) -> None:
    stream = stream.replace(b"\r\n.\r\n", b"").removeprefix(b".\r\n") + b"\r\n.\r\n"
    body, _ = scan(stream, cuts)
    wire = bytes(body.wire)
    lone = wire.replace(b"\r\n", b"")
    assert body.faults(eight_bit_declared=False) == [
        fault
        for fault, is_so in [
            ("bare CR in the body", b"\r" in lone or wire.count(b"\r") > wire.count(b"\r\n")),
            ("bare LF in the body", wire.count(b"\n") > wire.count(b"\r\n")),
            ("NUL in the body", b"\0" in wire),
            ("octets above 127 without BODY=8BITMIME", not wire.isascii()),
        ]
        if is_so
    ]


@given(st.binary(max_size=200), CUTS)
def test_what_is_stuffed_comes_out_as_it_was(content: bytes, cuts: list[int]) -> None:
    lines = content.replace(b"\r", b"").split(b"\n")
    stuffed = b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines)
    body, rest = scan(stuffed + b".\r\nNOOP\r\n", cuts)
    assert bytes(body.raw) == b"".join(line + b"\r\n" for line in lines)
    assert bytes(body.wire) == stuffed
    assert rest == b"NOOP\r\n"


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r"])
def test_only_the_lax_peer_is_a_victim_of_smuggling(end: bytes) -> None:
    stream = b"hello" + end + b"MAIL FROM:<evil@x>\r\n"
    for cut in range(len(stream)):
        strict, rest = scan(stream, [cut])
        assert rest is None
        assert bytes(strict.wire) == stream.removesuffix(b"\r\n")
        lax, rest = scan(stream, [cut], lax=True)
        assert rest == b"MAIL FROM:<evil@x>\r\n"
        assert bytes(lax.raw).rstrip(b"\r\n") == b"hello"


def test_a_body_that_is_not_kept_is_still_counted() -> None:
    body = Body(keep=False)
    scanner = DotScanner(body)
    piece = b"x" * 998 + b"\r\n"
    for _ in range(1000):
        assert scanner.feed(piece) is None
    assert scanner.feed(b".\r\n") == b""
    assert (body.size, bytes(body.raw), bytes(body.wire)) == (1_000_000, b"", b"")
    assert body.sha256 == hashlib.sha256(piece * 1000).hexdigest()
