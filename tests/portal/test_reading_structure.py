"""Where the parts of a message stand, however it was cut on its way; the same parts that policy was asked about."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mail.content.mediatype import parse
from gateway.mail.content.mime import parts, read_entity
from gateway.portal.reading import MessageIndex
from gateway.portal.reading.parts import Branch, Node, Part
from tests.portal.reading_world import indexed, lines, octets

MIXED = lines(
    "Subject: x",
    "Content-Type: multipart/mixed; boundary=outer",
    "",
    "preamble",
    "--outer",
    'Content-Type: multipart/alternative; boundary="in ner"',
    "",
    "--in ner",
    "Content-Type: text/plain; charset=iso-8859-1; format=flowed; delsp=yes",
    "",
    "plain",
    "--in ner",
    "Content-Type: text/html",
    "Content-Transfer-Encoding: quoted-printable",
    "",
    "<b>h=C3=A4</b>",
    "--in ner--",
    "between",
    "--outer",
    'Content-Type: image/png; name="a.png"',
    "Content-ID: <pic@x>",
    "Content-Transfer-Encoding: base64",
    "Content-Disposition: attachment; filename*=utf-8''b%20c.png",
    "",
    "aGVsbG8g",
    "d29ybGQ=",
    "",
    "--outer",
    "",
    "--outerX is no delimiter",
    "--outer--",
    "epilogue",
)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 100_000])
def test_parts_are_found_however_the_message_was_cut(piece: int) -> None:
    index = indexed(MIXED, piece)
    assert index.size == len(MIXED)
    assert index.header == MIXED[: MIXED.index(b"\r\n\r\n") + 2]
    plain, html, picture, last = index.parts
    assert octets(MIXED, plain) == b"plain"
    assert (plain.media_type, plain.charset, plain.flowed, plain.delete_space) == (
        "text/plain",
        "iso-8859-1",
        True,
        True,
    )
    assert octets(MIXED, html) == "<b>hä</b>".encode()
    assert octets(MIXED, picture) == b"hello world"
    assert (picture.name, picture.content_id, picture.is_attachment) == ("b c.png", "pic@x", True)
    assert (picture.size, picture.head) == (11, b"hello world")
    assert octets(MIXED, last) == b"--outerX is no delimiter"
    assert index.root == Branch("mixed", (Branch("alternative", (plain, html)), picture, last))
    assert not index.is_cut


def test_a_message_without_any_of_it_is_text() -> None:
    for message in (b"", b"\r\n", b"\r\nhello", b"Subject: x\r\n", b"Subject: x\r\n\r\nhello\r\n", b"no header at all"):
        index = indexed(message)
        assert isinstance(index.root, Part)
        assert index.root.media_type == "text/plain"


def test_a_multipart_without_its_boundary_is_a_text_of_what_it_holds() -> None:
    for kind in ("multipart/mixed; boundary=b", "multipart/mixed"):
        message = lines(f"Content-Type: {kind}", "", "hello", "world")
        (part,) = indexed(message).parts
        assert (part.media_type, octets(message, part)) == ("text/plain", b"hello\r\nworld\r\n")


def test_an_attached_message_is_one_part() -> None:
    message = lines(
        "Content-Type: multipart/digest; boundary=b",
        "",
        "--b",
        "",
        "Subject: inner",
        "Content-Type: multipart/mixed; boundary=c",
        "",
        "--c",
        "",
        "x",
        "--c--",
        "--b--",
    )
    (part,) = indexed(message).parts
    assert part.media_type == "message/rfc822"
    assert part.head.startswith(b"Subject: inner\r\n")


def test_a_delimiter_of_the_outer_multipart_ends_what_is_inside() -> None:
    message = lines(
        "Content-Type: multipart/mixed; boundary=a",
        "",
        "--a",
        "Content-Type: multipart/mixed; boundary=a-",
        "",
        "--a-",
        "Content-Type: text/plain",
        "--a",
        "",
        "second",
    )
    first, second = indexed(message).parts
    assert octets(message, first) == b""
    assert octets(message, second) == b"second\r\n"


BOUNDARIES = ["a", "b", "aa", "a--", "x y"]
LINE = st.one_of(
    st.sampled_from([f"--{boundary}{end}" for boundary in BOUNDARIES for end in ("", "--", " ", "z")]),
    st.sampled_from(["", "text", " ", "Content-Type: text/html", "Subject: x", "Content-Transfer-Encoding: base64"]),
    st.sampled_from([f'Content-Type: multipart/mixed; boundary="{boundary}"' for boundary in BOUNDARIES]),
)


def expected(data: bytes, start: int, end: int, depth: int = 0) -> list[bytes]:
    """The bodies of the leaves as ``content.mime`` cuts them out of a message that is in memory."""
    entity = read_entity(data, start, end)
    declared = parse(entity.first("content-type"))
    boundary = declared.first("boundary").rstrip().encode()
    delimiter = b"--" + boundary
    here = data[entity.body : end]
    if not declared.value.startswith("multipart/") or not (here.startswith(delimiter) or b"\n" + delimiter in here):
        return [data[entity.body : end]]
    found = [
        section for section in parts(data, entity.body, end, boundary, 100, 1000).sections if section.kind == "part"
    ]
    return [leaf for section in found for leaf in expected(data, section.start, section.end, depth + 1)] or [here]


@settings(max_examples=300)
@given(st.lists(LINE, max_size=25), st.integers(1, 40))
def test_the_parts_are_those_that_policy_sees(each: list[str], piece: int) -> None:
    message = b"\r\n".join(line.encode() for line in each)
    index = indexed(message, piece)
    assert [message[part.start : part.end] for part in index.parts] == expected(message, 0, len(message))
    assert [part.number for part in index.parts] == list(range(1, len(index.parts) + 1))


def depth_of(node: Node) -> int:
    return 0 if isinstance(node, Part) else 1 + max(map(depth_of, node.children))


def checked(message: bytes, seconds: float) -> MessageIndex:
    begun = time.process_time()
    index = indexed(message)
    assert time.process_time() - begun < seconds
    return index


def test_depth_and_number_of_parts_are_bounded_and_said_to_be_cut() -> None:
    deep = b"".join(lines(f"Content-Type: multipart/mixed; boundary=b{n}", "", f"--b{n}") for n in range(500))
    index = checked(deep, 2)
    assert index.is_cut
    assert depth_of(index.root) <= 21
    many = lines("Content-Type: multipart/mixed; boundary=b", "") + lines("--b", "", "x") * 20_000
    index = checked(many, 5)
    assert index.is_cut
    assert len(index.parts) <= 501
    assert index.parts[-1].end == len(many)


@pytest.mark.parametrize(
    "filling",
    [
        b"--\r\n",
        b"\r\n--bx\r\n",
        b"--b" + b" " * 300 + b"x\r\n",
        b"-" * 100_000,
        b"\r" * 1000,
        b"--b--\r\n",
        b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
        b"Content-Type: x\r\n",
    ],
)
def test_a_message_made_to_cost_time_costs_little(filling: bytes) -> None:
    body = filling * (4_000_000 // len(filling))
    checked(lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "", "") + body, 6)
    checked(lines("Content-Type: multipart/mixed; boundary=b", "", "--b") + body, 6)
    checked(body, 6)


def test_an_encoding_without_end_stays_in_bounds() -> None:
    for encoding in ("base64", "quoted-printable", "8bit"):
        for filling in (b"A", b"=", b" ", b"=\r\n", b"A=\r\n", b"\r"):
            head = lines("Content-Type: text/html", f"Content-Transfer-Encoding: {encoding}", "")
            checked(head + filling * (1_000_000 // len(filling)), 3)
