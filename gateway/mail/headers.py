"""Header fields at byte level (RFC 5322 section 2.2): scan, unfold, decode, take out.

The standard library's generator is never used: it re-folds what it touches, and versions of it let line ends
through. A field here is the exact bytes that arrived, with its line ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header

__all__ = [
    "Field",
    "HeaderError",
    "decode_text",
    "fields",
    "has_non_ascii",
    "split_message",
    "subject_of",
    "values",
    "without",
]

# A field with its continuation lines and all their line ends, whatever these are. RFC 5322 section 3.6.8 ftext; white
# space before the colon is obsolete syntax that some parsers still take as the same field, so it is recognised here
# too - a marker must not hide behind a space.
_WHOLE = re.compile(rb"([!-9;-~]+)[ \t]*:[^\r\n]*(?:\r\n?|\n|\Z)(?:[ \t][^\r\n]*(?:\r\n?|\n|\Z))*")


class HeaderError(ValueError):
    """The header block is not one; the message says which line."""


@dataclass(frozen=True, slots=True)
class Field:
    """One header field: ``name`` in lower case, ``raw`` with folding and final CRLF."""

    name: str
    raw: bytes

    @property
    def value(self) -> bytes:
        """What stands after the colon, unfolded (RFC 5322 section 2.2.3), white space at both ends removed."""
        return self.raw.split(b":", 1)[1].replace(b"\r\n", b"").strip(b" \t")

    @property
    def text(self) -> str:
        """:attr:`value` as text; bytes that are not UTF-8 become replacement characters."""
        return self.value.decode("utf-8", "replace")


def split_message(data: bytes) -> tuple[bytes, bytes]:
    """Header block (each line with its CRLF) and the rest, which begins with the empty line - or is empty."""
    if data.startswith(b"\r\n"):
        return b"", data
    end = data.find(b"\r\n\r\n")
    return (data, b"") if end < 0 else (data[: end + 2], data[end + 2 :])


def fields(block: bytes) -> Iterator[Field]:
    """The fields of a header block, in order. Raises :class:`HeaderError` for a line that is no field."""
    end = 0
    while end < len(block):
        match = _WHOLE.match(block, end)
        if match is None:
            raise _fault(block[:end], block[end:])
        end = match.end()
        yield Field(match[1].decode("ascii").lower(), match[0])


def _fault(before: bytes, rest: bytes) -> HeaderError:
    number = len(before.splitlines()) + 1
    if rest[:1] in (b" ", b"\t"):
        return HeaderError(f"header line {number} continues nothing")
    return HeaderError(f"header line {number} is not a field")


def values(found: Iterable[Field], name: str) -> list[str]:
    """The unfolded texts of every field with this (lower-case) name."""
    return [field.text for field in found if field.name == name]


def without(block: bytes, names: frozenset[str]) -> tuple[bytes, list[Field]]:
    """The block less the fields with these (lower-case) names, and those fields. Kept bytes are untouched."""
    kept: list[bytes] = []
    taken: list[Field] = []
    for field in fields(block):
        if field.name in names:
            taken.append(field)
        else:
            kept.append(field.raw)
    return b"".join(kept), taken


def has_non_ascii(block: bytes) -> bool:
    """Whether the header block needs SMTPUTF8 (RFC 6532): any byte above 127."""
    return not block.isascii()


def subject_of(found: Iterable[Field]) -> str | None:
    """The decoded subject; "" where there is none, None where it cannot be known for certain."""
    subjects = [field for field in found if field.name == "subject"]
    if not subjects:
        return ""
    return decode_text(subjects[0].value) if len(subjects) == 1 else None


def decode_text(value: bytes) -> str | None:
    """An unstructured field as people read it, encoded words decoded (RFC 2047); None where that fails."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "=?" not in text:
        return text
    try:
        pieces = decode_header(text)
        return "".join(
            piece if isinstance(piece, str) else piece.decode(charset or "ascii") for piece, charset in pieces
        )
    except (ValueError, LookupError, HeaderParseError):
        return None
