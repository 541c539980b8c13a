"""The octets of a text part, as texts: by its type, its charset, and what stands inside it."""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.mail.content.charsets import read_text
from gateway.mail.content.decoding import from_base64, uu_blocks
from gateway.mail.content.filetype import FileType, file_type
from gateway.mail.content.flowed import unflowed
from gateway.mail.content.gathered import Gathered
from gateway.mail.content.html_text import HtmlText, html_text
from gateway.mail.content.mediatype import Parametrised
from gateway.mail.content.openpgp import BEGIN_MESSAGE, is_encrypted, is_whole_armour
from gateway.mail.content.textforms import embedded, unescaped_json, unfolded_lines

__all__ = ["BODY_TYPES", "MARKUP", "Enclosed", "calendar_text", "html_body", "json_text", "plain_text"]

#: Types that mail programs show as the letter itself.
BODY_TYPES = frozenset(
    {"text/plain", "text/html", "text/enriched", "text/richtext", "text/calendar", "text/x-amp-html"}
    | {"text/watch-html", "text/rfc822-headers", "message/delivery-status", "message/global-delivery-status"}
    | {"message/disposition-notification", "message/global-disposition-notification", "message/feedback-report"}
    | {"message/global-headers", "message/tracking-status", "text/x-markdown", "text/markdown"}
)
#: Of these, the ones whose tags are not text.
MARKUP = frozenset({"text/html", "text/enriched", "text/richtext", "text/x-amp-html", "text/watch-html"})

#: What is done with a file that stands in a text: its name, its octets, and what was in doubt about them.
Enclosed = Callable[[bytes, bytes, str], None]

_META_CHARSET = re.compile(
    rb"<meta[^>]{0,300}charset\s{0,10}=\s{0,10}[\"']?\s{0,10}([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE
)
_XML_ENCODING = re.compile(rb"\s{0,10}<\?xml[^>]{0,200}encoding\s{0,10}=\s{0,10}[\"']([A-Za-z0-9_.:-]{1,40})")
_METHOD = re.compile(r"^METHOD[^:\n]{0,100}:[ \t]{0,10}([A-Za-z-]{1,40})", re.MULTILINE | re.IGNORECASE)
_PICTURES_AND_SOUND = frozenset({FileType.IMAGE, FileType.AUDIO, FileType.VIDEO})
_MAX_FILES_IN_TEXT = 200


def plain_text(gathered: Gathered, octets: bytes, declared: Parametrised, where: str, enclosed: Enclosed) -> str:
    """Plain text, with the uuencoded files in it. Returns ``pgp`` where all of it is one encrypted message."""
    if b"begin" in octets and (b"\nbegin" in octets or octets.startswith(b"begin")):
        octets = _without_files(gathered, octets, where, enclosed)
    protection = ""
    if BEGIN_MESSAGE in octets:
        protection = "pgp" if is_whole_armour(octets) and is_encrypted(octets) else ""
        gathered.doubt(where, "a PGP message")
    texts, fault = read_text(octets, declared.first("charset"))
    if fault:
        gathered.doubt(where, fault)
    if declared.first("format").lower() == "flowed":
        texts = _flowed(texts, delete_space=declared.first("delsp").lower() == "yes")
    for text in texts:
        gathered.text(text, where)
    return protection


def _flowed(texts: tuple[str, ...], *, delete_space: bool) -> tuple[str, ...]:
    """Not every program knows ``delsp``: for these the blank stays."""
    if delete_space:
        return tuple(unflowed(text, delete_space=delete) for text in texts for delete in (True, False))
    return tuple(unflowed(text, delete_space=False) for text in texts)


def _without_files(gathered: Gathered, octets: bytes, where: str, enclosed: Enclosed) -> bytes:
    """The text around the uuencoded files. One in doubt stays in it as well."""
    kept: list[bytes] = []
    done = 0
    for count, block in enumerate(uu_blocks(octets)):
        if count == _MAX_FILES_IN_TEXT:
            gathered.doubt(where, "more files in the text than are read")
            break
        enclosed(block.name, block.data, block.fault)
        kept.append(octets[done : block.end if block.fault else block.start])
        done = block.end
    return b"".join((*kept, octets[done:])) if kept else octets


def html_body(gathered: Gathered, octets: bytes, declared: Parametrised, where: str) -> None:
    """HTML and its kin: the text of every reading."""
    charset = declared.first("charset")
    if not charset and not octets.isascii():
        match = _XML_ENCODING.match(octets) or _META_CHARSET.search(octets, 0, 4096)
        charset = "" if match is None else match[1].decode("ascii")
    texts, fault = read_text(octets, charset)
    if fault:
        gathered.doubt(where, fault)
    for text in texts:
        read = html_text(text)
        gathered.texts(read.texts, where)
        _html_doubts(gathered, read, where)


def _html_doubts(gathered: Gathered, read: HtmlText, where: str) -> None:
    if read.fault:
        gathered.doubt(where, read.fault)
    for address in read.data:
        kind, _, content = address[5:].partition(",")
        media, *parameters = kind.lower().split(";")
        octets = content.encode("utf-8", "replace")
        if "base64" in parameters:
            octets = from_base64(octets).data if media.startswith("text/") else from_base64(octets[:8192]).data
        if media.startswith("text/") or not media:
            inner, fault = read_text(octets)
            for text in inner:
                gathered.texts(html_text(text).texts, where)
            if fault:
                gathered.doubt(where, fault)
        elif not _is_picture(octets):
            gathered.doubt(where, "a data: address is not looked into")


def _is_picture(head: bytes) -> bool:

    return file_type(head) in _PICTURES_AND_SOUND


def calendar_text(gathered: Gathered, octets: bytes, declared: Parametrised, where: str) -> None:
    """Text of iCalendar and vCard (RFC 5545, RFC 6350), whose lines are folded within words."""
    texts, fault = read_text(octets, declared.first("charset") or "utf-8")
    if fault:
        gathered.doubt(where, fault)
    for text in texts:
        gathered.text(text, where)
        readings = unfolded_lines(text)
        gathered.texts(readings, where)
        for reading in readings or (text,):
            if "<" in reading and ">" in reading:
                gathered.texts(html_text(reading).texts, where)
        for name, kind in embedded(text):
            if kind not in _PICTURES_AND_SOUND:
                gathered.doubt(where, f"{name}: an embedded {kind} is not looked into")
        method = _METHOD.search(text)
        if method is not None and not gathered.calendar_method:
            gathered.calendar_method = method[1].upper()


def json_text(gathered: Gathered, octets: bytes, declared: Parametrised, where: str) -> None:
    """JSON and scripts: as they stand, and with their escapes undone."""
    texts, fault = read_text(octets, declared.first("charset"))
    if fault:
        gathered.doubt(where, fault)
    for text in texts:
        gathered.text(text, where)
        gathered.texts(unescaped_json(text), where)
