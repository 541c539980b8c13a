"""8-bit messages for peers that take seven: what changes, what stays octet for octet, and what is left alone."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protect.sevenbit import MAX_SIZE, CannotConvert, to_seven_bit

GERMAN = "Grüße aus Köln, schöne Fußgänger\r\n"


def text_part(text: str | bytes, encoding: str = "8bit", kind: str = "text/plain; charset=utf-8") -> bytes:
    body = text.encode() if isinstance(text, str) else text
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body


def message(part: bytes) -> bytes:
    return b"From: a@x.example\r\nSubject: test\r\nMIME-Version: 1.0\r\n" + part


def multipart(*parts: bytes, kind: str = "multipart/mixed", boundary: str = "b1", header: str = "") -> bytes:
    head = f'Content-Type: {kind}; boundary="{boundary}"\r\n{header}\r\n'.encode()
    line = b"\r\n--" + boundary.encode()
    return head + b"preamble" + b"".join(line + b"\r\n" + part for part in parts) + line + b"--\r\nepilogue\r\n"


def decoded(raw: bytes) -> list[tuple[str, bytes]]:
    """Every leaf as the standard library reads it: type and decoded octets."""
    parsed = email.message_from_bytes(raw, policy=email.policy.compat32)
    leaves = [part for part in parsed.walk() if not part.is_multipart()]
    return [(part.get_content_type(), bytes(part.get_payload(decode=True) or b"")) for part in leaves]


def framed(raw: bytes) -> None:
    assert raw.isascii()
    rest = raw.replace(b"\r\n", b"")
    assert b"\r" not in rest
    assert b"\n" not in rest


def test_what_is_ascii_already_is_returned_as_it_is() -> None:
    raw = message(text_part("plain\r\n"))
    assert to_seven_bit(raw) is raw


def test_a_text_becomes_quoted_printable_and_reads_the_same() -> None:
    raw = message(text_part(GERMAN * 3 + "trailing space \r\nlong " + "x" * 500 + "\r\n.\r\nFrom here\r\n"))
    converted = to_seven_bit(raw)
    framed(converted)
    assert b"Content-Transfer-Encoding: quoted-printable\r\n" in converted
    assert decoded(converted) == decoded(raw)
    assert max(map(len, converted.split(b"\r\n"))) <= 100
    head = converted.split(b"\r\n\r\n")[0]
    assert head.startswith(b"From: a@x.example\r\nSubject: test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain")


def test_a_text_that_is_all_eight_bit_becomes_base64() -> None:
    raw = message(text_part("漢字" * 400 + "\r\n"))
    converted = to_seven_bit(raw)
    framed(converted)
    assert b"Content-Transfer-Encoding: base64\r\n" in converted
    assert decoded(converted) == decoded(raw)


def test_a_label_that_lies_is_put_right() -> None:
    raw = message(text_part(GERMAN, encoding="7bit"))
    assert decoded(to_seven_bit(raw)) == decoded(raw)
    raw = message(b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + GERMAN.encode())
    converted = to_seven_bit(raw)
    assert converted.count(b"Content-Transfer-Encoding") == 1
    assert decoded(converted) == decoded(raw)


def test_parts_that_need_nothing_stay_octet_for_octet() -> None:
    odd = b"Content-type :  text/plain\r\nX-Odd:\tfolded\r\n  value \r\n\r\n  kept =  exactly \t\r\n--b1x\r\n"
    raw = message(multipart(odd, text_part(GERMAN), text_part("aGVsbG8=\r\n", "base64", "image/png")))
    converted = to_seven_bit(raw)
    framed(converted)
    assert odd in converted
    assert b"preamble\r\n--b1\r\n" in converted
    assert converted.endswith(b"\r\n--b1--\r\nepilogue\r\n")
    assert decoded(converted) == decoded(raw)


def test_parts_within_parts_and_attached_messages() -> None:
    inner = message(multipart(text_part(GERMAN), text_part("<p>" + GERMAN, kind="text/html"), boundary="b2"))
    attached = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + inner
    raw = message(multipart(attached, text_part(GERMAN), header="Content-Transfer-Encoding: 8bit\r\n"))
    converted = to_seven_bit(raw)
    framed(converted)
    assert b"8bit" not in converted
    assert converted.count(b"Content-Transfer-Encoding: 7bit\r\n") == 2
    assert decoded(converted) == decoded(raw)


def test_a_digest_holds_messages_by_default() -> None:
    raw = message(multipart(b"\r\n" + message(text_part(GERMAN)), kind="multipart/digest"))
    converted = to_seven_bit(raw)
    framed(converted)
    assert decoded(converted) == decoded(raw)


def test_a_multipart_that_was_never_closed() -> None:
    raw = message(multipart(text_part(GERMAN)))
    raw = raw[: raw.index(b"\r\n--b1--")] + b"\r\n"
    converted = to_seven_bit(raw)
    framed(converted)
    # Whether the last line end belongs to a part without an end is for each reader to say.
    ((kind, content),) = decoded(converted)
    assert (kind, content.rstrip()) == ("text/plain", GERMAN.encode().rstrip())


@pytest.mark.parametrize(
    ("body", "charset"), [(GERMAN.encode(), b"utf-8"), (GERMAN.encode("latin-1"), b"unknown-8bit")]
)
def test_a_message_from_before_mime_becomes_one(body: bytes, charset: bytes) -> None:
    converted = to_seven_bit(b"From: a@x.example\r\nSubject: old\r\n\r\n" + body)
    framed(converted)
    assert b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=" + charset + b"\r\n" in converted
    assert decoded(converted) == [("text/plain", body)]


def test_an_attachment_in_8bit_becomes_base64() -> None:
    raw = message(text_part(b"\xff\xfe\xfd\r\n" * 30, kind="application/octet-stream"))
    converted = to_seven_bit(raw)
    framed(converted)
    assert b"base64" in converted
    assert decoded(converted) == decoded(raw)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (message(multipart(text_part(GERMAN), kind="multipart/signed")), "signed"),
        (message(multipart(text_part(GERMAN), kind="multipart/encrypted")), "encrypted"),
        (message(multipart(multipart(text_part(GERMAN), kind="Multipart/Signed", boundary="b2"))), "signed"),
        (message(text_part(GERMAN, "binary")), "binary"),
        (message(text_part(GERMAN, "base64")), "base64"),
        (message(text_part(GERMAN, "quoted-printable")), "quoted-printable"),
        (message(text_part(GERMAN, "x-own")), "x-own"),
        (b"Subject: " + GERMAN.encode() + b"\r\nbody\r\n", "header fields"),
        (message(multipart(text_part(GERMAN), header="Content-Transfer-Encoding: base64\r\n")), "base64"),
        (message(text_part(GERMAN, kind="message/global")), "message/global"),
        (message(text_part(GERMAN, kind="multipart/mixed")), "boundary"),
        (message(text_part(GERMAN, kind='multipart/mixed; boundary="absent"')), "boundary"),
        (message(multipart(text_part("x"))).replace(b"preamble", GERMAN.encode()[:-2]), "before or after"),
        (message(multipart(text_part("x"))) + GERMAN.encode(), "before or after"),
        (message(b"Content-Type: text/plain\r\n" + text_part(GERMAN)), "content-type"),
        (message(b"Content-Transfer-Encoding: 7bit\r\n" + text_part(GERMAN)), "content-transfer-encoding"),
        (b"no field\r\n\r\n" + GERMAN.encode(), "field"),
    ],
)
def test_what_cannot_be_converted_without_harm_is_refused_with_the_reason(raw: bytes, word: str) -> None:
    with pytest.raises(CannotConvert) as refused:
        to_seven_bit(raw)
    assert word in str(refused.value)


def test_limits() -> None:
    with pytest.raises(CannotConvert, match="larger"):
        to_seven_bit(message(text_part(b"\xff" * MAX_SIZE)))
    deep = text_part(GERMAN)
    for level in range(60):
        deep = multipart(deep, boundary=f"deep{level}x")
    with pytest.raises(CannotConvert, match="too many"):
        to_seven_bit(message(deep))
    with pytest.raises(CannotConvert, match="too many"):
        to_seven_bit(message(multipart(*[text_part(GERMAN)] * 1001)))


LINE = st.text(alphabet="aZ =.\tü漢😀-\x7f", max_size=200).map(str.encode) | st.binary(max_size=80)


@given(st.lists(LINE.map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")), max_size=20), st.booleans())
def test_every_text_comes_back_octet_for_octet(lines: list[bytes], ended: bool) -> None:  # noqa: FBT001 - drawn
    body = b"\r\n".join(lines) + (b"\r\n" if ended else b"")
    raw = message(text_part(body))
    converted = to_seven_bit(raw)
    framed(converted)
    assert decoded(converted) == decoded(raw)


@given(st.lists(st.sampled_from([b"--b1", b"--b1--", b"\r\n", b"\r\n\r\n", "ü".encode(), b"Content-Type: ",
    b"multipart/mixed; boundary=b1", b"message/rfc822", b"text/html", b"x", b": ", b" "]), max_size=30))  # fmt: skip
def test_nonsense_is_converted_or_refused_but_never_breaks(pieces: list[bytes]) -> None:
    raw = b"".join(pieces)
    for made in (raw, message(b'Content-Type: multipart/mixed; boundary="b1"\r\n\r\n' + raw)):
        try:
            converted = to_seven_bit(made)
        except CannotConvert:
            continue
        framed(converted)
