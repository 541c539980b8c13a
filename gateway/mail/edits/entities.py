"""The parts of a message as places in its bytes, read strictly: for changing, not for looking at.

Where two readers could see different parts the answer is :class:`Unclear`: what is not understood is not changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message as MimeHeader

from gateway.mail.headers import Field, HeaderError, fields

__all__ = ["Entity", "Unclear", "children", "content_type", "read_entity", "single"]

_MAX_PARTS = 1000
_PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})


class Unclear(ValueError):
    """It could be read in more than one way, or not at all; the text says what."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A message or part: its fields, its body from ``body`` to ``end``, its (lower-case) type and encoding.

    ``encoding`` is "" where none is named. ``mime`` answers for the parameters of the type.
    """

    fields: tuple[Field, ...]
    start: int
    body: int
    end: int
    media_type: str
    encoding: str
    mime: MimeHeader

    @property
    def is_attachment(self) -> bool:
        """Whether it has a name, or is said to be one: not for reading in place."""
        disposition = single(self.fields, "content-disposition")
        if disposition is None:
            return False
        header = MimeHeader()
        header["Content-Disposition"] = disposition.text
        return header.get_content_disposition() == "attachment" or header.get_filename() is not None


def single(found: tuple[Field, ...], name: str) -> Field | None:
    """The one field of this name, if there is one. Raises :class:`Unclear` where there are several."""
    named = [field for field in found if field.name == name]
    if len(named) > 1:
        raise Unclear(f"more than one {name} field")
    return named[0] if named else None


def content_type(field: Field | None, default: str) -> MimeHeader:
    """The content type as the standard library reads it. Only asked, never written out again."""
    header = MimeHeader()
    header.set_default_type(default)
    if field is not None:
        header["Content-Type"] = field.text
    return header


def read_entity(message: bytes, start: int, end: int, default: str = "text/plain") -> Entity:
    """The entity between these octets. Raises :class:`Unclear`."""
    if message.startswith(b"\r\n", start, end):
        header_end, body = start, start + 2
    else:
        blank = message.find(b"\r\n\r\n", start, end)
        header_end, body = (end, end) if blank < 0 else (blank + 2, blank + 4)
    try:
        found = tuple(fields(message[start:header_end]))
    except HeaderError as error:
        raise Unclear(str(error)) from None
    mime = content_type(single(found, "content-type"), default)
    encoding = single(found, "content-transfer-encoding")
    name = "" if encoding is None else re.sub(r"\([^()]*\)", "", encoding.text).strip().lower()
    return Entity(found, start, body, end, mime.get_content_type(), name, mime)


def children(message: bytes, entity: Entity) -> Iterator[Entity]:
    """The parts of a multipart, one by one. Raises :class:`Unclear` where it comes to what is not clear."""
    kind = entity.media_type
    if entity.encoding not in _PLAIN_ENCODINGS:
        raise Unclear(f"{kind} with encoding {entity.encoding[:40]}")
    boundary = entity.mime.get_boundary()
    if not boundary or len(boundary) > 200 or not boundary.isascii():
        raise Unclear(f"{kind} without a usable boundary")
    delimiter = re.compile(rb"\r\n--" + re.escape(boundary.encode("ascii")) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    default = "message/rfc822" if kind == "multipart/digest" else "text/plain"
    begin: int | None = None
    # The first delimiter's line end may be that of the empty line before the body.
    for number, match in enumerate(delimiter.finditer(message, max(entity.body - 2, 0), entity.end)):
        if number > _MAX_PARTS:
            raise Unclear("too many parts")
        if begin is not None:
            yield read_entity(message, min(begin, match.start()), match.start(), default)
        begin = match.end() + 2
        if match[1] is not None:
            return
    if begin is None:
        raise Unclear(f"{kind} without its boundary")
    yield read_entity(message, min(begin, entity.end), entity.end, default)
