"""A leaf that is no body: what it is by its content, and its text where it has one that is read here.

Pictures, sound and films that are such by their content carry no text. Text in whatever notation is read. PDF, office
documents, archives and all that is unknown are not looked into, and said to be so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from gateway.mail.content.bodies import Enclosed, calendar_text, html_body, json_text, plain_text
from gateway.mail.content.cms import Cms, cms_kind, signed_content
from gateway.mail.content.decoding import base64_size, decode
from gateway.mail.content.filetype import HEAD, FileType, file_type, looks_like_text, refined
from gateway.mail.content.gathered import Gathered, shown
from gateway.mail.content.locked import is_locked
from gateway.mail.content.mediatype import Parametrised
from gateway.mail.content.openpgp import is_encrypted
from gateway.mail.content.parts import Attachment

__all__ = ["Leaf", "Opener", "read_attachment"]


class Opener(Protocol):
    """Reads what turns out to be a message within an attachment."""

    def open_entity(self, data: bytes, leaf: Leaf, *, message: bool) -> str:
        """Read ``data`` as a message of its own, or in place of the leaf; what protects it as a whole, or ""."""
        ...


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part without parts: where its body stands in ``data``, and what its header says."""

    data: bytes
    start: int
    end: int
    encoding: str
    media_type: str
    declared: Parametrised
    names: tuple[str, ...]
    place: str
    depth: int

    @property
    def name(self) -> str:
        """The likeliest name."""
        return self.names[0] if self.names else ""

    @property
    def where(self) -> str:
        """In words."""
        return f"{self.place}attachment {shown(self.name) or f'({shown(self.media_type)})'}"

    @property
    def extension(self) -> str:
        """Of the name, in lower case: what decides where content cannot, which program opens a text."""
        return self.name.rpartition(".")[2].strip(" .").lower() if "." in self.name else ""


_HEAD_FIRST = 4096
_MEDIA = frozenset({FileType.IMAGE, FileType.AUDIO, FileType.VIDEO})
_PLAIN = frozenset(
    {FileType.TEXT, FileType.HTML, FileType.CALENDAR, FileType.CONTACT, FileType.SCRIPT, FileType.SIGNATURE}
)
_CMS_TYPES = re.compile(r"application/(?:x-)?pkcs7-(?:mime|signature)\Z")
_CMS_NAMES = frozenset({"p7m", "p7s", "p7c", "p7z"})
_PGP_NAMES = frozenset({"pgp", "gpg", "asc"})
_MESSAGE_NAMES = frozenset({"eml", "mht", "mhtml"})
_MESSAGE_TYPES = frozenset({"application/x-mimearchive", "message/rfc822"})
_SCRIPTS = (
    "bat cmd ps1 psm1 psd1 vbs vbe js jse wsf wsh hta sh bash zsh csh py pyw pl rb php reg inf scf url sct wsc msh "
    "mjs cjs applescript command desktop"
)
_TEXTS = (
    "txt csv tsv log json xml html htm xhtml svg ics ical ifb vcf vcard md rst ini cfg conf yaml yml toml css sql tex "
    "eml hl7 x12 edi"
)
_SCRIPT_NAMES = frozenset(_SCRIPTS.split())
_TEXT_NAMES = _SCRIPT_NAMES | frozenset(_TEXTS.split())
_TEXT_TYPES = frozenset(
    {"application/json", "application/xml", "application/xhtml+xml", "application/javascript", "application/ics"}
    | {"application/csv", "application/x-csv", "application/yaml", "application/sql", "image/svg+xml"}
)
_MARKUP_NAMES = frozenset({"html", "htm", "xhtml", "svg", "xml", "hta"})
_BLANKS = b" \t\r\n"
_TAIL = 66_000  # the end record of a ZIP stands within the last 65,557 octets (APPNOTE 4.3.16)


def read_attachment(gathered: Gathered, leaf: Leaf, opener: Opener, enclosed: Enclosed) -> str:
    """Note the attachment and read its text. Returns how a message that is nothing else is protected, or ""."""
    for name in leaf.names:
        gathered.text(name, f"{leaf.place}attachment name")
    head = _head(leaf)
    kind = file_type(head)
    if _is_cms(leaf, head):
        return _read_cms(gathered, leaf, opener)
    textual = leaf.media_type.startswith("text/") or leaf.media_type in _TEXT_TYPES or _is_structured(leaf.media_type)
    textual = textual or leaf.extension in _TEXT_NAMES
    if kind in _MEDIA and not textual:
        return _note_media(gathered, leaf, kind)
    if kind in _PLAIN or (textual and kind in _MEDIA) or (kind is FileType.UNKNOWN and _is_declared_text(leaf, head)):
        return _read_text(gathered, leaf, kind, opener, enclosed)
    return _note_closed(gathered, leaf, kind)


def _is_structured(media_type: str) -> bool:
    return media_type.endswith(("+xml", "+json"))


def _is_declared_text(leaf: Leaf, head: bytes) -> bool:
    """Text with a few control characters in it is still text where it says so; UTF-16 may come without its mark."""
    if not leaf.media_type.startswith("text/"):
        return False
    return b"\x00" not in head or leaf.declared.first("charset").lower().startswith(
        ("utf-16", "utf-32", "unicode", "iso-10646")
    )


def _head(leaf: Leaf) -> bytes:
    """The first octets: a few, or as many as the rarer formats ask for."""
    for size in (_HEAD_FIRST, HEAD):
        stop = min(leaf.end, leaf.start + size * (3 if leaf.encoding == "quoted-printable" else 2))
        head = decode(leaf.data[leaf.start : stop], leaf.encoding).data[:size]
        if stop == leaf.end or file_type(head) is not FileType.UNKNOWN:
            break
    return head


def _note_media(gathered: Gathered, leaf: Leaf, kind: FileType) -> str:
    """A picture, sound or film - unless an archive or a document hides behind it, which opens from its end."""
    inspected = not _hides_a_file(leaf)
    size = _size(leaf)
    gathered.attachment(
        Attachment(leaf.name, kind, leaf.media_type, size, None if not inspected else False, inspected, leaf.where)
    )
    return ""


def _size(leaf: Leaf) -> int:
    if leaf.encoding == "base64":
        return base64_size(leaf.data, leaf.start, leaf.end)
    if leaf.encoding == "quoted-printable":
        return len(decode(leaf.data[leaf.start : leaf.end], leaf.encoding).data)
    return leaf.end - leaf.start


def _hides_a_file(leaf: Leaf) -> bool:
    start = max(leaf.start, leaf.end - _TAIL * 3 // 2)
    tail = leaf.data[start : leaf.end]
    if leaf.encoding == "base64":
        tail = tail.translate(None, _BLANKS)
        tail = tail[len(tail) % 4 :]
    tail = decode(tail, leaf.encoding).data
    return b"PK\x05\x06" in tail or b"%%EOF" in tail or b"Rar!\x1a\x07" in tail


def _whole(gathered: Gathered, leaf: Leaf) -> bytes:
    """All octets of the leaf, decoded. A fault of the encoding is a doubt."""
    data, fault = decode(leaf.data[leaf.start : leaf.end], leaf.encoding)
    if fault:
        gathered.doubt(leaf.where, fault)
    return data


def _note_closed(gathered: Gathered, leaf: Leaf, kind: FileType) -> str:
    """What is not looked into: its kind, and whether it is encrypted."""
    data = _whole(gathered, leaf)
    kind = refined(kind, data)
    protection = ""
    locked = None if kind is FileType.ENCRYPTED else is_locked(kind, data)
    named_pgp = kind is FileType.ENCRYPTED or leaf.extension in _PGP_NAMES or "pgp" in leaf.media_type
    if named_pgp and is_encrypted(data):  # armour alone says little: what is merely signed has the same
        kind, protection, locked = FileType.ENCRYPTED, "pgp", True
    gathered.attachment(
        Attachment(leaf.name, kind, leaf.media_type, len(data), locked, inspected=False, where=leaf.where)
    )
    return protection


def _read_text(gathered: Gathered, leaf: Leaf, kind: FileType, opener: Opener, enclosed: Enclosed) -> str:
    """A text, read by its notation."""
    if leaf.extension in _MESSAGE_NAMES or leaf.media_type in _MESSAGE_TYPES:
        if gathered.may_open(leaf.end - leaf.start):
            return opener.open_entity(_whole(gathered, leaf), leaf, message=True)
        gathered.doubt(leaf.where, "too much is nested")
    where = leaf.where
    octets = gathered.octets(leaf.data, leaf.start, leaf.end, leaf.encoding, where)
    if leaf.media_type == "application/pgp-encrypted" and octets.strip() in (b"Version: 1", b"Version:1"):
        return "control"
    if not looks_like_text(octets) and b"\x00" in octets and not leaf.declared.first("charset"):
        gathered.doubt(where, "it is not only text")
    protection = "signature" if kind is FileType.SIGNATURE else ""
    if kind is FileType.TEXT and leaf.extension in _SCRIPT_NAMES:
        kind = FileType.SCRIPT
    if (
        kind is FileType.HTML
        or leaf.media_type == "text/html"
        or leaf.extension in _MARKUP_NAMES
        or "xml" in leaf.media_type
    ):
        kind = FileType.HTML if kind is FileType.TEXT else kind
        html_body(gathered, octets, leaf.declared, where)
        if leaf.media_type != "text/html":  # in XML, attributes hold data
            json_text(gathered, octets, leaf.declared, where)
    elif kind in (FileType.CALENDAR, FileType.CONTACT) or leaf.media_type in (
        "text/calendar",
        "text/vcard",
        "text/x-vcard",
    ):
        calendar_text(gathered, octets, leaf.declared, where)
    elif "json" in leaf.media_type or "script" in leaf.media_type or leaf.extension in ("json", "js"):
        json_text(gathered, octets, leaf.declared, where)
    else:
        protection = plain_text(gathered, octets, leaf.declared, where, enclosed) or protection
    gathered.attachment(
        Attachment(leaf.name, kind, leaf.media_type, _size(leaf), encrypted=False, inspected=True, where=where)
    )
    return protection


def _is_cms(leaf: Leaf, head: bytes) -> bool:
    if _CMS_TYPES.match(leaf.media_type) is not None or leaf.extension in _CMS_NAMES:
        return True
    return head[:1] == b"\x30" and cms_kind(head) is not Cms.OTHER


def _read_cms(gathered: Gathered, leaf: Leaf, opener: Opener) -> str:
    """S/MIME: encrypted, or signed with the content inside, or a signature alone."""
    data = _whole(gathered, leaf)
    kind = cms_kind(data)

    def note(file: FileType, *, encrypted: bool | None, inspected: bool) -> None:
        gathered.attachment(
            Attachment(leaf.name, file, leaf.media_type, len(data), encrypted, inspected=inspected, where=leaf.where)
        )

    if kind is Cms.ENCRYPTED:
        note(FileType.ENCRYPTED, encrypted=True, inspected=False)
        return "smime"
    content = signed_content(data) if kind is Cms.SIGNED else None
    if content is None or (content and not gathered.may_open(len(content))):
        note(FileType.UNKNOWN, encrypted=None, inspected=False)
        return ""
    note(FileType.SIGNATURE, encrypted=False, inspected=True)
    if not content:
        return "signature"
    gathered.signed = True
    return opener.open_entity(content, leaf, message=False)
