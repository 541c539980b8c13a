"""What a file is, by its first octets and not by its name.

The table follows the formats' own specifications and the one that ``file(1)`` ships; it tells classes apart, which is
what policy asks about, not versions. Where magic is short enough to begin a text, more is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

__all__ = ["HEAD", "FileType", "file_type", "looks_like_text", "refined"]

#: Octets of the head that :func:`file_type` makes use of: the descriptor of an ISO 9660 image stands at 32 KiB.
HEAD = 36_864


class FileType(StrEnum):
    """Classes of files."""

    EXECUTABLE = "executable"  # what a computer runs or mounts: programs, installers, shortcuts, disk images
    SCRIPT = "script"
    ARCHIVE = "archive"
    PDF = "pdf"
    OFFICE = "office"  # OOXML, OLE, OpenDocument, RTF
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    TEXT = "text"
    HTML = "html"
    CALENDAR = "calendar"
    CONTACT = "contact"
    MESSAGE = "message"
    SIGNATURE = "signature"  # detached signatures, certificates, public keys
    ENCRYPTED = "encrypted"  # S/MIME and OpenPGP
    UNKNOWN = "unknown"


_MAGIC: tuple[tuple[int, bytes, FileType], ...] = (
    (0, b"%PDF-", FileType.PDF),
    (0, b"PK\x03\x04", FileType.ARCHIVE),
    (0, b"PK\x05\x06", FileType.ARCHIVE),
    (0, b"PK\x07\x08", FileType.ARCHIVE),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", FileType.OFFICE),
    (0, b"{\\rtf", FileType.OFFICE),
    (0, b"{\\rt", FileType.OFFICE),  # Word opens it
    (0, b"\x89PNG\r\n\x1a\n", FileType.IMAGE),
    (0, b"\xff\xd8\xff", FileType.IMAGE),
    (0, b"GIF87a", FileType.IMAGE),
    (0, b"GIF89a", FileType.IMAGE),
    (0, b"II*\x00", FileType.IMAGE),
    (0, b"MM\x00*", FileType.IMAGE),
    (0, b"\x00\x00\x01\x00", FileType.IMAGE),
    (0, b"8BPS\x00\x01", FileType.IMAGE),
    (0, b"\x00\x00\x00\x0cjP  ", FileType.IMAGE),
    (0, b"\xff\x4f\xff\x51", FileType.IMAGE),
    (0, b"ID3\x02", FileType.AUDIO),
    (0, b"ID3\x03", FileType.AUDIO),
    (0, b"ID3\x04", FileType.AUDIO),
    (0, b"fLaC\x00", FileType.AUDIO),
    (0, b"OggS\x00", FileType.AUDIO),
    (0, b"MThd\x00\x00\x00", FileType.AUDIO),
    (0, b"#!AMR\n", FileType.AUDIO),
    (0, b"#!AMR-WB\n", FileType.AUDIO),
    (0, b".snd\x00", FileType.AUDIO),
    (0, b"\x1a\x45\xdf\xa3", FileType.VIDEO),
    (0, b"\x00\x00\x01\xba", FileType.VIDEO),
    (0, b"\x00\x00\x01\xb3", FileType.VIDEO),
    (0, b"FLV\x01", FileType.VIDEO),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", FileType.VIDEO),
    (0, b"\x7fELF", FileType.EXECUTABLE),
    (0, b"\xfe\xed\xfa\xce", FileType.EXECUTABLE),
    (0, b"\xfe\xed\xfa\xcf", FileType.EXECUTABLE),
    (0, b"\xce\xfa\xed\xfe", FileType.EXECUTABLE),
    (0, b"\xcf\xfa\xed\xfe", FileType.EXECUTABLE),
    (0, b"\xca\xfe\xba\xbe", FileType.EXECUTABLE),  # Mach-O for several processors, and Java classes
    (0, b"\x4c\x00\x00\x00\x01\x14\x02\x00", FileType.EXECUTABLE),  # Windows shortcut
    (0, b"ITSF\x03\x00", FileType.EXECUTABLE),  # compiled HTML help
    (0, b"\x00asm", FileType.EXECUTABLE),
    (0, b"dex\n03", FileType.EXECUTABLE),
    (0, b"\xed\xab\xee\xdb", FileType.EXECUTABLE),  # RPM
    (0, b"!<arch>\ndebian", FileType.EXECUTABLE),
    (0, b"vhdxfile", FileType.EXECUTABLE),
    (0, b"conectix", FileType.EXECUTABLE),
    (0, b"KDMV\x01", FileType.EXECUTABLE),
    (0, b"QFI\xfb", FileType.EXECUTABLE),
    (0, b"hsqs", FileType.EXECUTABLE),
    (32769, b"CD001", FileType.EXECUTABLE),  # ISO 9660
    (32769, b"BEA01", FileType.EXECUTABLE),  # UDF
    (0, b"Rar!\x1a\x07", FileType.ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", FileType.ARCHIVE),
    (0, b"\x1f\x8b", FileType.ARCHIVE),
    (0, b"\x1f\x9d", FileType.ARCHIVE),
    *((0, b"BZh%d1AY&SY" % level, FileType.ARCHIVE) for level in range(1, 10)),
    (0, b"\xfd7zXZ\x00", FileType.ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", FileType.ARCHIVE),
    (0, b"\x04\x22\x4d\x18", FileType.ARCHIVE),
    (0, b"LZIP\x01", FileType.ARCHIVE),
    (0, b"MSCF\x00\x00\x00\x00", FileType.ARCHIVE),
    (0, b"!<arch>\n", FileType.ARCHIVE),
    (0, b"xar!\x00", FileType.ARCHIVE),
    (0, b"\x60\xea", FileType.ARCHIVE),  # ARJ
    (0, b"!BDN", FileType.ARCHIVE),  # Outlook folders
    (0, b"\x78\x9f\x3e\x22", FileType.ARCHIVE),  # TNEF, winmail.dat
    *((2, b"-lh%d-" % method, FileType.ARCHIVE) for method in range(8)),
    (7, b"**ACE**", FileType.ARCHIVE),
    (257, b"ustar", FileType.ARCHIVE),
    (0, b"BEGIN:VCALENDAR", FileType.CALENDAR),
    (0, b"BEGIN:VCARD", FileType.CONTACT),
    (0, b"-----BEGIN PGP MESSAGE-----", FileType.ENCRYPTED),
    (0, b"-----BEGIN PKCS7-----", FileType.UNKNOWN),
    (0, b"-----BEGIN PGP SIGNATURE-----", FileType.SIGNATURE),
    (0, b"-----BEGIN PGP PUBLIC KEY BLOCK-----", FileType.SIGNATURE),
    (0, b"-----BEGIN CERTIFICATE-----", FileType.SIGNATURE),
)


_MEDIA = frozenset({FileType.IMAGE, FileType.AUDIO, FileType.VIDEO})
_RIFF = {b"WEBP": FileType.IMAGE, b"WAVE": FileType.AUDIO, b"AVI ": FileType.VIDEO}


def _index() -> dict[int, list[tuple[int, bytes, FileType]]]:
    """By first octet for magic at the start; under -1 what stands further on."""
    index: dict[int, list[tuple[int, bytes, FileType]]] = {}
    for offset, magic, kind in _MAGIC:
        index.setdefault(-1 if offset else magic[0], []).append((offset, magic, kind))
    return index


_INDEX = _index()

#: Brands of ISO base media files (ISO/IEC 14496-12) that are pictures or sound; the rest is video.
_PICTURES = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx "})
_SOUNDS = frozenset({b"M4A ", b"M4B ", b"M4P ", b"F4A "})
_HTML_SIGNS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--[if", b"<hta:", b"<table", b"<div")
_XML_SIGNS = (b"<?xml", b"<svg", b"<!doctype")
_BINARY = bytes(range(0x09)) + b"\x0e\x0f" + bytes(range(0x10, 0x1B)) + b"\x1c\x1d\x1e\x1f"


def looks_like_text(data: bytes) -> bool:
    """No octet of ``data`` is a control character that texts do not hold. UTF-16 counts where it has its mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return b"\x00\x00\x00\x00" not in data
    return not data or len(data.translate(None, _BINARY)) == len(data)


def file_type(head: bytes) -> FileType:
    """The class of the file that begins with ``head`` (:data:`HEAD` octets of it, or all)."""
    if not head:
        return FileType.TEXT
    for offset, magic, kind in _INDEX.get(head[0], []) + _INDEX[-1]:
        if head.startswith(magic, offset):
            # Words after the six letters of a GIF are words: what carries no text must not look like one.
            return FileType.TEXT if kind in _MEDIA and looks_like_text(head) else kind
    for judge in (_container, _weak, _pdf):
        found = judge(head)
        if found is not None:
            return found
    return _text(head) if looks_like_text(head) else FileType.UNKNOWN


def _container(head: bytes) -> FileType | None:
    """RIFF, IFF and ISO base media: the kind stands behind the length."""
    inner = head[8:12]
    if head.startswith(b"RIFF"):
        return _RIFF.get(inner)
    if head.startswith(b"FORM"):
        return FileType.AUDIO if inner in (b"AIFF", b"AIFC") else None
    if head[4:8] == b"ftyp" and head[0] == 0:
        return FileType.IMAGE if inner in _PICTURES else FileType.AUDIO if inner in _SOUNDS else FileType.VIDEO
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free") and head[0] == 0:
        return FileType.VIDEO
    return None


def _weak(head: bytes) -> FileType | None:
    """Magic of two octets, confirmed by what else such a file holds."""
    if looks_like_text(head):
        return None
    if head.startswith(b"MZ") and b"\x00" in head[:64]:
        return FileType.EXECUTABLE
    if head.startswith(b"BM") and head[6:10] == b"\x00\x00\x00\x00":
        return FileType.IMAGE
    if head[0] == 0xFF and len(head) > 3:
        # MPEG audio and ADTS: eleven bits set, then a version, layer and rate that exist.
        layer = head[1] & 0xF6 in (0xF2, 0xF0) or head[1] & 0xE6 == 0xE2
        if head[1] & 0xE0 == 0xE0 and layer and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C:
            return FileType.AUDIO
    if head[0] == 0x47 and len(head) > 376 and head[188] == 0x47 and head[376] == 0x47:
        return FileType.VIDEO
    if head[:3] in (b"FWS", b"CWS", b"ZWS") and head[3] < 0x40:
        return FileType.EXECUTABLE  # Flash
    return None


def _pdf(head: bytes) -> FileType | None:
    """Readers accept junk before the header (ISO 32000-1 annex H, note 13)."""
    return FileType.PDF if b"%PDF-" in head[:1024] else None


def _text(head: bytes) -> FileType:
    start = head[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith((b"BEGIN:VCALENDAR", b"BEGIN:VCARD")):
        return FileType.CALENDAR if start.startswith(b"BEGIN:VCAL") else FileType.CONTACT
    if start.startswith(b"{\\rt"):
        return FileType.OFFICE
    if start.startswith(b"%!"):
        return FileType.UNKNOWN  # PostScript: a program that draws text
    if start.startswith(b"#!"):
        return FileType.SCRIPT
    lower = start.lower()
    if lower.startswith((*_HTML_SIGNS, *_XML_SIGNS)) or b"<html" in lower:
        return FileType.HTML
    return FileType.TEXT


def refined(kind: FileType, data: bytes) -> FileType:
    """A closer look at the whole file: archives that are documents or programs, OLE files that are no documents."""
    refine = _REFINE.get(kind)
    return kind if refine is None else refine(data)


def _zip(data: bytes) -> FileType:
    if not data.startswith(b"PK"):
        return FileType.ARCHIVE
    head, tail = data[:4096], data[-65_536:]
    if b"mimetypeapplication/vnd.oasis.opendocument" in head[:200] or b"[Content_Types].xml" in head + tail:
        return FileType.OFFICE
    if b"AndroidManifest.xml" in head + tail or b"META-INF/MANIFEST.MF" in head + tail:
        return FileType.EXECUTABLE
    return FileType.ARCHIVE


def _ole(data: bytes) -> FileType:
    if not data.startswith(b"\xd0\xcf\x11\xe0"):
        return FileType.OFFICE
    if _wide("__properties_version1.0") in data:
        return FileType.MESSAGE  # Outlook item
    # [MS-CFB]: the class of Windows Installer packages, in the root entry.
    if b"\x84\x10\x0c\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46" in data:
        return FileType.EXECUTABLE
    return FileType.OFFICE


def _wide(name: str) -> bytes:
    return name.encode("utf-16-le")


_REFINE: dict[FileType, Callable[[bytes], FileType]] = {FileType.ARCHIVE: _zip, FileType.OFFICE: _ole}
