"""Text files whose notation stands between the letters: what else their text says.

Each function gives further readings of a text; the text as it stands is looked at anyway.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

from gateway.mail.content.decoding import from_base64
from gateway.mail.content.filetype import FileType, file_type

__all__ = ["embedded", "unescaped_json", "unfolded_lines"]

_FOLD = re.compile(r"\n[ \t]")
_ESCAPED = re.compile(r"\\([\\;,nN])")
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_BINARY_VALUE = re.compile(
    r"^([A-Za-z0-9.-]{1,60})[^:\n]{0,500}[;=]B(?:ASE64)?(?:;[^:\n]{0,500})?:(.*)$", re.MULTILINE | re.IGNORECASE
)
_DATA_VALUE = re.compile(
    r"^([A-Za-z0-9.-]{1,60})[^:\n]{0,500}:data:[^,\n]{0,200};base64,(.*)$", re.MULTILINE | re.IGNORECASE
)
_MAX_BINARY = 1000


def unfolded_lines(text: str) -> tuple[str, ...]:
    """Of iCalendar and vCard: lines unfolded (RFC 5545 section 3.1), escapes undone, quoted-printable of vCard 2.1."""
    unfolded = _FOLD.sub("", text)
    plain = _ESCAPED.sub(lambda match: "\n" if match[1] in "nN" else match[1], unfolded)
    readings = [plain] if plain != text else []
    if "QUOTED-PRINTABLE" in text.upper():
        octets = binascii.a2b_qp(text.encode("utf-8", "replace"))
        readings.append(octets.decode("utf-8", "replace"))
    return tuple(readings)


def unescaped_json(text: str) -> tuple[str, ...]:
    """JSON and JavaScript: characters written as four digits after a backslash and u (RFC 8259 section 7)."""
    if "\\u" not in text:
        return ()
    plain = _UNICODE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return (plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace"),)


def embedded(text: str) -> Iterator[tuple[str, FileType]]:
    """The files within an iCalendar or vCard text: the property's name, and what the file is by its content."""
    unfolded = _FOLD.sub("", text)
    count = 0
    for pattern in (_BINARY_VALUE, _DATA_VALUE):
        for match in pattern.finditer(unfolded):
            count += 1
            if count > _MAX_BINARY:
                yield "many", FileType.UNKNOWN
                return
            head = from_base64(match[2][:8192].encode("ascii", "replace")).data
            yield match[1].upper(), file_type(head)
