"""The same identifier, however it is written into a message, is found in a text - or something is said to be unread.

Nothing here uses the library's own writer: each form is built from octets, so that forms come up that it never makes.
"""

from __future__ import annotations

import base64
import binascii
import quopri
from collections.abc import Callable
from encodings.aliases import aliases
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mail.content import Content, read_content
from gateway.policy.facts import normal_text

IDENTIFIER = "536-22-8726"
SENTENCE = f"Her number is {IDENTIFIER}, please call."


def charsets() -> list[str]:
    """Every charset of Python that can write the sentence, by its name and its aliases as mail spells them."""
    names = set()
    for name in {*aliases, *aliases.values(), "utf-16", "cp874", "koi8-r", "utf-32"}:
        try:
            if SENTENCE.encode(name).decode(name) == SENTENCE:
                names.add(name.replace("_", "-"))
        except (LookupError, ValueError):
            continue
    return sorted(names - {"idna", "punycode", "mbcs", "oem"})


def found(content: Content, wanted: str = IDENTIFIER) -> bool:
    return any(wanted in normal_text(part.text) for part in content.texts)


def assert_found_or_unread(message: bytes, wanted: str = IDENTIFIER) -> None:
    content = read_content(message)
    assert found(content, wanted) or content.unread, content.texts


def assert_found(message: bytes, wanted: str = IDENTIFIER) -> None:
    content = read_content(message)
    assert found(content, wanted), (content.texts, content.unread)
    assert not content.unread


def as_base64(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


def as_base64_unpadded(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def as_base64_narrow(data: bytes) -> bytes:
    text = base64.b64encode(data)
    return b"\r\n".join(text[at : at + 5] for at in range(0, len(text), 5))


def as_quoted_printable(data: bytes) -> bytes:
    return quopri.encodestring(data).replace(b"\n", b"\r\n")


def as_quoted_printable_all(data: bytes) -> bytes:
    return b"=\r\n".join(b"=%02X" % octet for octet in data)


def as_quoted_printable_loose(data: bytes) -> bytes:
    return b"= \t\n".join(b"=%02x" % octet for octet in data)


def as_uuencode(data: bytes) -> bytes:
    lines = [binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45)]
    return b"begin 644 letter.txt\n" + b"".join(lines) + b"`\nend\n"


def as_it_is(data: bytes) -> bytes:
    return data


TRANSFER: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("8bit", as_it_is),
    ("binary", as_it_is),
    ("BASE64", as_base64),
    ("base64 (comment)", as_base64),
    ("base64", as_base64_unpadded),
    ("base64", as_base64_narrow),
    ("quoted-printable", as_quoted_printable),
    ("Quoted-Printable", as_quoted_printable_all),
    ("quoted-printable", as_quoted_printable_loose),
    ("x-uuencode", as_uuencode),
    ("uuencode", as_uuencode),
    ("7bit", as_uuencode),
    ("x-unheard-of", as_base64),
]


def entity(body: bytes, kind: str = "text/plain", charset: str = "us-ascii", encoding: str = "8bit") -> bytes:
    return f'Content-Type: {kind}; charset="{charset}"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'.encode() + body


@pytest.mark.parametrize("charset", charsets())
def test_in_every_charset_the_identifier_is_found(charset: str) -> None:
    body = SENTENCE.encode(charset)
    for kind in ("text/plain", "text/html", "text/csv"):
        for encoding, write in TRANSFER[:11]:
            if charset.startswith(("utf-16", "utf-32")) and encoding in {"8bit", "binary"}:
                continue
            assert found(read_content(entity(write(body), kind, charset, encoding))), (kind, encoding)
    assert_found_or_unread(entity(as_uuencode(body), "text/plain", charset, "7bit"))


def legible(charset: str) -> bool:
    """Whether people who know nothing of the charset still see the sentence: all but EBCDIC."""
    return b"5" in SENTENCE.encode(charset)


@pytest.mark.parametrize("charset", [name for name in charsets() if legible(name)])
def test_a_charset_that_is_not_the_one_claimed_hides_nothing(charset: str) -> None:
    body = SENTENCE.encode(charset)
    claims = ["utf-8", "us-ascii", "iso-8859-1", "x-nothing", "utf-16", "utf-32le", "utf-7", "shift_jis", "cp037", "hz"]
    for claimed in (*claims, "iso-2022-jp", "iso-2022-kr", "iso-2022-cn", "'", "utf-8\x00", "a" * 400, "base64"):
        assert_found_or_unread(entity(body, charset=claimed))
        assert_found_or_unread(entity(as_base64(body), "text/html", claimed, "base64"))


FULL_WIDTH = IDENTIFIER.translate({ord(char): ord(char) - 0x20 + 0xFF00 for char in "0123456789-"})


@pytest.mark.parametrize(
    "charset",
    [
        "utf-8",
        "utf-7",
        "utf-16-le",
        "utf-16-be",
        "iso-2022-jp",
        "iso-2022-jp-2",
        "hz",
        "shift_jis",
        "gbk",
        "euc-kr",
        "big5",
    ],
)
def test_digits_of_another_width_are_digits(charset: str) -> None:
    try:
        body = f"Her number is {FULL_WIDTH}, please call.".encode(charset)
    except UnicodeEncodeError:
        body = f"Her number is {FULL_WIDTH.replace('－', '-')}, please call.".encode(charset)
    assert found(read_content(entity(as_base64(body), charset=charset, encoding="base64")))


DISGUISES = [
    "<p>{}</p>",
    "<b>5</b><i>3</i>6-22-87<span>26</span>",
    "5<!-- no -->36<!---->-22<!-->-8726",
    "&#53;&#x33;6&#45;22&#x2D;8726",
    "&#0000000000053;36-22-8726",
    "536&shy;-22-87&#8203;26",
    "536-\u200b22-\u20608726",
    '<span style="display:none">{}</span>',
    '<span style="font-size:0px;color:#fff">{}</span>',
    '<font color="white">{}</font>',
    "<div hidden>{}</div>",
    "<template>{}</template>",
    "<noscript>{}</noscript>",
    "<svg><text>{}</text></svg>",
    "<svg><style>{}</style></svg>",
    "<math><mi>{}</mi></math>",
    "<![CDATA[{}]]>",
    "<svg><text>536-<![CDATA[22]]>-8726</text></svg>",
    "<![CDATA[<a x='>{}'>",
    "<!--[if mso]><p>{}</p><![endif]-->",
    "536-<!--[if mso]>22<![endif]-->-8726",
    "536-22<!--[if !mso]><!-->-87<!--<![endif]-->26",
    "<!-- {} -->",
    '<img alt="{}">',
    '<a title="{}" href=#>x</a>',
    '<input value="{}">',
    '<p aria-label="{}">x</p>',
    '<a href="mailto:x@y.example?body=536%2D22%2D8726">x</a>',
    '<a href="https://x.example/?n={}">x</a>',
    "<a href='#'>536-</a><a href='#'>22-8726</a>",
    '536-<span style="display:none">x</span>22-8726',
    '536-<div style="display: none">x</div>22-8726',
    "<style>.q{{display:none}}</style>536-<i class=q>9</i>22-8726",
    '<div style="float:left">536-</div><div style="float:left">22-8726</div>',
    '<p style="display:inline">536-</p><p style="display:inline">22-8726</p>',
    "<table><tr><td>536-</td>\r\n<td>22-</td><td>8726</td></tr></table>",
    "<table>536-<tr><td>x</td></tr>22-8726</table>",
    "<bdo dir=rtl>6278-22-635</bdo>",
    "\u202e6278-22-635",
    "<b '>{}<b '>",
    '<b a="x>{}',
    "<b {}",
    "<style>a{{}}</style>536-<style>b{{}}</style>22-8726",
    "<script>var a = 1 < 2;</script>{}",
    "<title><style></title>{}<style>",
    "<textarea><!-- {} --></textarea>",
    "<xmp>{}</xmp>",
    "<plaintext>{}",
    "<p>SSN<span style='display:block'>{}</span></p>",
    "536-<wbr>22-<img width=1 height=1>8726",
    "536\x00-22\x01-8726",
    '<iframe srcdoc="&lt;b&gt;{}&lt;/b&gt;"></iframe>',
    "<object data='data:text/html,{}'></object>",
    "<a href='data:text/html;base64," + base64.b64encode(SENTENCE.encode()).decode() + "'>x</a>",
    "<?x {} ?>",
    "</ {}>",
    "<!x {}>",
]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_html_hides_nothing(disguise: str) -> None:
    html = disguise.replace("{{", "{").replace("}}", "}").replace("{}", IDENTIFIER)
    for encoding, write in TRANSFER[:8]:
        assert_found(entity(write(html.encode()), "text/html", "utf-8", encoding.partition(" ")[0]))


WRAPPERS = [
    "mixed",
    "alternative",
    "related",
    "digest",
    "report",
    "signed",
    "unheard-of",
    "rfc822",
    "rfc822 in base64",
    "rfc822 attached",
    "bare LF",
    "no end",
    "no first",
    "preamble",
    "epilogue",
    "after the end",
]


def wrapped(part: bytes, how: str, level: int) -> bytes:  # noqa: PLR0911 - a table
    boundary = f"=_b{level}"
    kind = how if how in {"alternative", "related", "digest", "report", "signed", "unheard-of"} else "mixed"
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode()
    first = b"Content-Type: text/plain\r\n\r\nNothing here.\r\n"
    line = f"\r\n--{boundary}".encode()
    if how == "rfc822":
        return b"Content-Type: message/rfc822\r\n\r\n" + part
    if how == "rfc822 in base64":
        return b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + as_base64(part)
    if how == "rfc822 attached":
        return (
            b'Content-Type: application/octet-stream; name="letter.eml"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
            + as_base64(part)
        )
    if how == "bare LF":
        return wrapped(part, "mixed", level).replace(b"\r\n", b"\n")
    if how == "no end":
        return head + line + b"\r\n" + first + line + b" \t\r\n" + part
    if how == "no first":
        return head + part
    if how == "preamble":
        return head + b"Preamble\r\n" + line + b"\r\n" + part + line + b"--"
    if how == "epilogue":
        return head + line + b"\r\n" + part + line + b"--\r\nEpilogue\r\n"
    if how == "after the end":
        return head + line + b"\r\n" + first + line + b"--\r\n" + line + b"\r\n" + part
    if how == "digest":
        return head + line + b"\r\n\r\n" + part + line + b"--\r\n"
    return head + line + b"\r\n" + first + line + b"\r\n" + part + line + b"--\r\n"


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(charsets()),
    st.sampled_from(TRANSFER),
    st.sampled_from(["text/plain", "text/html", "text/csv", "application/json", "text/calendar", "text/unheard-of"]),
    st.lists(st.sampled_from(WRAPPERS), max_size=8),
)
def test_no_nesting_hides_it(
    charset: str, transfer: tuple[str, Callable[[bytes], bytes]], kind: str, wrappers: list[str]
) -> None:
    encoding, write = transfer
    if encoding == "7bit":  # uuencode within text is for plain text alone
        kind = "text/plain"
    part = entity(write(SENTENCE.encode(charset)), kind, charset, encoding)
    for level, how in enumerate(wrappers):
        part = wrapped(part, how, level)
    assert_found_or_unread(part)


@pytest.mark.parametrize("how", WRAPPERS)
def test_each_nesting_alone_is_read_without_doubt(how: str) -> None:
    message = wrapped(entity(as_base64(SENTENCE.encode()), encoding="base64"), how, 0)
    content = read_content(message)
    assert found(content) != (how == "no first")
    assert bool(content.unread) == (how == "no first")


@pytest.mark.parametrize("depth", [1, 10, 38, 39, 40, 41, 60, 400])
def test_depth_is_read_up_to_the_limit_and_beyond_it_is_said(depth: int) -> None:
    part = entity(as_base64(SENTENCE.encode()), encoding="base64")
    for level in range(depth):
        part = wrapped(part, "mixed", level)
    content = read_content(part)
    assert found(content) == (depth <= 40)
    assert bool(content.unread) == (depth > 40)


def encoded_words(charset: str, encoding: str, cuts: list[int]) -> bytes:
    """The sentence in encoded words, cut at these places of its octets."""
    data = SENTENCE.encode(charset)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    words = []
    for start, end in pairwise(places):
        piece = data[start:end]
        text = base64.b64encode(piece).decode() if encoding in "bB" else "".join(f"={octet:02X}" for octet in piece)
        words.append(f"=?{charset}?{encoding}?{text}?=")
    return "\r\n ".join(words).encode()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(charsets()), st.sampled_from("bBqQ"), st.lists(st.integers(0, 200), max_size=4))
def test_encoded_words_hide_nothing_wherever_they_are_cut(charset: str, encoding: str, cuts: list[int]) -> None:
    words = encoded_words(charset, encoding, cuts)
    assert_found_or_unread(b"Subject: " + words + b"\r\n\r\nHello\r\n")
    named = b'Content-Type: application/pdf; name="' + words + b'"\r\n\r\n%PDF-1.7'
    assert found(read_content(named))


@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?536-22?==?utf-8?q?-8726?=",
        "x=?utf-8?q?536-22-8726?=y",
        "=?UTF-8*en?Q?536-22-8726?=",
        "=?utf-8?q?536-?= \r\n\t=?iso-8859-1?b?MjItODcyNg?=",
        "=?utf-8?b?NTM2LTI\r\n yLTg3MjY=?=",
        "=?utf-8?b?NTM2LTIyLTg3MjY?=",
        '"=?utf-8?q?536-22-8726?=" <x@y.example>',
        "=?utf-8?q?a b 536-22-8726?=",
        "=?utf-8?q?=35=33=36-22-8726?=",
        "=?x?q?=?utf-8?q?536-22-8726?=",
        "=? =?utf-8?q?536-22-8726?=",
        "536-22-8726 =?utf-8?q?never ends",
    ],
)
def test_encoded_words_are_read_as_mail_programs_read_them(subject: str) -> None:
    assert_found_or_unread(f"Subject: {subject}\r\n\r\nx\r\n".encode())
    assert_found_or_unread(f"From: a\r\nSubject:\r\n {subject}\r\n\r\nx\r\n".encode())


@pytest.mark.parametrize(
    "parameters",
    [
        'name="536-22-8726.pdf"',
        "name=536-22-8726.pdf",
        "name=report 536-22-8726 .pdf",
        "name*=utf-8''536%2D22%2D8726.pdf",
        "name*0*=utf-8''536%2D2; name*1*=2-87; name*2=26.pdf",
        "name*1=8726.pdf; name*0=536-22-",
        'NAME="=?utf-8?q?536-22-8726?="',
        'name="536\\-22\\-8726"',
        'name="x"; filename="536-22-8726"',
        "name=a; name=536-22-8726",
        'name="536-22-8726',
        "charset=x; format=y;; ; name = 536-22-8726",
    ],
)
def test_a_name_is_read_in_every_notation(parameters: str) -> None:
    for header in (
        f"Content-Type: application/pdf; {parameters}\r\n",
        f"Content-Type: text/plain; {parameters}\r\n",
        f"Content-Type: application/pdf\r\nContent-Disposition: attachment; {parameters}\r\n",
    ):
        assert found(read_content(f"{header}\r\n%PDF-1.7\r\n".encode())), header


@given(
    quotes=st.lists(st.sampled_from(" \t>"), max_size=3), cut=st.integers(1, len(IDENTIFIER) - 1), stuffed=st.booleans()
)
def test_a_soft_line_end_within_it_is_none(quotes: list[str], cut: int, *, stuffed: bool) -> None:
    depth = quotes.count(">")
    mark = ">" * depth + (" " if depth or stuffed else "")
    text = f"{mark}Her number is \r\n{mark}{IDENTIFIER[:cut]} \r\n{mark}{IDENTIFIER[cut:]}, call.\r\n"
    header = "Content-Type: text/plain; format=flowed; delsp=yes\r\n\r\n"
    assert found(read_content((header + text).encode()))
