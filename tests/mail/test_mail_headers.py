"""Header fields are the exact bytes that came, and hide nothing from who looks for them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail.headers import (
    HeaderError,
    decode_text,
    fields,
    has_non_ascii,
    split_message,
    values,
    without,
)

NAME = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=12)
LINE = st.binary(max_size=30).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b""))
FIELD = st.builds(
    lambda name, space, first, folds: b"".join(
        [name.encode(), space, b":", first, b"\r\n", *(b"\t" + fold + b"\r\n" for fold in folds)]
    ),
    NAME,
    st.sampled_from([b"", b" ", b"\t "]),
    LINE,
    st.lists(LINE, max_size=3),
)


@given(st.lists(FIELD, max_size=8))
def test_fields_are_the_bytes_that_came(raw: list[bytes]) -> None:
    found = list(fields(b"".join(raw)))
    assert [field.raw for field in found] == raw
    for field in found:
        assert field.name == field.raw.split(b":", 1)[0].rstrip(b" \t").decode().lower()
        assert b"\r\n" not in field.value


@given(st.lists(FIELD, min_size=1, max_size=8), st.data())
def test_taking_fields_out_touches_no_byte_of_the_rest(raw: list[bytes], data: st.DataObject) -> None:
    block = b"".join(raw)
    names = {field.name for field in fields(block)}
    gone = frozenset(data.draw(st.sets(st.sampled_from(sorted(names)))))
    kept, taken = without(block, gone)
    assert {field.name for field in taken} == gone
    assert kept == b"".join(field.raw for field in fields(block) if field.name not in gone)
    assert not [field for field in fields(kept) if field.name in gone]


@given(st.binary(max_size=120))
@example(b"\r\nX: y\r\n")
def test_any_bytes_are_fields_or_an_error_of_ours(block: bytes) -> None:
    try:
        found = list(fields(block))
    except HeaderError:
        return
    assert b"".join(field.raw for field in found) == block


def test_a_marker_cannot_hide_behind_case_space_or_folding() -> None:
    block = b"x-RELAY : one\r\nX-Relay:\r\n two\r\nX-Relay\t:\tthree\r\n"
    assert values(fields(block), "x-relay") == ["one", "two", "three"]
    assert without(block, frozenset({"x-relay"}))[0] == b""


@pytest.mark.parametrize(
    "block", [b" folded from nothing\r\n", b"no colon\r\n", b": no name\r\n", b"a b: c\r\n", b"\r\n"]
)
def test_a_line_that_is_no_field_is_named(block: bytes) -> None:
    with pytest.raises(HeaderError, match="line 1"):
        list(fields(block))


@pytest.mark.parametrize(
    ("data", "block", "rest"),
    [
        (b"A: b\r\n\r\nbody", b"A: b\r\n", b"\r\nbody"),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"\r\nbody", b"", b"\r\nbody"),
        (b"", b"", b""),
        (b"A: b\r\n \r\n c\r\n\r\n", b"A: b\r\n \r\n c\r\n", b"\r\n"),
    ],
)
def test_block_and_rest_together_are_the_message(data: bytes, block: bytes, rest: bytes) -> None:
    assert split_message(data) == (block, rest)
    assert block + rest == data


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        ("grüße".encode(), "grüße"),
        (b"=?utf-8?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        (b"=?UTF-8?B?Z3LDvMOfZQ==?= and more", "grüße and more"),
        (b"=?iso-8859-1?q?a?= =?iso-8859-1?q?b?=", "ab"),
        (b"\xff\xfe", None),
        (b"=?utf-8?b?a?= broken base64", None),
        (b"=?utf-8?q?=FF?=", None),
        (b"=?no-such-charset?q?a?=", None),
        (b"=?rot13?q?a?=", None),
    ],
)
def test_a_subject_is_what_people_read_or_unknown(value: bytes, text: str | None) -> None:
    assert decode_text(value) == text


@given(
    st.binary(max_size=60), st.sampled_from(["utf-8", "ascii", "utf-7", "hex", "idna", "punycode", "a\0b", "x" * 99])
)
def test_no_encoded_word_breaks_the_reader(inside: bytes, charset: str) -> None:
    for encoding in (b"b", b"q", b"B", b"x"):
        result = decode_text(b"a =?" + charset.encode() + b"?" + encoding + b"?" + inside + b"?= z")
        assert result is None or isinstance(result, str)


def test_eight_bit_headers_are_told() -> None:
    assert has_non_ascii("Subject: grüße\r\n".encode())
    assert not has_non_ascii(b"Subject: x\r\n")
