"""Whether a file is encrypted, as far as its own structure says so in the clear."""

from __future__ import annotations

import re
import zlib

from gateway.mail.content.filetype import FileType

__all__ = ["is_locked"]

#: The trailer's entry (ISO 32000-1 section 7.6.1): a reference, or the dictionary itself.
_PDF_ENCRYPT = re.compile(
    rb"/(?:E|#45)(?:n|#6[eE])(?:c|#63)(?:r|#72)(?:y|#79)(?:p|#70)(?:t|#74)\s{0,20}(?:\d{1,10}\s{1,20}\d{1,5}\s{1,20}R|<<)"
)
_ZIP_LOCAL = b"PK\x03\x04"
_ZIP_CENTRAL = b"PK\x01\x02"
_MAX_ENTRIES = 10_000
_MANIFEST = b"META-INF/manifest.xml"
_MAX_MANIFEST = 262_144
_AES_IN_7Z = b"\x06\xf1\x07\x01"


def is_locked(kind: FileType, data: bytes) -> bool | None:
    """True: encrypted, wholly or in part. False: in the clear. None: the format hides it, or is not understood."""
    if kind is FileType.PDF:
        return _PDF_ENCRYPT.search(data) is not None
    if kind is FileType.ENCRYPTED:
        return True
    if data.startswith(b"PK"):
        return _zip(data)
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        package = "EncryptedPackage".encode("utf-16-le")
        return True if package in data else None  # the binary formats of before 2007 encrypt within their streams
    if data.startswith(b"7z\xbc\xaf\x27\x1c"):
        return _seven_zip(data)
    if data.startswith(b"Rar!\x1a\x07"):
        return _rar(data)
    return False if data.startswith(b"{\\rt") else None


def _zip(data: bytes) -> bool:
    """APPNOTE 4.4.4: bit 0 of the flags of any entry; or OpenDocument's own manner, in its manifest."""
    for signature, flags in ((_ZIP_CENTRAL, 8), (_ZIP_LOCAL, 6)):
        position = data.find(signature)
        for _ in range(_MAX_ENTRIES):
            if position < 0:
                break
            if data[position + flags : position + flags + 1] and data[position + flags] & 1:
                return True
            position = data.find(signature, position + 4)
    return _manifest_encrypts(data)


def _manifest_encrypts(data: bytes) -> bool:
    name = data.find(_MANIFEST)
    start = name - 30
    if start < 0 or not data.startswith(_ZIP_LOCAL, start):
        return False
    method = int.from_bytes(data[start + 8 : start + 10], "little")
    extra = int.from_bytes(data[start + 28 : start + 30], "little")
    content = data[name + len(_MANIFEST) + extra :][:_MAX_MANIFEST]
    if method == 8:
        try:
            content = zlib.decompressobj(-15).decompress(content, _MAX_MANIFEST)
        except zlib.error:
            return False
    return b"encryption-data" in content


def _seven_zip(data: bytes) -> bool | None:
    """7zFormat.txt: the header stands at the end; it may be packed, and then only its own coder is seen."""
    start = 32 + int.from_bytes(data[12:20], "little")
    size = int.from_bytes(data[20:28], "little")
    header = data[start : start + min(size, 1_000_000)]
    if not header:
        return None
    if _AES_IN_7Z in header:
        return True
    return None if header[0] == 0x17 else False


def _rar(data: bytes) -> bool | None:
    """RAR 4: flags of the archive and of the first file. RAR 5: an encryption header; that of a file is not sought."""
    if data.startswith(b"Rar!\x1a\x07\x00"):
        if len(data) < 32:
            return None
        if data[10] & 0x80:
            return True
        first = 7 + int.from_bytes(data[12:14], "little")
        block = data[first : first + 5]
        return None if len(block) < 5 or block[2] != 0x74 else bool(block[3] & 0x04)
    head = data[12:16]  # signature of 8 octets, checksum of 4, then size and type as numbers of seven bits an octet
    for place, octet in enumerate(head):
        if octet < 0x80:
            return True if head[place + 1 : place + 2] == b"\x04" else None
    return None
