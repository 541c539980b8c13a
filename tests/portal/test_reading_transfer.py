"""Any range of a part equals the slice of what it decodes to, wherever the reading begins."""

from __future__ import annotations

import asyncio
import base64
import os
import quopri
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mail.content.charsets import as_lines
from gateway.mail.content.decoding import decode
from gateway.portal.reading import part_octets
from gateway.portal.reading.transfer import decoder, encoded_range
from tests.portal.reading_world import indexed, lines, octets, reader

JUNK = st.lists(
    st.sampled_from(
        [b"QUJD", b"RA==", b"RQ=", b"=", b"A", b"\r\n", b" ", b"-", b"\xff", b"AB", b"=41", b"=\r\n", b"= \r\n"]
    ),
    max_size=30,
).map(b"".join)


def undone(encoding: str, body: bytes, cuts: list[int]) -> bytes:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    undo = decoder(encoding)
    return b"".join([undo.feed(body[start:end]) for start, end in pairwise(places)]) + undo.finish()


@settings(max_examples=400)
@given(JUNK, st.lists(st.integers(0, 100), max_size=6), st.sampled_from(["base64", "quoted-printable", "7bit", "x"]))
def test_piece_by_piece_gives_what_the_whole_gives(body: bytes, cuts: list[int], encoding: str) -> None:
    assert as_lines(undone(encoding, body, cuts)) == as_lines(decode(body, encoding).data)


@given(st.binary(max_size=500), st.lists(st.integers(0, 700), max_size=5))
def test_what_was_encoded_comes_back(data: bytes, cuts: list[int]) -> None:
    assert undone("base64", base64.encodebytes(data).replace(b"\n", b"\r\n"), cuts) == data
    text = quopri.encodestring(data.replace(b"\r", b"").replace(b"\n", b""), quotetabs=True).replace(b"\n", b"\r\n")
    assert undone("quoted-printable", text, cuts) == data.replace(b"\r", b"").replace(b"\n", b"")


def message_of(encoding: str, body: bytes) -> bytes:
    head = lines("Content-Type: multipart/mixed; boundary=b", "", "--b", f"Content-Transfer-Encoding: {encoding}", "")
    return head + body + lines("", "--b--")


@settings(max_examples=200)
@given(
    st.integers(0, 3000),
    st.sampled_from([4, 60, 64, 72, 76, 75, 1000, 1004]),
    st.booleans(),
    st.integers(0, 3100),
    st.integers(0, 3100),
)
def test_any_range_of_base64_equals_the_slice(size: int, width: int, ends: bool, one: int, other: int) -> None:  # noqa: FBT001  a parameter of the test
    data = os.urandom(size)
    text = base64.b64encode(data)
    body = b"\r\n".join(text[place : place + width] for place in range(0, len(text), width)) + (
        b"\r\n" if ends else b""
    )
    message = message_of("base64", body)
    (part,) = indexed(message, 97).parts
    assert part.size == size
    start, end = sorted((min(one, size), min(other, size)))
    assert octets(message, part, start, end) == data[start:end]


@settings(max_examples=200)
@given(JUNK, st.sampled_from(["base64", "quoted-printable", "8bit"]), st.integers(0, 200), st.integers(0, 200))
def test_any_range_of_anything_equals_the_slice(body: bytes, encoding: str, one: int, other: int) -> None:
    message = message_of(encoding, body)
    (part, *_) = indexed(message, 5).parts
    whole = octets(message, part)
    assert len(whole) == part.size
    start, end = sorted((min(one, part.size), min(other, part.size)))
    assert octets(message, part, start, end) == whole[start:end]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows,
        lambda rows: [*rows[:5], rows[5][:-4], *rows[6:]],
        lambda rows: [*rows[:5], b"", *rows[5:]],
        lambda rows: [*rows[:5], rows[5] + b" ", *rows[6:]],
        lambda rows: [*rows[:5], b"-" + rows[5][1:], *rows[6:]],
        lambda rows: [*rows[:5], rows[5][:-1] + b"=", *rows[6:]],
        lambda rows: [*rows, b"", b""],
        lambda rows: [*rows, b"QUJD"],
        lambda rows: [b"", *rows],
    ],
)
def test_lines_that_are_not_alike_are_never_counted_by(change: object) -> None:
    data = os.urandom(1000)
    text = base64.b64encode(data)
    rows = [text[place : place + 76] for place in range(0, len(text), 76)]
    assert callable(change)
    message = message_of("base64", b"\r\n".join(change(rows)))
    for piece in (1, 50, 10_000):
        (part,) = indexed(message, piece).parts
        whole = octets(message, part)
        assert whole == decode(message[part.start : part.end], "base64").data
        for start in (0, 1, 57, 56, 300, 999):
            assert octets(message, part, start, part.size) == whole[start:]


def test_a_range_in_the_middle_of_base64_reads_little() -> None:
    body = base64.encodebytes(os.urandom(1_000_000)).replace(b"\n", b"\r\n")
    (part,) = indexed(message_of("base64", body)).parts
    begin, stop, _ = encoded_range(part, 500_000, 500_100)
    assert begin > part.start + 600_000
    assert stop - begin < 400


async def test_who_wants_no_more_lets_go_of_the_message() -> None:
    message = message_of("8bit", b"x" * 100_000)
    (part,) = indexed(message).parts
    asked = []

    def counted(start: int, end: int) -> object:
        asked.append((start, end))
        return reader(message)(start, end)

    found = [piece async for piece in part_octets(part, counted, 10, 20)]  # type: ignore[arg-type]  # gives what reader gives
    assert b"".join(found) == b"x" * 10
    assert asked == [(part.start + 10, part.start + 20)]
    await asyncio.sleep(0)
