"""Structure: parts, messages within messages, headers - and the doubts that are named where programs differ."""

from __future__ import annotations

import pytest

from gateway.mail.content import Content, read_content


def texts(content: Content) -> list[tuple[str, str]]:
    return [(part.where, part.text.strip()) for part in content.texts]


def multipart(*parts: str, kind: str = "mixed", boundary: str = "b", end: str = "\r\n--b--\r\n") -> bytes:
    joined = "".join(f"\r\n--b\r\n{part}" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n{joined}{end}'.encode()


def test_a_letter_is_its_subjects_and_its_body() -> None:
    content = read_content(
        b"From: a@x.example\r\nSubject: One\r\nSubject: Two\r\nTo: b@y.example\r\n\r\nHello\r\nyou\r\n"
    )
    assert texts(content) == [("subject", "One"), ("subject", "Two"), ("body", "Hello\nyou")]
    assert not content.unread
    assert not content.attachments


def test_text_before_between_and_after_the_parts_is_text() -> None:
    message = multipart("\r\none", "\r\ntwo").replace(b"\r\n\r\n\r\n--b", b"\r\n\r\nbefore\r\n--b", 1) + b"after"
    assert texts(read_content(message)) == [
        ("preamble", "before"),
        ("body", "one"),
        ("body", "two"),
        ("epilogue", "after"),
    ]


def test_messages_within_have_their_own_names() -> None:
    inner = "Content-Type: message/rfc822\r\n\r\nFrom: Jo <j@x.example>\r\nSubject: In\r\n\r\ntext"
    content = read_content(multipart("\r\none", inner, inner))
    assert texts(content) == [
        ("body", "one"),
        *(
            pair
            for number in (1, 2)
            for pair in (
                (f"message {number} subject", "In"),
                (f"message {number} from", "Jo <j@x.example>"),
                (f"message {number} body", "text"),
            )
        ),
    ]
    assert [attachment.type for attachment in content.attachments] == ["message", "message"]


def test_a_digest_holds_messages() -> None:
    content = read_content(multipart("\r\nSubject: In\r\n\r\ntext", kind="digest"))
    assert texts(content) == [("message 1 subject", "In"), ("message 1 body", "text")]


def test_boundaries_that_begin_alike_are_told_apart() -> None:
    inner = multipart("\r\nin").replace(b"--b", b"--b1").replace(b'"b"', b'"b1"').decode()
    content = read_content(multipart("\r\none", inner, "\r\ntwo"))
    assert [text for _, text in texts(content)] == ["one", "in", "two"]
    assert not content.unread


DOUBTS = {
    "a line that begins like the boundary": multipart("\r\none\r\n--bx\r\n\r\ntwo"),
    "no boundary": b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\none",
    "a boundary that is not there": multipart("\r\none", boundary="c"),
    "two boundaries": b"Content-Type: multipart/mixed; boundary=b; boundary=c\r\n\r\n--b\r\n\r\none\r\n--c\r\n\r\ntwo",
    "two types": b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\none",
    "two encodings": b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\none",
    "an encoded multipart": multipart("\r\none").replace(
        b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1
    ),
    "a line that is no field": b"Subject: one\r\nno field\r\nX: y\r\n\r\ntwo",
    "a blank line with blanks": b"Subject: one\r\n \t\r\nX: y\r\n\r\ntwo",
    "a piece of a message": b"Content-Type: message/partial; id=x\r\n\r\none",
    "something elsewhere": b"Content-Type: message/external-body; access-type=url\r\n\r\none",
    "an unknown encoding": b"Content-Transfer-Encoding: x-y\r\n\r\none",
    "base64 after its end": b"Content-Transfer-Encoding: base64\r\n\r\nb25l\r\nbw==\r\nb25l\r\n",
    "base64 with junk": b"Content-Transfer-Encoding: base64\r\n\r\nb2*5l\r\n",
    "an unknown charset": b"Content-Type: text/plain; charset=x-y\r\n\r\none",
    "no UTF-8": b"Content-Type: text/plain; charset=utf-8\r\n\r\none \xe9",
    "uuencode that is none": b"Content-Transfer-Encoding: x-uuencode\r\n\r\none",
}


@pytest.mark.parametrize("what", DOUBTS)
def test_where_programs_differ_there_is_doubt_and_the_text_is_looked_at(what: str) -> None:
    content = read_content(DOUBTS[what])
    assert content.unread
    assert any("one" in part.text for part in content.texts)


CLEAN = {
    "blanks after a boundary": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b \t\r\n\r\none\r\n--b-- \r\n",
    "no end": multipart("\r\none", end=""),
    "bare LF": multipart("\r\none").replace(b"\r\n", b"\n"),
    "a boundary in single quotes": multipart("\r\none").replace(b'"b"', b"b ; x=y"),
    "an envelope line": b"From x Thu Jan  1\r\nSubject: one\r\n\r\ntwo",
    "a type without a slash": b"Content-Type: text\r\n\r\none",
    "an empty type": b"Content-Type:\r\n\r\none",
    "UTF-8 without being declared": "\r\none é".encode(),
    "Windows quotation marks as Latin-1": b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\none \x93x\x94",
    "no padding": b"Content-Transfer-Encoding: base64\r\n\r\nb25lIG8",
    "odd case": b"CONTENT-TYPE: TEXT/PLAIN; CHARSET=UTF-8\r\nCONTENT-TRANSFER-ENCODING: BASE64\r\n\r\nb25l",
    "comments": b"Content-Type: text/plain (c); charset=utf-8 (d)\r\nContent-Transfer-Encoding: 7bit (e)\r\n\r\none",
}


@pytest.mark.parametrize("what", CLEAN)
def test_what_everyone_reads_alike_is_no_doubt(what: str) -> None:
    content = read_content(CLEAN[what])
    assert content.unread == ()
    assert any("one" in part.text for part in content.texts)


def test_thousands_of_parts_are_read_up_to_the_limit() -> None:
    content = read_content(multipart(*(f"\r\n{number}" for number in range(1999))))
    assert len(content.texts) == 1999
    assert not content.unread
    content = read_content(multipart(*(f"\r\n{number}" for number in range(2500))))
    assert "2499" in content.texts[-1].text
    assert content.unread


def test_a_method_and_folded_lines_of_a_calendar() -> None:
    calendar = "BEGIN:VCALENDAR\r\nMETHOD:request\r\nSUMMARY:fol\r\n ded\\, too\r\nEND:VCALENDAR"
    content = read_content(multipart("\r\nx", f"Content-Type: text/calendar; method=REQUEST\r\n\r\n{calendar}"))
    assert content.calendar_method == "REQUEST"
    assert any("SUMMARY:folded, too" in part.text for part in content.texts)
    assert not content.unread


def test_flowed_text_is_whole_again() -> None:
    head = b"Content-Type: text/plain; format=flowed; delsp=yes\r\n\r\n"
    content = read_content(head + b"one \r\ntwo\r\n> a \r\n> b\r\n>> c\r\n-- \r\nsig")
    assert texts(content)[0] == ("body", "onetwo\n> ab\n>> c\n-- \nsig")
    assert "one two" in content.texts[1].text
