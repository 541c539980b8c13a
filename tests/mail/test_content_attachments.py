"""Attachments: what they are by content, whether they are encrypted, and that what is not read is said."""

from __future__ import annotations

import base64
import io
import zipfile

import pytest

from gateway.mail.content import Attachment, Content, FileType, read_content
from gateway.mail.content.filetype import file_type

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(60)


def attached(data: bytes, kind: str = "application/octet-stream", name: str = "x.bin", more: bytes = b"") -> Content:
    head = 'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nHi\r\n--b\r\n'
    head += f'Content-Type: {kind}; name="{name}"\r\n'
    return read_content(
        head.encode()
        + b"Content-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(data)
        + more
        + b"\r\n--b--\r\n"
    )


def only(content: Content) -> Attachment:
    (attachment,) = content.attachments
    return attachment


def archive(*names: str, stored: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as file:
        for name in names:
            content = "application/vnd.oasis.opendocument.text" if name == "mimetype" else "content " * 20
            file.writestr(name, content)
    return buffer.getvalue()


def locked_archive() -> bytes:
    data = bytearray(archive("a.txt"))
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
ISO = bytes(32769) + b"CD001" + bytes(3000)

KINDS: list[tuple[bytes, FileType, bool | None, bool]] = [
    (b"%PDF-1.7\n1 0 obj", FileType.PDF, False, False),
    (b"\n\njunk %PDF-1.4 trailer << /Encrypt 12 0 R >>", FileType.PDF, True, False),
    (b"%PDF-1.4 trailer << /#45ncrypt <</Filter/Standard>> >>", FileType.PDF, True, False),
    (archive("a.txt"), FileType.ARCHIVE, False, False),
    (locked_archive(), FileType.ARCHIVE, True, False),
    (archive("[Content_Types].xml", "word/document.xml"), FileType.OFFICE, False, False),
    (archive("mimetype", "content.xml", stored=True), FileType.OFFICE, False, False),
    (archive("META-INF/MANIFEST.MF", "A.class"), FileType.EXECUTABLE, False, False),
    (OLE, FileType.OFFICE, None, False),
    (OLE + "EncryptedPackage".encode("utf-16-le"), FileType.OFFICE, True, False),
    (OLE + "__properties_version1.0".encode("utf-16-le"), FileType.MESSAGE, None, False),
    (b"{\\rtf1 x}", FileType.OFFICE, False, False),
    (
        b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(4) + bytes(8) + b"\x04" + bytes(7) + bytes(4) + b"\x17\x06\xf1\x07\x01",
        FileType.ARCHIVE,
        None,
        False,
    ),
    (b"Rar!\x1a\x07\x00" + bytes(3) + b"\x80\x00\x0d\x00" + bytes(30), FileType.ARCHIVE, True, False),
    (b"Rar!\x1a\x07\x01\x00" + bytes(4) + b"\x21\x04" + bytes(30), FileType.ARCHIVE, True, False),
    (b"\x1f\x8b\x08\x00" + bytes(20), FileType.ARCHIVE, None, False),
    (b"MZ\x90\x00\x03" + bytes(100), FileType.EXECUTABLE, None, False),
    (b"\x7fELF\x02\x01\x01" + bytes(20), FileType.EXECUTABLE, None, False),
    (b"L\x00\x00\x00\x01\x14\x02\x00" + bytes(40), FileType.EXECUTABLE, None, False),
    (ISO, FileType.EXECUTABLE, None, False),
    (PNG, FileType.IMAGE, False, True),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(60), FileType.IMAGE, False, True),
    (b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(60), FileType.AUDIO, False, True),
    (b"\x00\x00\x00\x18ftypmp42" + bytes(60), FileType.VIDEO, False, True),
    (b"\x00\x00\x00\x18ftypheic" + bytes(60), FileType.IMAGE, False, True),
    (bytes(range(256)), FileType.UNKNOWN, None, False),
    (bytes(128) + b"DICM" + bytes(60), FileType.UNKNOWN, None, False),
]


@pytest.mark.parametrize(("data", "kind", "encrypted", "inspected"), KINDS)
def test_the_type_is_that_of_the_content_whatever_the_name(
    data: bytes,
    kind: FileType,
    encrypted: bool | None,  # noqa: FBT001 - a column of the table
    inspected: bool,  # noqa: FBT001 - another
) -> None:
    for media_type, name in (
        ("application/octet-stream", "x"),
        ("image/png", "holiday.png"),
        ("application/msword", "a.doc"),
    ):
        content = attached(data, media_type, name)
        attachment = only(content)
        assert (attachment.type, attachment.encrypted, attachment.inspected) == (kind, encrypted, inspected)
        assert (attachment.size, attachment.name) == (len(data), name)
        assert (content.unread == ()) == inspected


@pytest.mark.parametrize(
    ("text", "media_type", "name", "kind"),
    [
        ("a,b\n536", "application/vnd.ms-excel", "x.csv", FileType.TEXT),
        ("a 536", "application/octet-stream", "noname", FileType.TEXT),
        ("BM 536 is a text", "text/plain", "x.txt", FileType.TEXT),
        ("GIF89a 536 is a text", "image/gif", "x.gif", FileType.TEXT),
        ("<html><b>5</b>36", "application/octet-stream", "x.dat", FileType.HTML),
        ("<x>5<y/>36</x>", "application/xml", "x", FileType.HTML),
        ("<?xml version='1.0'?><id v='536'/>", "text/xml", "x.xml", FileType.HTML),
        ("<svg><text>5<tspan>36</tspan></text></svg>", "image/svg+xml", "x.svg", FileType.HTML),
        ('{"a": "5\\u00336"}', "application/json", "x.json", FileType.TEXT),
        ("BEGIN:VCARD\r\nNOTE:5\r\n 36\r\nEND:VCARD", "text/vcard", "x.vcf", FileType.CONTACT),
        ("BEGIN:VCARD\nNOTE;ENCODING=QUOTED-PRINTABLE:5=\n36\nEND:VCARD", "text/x-vcard", "x.vcf", FileType.CONTACT),
        ("#!/bin/sh\necho 536", "application/octet-stream", "x", FileType.SCRIPT),
        ("echo 536", "text/plain", "x.bat", FileType.SCRIPT),
        ("\ufeff536", "text/plain", "x.txt", FileType.TEXT),
    ],
)
def test_text_is_read_whatever_it_calls_itself(text: str, media_type: str, name: str, kind: FileType) -> None:
    content = attached(text.encode(), media_type, name)
    assert any("536" in part.text and part.where == f"attachment {name}" for part in content.texts)
    attachment = only(content)
    assert attachment.inspected
    assert attachment.type is kind
    assert not content.unread


def test_a_picture_with_an_archive_behind_it_is_not_known() -> None:
    content = attached(PNG + archive("a.txt"), "image/png", "x.png")
    assert not only(content).inspected
    assert content.unread


def test_text_with_a_binary_tail_is_read_and_in_doubt() -> None:
    content = attached(b"536 " * 2000 + bytes(500), name="x")
    assert any("536" in part.text for part in content.texts)
    assert content.unread


def test_a_message_as_a_file_is_read_as_a_message() -> None:
    content = attached(b"Subject: Hi\r\nContent-Transfer-Encoding: base64\r\n\r\nNTM2", name="x.eml")
    assert ("message 1 body", "536") in [(part.where, part.text) for part in content.texts]
    assert only(content).type is FileType.MESSAGE


def test_an_attachment_in_a_calendar_is_not_passed_over() -> None:
    content = attached(b"BEGIN:VCALENDAR\r\nATTACH;ENCODING=BASE64:JVBERi0x\r\nEND:VCALENDAR", "text/calendar", "x.ics")
    assert any("ATTACH" in line for line in content.unread)
    photo = base64.b64encode(PNG)
    content = attached(b"BEGIN:VCARD\r\nPHOTO;ENCODING=b;TYPE=png:" + photo + b"\r\nEND:VCARD", "text/vcard", "x.vcf")
    assert not content.unread


def test_a_file_in_uuencode_within_the_letter_is_an_attachment() -> None:
    content = read_content(b"\r\nHello\r\nbegin 644 a.pdf\r\n)(5!$1BTQ+C0*\r\n`\r\nend\r\nBye\r\n")
    assert only(content).name == "a.pdf"
    assert "begin" not in content.texts[-1].text
    assert "Bye" in content.texts[-1].text


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4000, 4001, 4002, 100_000])
def test_the_size_is_told_without_decoding(length: int) -> None:
    assert only(attached(PNG + bytes(length), "image/png", "x.png")).size == len(PNG) + length


def test_an_empty_attachment_is_empty_text() -> None:
    content = attached(b"")
    assert only(content).size == 0
    assert not content.unread


def test_names_are_shown_without_tricks() -> None:
    content = attached(b"%PDF-1", name="a\x1b[31m\u202ecod.pdf")
    assert all(line.isprintable() for line in content.unread)


@pytest.mark.parametrize(
    "text", [b"MZ is a text", b"BM and more", b"ID", b"BZh is a name", b"II", b"%", b"GI", b"\xff\xfe5\x00"]
)
def test_a_text_that_begins_like_a_file_is_text(text: bytes) -> None:
    assert file_type(text) is FileType.TEXT
