"""Which parts of a message are shown, and how; what is offered as a file, and under which name."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from gateway.portal.reading import attachment_answer, files_of, message_answer
from gateway.portal.reading.document import CSP
from gateway.portal.reading.heading import Person, heading_of
from gateway.portal.reading.names import file_name, unique_names
from gateway.portal.reading.parts import Part
from tests.portal.reading_world import PNG, html_of, indexed, letter, lines, viewed


def part(kind: str, *body: str, **fields: str) -> bytes:
    named = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return lines(f"Content-Type: {kind}", *named, "", *body)


def multipart(kind: str, *parts: bytes) -> bytes:
    boundary = f"b{abs(hash(parts))}"
    inner = b"".join(lines(f"--{boundary}") + each for each in parts)
    return lines(f"Content-Type: multipart/{kind}; boundary={boundary}", "") + inner + lines(f"--{boundary}--")


def picture(cid: str, data: bytes = PNG, **fields: str) -> bytes:
    text = base64.b64encode(data).decode()
    return part("image/png", text, Content_ID=f"<{cid}>", Content_Transfer_Encoding="base64", **fields)


def test_of_alternatives_the_richest_is_shown_and_the_others_are_not_files() -> None:
    view = viewed(multipart("alternative", part("text/plain", "poor"), part("text/html", "<b>rich</b>")))
    assert html_of(view).strip() == "<b>rich</b>"
    assert view.files == ()


def test_an_invitation_beside_the_text_is_offered_in_words() -> None:
    calendar = part(
        "text/calendar; method=REQUEST",
        "BEGIN:VCALENDAR",
        "METHOD:REQUEST",
        "BEGIN:VEVENT",
        "SUMMARY:Check-up\\, yearly",
        "DTSTART;TZID=Europe/Berlin:20260301T143000",
        "DTEND:20260301T150000Z",
        "LOCATION:Room 4",
        "END:VEVENT",
    )
    view = viewed(multipart("alternative", part("text/plain", "come"), calendar))
    (file,) = view.files
    assert file.name == "attachment-2.ics"
    assert file.appointment is not None
    assert (file.appointment.method, file.appointment.summary) == ("REQUEST", "Check-up, yearly")
    assert (file.appointment.start, file.appointment.end) == ("2026-03-01 14:30 Europe/Berlin", "2026-03-01 15:00 UTC")


def test_pictures_of_the_letter_are_shown_in_it_and_only_then_no_files() -> None:
    html = part("text/html", '<img src="cid:one"><img src="cid:gone"><img src="https://a.example/x">')
    view = viewed(multipart("related", html, picture("one"), picture("two")))
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"' in html_of(view)
    assert (view.remote_pictures, view.missing_pictures) == (1, 1)
    assert [file.number for file in view.files] == [3]


def test_what_is_no_picture_by_its_content_is_not_shown_as_one() -> None:
    html = part("text/html", '<img src="cid:one">')
    view = viewed(multipart("related", html, picture("one", b"<svg onload=alert(1)></svg>")))
    assert "data:" not in html_of(view)
    assert view.missing_pictures == 1
    assert len(view.files) == 1


def test_pictures_are_shown_up_to_their_limits() -> None:
    big = PNG + bytes(4_900_000)
    html = part("text/html", '<img src="cid:a"><img src="cid:b"><img src="cid:c"><img src="cid:d"><img src="cid:a">')
    parts = [picture(name, big) for name in "abc"] + [picture("d", PNG + bytes(5_000_000))]
    view = viewed(multipart("related", html, *parts))
    assert view.missing_pictures == 3
    assert len(view.document.content) < 14_000_000


def test_a_text_too_large_to_be_shown_is_a_file_and_its_smaller_form_is_shown() -> None:
    large = "<p>" + "x" * 2_000_001
    view = viewed(multipart("alternative", part("text/plain", "short"), part("text/html", large)))
    assert "short" in html_of(view)
    assert view.too_large
    assert [file.media_type for file in view.files] == ["text/html"]
    view = viewed(part("text/plain", "x" * 2_000_001))
    assert (view.is_empty, view.too_large, len(view.files)) == (True, True, 1)


def test_signed_mail_shows_what_was_signed_and_encrypted_mail_is_files() -> None:
    signature = part("application/pgp-signature", "x")
    view = viewed(multipart("signed", part("text/plain", "hello"), signature))
    assert "hello" in html_of(view)
    assert [file.name for file in view.files] == ["attachment-2.asc"]
    control, data = part("application/pgp-encrypted", "Version: 1"), part("application/octet-stream", "x")
    view = viewed(multipart("encrypted", control, data))
    assert view.is_empty
    assert len(view.files) == 2
    view = viewed(part("application/pkcs7-mime; smime-type=enveloped-data", "x"))
    assert [file.name for file in view.files] == ["attachment-1.p7m"]


def test_an_attached_message_is_a_file_with_its_subject_as_name() -> None:
    inner = lines("Content-Type: message/rfc822", "", "Subject: =?utf-8?q?R=C3=A9sultat?= 3/4", "", "secret")
    view = viewed(multipart("mixed", part("text/plain", "see"), inner))
    assert [file.name for file in view.files] == ["Résultat 3_4.eml"]
    assert "secret" not in html_of(view)


def test_texts_one_after_the_other_are_all_shown_and_named_ones_are_files() -> None:
    named = part("text/plain; name=a.txt", "third")
    view = viewed(multipart("mixed", part("text/plain", "first"), part("text/html", "<i>second</i>"), named))
    assert "first" in html_of(view)
    assert "<i>second</i>" in html_of(view)
    assert [file.name for file in view.files] == ["a.txt"]


def test_plain_text_shows_quotations_links_and_flowed_lines() -> None:
    text = lines("Hello ", "world", "> quoted <b>", ">> deeper", "see https://a.example/x?a=1&b=2. Or pat@isp.example")
    html = html_of(viewed(lines("Content-Type: text/plain; format=flowed", "") + text))
    assert "Hello world" in html
    assert "quoted &lt;b&gt;" in html
    assert html.count("<blockquote>") == html.count("</blockquote>") == 2
    assert '<a href="https://a.example/x?a=1&amp;b=2" title="https://a.example/x?a=1&amp;b=2" target="_blank"' in html
    assert 'href="mailto:pat@isp.example"' in html


def test_links_tell_where_they_lead() -> None:
    html = html_of(viewed(letter('<a href="https://bank.example@evil.example/x" title="https://bank.example">x</a>')))
    assert 'title="https://evil.example/x"' in html
    html = html_of(viewed(letter('<a href="https://b\u00fccher.example/">x</a>')))
    assert 'title="https://xn--bcher-kva.example/"' in html
    assert 'rel="noopener noreferrer"' in html
    assert 'target="_blank"' in html


def test_what_letters_are_made_of_stays() -> None:
    source = (
        '<body bgcolor="#000000" text="white"><table width="100%" cellpadding=0><tr>'
        '<td bgcolor=red style="padding:4px; color:rgb(1, 2, 3); font-family:Arial, serif;background:#fff">'
        "a<td colspan=2 align=center>b</table>"
        "<p>one<p>two<ul><li>x<li>y</ul><font color=blue size=2>z</font>&nbsp;&eacute;"
    )
    html = html_of(viewed(letter(source)))
    assert 'style="background-color:#000000;color:white"' in html
    assert 'style="padding:4px;color:rgb(1,2,3);font-family:Arial,serif;background:#fff"' in html.replace(" ", "")
    assert "<p>one</p><p>two</p><ul><li>x</li><li>y</li></ul>" in html
    assert '<font color="blue" size="2">z</font>&nbsp;é' in html
    assert '<td colspan="2" align="center">b</td>' in html


def test_html_is_read_in_the_charset_that_it_names_itself() -> None:
    body = b'<meta charset="windows-1251"><p>' + "привет".encode("cp1251")
    view = viewed(lines("Content-Type: text/html", "Content-Transfer-Encoding: 8bit", "") + body)
    assert "привет" in html_of(view)


def test_too_much_markup_is_shown_as_its_text() -> None:
    view = viewed(letter("<div>x</div>" * 45_000 + "the end"))
    assert view.is_simplified
    assert "the end" in html_of(view)


def test_html_stands_on_white_and_plain_text_follows_the_reader() -> None:
    assert b'<body class="html">' in viewed(letter("<p>x")).document.content
    assert b'<body class="plain">' in viewed(part("text/plain", "x")).document.content
    assert "'unsafe-inline'; style-src-elem 'sha256-" in CSP
    assert CSP.startswith("sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none';")


def test_the_title_of_a_letter_cannot_leave_its_place() -> None:
    view = viewed(letter("x", subject="</title><script>alert(1)</script>"))
    assert b"<script" not in view.document.content


def test_the_heading_shows_what_stands_in_the_header() -> None:
    heading = heading_of(
        lines(
            'From: =?utf-8?q?Dr=2E_M=C3=BCller?= <m@clinic.example>, "Who, Dr." (x <y@z>) <who@clinic.example>',
            "To: pat@isp.example, Team: a@b.example, =?utf-8?b?w6Q=?= <c@d.example>;, undisclosed-recipients:;",
            "Cc: \u202e<gpj.x@evil.example>",
            "Bcc: hidden@isp.example",
            "Subject: a",
            "\tb \u202ec =?utf-8?b?wqI=?=",
            "Date: Sun, 1 Mar 2026 14:30:00 +0100",
        )
    )
    assert heading.sender.shown == (Person("Dr. Müller", "m@clinic.example"), Person("Who, Dr.", "who@clinic.example"))
    assert [person.address for person in heading.to.shown] == ["pat@isp.example", "a@b.example", "c@d.example", ""]
    assert heading.to.shown[2:] == (Person("ä", "c@d.example"), Person("undisclosed-recipients", ""))
    assert heading.cc.shown == (Person("", "gpj.x@evil.example"),)
    assert heading.date == datetime(2026, 3, 1, 13, 30, tzinfo=UTC)
    assert "\u202e" not in heading.subject
    assert "hidden" not in repr(heading)


def test_a_heading_is_read_whatever_stands_in_it() -> None:
    assert heading_of(b"").date is None
    for date in ("", "x", "Sun, 99 Mar 2026", "1 Jan 99999 00:00:00", "Mon, 1 Jan 0001 00:00:00 +2359"):
        assert heading_of(lines(f"Date: {date}", "From: ((((", 'To: "x', "Cc: <<<<")).sender.shown == ()
    many = heading_of(lines("To: " + ", ".join(f"u{n}@isp.example" for n in range(300)))).to
    assert (len(many.shown), many.more) == (100, 200)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\a.doc", "a.doc"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("invoice.pdf" + " " * 200 + ".exe", "invoice.pdf.exe"),
        ("invoice.pdf\u00a0\u3000\u2800\u3164.exe", "invoice.pdf.exe"),
        ("a\u200b\u2066b\ufeff.txt", "ab.txt"),
        ("x\r\nSet-Cookie: a.txt", "x Set-Cookie_ a.txt"),
        (".bashrc", "bashrc"),
        ("a.exe. . .", "a.exe"),
        ("con.txt", "_con.txt"),
        ("COM¹", "_COM¹"),
        ("", "attachment-3.pdf"),
        ("....", "attachment-3.pdf"),
        ("x" * 300 + ".docx", "x" * 114 + "….docx"),
        ('a"b<c>|d?.txt', "a_b_c__d_.txt"),
        ("résumé.pdf", "résumé.pdf"),
    ],
)
def test_a_file_name_is_safe_and_shows_what_the_file_is(raw: str, shown: str) -> None:
    assert file_name(raw, "application/pdf", 3) == shown


def test_two_files_of_one_name_are_told_apart() -> None:
    assert unique_names(["a.txt", "A.txt", "b", "b"]) == ["a.txt", "A (2).txt", "b", "b (2)"]


def test_every_part_has_the_name_that_the_view_gives_it() -> None:
    message = multipart(
        "mixed", part("text/plain", "x"), part("text/plain; name=a", "y"), part("text/plain; name=a", "z")
    )
    named = files_of(indexed(message))
    assert {file.number: file.name for file in viewed(message).files} == {n: named[n].name for n in (2, 3)}


PART = Part(2, 100, 400, "text/html", "utf-8", size=300)


def test_a_download_is_never_opened_here() -> None:
    answer = attachment_answer(PART, 'é"\u20ac.html', tag="m/2")
    assert (answer.status, answer.start, answer.end) == (200, 0, 300)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"___.html\"; filename*=UTF-8''%C3%A9%22%E2%82%AC.html"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    message = message_answer(10, "Hello / there", tag="m")
    assert message.headers["Content-Type"] == "message/rfc822"
    assert 'filename="Hello _ there.eml"' in message.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("header", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-", 206, 10, 300),
        ("bytes=-10", 206, 290, 300),
        ("bytes=-1000", 206, 0, 300),
        ("bytes=299-1000", 206, 299, 300),
        ("bytes=300-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=5-2", 200, 0, 300),
        ("bytes=0-1,5-6", 200, 0, 300),
        ("bytes=-", 200, 0, 300),
        ("lines=0-1", 200, 0, 300),
        ("bytes=" + "9" * 30 + "-", 200, 0, 300),
    ],
)
def test_ranges_are_answered_as_the_rfc_says(header: str, status: int, start: int, end: int) -> None:
    answer = attachment_answer(PART, "a.txt", tag="t", range_header=header)
    assert (answer.status, answer.start, answer.end) == (status, start, end)
    assert answer.headers["Content-Length"] == str(end - start)
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/300"
    if status == 416:
        assert answer.headers["Content-Range"] == "bytes */300"


def test_a_range_of_another_version_is_answered_with_the_whole() -> None:
    assert attachment_answer(PART, "a", tag="t", range_header="bytes=1-2", if_range='"t"').status == 206
    assert attachment_answer(PART, "a", tag="t", range_header="bytes=1-2", if_range='"u"').status == 200
