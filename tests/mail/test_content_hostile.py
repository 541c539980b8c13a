"""Whatever the octets: an answer, in bounded time and memory, and nothing that is not read goes unsaid."""

from __future__ import annotations

import base64
import random
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.mail.content import Content, read_content
from gateway.mail.reply import clean_text

MEGABYTE = 1_000_000


def complex_message() -> bytes:
    """A bit of everything that mail programs write."""
    html = b'<html><head><style>.a{display:none}</style></head><body><p style="float:left">Hi&nbsp;<b>you</b><!-- x -->'
    html += b'<a href="mailto:a@b.example?x=%20">m</a><!--[if mso]><i>o</i><![endif]--></p></body></html>'
    inner = b"From: =?iso-8859-1?q?J=F6rg?= <j@x.example>\r\nSubject: =?utf-8?b?SW5uZXI=?=\r\n\r\nInner text\r\n"
    return b"\r\n".join(
        (
            b"From: a@x.example",
            b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= and\r\n\tmore",
            b'Content-Type: multipart/mixed;\r\n boundary="=_1"',
            b"",
            b"This is a multi-part message in MIME format.",
            b"--=_1",
            b'Content-Type: multipart/alternative; boundary="=_1a"',
            b"",
            b"--=_1a",
            b"Content-Type: text/plain; charset=utf-7; format=flowed; delsp=yes",
            b"",
            b"> quoted \r\n> text +AOQ-\r\nbegin 644 a.txt\r\n#0V%T\r\n`\r\nend\r\n-- \r\nme",
            b"--=_1a",
            b"Content-Type: text/html; charset=windows-1252",
            b"Content-Transfer-Encoding: quoted-printable",
            b"",
            html.replace(b"=", b"=3D") + b"=E9=\r\n",
            b"--=_1a",
            b"Content-Type: text/calendar; method=REQUEST",
            b"",
            b"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nSUMMARY:A\r\n  b\r\nATTACH;ENCODING=BASE64:QUJD\r\nEND:VCALENDAR",
            b"--=_1a--",
            b"--=_1",
            b"Content-Type: application/pdf; name*0*=utf-8''r%C3%A9; name*1=sum.pdf",
            b"Content-Transfer-Encoding: base64",
            b"Content-Disposition: attachment",
            b"",
            base64.encodebytes(b"%PDF-1.7\n<< /Encrypt 4 0 R >>\n" + bytes(200)),
            b"--=_1",
            b"Content-Type: application/pkcs7-mime; name=smime.p7m",
            b"Content-Transfer-Encoding: base64",
            b"",
            base64.encodebytes(bytes.fromhex("3080060a2a864886f70d010702a0803080020101310030800609")),
            b"--=_1",
            b"Content-Type: message/rfc822",
            b"",
            inner,
            b"--=_1--",
            b"epilogue",
        )
    )


COMPLEX = complex_message()


def check(content: Content) -> None:
    assert all(part.text and part.where for part in content.texts)
    assert all(len(line) < 400 and clean_text(line) == line for line in content.unread)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=2000))
@example(b"")
@example(b"\r\n")
@example(b"\n\n\n")
@example(b"Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n--")
@example(b"Content-Type:")
@example(b"Subject: =?idna?b?////?=\r\n\r\n")
@example(b"Content-Type: text/plain; charset=punycode\r\n\r\nabc-")
@example(b"Content-Type: text/html\r\n\r\n&#" + b"9" * 5000 + b";")
@example(b"Content-Type: application/pkcs7-mime\r\n\r\n\x30\x80\x06")
@example(b"Content-Type: text/plain; name*" + b"9" * 5000 + b"*=x\r\n\r\n")
def test_no_octets_make_it_fail(data: bytes) -> None:
    check(read_content(data))
    check(read_content(b'Content-Type: multipart/x; boundary="a"\r\n\r\n--a\r\n' + data))
    check(read_content(b"Content-Type: text/html; charset=utf-16\r\n\r\n" + data))


TOKENS = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"--",
        b"--a",
        b"--a--",
        b"Content-Type: ",
        b"multipart/mixed; boundary=a",
        b"text/html",
        b"\r\n\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"message/rfc822\r\n",
        b"=?utf-8?q?",
        b"?=",
        b"begin 644 x\n",
        b"end\n",
        b"<",
        b">",
        b"<!--",
        b"-->",
        b"<style>",
        b"&#",
        b"\x00",
        b"\xff\xfe",
        b"=",
        b"=3D",
        b"QUJD",
        b";",
        b'"',
        b"'",
        b"*0*=",
        b"name=",
        b"filename*=utf-8''",
        b"charset=utf-7",
        b"application/pdf",
        b"%PDF-",
        b"PK\x03\x04",
        b"0\x80\x06\t",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(TOKENS, st.binary(max_size=8)), max_size=60))
def test_no_mixture_of_what_has_a_meaning_makes_it_fail(tokens: list[bytes]) -> None:
    content = read_content(b"".join(tokens))
    check(content)
    assert not any("could not be read" in line for line in content.unread)


def test_every_prefix_of_a_message_is_read() -> None:
    for end in range(len(COMPLEX)):
        content = read_content(COMPLEX[:end])
        check(content)
        assert not any("could not be read" in line for line in content.unread), end


def mutations(count: int) -> Iterator[bytes]:
    dice = random.Random(4711)
    for _ in range(count):
        data = bytearray(COMPLEX)
        for _ in range(dice.randrange(1, 12)):
            place = dice.randrange(len(data))
            match dice.randrange(4):
                case 0:
                    data[place] = dice.randrange(256)
                case 1:
                    del data[place : place + dice.randrange(40)]
                case 2:
                    data[place:place] = data[dice.randrange(len(data)) :][: dice.randrange(200)]
                case _:
                    data[place:place] = bytes(dice.randrange(256) for _ in range(dice.randrange(6)))
        yield bytes(data)


def test_mutated_messages_are_read() -> None:
    for data in mutations(1500):
        content = read_content(data)
        check(content)
        assert not any("could not be read" in line for line in content.unread), data


MULTIPART = b'Content-Type: multipart/mixed; boundary="B"\r\n\r\n'
BASE64 = b"Content-Transfer-Encoding: base64\r\n"


def nested(levels: int, filling: bytes) -> bytes:
    head = b"".join(
        b'Content-Type: multipart/mixed; boundary="%s"\r\n\r\n--%s\r\n' % (b"x" * level, b"x" * level)
        for level in range(1, levels)
    )
    return head + b"\r\n" + filling


def hostile() -> dict[str, bytes]:
    """Beginnings and what is repeated after them, up to the size."""
    html = b"Content-Type: text/html; charset=utf-8\r\n\r\n"
    return {
        "nothing": b"|\x00",
        "text": b"\r\n|word \xc3\xa9 \r\n",
        "one line": b"\r\n|x",
        "emoji": b"\r\n\xf0\x9f\x98\x80|x ",
        "latin": b"\r\n|\xe9 x",
        "header": b"|X-A: b\r\n",
        "folded header": b"Subject: x|\r\n x",
        "blank header lines": b"Subject: x|\r\n ",
        "no field": b"|xyz\r\n",
        "encoded words": b"Subject: |=?utf-8?q?a?= ",
        "open words": b"Subject: |=?utf-8?q?",
        "half words": b"Subject: |=?x",
        "parameters": b"Content-Type: text/plain|; name=a",
        "sections": b"Content-Type: text/plain|; name*0*=utf-8''a",
        "quotes": b'Content-Type: text/plain; name="|\\"',
        "blanks in a type": b"Content-Type: text/plain;|  ",
        "parts": MULTIPART + b"|--B\r\n\r\nx\r\n",
        "empty parts": MULTIPART + b"|--B\r\n",
        "like boundaries": MULTIPART + b"--B\r\n|--Bx\r\n",
        "dashes": MULTIPART + b"--B\r\n|\n--",
        "nested": nested(41, b"|--xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy\r\n"),
        "nested messages": b"|Content-Type: message/rfc822\r\n\r\n",
        "base64": BASE64 + b"\r\n|QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5\r\n",
        "padding": BASE64 + b"\r\n|Q=",
        "junk": BASE64 + b"\r\n|-\xff",
        "quoted-printable": b"Content-Transfer-Encoding: quoted-printable\r\n\r\n|=E9",
        "soft": b"Content-Transfer-Encoding: quoted-printable\r\n\r\n|= \t=",
        "uu": b"\r\n|begin 644 a\r\n",
        "uu lines": b"\r\nbegin 644 a\n|#0V%T\n",
        "uu files": b"\r\n|begin 644 a\n#0V%T\n`\nend\n",
        "flowed": b"Content-Type: text/plain; format=flowed; delsp=yes\r\n\r\n|> x \n",
        "flowed lines": b"Content-Type: text/plain; format=flowed\r\n\r\n>|\n",
        "utf-7": b"Content-Type: text/plain; charset=utf-7\r\n\r\n|+AOQ-",
        "iso-2022": b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n|\x1b$B#5\x1b(B",
        "escapes": b"\r\n|\x1b$B#5",
        "hz": b"Content-Type: text/plain; charset=hz\r\n\r\n|~{",
        "utf-16": b"Content-Type: text/plain; charset=utf-16\r\n\r\n|\x00\xd8",
        "tags": html + b"|<b>",
        "blocks": html + b"|<div>",
        "cells": html + b"|<td>-",
        "hidden": html + b'|<i style="display:none">x',
        "attributes": html + b"<a |b=c ",
        "quoted attributes": html + b"|<a b=\"'",
        "references": html + b"|&lt;",
        "comments": html + b"|<!-- x -->",
        "comments with a bang": html + b"|<!-- x --!>",
        "data": html + b"|<img src=data:text/html,x>",
        "styles": html + b"<style>|.aaaa{",
        "right to left": b"\r\n\xe2\x80\xae|x ",
        "calendar": b"Content-Type: text/calendar\r\n\r\n|ATTACH;ENCODING=BASE64:QUJD\r\n",
        "calendar colons": b"Content-Type: text/calendar\r\n\r\n|A;x=B",
        "json": b"Content-Type: application/json\r\n\r\n|\\u0035",
        "zip": b"Content-Type: application/zip\r\n\r\nPK\x03\x04|PK\x01\x02\x00",
        "pdf": b"Content-Type: application/pdf\r\n\r\n%PDF-|/Encrypt 1",
        "cms": b"Content-Type: application/pkcs7-mime\r\n\r\n|\x30\x80\x06",
        "cms pieces": b"Content-Type: application/pkcs7-mime\r\n\r\n"
        + bytes.fromhex("308006092a864886f70d010702a080308002010131003080060a2a864886f70d010701a0802480")
        + b"|\x04\x01x",
        "armour": b"\r\n-----BEGIN PGP MESSAGE-----\n\n|wcBMA",
    }


def filled(pattern: bytes, size: int) -> bytes:
    start, _, repeated = pattern.partition(b"|")
    return start + repeated * ((size - len(start)) // len(repeated))


@pytest.mark.parametrize("name", hostile())
def test_time_is_linear_in_the_size(name: str) -> None:
    """Four times the size, some four times the time: not sixteen. The bound in seconds is loose: machines differ."""
    pattern = hostile()[name]
    small, large = filled(pattern, MEGABYTE // 8), filled(pattern, MEGABYTE // 2)
    assert not any("could not be read" in line for line in read_content(small).unread)

    def seconds(data: bytes) -> float:
        best = 9e9
        for _ in range(3):
            start = time.process_time()
            read_content(data)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(large) < 8 * seconds(small) + 0.05


@pytest.mark.parametrize("name", ["text", "parts", "base64", "tags", "emoji", "json", "uu files"])
def test_memory_stays_within_a_few_times_the_message(name: str) -> None:
    data = filled(hostile()[name], MEGABYTE)
    read_content(data[:100_000])
    tracemalloc.start()
    read_content(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * len(data), peak / len(data)


def test_text_beyond_the_limit_is_cut_and_said_to_be() -> None:
    content = read_content(b"\r\n" + b"x" * 5000, text_limit=1000)
    assert sum(len(part.text) for part in content.texts) == 1000
    assert content.unread == ("body: there is more text than is read",)
    assert read_content(b"\r\n" + b"x" * 1000, text_limit=1000).unread == ()
    assert read_content(b"Subject: x\r\n\r\nyy", text_limit=0).texts == ()
