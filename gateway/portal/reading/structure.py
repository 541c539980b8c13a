"""One pass over a message that comes piece by piece: where each part stands, and what its header says of it.

What a header means is read by ``gateway.mail.content``; this only finds the places without holding the message, and
cuts as ``content.mime`` does: a line that is the boundary of an enclosing multipart ends all that is inside it.

* ``_header``  lines up to an empty one; then a part or a multipart begins
* ``_body``    octets up to a line that is a boundary

Attached messages are parts: nobody looks into them here. Nothing raises; memory is bounded, whatever comes: depth,
parts, header octets; beyond that the rest of the message belongs to the part in hand (``is_cut``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gateway.mail.content.mediatype import Parametrised, parse
from gateway.mail.content.mime import Entity, read_entity
from gateway.portal.reading.parts import Branch, MessageIndex, Node, Part
from gateway.portal.reading.transfer import LineMeter, decoder

__all__ = ["Indexer"]

_MAX_DEPTH = 20
_MAX_PARTS = 500
#: Delimiters, closing ones included: each costs a look at the open boundaries.
_MAX_DELIMITERS = 5000
#: Of each header so many octets are kept; of all together so many are looked at, a line at a time.
_MAX_HEADER = 262_144
_MAX_HEADERS = 4 * _MAX_HEADER
#: Longer boundaries are none (RFC 2046 allows 70 characters).
_MAX_BOUNDARY = 500
#: The longest line that can be a delimiter, with blanks behind it; so much is looked at again with the next piece.
_LONGEST = 1300
_HEAD = 64
#: Of an attached message its subject is wanted.
_MESSAGE_HEAD = 8192
_MESSAGES = frozenset({"message/rfc822", "message/global", "message/news"})
_COMMENT = re.compile(r"\([^()]*\)")
_NOTHING = Parametrised("", {}, "")


@dataclass(slots=True)
class _Multipart:
    """A multipart that is open: its boundary in each spelling that programs know, and its parts so far."""

    kind: str
    boundaries: tuple[bytes, ...]
    root: str
    default: str
    start: int
    children: list[_Multipart | Part] = field(default_factory=list)


class _Leaf:
    """A part whose body is coming."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._decoder = decoder(part.encoding)
        self._lines = LineMeter() if part.encoding == "base64" else None
        self._wanted = _MESSAGE_HEAD if part.media_type in _MESSAGES else _HEAD
        self._head = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> None:
        if self._lines is not None:
            self._lines.feed(data)
        self._take(self._decoder.feed(data))

    def _take(self, plain: bytes) -> None:
        self._size += len(plain)
        if len(self._head) < self._wanted:
            self._head += plain[: self._wanted - len(self._head)]

    def finish(self, end: int) -> Part:
        self._take(self._decoder.finish())
        part = self.part
        line = 0 if self._lines is None else self._lines.line()
        return Part(
            part.number,
            part.start,
            end,
            part.media_type,
            part.charset,
            part.flowed,
            part.delete_space,
            part.encoding,
            line,
            self._size,
            bytes(self._head),
            part.name,
            part.is_attachment,
            part.content_id,
        )


class Indexer:
    """Feed it the message from its first octet, then :meth:`finish`."""

    def __init__(self) -> None:
        self._buffer = b""
        self._base = 0  # where the buffer begins in the message
        self._fresh = True  # whether the buffer begins a line
        self._in_header = True
        self._header = bytearray()
        self._headers_left = _MAX_HEADERS
        self._first_header: bytes | None = None
        self._default = "text/plain"
        self._open: list[_Multipart] = []
        self._root: _Multipart | Part | None = None
        self._leaf: _Leaf | None = None
        self._slots: list[list[_Multipart | Part]] = []
        self._parts: list[Part] = []
        self._count = 0
        self._delimiters = 0
        self._pattern: re.Pattern[bytes] | None = None
        self._is_cut = False

    def feed(self, piece: bytes) -> None:
        """The next octets of the message."""
        self._buffer += piece
        self._scan(last=False)

    def finish(self) -> MessageIndex:
        """All places, after the last octet."""
        self._scan(last=True)
        if self._in_header:
            self._begin(self._base)
        self._end_leaf(self._base)
        self._close(0, self._base)
        header = self._first_header or b""
        assert self._root is not None
        parts = tuple(sorted(self._parts, key=lambda part: part.number))
        return MessageIndex(self._base, header, _frozen(self._root), parts, self._is_cut)

    # -- octets -------------------------------------------------------------------------------------------------------

    def _scan(self, *, last: bool) -> None:
        while self._lines(last=last) if self._in_header else self._body(last=last):
            pass

    def _advance(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._base += count

    def _lines(self, *, last: bool) -> bool:
        """Header lines, as many as are whole. Whether the body has begun."""
        position = 0
        buffer = self._buffer
        while True:
            end = buffer.find(b"\n", position) + 1
            if not end:
                if last or len(buffer) - position > _LONGEST:
                    end = len(buffer)
                if end <= position:
                    break
            line = buffer[position:end]
            if self._fresh and line in (b"\r\n", b"\n"):
                self._advance(end)
                self._begin(self._base)
                return True
            if self._fresh and line.startswith(b"--") and self._level(line.rstrip(b"\r\n")) is not None:
                self._advance(position)
                self._begin(self._base)
                return True
            self._keep(line)
            self._fresh = line.endswith(b"\n")
            position = end
            if self._headers_left < 0:
                self._is_cut = True
                self._advance(position)
                self._begin(self._base)
                return True
        self._advance(position)
        return False

    def _keep(self, line: bytes) -> None:
        room = min(_MAX_HEADER - len(self._header), self._headers_left)
        self._header += line[: max(0, room)]
        self._headers_left -= len(line)

    def _body(self, *, last: bool) -> bool:
        """Octets of a body, up to a delimiter or as far as there can be none. Whether a header has begun."""
        buffer = self._buffer
        if self._pattern is not None:
            # A delimiter may stand at the very beginning of a body: as if a line had ended before it.
            match = self._pattern.match(b"\n" + buffer[:_LONGEST]) if self._fresh else None
            offset = 1 if match is not None else 0
            if match is None:
                match = self._pattern.search(buffer)
            if match is not None and (match[0].endswith(b"\n") or (last and match.end() - offset == len(buffer))):
                return self._delimiter(match.start() - offset, match.end() - offset, match[0].strip(b"\r\n"))
        keep = 0 if last or self._pattern is None else min(len(buffer), _LONGEST)
        if self._fresh and keep == len(buffer):
            return False
        cut = len(buffer) - keep
        if cut and buffer[cut - 1 : cut] == b"\r":
            cut -= 1  # it may belong to the delimiter
        if cut > 0:
            self._give(buffer[:cut])
            self._fresh = False
            self._advance(cut)
        return False

    def _delimiter(self, start: int, end: int, line: bytes) -> bool:
        """At a line that may be a boundary's: the line end before it belongs to it (RFC 2046 section 5.1.1)."""
        level = self._level(line)
        self._delimiters += 1
        if level is None or self._delimiters > _MAX_DELIMITERS or self._count >= _MAX_PARTS:
            if level is not None:
                self._is_cut, self._pattern = True, None
            self._give(self._buffer[: start + 1])
            self._advance(start + 1)
            self._fresh = False
            return True
        stop = max(start, 0)
        if start > 0 and self._buffer[start - 1 : start] == b"\r":
            stop -= 1
        self._give(self._buffer[:stop])
        self._end_leaf(self._base + stop)
        self._close(level + 1, self._base + stop)
        self._advance(end)
        self._fresh = True
        if not line.rstrip(b" \t").endswith(b"--") or self._is_opening(line, level):
            self._header.clear()
            self._in_header = True
            self._default = self._open[level].default
        return True

    def _is_opening(self, line: bytes, level: int) -> bool:
        """A boundary may itself end with two hyphens."""
        return line.rstrip(b" \t")[2:] in self._open[level].boundaries

    def _level(self, line: bytes) -> int | None:
        """Which open multipart this line belongs to; the outermost counts."""
        rest = line.rstrip(b" \t\r")[2:]
        for level, multipart in enumerate(self._open):
            if rest in multipart.boundaries or (rest.endswith(b"--") and rest[:-2] in multipart.boundaries):
                return level
        return None

    def _give(self, data: bytes) -> None:
        if self._leaf is not None and data:
            self._leaf.feed(data)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _begin(self, start: int) -> None:
        """The header is complete and the body begins at ``start``."""
        header = bytes(self._header)
        self._header.clear()
        self._in_header, self._fresh = False, True
        if self._is_cut:
            self._pattern = None
        if self._first_header is None:
            self._first_header = header
        entity = read_entity(header, 0, len(header))
        declared = parse(entity.first("content-type")) if entity.first("content-type") else _NOTHING
        kind = declared.value if "/" in declared.value else "text/plain" if declared.value else self._default
        boundaries = _boundaries(declared) if kind.startswith("multipart/") else ()
        if boundaries and len(self._open) < _MAX_DEPTH:
            default = "message/rfc822" if kind == "multipart/digest" else "text/plain"
            opened = _Multipart(kind[10:], boundaries, _content_id(declared.first("start")), default, start)
            self._place(opened)
            self._open.append(opened)
            self._pattern = None if self._is_cut else _pattern(self._open)
            return
        if kind.startswith("multipart/"):  # its parts cannot be told apart
            self._is_cut = self._is_cut or bool(boundaries)
            kind = "text/plain" if not boundaries else "application/octet-stream"
        self._count += 1
        self._leaf = _Leaf(_part(self._count, start, kind, declared, entity))

    def _end_leaf(self, end: int) -> None:
        if self._leaf is not None:
            part = self._leaf.finish(end)
            self._parts.append(part)
            self._leaf = None
            self._place(part)

    def _place(self, node: _Multipart | Part) -> None:
        if self._open:
            self._open[-1].children.append(node)
        else:
            self._root = node

    def _close(self, level: int, end: int) -> None:
        """The multiparts from this level on are over. One without a part is shown as the text that it holds."""
        while len(self._open) > level:
            multipart = self._open[-1]
            if not multipart.children:
                self._count += 1
                part = Part(self._count, multipart.start, end, "text/plain", size=end - multipart.start)
                self._parts.append(part)
                multipart.children.append(part)
            self._open.pop()
        self._pattern = None if self._is_cut else _pattern(self._open)


def _frozen(node: _Multipart | Part) -> Node:
    if isinstance(node, Part):
        return node
    return Branch(node.kind, tuple(_frozen(child) for child in node.children), node.root)


def _boundaries(declared: Parametrised) -> tuple[bytes, ...]:
    """As declared, without blanks at its end, and only its first word: programs differ (see ``content.reading``)."""
    found: dict[bytes, None] = {}
    for text in declared.all("boundary")[:2]:
        for candidate in (text, text.rstrip(), (text.split() or [""])[0].partition("(")[0]):
            octets = candidate.encode("utf-8", "replace").rstrip(b" \t")
            if 0 < len(octets) <= _MAX_BOUNDARY:
                found[octets] = None
    return tuple(found)


def _pattern(multiparts: list[_Multipart]) -> re.Pattern[bytes] | None:
    boundaries = sorted({boundary for multipart in multiparts for boundary in multipart.boundaries})
    if not boundaries:
        return None
    either = b"|".join(re.escape(boundary) for boundary in boundaries)
    return re.compile(rb"\n--(?:" + either + rb")(?:--)?[ \t]{0,200}\r?(?:\n|\Z)")


def _content_id(text: str) -> str:
    return text.strip().removeprefix("<").removesuffix(">").strip()[:250]


def _part(number: int, start: int, kind: str, declared: Parametrised, entity: Entity) -> Part:
    raw = entity.first("content-disposition")
    disposition = parse(raw) if raw else _NOTHING
    names = (*disposition.all("filename", "name"), *declared.all("name", "filename"))
    encoding = _COMMENT.sub(" ", entity.first("content-transfer-encoding").decode("latin-1").lower())
    return Part(
        number,
        start,
        start,
        kind[:100],
        declared.first("charset")[:100],
        declared.first("format").lower() == "flowed",
        declared.first("delsp").lower() == "yes",
        encoding.strip(" \t;\"'.")[:40],
        name=names[0][:1000] if names else "",
        is_attachment=disposition.value == "attachment",
        content_id=_content_id(entity.first("content-id").decode("utf-8", "replace")),
    )
