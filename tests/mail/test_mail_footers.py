"""Footers stand once in each text that is shown, as another program reads it, and never where they would harm."""

from __future__ import annotations

import email
import email.policy
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.edits import Edits, Footer
from gateway.mail.edits.footers import MAX_SIZE, add_footers
from gateway.mail.edits.patches import Patch, Patcher, patched, smallest_patch
from gateway.mail.edits.rendering import Rendering, render, render_header, without_broken_signatures

MARK = "sent-safely-by-gateway"
FOOTER = Footer(f"-- {MARK}\nHospital")
UMLAUT = Footer(f"{MARK} für Größe – €")
HEAD = b"From: a@x.example\r\nSubject: x\r\nMIME-Version: 1.0\r\n"


def text(body: str | bytes, kind: str = "text/plain", charset: str = "utf-8", encoding: str = "8bit") -> bytes:
    raw = body if isinstance(body, bytes) else body.encode(charset)
    return f"Content-Type: {kind}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + raw


def multipart(kind: str, *parts: bytes, boundary: str = "b1", more: str = "") -> bytes:
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"{more}\r\n\r\n'.encode()
    line = b"\r\n--" + boundary.encode()
    return head + b"preamble" + b"".join(line + b"\r\n" + part for part in parts) + line + b"--\r\nepilogue\r\n"


def footed(part: bytes, *footers: Footer) -> tuple[bytes, Rendering]:
    message = HEAD + part
    rendering = render(message, Edits(footers=footers or (FOOTER,)))
    after = patched(message, rendering.patches)
    assert len(after) == len(message) + rendering.growth
    bare = after.replace(b"\r\n", b"")
    if b"\n" not in message.replace(b"\r\n", b""):
        assert b"\n" not in bare
        assert b"\r" not in bare
    assert rendering.eight_bit or after.isascii() or not message.isascii()
    return after, rendering


def shown(raw: bytes) -> list[tuple[str, str]]:
    """Each text part as the standard library decodes it, attachments too."""
    parsed = email.message_from_bytes(raw, policy=email.policy.default)
    leaves = [part for part in parsed.walk() if part.get_content_maintype() == "text" and not part.is_multipart()]
    return [(part.get_content_subtype(), str(part.get_content()).replace("\r\n", "\n")) for part in leaves]


def left_out(rendering: Rendering) -> str:
    (change,) = [change for change in rendering.changes if change.action == "footer"]
    assert change.done is False
    return change.detail


BODIES = {
    "7bit": text("Hello\r\n", charset="us-ascii", encoding="7bit"),
    "no mime at all": b"\r\nHello\r\n",
    "empty": text("", encoding="7bit"),
    "no line end": text("Hello", encoding="7bit"),
    "8bit utf-8": text("Grüße\r\n"),
    "8bit latin-1": text("Grüße\r\n", charset="iso-8859-1"),
    "windows-1252 called latin-1": text(b"Gr\xfc\xdfe \x96 \x80\r\n", charset="iso-8859-1"),
    "quoted-printable": text("Gr=C3=BC=\r\n=C3=9Fe =3D\r\n", encoding="quoted-printable"),
    "base64": text("R3LDvMOfZQ0K\r\n", encoding="base64"),
    "base64 with LF": text("SGVsbG8KSGVsbG8K\r\n", encoding="base64"),
    "utf-16": text("SABlAGwAbABvAA==\r\n", charset="utf-16le", encoding="base64"),
    "iso-2022-jp": text("こんにちは\r\n", charset="iso-2022-jp", encoding="7bit"),
    "flowed": text("Hello \r\nworld\r\n", kind="text/plain; format=flowed", encoding="7bit"),
}


@pytest.mark.parametrize("footer", [FOOTER, UMLAUT])
@pytest.mark.parametrize("name", BODIES)
def test_a_plain_text_ends_with_the_footer_and_reads_as_before(name: str, footer: Footer) -> None:
    before = shown(HEAD + BODIES[name])
    after, rendering = footed(BODIES[name], footer)
    ((kind, content),) = shown(after)
    assert kind == "plain"
    assert content.rstrip().endswith("\n".join(footer.lines))
    assert content.count(MARK) == 1
    if name != "windows-1252 called latin-1":
        assert content.startswith(before[0][1].rstrip("\n"))
    else:
        assert content.startswith("Grüße \x96 \x80" if footer is FOOTER else "Grüße – €")
    assert [(change.action, change.done) for change in rendering.changes] == [("footer", True)]


def test_encoding_and_charset_stay_where_they_can() -> None:
    assert b"8bit" in footed(text("Grüße\r\n"), UMLAUT)[0]
    assert b"charset=iso-8859-1" in footed(text("Grüße\r\n", charset="iso-8859-1"), Footer("für"))[0]
    after = footed(text("Hello\r\n", charset="us-ascii", encoding="7bit"), UMLAUT)[0]
    assert b"charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n" in after
    assert after.isascii()
    after = footed(b"\r\nHello\r\n", UMLAUT)[0]
    assert b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n" in after
    assert footed(text("Hello\r\n", encoding="7bit"), Footer("x" * 3000))[0].count(b"quoted-printable") == 1


BOLD = text("<b>x</b>", "text/html")
ALTERNATIVE = multipart(
    "alternative", text("Hello\r\n"), text("<html><body><p>Hello</p></body></html>\r\n", "text/html"), boundary="alt"
)
PDF = (
    b"Content-Type: application/pdf; name=x.pdf\r\nContent-Disposition: attachment; filename=x.pdf\r\n\r\n\xff\xfe\r\n"
)
NOTE = b"Content-Type: text/plain\r\nContent-Disposition: attachment; filename=notes.txt\r\n\r\nnotes\r\n"
MESSAGE = b"Content-Type: message/rfc822\r\n\r\n" + HEAD + text("inner\r\n")
INVITE = text("BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", "text/calendar; method=REQUEST", encoding="7bit")


@pytest.mark.parametrize(
    ("body", "times"),
    [
        (ALTERNATIVE, 2),
        (multipart("mixed", ALTERNATIVE, PDF, NOTE, MESSAGE), 2),
        (multipart("mixed", PDF, text("Hello\r\n"), NOTE), 1),
        (multipart("mixed", text("first\r\n"), text("second\r\n")), 1),
        (multipart("related", text("<p>x</p>", "text/html"), PDF, more="; type=text/html"), 1),
        (multipart("related", ALTERNATIVE, PDF), 2),
        (multipart("alternative", text("a\r\n"), multipart("related", BOLD, PDF, boundary="r")), 2),
        (multipart("alternative", text("a\r\n"), BOLD, INVITE), 2),
        (multipart("mixed", multipart("alternative", text("a\r\n"), INVITE, boundary="i"), NOTE), 1),
        (multipart("related", PDF, b"Content-ID: <r@x>\r\n" + BOLD, more='; start="<r@x>"'), 1),
    ],
)  # fmt: skip
def test_each_alternative_of_the_body_has_it_once_and_nothing_else_has_it(body: bytes, times: int) -> None:
    after, rendering = footed(body, FOOTER)
    parsed = email.message_from_bytes(after, policy=email.policy.default)
    found = [content for _, content in shown(after) if MARK in content]
    assert len(found) == times
    assert all(content.count(MARK) == 1 for content in found)
    assert all(change.done for change in rendering.changes)
    assert after.count(b"preamble\r\n--") == body.count(b"preamble\r\n--")
    for part in parsed.walk():
        if part.get_filename() or part.get_content_type() in ("text/calendar", "message/rfc822"):
            assert MARK not in str(part)
    for untouched in (PDF, NOTE, MESSAGE, INVITE):
        assert (untouched in after) == (untouched in HEAD + body)


def test_html_has_it_before_the_end_of_the_body() -> None:
    page = "<HTML><Body>\r\n<p>a</p>\r\n</bODy >\r\n</HTML>\r\n"
    after, _ = footed(text(page, "text/html"), Footer("a < b", "<p>html-mark</p>"))
    assert b"<p>a</p>\r\n<p>html-mark</p>\r\n</bODy >" in after
    after, _ = footed(text("<p>a", "text/html"), FOOTER)
    assert after.endswith(b"<p>a\r\n<div>-- sent-safely-by-gateway<br>\r\nHospital</div>\r\n")
    tricky = "<body>x</body><!-- </body> --><!-- </body>"
    assert b"x\r\n<div>" in footed(text(tricky, "text/html"), FOOTER)[0]
    broken = "<body>x</bo=\r\ndy></html>=\r\n"
    assert b"x=\r\n" not in footed(text(broken, "text/html", encoding="quoted-printable"), FOOTER)[0]


def test_quoted_printable_stays_as_it_was_written() -> None:
    for kind, raw in (
        ("plain", "a=3d=\r\n b=20\r\n"),
        ("html", "<b>=3dx</b>=20=\r\n</body></html>"),
        ("html", "=3d=\r\n"),
    ):
        after, _ = footed(text(raw, f"text/{kind}", encoding="quoted-printable"), UMLAUT)
        head, _, tail = raw.partition("</body>")
        assert head.encode() in after
        assert tail.encode() in after
        assert MARK in shown(after)[0][1]


def test_html_that_cannot_hold_a_character_has_a_reference() -> None:
    for charset, raw in (("us-ascii", b"<p>a"), ("iso-8859-1", b"<p>\xfc"), ("utf-8", b"<p>\xff"), ("x-none", b"\xff")):
        after, _ = footed(text(raw, "text/html", charset=charset), UMLAUT)
        assert b"&#8211; &#8364;" in after
        assert raw in after
        assert f"charset={charset}".encode() in after


def test_octets_that_are_no_text_stay_and_ascii_goes_behind_them() -> None:
    for charset in ("utf-8", "x-unknown", "us-ascii"):
        after, _ = footed(text(b"\xff\xfa Hello\r\n", charset=charset), FOOTER)
        assert b"\xff\xfa Hello\r\n\r\n-- sent" in after
    assert b"charset=utf-8" in footed(text("Grüße".encode(), charset="x-unknown"), UMLAUT)[0]


def test_several_footers_follow_each_other() -> None:
    after, rendering = footed(text("Hello\r\n"), Footer("one"), Footer("two"))
    assert after.endswith(b"Hello\r\n\r\none\r\n\r\ntwo\r\n")
    assert [change.detail for change in rendering.changes] == ["one", "two"]


def test_flowed_text_does_not_swallow_a_line() -> None:
    body = text("Hello \r\n", kind="text/plain; format=flowed")
    after, _ = footed(body, Footer("> quote \nFrom here\n-- \nname"))
    assert after.endswith(b"Hello \r\n\r\n > quote\r\n From here\r\n-- \r\nname\r\n")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (multipart("signed", text("x\r\n"), PDF), "signed"),
        (multipart("mixed", multipart("signed", text("x\r\n"), PDF, boundary="s"), text("list footer")), "signed"),
        (multipart("encrypted", PDF, PDF), "encrypted"),
        (multipart("report", text("x\r\n"), PDF), "report"),
        (b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\nAAAA\r\n", "signed or encrypted"),
        (text("-----BEGIN PGP MESSAGE-----\r\n"), "PGP"),
        (text("LS0tLS1CRUdJTiBQR1AgU0lHTkVEIE1FU1NBR0UtLS0tLQ==", encoding="base64"), "PGP"),
        (INVITE, "no part that is shown"),
        (PDF, "no part that is shown"),
        (MESSAGE, "no part that is shown"),
        (multipart("mixed", NOTE, PDF), "no part that is shown"),
        (text("x", encoding="x-own"), "unknown encoding"),
        (text("abc", encoding="base64"), "damaged base64"),
        (b"Content-Type: text/plain\r\n" + text("x"), "more than one content-type"),
        (b"Content-Type: multipart/mixed\r\n\r\nx\r\n", "usable boundary"),
        (b'Content-Type: multipart/mixed; boundary="absent"\r\n\r\nx\r\n', "without its boundary"),
        (b"Content-Transfer-Encoding: base64\r\n" + multipart("mixed", text("x")), "with encoding"),
        (b'Content-Type: multipart/related; boundary="b"\r\n\r\n--b--\r\n', "without parts"),
        (text(b"\xff\r\n", charset="utf-16", encoding="8bit"), "not valid in its charset"),
    ],
)
def test_where_it_would_do_harm_it_is_left_out_with_the_reason(body: bytes, why: str) -> None:
    after, rendering = footed(body)
    assert after == HEAD + body
    assert why in left_out(rendering)


def test_one_alternative_may_have_it_and_another_not() -> None:
    clear = text("-----BEGIN PGP SIGNED MESSAGE-----\r\n")
    after, rendering = footed(multipart("alternative", clear, text("<p>x</p>", "text/html")))
    assert sum(MARK in content for _, content in shown(after)) == 1
    assert [(change.action, change.done) for change in rendering.changes] == [("footer", True), ("footer", False)]


def test_deep_and_large_messages_get_none() -> None:
    deep = text("x")
    for level in range(40):
        deep = multipart("mixed", deep, boundary=f"level{level}x")
    assert "too deep" in left_out(footed(deep)[1])
    rendering = render(HEAD + text("x" * MAX_SIZE), Edits(footers=(FOOTER,), prepend_subject=("[Ext]",)))
    assert "larger than 25 MB" in left_out(rendering)
    assert rendering.patches[0].new.count(b"[Ext]") == 1
    assert "larger than 5 MB" in left_out(footed(text("x" * 6_000_000))[1])
    assert "not at hand" in left_out(render_header(HEAD, Edits(footers=(FOOTER,))))


def test_footers_and_header_edits_go_together_and_signatures_that_break_go() -> None:
    signed = b"DKIM-Signature: v=1; h=from; bh=x; b=x\r\nARC-Seal: i=1; b=x\r\n"
    message = signed + HEAD + text("Hello\r\n", encoding="7bit", charset="us-ascii")
    edits = Edits(prepend_subject=("[Ext]",), footers=(UMLAUT,))
    rendering = render(message, edits)
    after = patched(message, rendering.patches)
    assert after.startswith(
        b"From: a@x.example\r\nSubject: [Ext] x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; c"
    )
    assert [change.action for change in rendering.changes] == ["prepend_subject", "signature", "signature", "footer"]
    kept = render(message, Edits(prepend_subject=("[Ext]",)))
    assert b"DKIM-Signature" in patched(message, kept.patches)
    nothing = render(message, Edits(strip_tags=frozenset({"secure"})))
    assert (nothing.patches, nothing.changes) == ((), ())


def test_a_body_in_another_encoding_has_lost_its_signatures() -> None:
    signed = b"X-Google-DKIM-Signature: h=from; b=x\r\nARC-Seal: i=1; b=x\r\n"
    assert without_broken_signatures(signed + HEAD + b"\r\na", signed + HEAD + b"\r\nb") == HEAD + b"\r\nb"


def test_hostile_structures_take_little_time() -> None:
    started = time.monotonic()
    for raw in (
        text("</body>" * 400_000, "text/html"),
        text("<!--</body>" * 400_000, "text/html"),
        multipart("mixed", *[b"\r\nx"] * 100_000),
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + b"\r\n--b" * 500_000,
        b'Content-Type: text/plain; charset="' + b"x" * 100_000 + b'"\r\n\r\nx',
        text("x" * 2_000_000, charset="punycode"),
    ):
        render(HEAD + raw, Edits(footers=(UMLAUT,)))
    assert time.monotonic() - started < 8


PIECES = st.lists(
    st.sampled_from([b"--b1", b"--b1--", b"\r\n", b"\r\n\r\n", "ü".encode(), b"Content-Type: ", b"text/html", b"x",
        b"multipart/mixed; boundary=b1", b"multipart/alternative; boundary=b2", b"--b2", b"text/plain; charset=utf-16",
        b": ", b"</body>", b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: quoted-printable", b"=",
        b"Content-Disposition: inline"]),
    max_size=40,
).map(b"".join)  # fmt: skip


@pytest.mark.parametrize("encoding", ["7bit", "base64", "quoted-printable"])
def test_of_a_large_text_only_what_is_new_is_kept(encoding: str) -> None:
    line = b"QUJD" * 19 + b"\r\n"
    raw = HEAD + multipart("mixed", text(line * 50_000, charset="us-ascii", encoding=encoding), PDF)
    for part in (raw, raw.replace(b"text/plain", b"text/html")):
        rendering = render(part, Edits(footers=(FOOTER,)))
        assert sum(len(patch.new) for patch in rendering.patches) < 400
        assert shown(patched(part, rendering.patches))[0][1].count(MARK) == 1
    if encoding == "7bit":
        assert "too large to be encoded anew" in left_out(footed(raw.removeprefix(HEAD), UMLAUT)[1])


@given(st.binary(max_size=20), st.binary(max_size=20), st.integers(0, 5))
def test_the_smallest_patch_makes_the_new_of_the_old(old: bytes, new: bytes, start: int) -> None:
    for before, after in ((old, new), (old, old + new), (old, new + old), (old + new, old), (old, old)):
        patch = smallest_patch(before, after, start)
        head = b"x" * start
        assert patched(head + before + b"y", (patch,)) == head + after + b"y"
        assert old == new or (before, after) == (old, new) or len(patch.new) <= len(new)


@given(PIECES)
def test_nonsense_never_breaks_it(raw: bytes) -> None:
    found = add_footers(HEAD + raw, (UMLAUT,))
    assert found.patches or found.notes
    places = [0, *(place for patch in found.patches for place in (patch.start, patch.end)), len(HEAD + raw)]
    assert places == sorted(places)


CUT = st.tuples(st.integers(0, 60), st.integers(0, 8), st.binary(max_size=9))


@given(st.binary(max_size=60), st.lists(CUT, max_size=5), st.lists(st.integers(0, 20), max_size=10))
def test_patches_come_out_the_same_however_the_bytes_come(
    data: bytes, raw: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    patches: list[Patch] = []
    for start, size, new in sorted(raw, key=lambda entry: entry[0]):
        if start + size <= len(data) and (not patches or start > patches[-1].end):
            patches.append(Patch(start, start + size, new))
    expected = bytearray(data)
    for patch in reversed(patches):
        expected[patch.start : patch.end] = patch.new
    assert patched(data, patches) == expected
    patcher, out, position = Patcher(patches), b"", 0
    for cut in cuts:
        out += patcher.feed(data[position : position + cut])
        position += cut
    assert out + patcher.feed(data[position:]) + patcher.finish() == expected


def test_the_pattern_for_charsets_finds_each_spelling() -> None:
    for spelling in ("charset=x-a", 'charset="x-a"', "CHARSET = x-a", "format=flowed;\r\n charset=x-a; delsp=yes"):
        raw = HEAD + f"Content-Type: text/plain; {spelling}\r\n\r\nGrüße\r\n".encode()
        rendering = render(raw, Edits(footers=(UMLAUT,)))
        after = patched(raw, rendering.patches)
        assert re.search(rb"charset=utf-8", after)
        assert MARK in shown(after)[0][1]
