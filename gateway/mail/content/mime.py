"""The structure of a message on its bytes: header and body of an entity, the parts of a multipart (RFC 2045, RFC 2046).

Nothing is copied but header blocks; all positions are those of the message. Line ends are CRLF or LF. Where programs
are known to read a structure in different ways, ``fault`` says so: what is in doubt is looked at, and counts as not
read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["MAX_HEADER", "MAX_SEEN", "Entity", "Parts", "Section", "parts", "read_entity"]

#: Longer headers are no letter's.
MAX_HEADER = 1_048_576

#: The fields that say how to read, or that people read.
_FIELD = re.compile(
    rb"\n(content-(?:type|transfer-encoding|disposition|description|id)|subject|comments|keywords|thread-topic|from|to|cc"
    rb"|reply-to|organization)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)",
    re.IGNORECASE,
)
_SOUND = re.compile(rb"(?:[!-9;-~]++[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+(?:\n|\Z))*+")
_BLANK_LINE = re.compile(rb"\n[ \t]+\r?(?=\n|\Z)")
_ENVELOPE_LINE = re.compile(rb">?From [^\n]*\n")


@dataclass(frozen=True, slots=True)
class Entity:
    """A message or part: the fields that matter by lower-case name, unfolded, and where its body stands.

    ``loose`` is what stands in the header block from the first line on that is no field; some programs take it for
    the body.
    """

    fields: dict[str, list[bytes]]
    body: int
    end: int
    fault: str = ""
    loose: bytes = b""

    def first(self, name: str) -> bytes:
        """The first field of this name; b"" without one."""
        found = self.fields.get(name)
        return found[0] if found else b""


@dataclass(slots=True)
class Section:
    """A piece of a multipart: what it is (``preamble``, ``part``, ``between``, ``epilogue``) and where it stands."""

    kind: str
    start: int
    end: int


@dataclass(slots=True)
class Parts:
    """What a boundary cuts a body into. ``almost`` are lines that begin like the boundary and go on."""

    sections: list[Section] = field(default_factory=list)
    almost: set[bytes] = field(default_factory=set)
    seen: int = 0
    cut: bool = False


#: Lines like a boundary that are remembered: nested boundaries that begin alike are few.
_MAX_ALMOST = 100
#: And that are looked at: in a part of a thousand, each may begin like the boundary around it.
MAX_SEEN = 10_000


def _header_end(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the header block ends, its last line end included, and where the body starts."""
    if data.startswith((b"\r\n", b"\n"), start, end):
        return start, start + (2 if data[start] == 0x0D else 1)
    found = data.find(b"\n\r\n", start, end)
    other = data.find(b"\n\n", start, end if found < 0 else found + 1)
    if other >= 0:
        return other + 1, other + 2
    return (found + 1, found + 3) if found >= 0 else (end, end)


def read_entity(data: bytes, start: int, end: int, limit: int = MAX_HEADER) -> Entity:
    """The entity in ``data[start:end]``; of its header at most ``limit`` octets are read. Never raises."""
    stop, body = _header_end(data, start, end)
    if stop - start > limit:
        cut = start + limit
        entity = read_entity(data[start:cut], 0, limit)
        return Entity(entity.fields, body, end, "its header is larger than is read", entity.loose + data[cut:stop])
    header = data[start:stop]
    envelope = _ENVELOPE_LINE.match(header)
    if envelope is not None:
        header = header[envelope.end() :]
    fields: dict[str, list[bytes]] = {}
    for name, value in _FIELD.findall(b"\n" + header):
        text = value.strip()
        if b"\n" in text or b"\r" in text:
            text = text.replace(b"\r", b"").replace(b"\n", b"")  # unfolded (RFC 5322 section 2.2.3)
        fields.setdefault(name.decode("ascii").lower(), []).append(text)
    sound = _SOUND.match(header)
    broken = 0 if sound is None else sound.end()
    blank = _BLANK_LINE.search(header)
    if blank is not None:
        broken = min(broken, blank.end())
    if broken < len(header):
        return Entity(fields, body, end, "its header has a line that is no field", header[broken:])
    return Entity(fields, body, end)


def parts(data: bytes, start: int, end: int, boundary: bytes, limit: int, seen: int) -> Parts:
    """Cut ``data[start:end]`` at the boundary: into at most ``limit`` parts, ``cut`` says that there is more.

    At most ``seen`` lines are looked at that only begin like it.

    Delimiters after the closing one count too: some programs go on there.
    """
    found = Parts()
    delimiter = b"--" + boundary
    position = start if data.startswith(delimiter, start, end) else _next(data, delimiter, start, end)
    kind, begin, count, closed = "preamble", start, 0, False
    while position >= 0:
        after = position + len(delimiter)
        line_end = data.find(b"\n", after, end)
        rest = data[after : min(end if line_end < 0 else line_end, after + 1000)].rstrip(b" \t\r")
        if rest in (b"", b"--"):
            found.sections.append(Section(kind, begin, _before(data, begin, position)))
            closed = closed or rest == b"--"
            begin = end if line_end < 0 else line_end + 1
            kind = "between" if rest else "part"
            count += kind == "part"
            if count > limit:
                found.cut = True
                break
        else:
            found.seen += 1
            found.almost.add(boundary + rest if len(found.almost) < _MAX_ALMOST else b"")
            if found.seen > seen:
                found.cut = True
                break
        position = _next(data, delimiter, after, end)
    last = "epilogue" if kind == "between" else kind
    if begin < end or kind == "part":
        found.sections.append(Section(last, begin, end))
    return found


def _next(data: bytes, delimiter: bytes, start: int, end: int) -> int:
    found = data.find(b"\n" + delimiter, start, end)
    return found + 1 if found >= 0 else -1


def _before(data: bytes, begin: int, position: int) -> int:
    """The end of what stands before a delimiter: the line end before it belongs to it (RFC 2046 section 5.1.1)."""
    if position > begin and data[position - 1] == 0x0A:
        position -= 1
        if position > begin and data[position - 1] == 0x0D:
            position -= 1
    return position
