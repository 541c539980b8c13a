"""Reading what a browser sends, within limits, as it arrives: nothing waits in memory but one field, or one piece.

:func:`parts` gives a form part by part. A :class:`Field` is there as a whole; an :class:`Upload` is a stream, to be
read before the next part is asked for - what was not read of it is skipped. Both kinds of encoding are read:
``application/x-www-form-urlencoded`` and ``multipart/form-data`` (RFC 7578).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.web.errors import Refused

__all__ = ["Field", "Fields", "FormLimits", "Part", "Upload", "parts"]

#: Bytes of a part's headers: a name and a file's name.
_PART_HEAD = 4096


@dataclass(frozen=True, slots=True)
class FormLimits:
    """Most of each. The whole is limited by the route's ``body``."""

    parts: int = 50
    field_bytes: int = 64 * 1024
    upload_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Field:
    """A field with its text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it arrives. ``filename`` and ``content_type`` are the sender's words: text to be judged, not trusted.

    ``pieces`` raises :class:`Refused` (413) beyond the limit, and (400) where the request ends before the file does.
    """

    name: str
    filename: str
    content_type: str
    pieces: AsyncIterator[bytes]


Part = Field | Upload


class Fields(Mapping[str, str]):
    """The fields of a form; of several with one name the last, all by :meth:`every`."""

    def __init__(self, found: list[Field]) -> None:
        self._found = found
        self._last = {each.name: each.value for each in found}

    def __getitem__(self, name: str) -> str:
        return self._last[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._last)

    def __len__(self) -> int:
        return len(self._last)

    def every(self, name: str) -> list[str]:
        """All values under a name, in order."""
        return [each.value for each in self._found if each.name == name]


async def parts(content_type: str, body: AsyncIterator[bytes], limits: FormLimits) -> AsyncIterator[Part]:
    """The parts of a form, in the order of the page. Raises :class:`Refused` (400, 413)."""
    kind, options = parse_options_header(content_type)
    if kind == b"application/x-www-form-urlencoded":
        for each in await _urlencoded(body, limits):
            yield each
    elif kind == b"multipart/form-data" and options.get(b"boundary"):
        async for part in _Multipart(options[b"boundary"], body, limits).parts():
            yield part
    else:
        raise Refused(400, "not a form")


async def _urlencoded(body: AsyncIterator[bytes], limits: FormLimits) -> list[Field]:
    data = bytearray()
    async for piece in body:
        data += piece
        if len(data) > limits.field_bytes:
            raise Refused(413, "the form is too large")
    try:
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=limits.parts)
    except ValueError as error:
        raise Refused(400, f"the form cannot be read: {error}") from None
    return [Field(name, value) for name, value in pairs]


@dataclass(slots=True)
class _Head:
    """The headers of a part, as they are read."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes = b""
    value: bytes = b""
    size: int = 0


class _Multipart:
    """Turns the parser's calls into parts. What one piece of the body gave waits in ``_events``."""

    def __init__(self, boundary: bytes, body: AsyncIterator[bytes], limits: FormLimits) -> None:
        self._body = body
        self._limits = limits
        self._head = _Head()
        #: A head, some content, or the end of a part (``None``).
        self._events: deque[_Head | bytes | None] = deque()
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Refused(400, f"the form cannot be read: {error}") from None

    async def parts(self) -> AsyncIterator[Part]:
        count = 0
        while (event := await self._next()) is not _OVER:
            if not isinstance(event, _Head):
                continue  # the rest of an upload that nobody read
            count += 1
            if count > self._limits.parts:
                raise Refused(413, "too many parts")
            yield await self._part(event)
        if not self._ended:
            raise Refused(400, "the form breaks off")

    async def _part(self, head: _Head) -> Part:
        kind, options = parse_options_header(head.headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise Refused(400, "a part without a name")
        name = _text(options[b"name"])
        if b"filename" not in options:
            return Field(name, await self._value())
        content_type = _text(head.headers.get(b"content-type", b"application/octet-stream"))
        return Upload(name, _text(options[b"filename"]), content_type, self._pieces())

    async def _value(self) -> str:
        data = bytearray()
        while isinstance(event := await self._next(), bytes):
            data += event
            if len(data) > self._limits.field_bytes:
                raise Refused(413, "a field is too large")
        if event is _OVER:
            raise Refused(400, "the form breaks off")
        return _text(bytes(data))

    async def _pieces(self) -> AsyncIterator[bytes]:
        size = 0
        while isinstance(event := await self._next(), bytes):
            size += len(event)
            if size > self._limits.upload_bytes:
                raise Refused(413, "a file is too large")
            yield event
        if event is _OVER:
            raise Refused(400, "the form breaks off")

    async def _next(self) -> object:
        """The next event; ``_OVER`` at the end of the body."""
        while not self._events:
            piece = await anext(self._body, None)
            if piece is None:
                return _OVER
            try:
                self._parser.write(piece)
            except FormParserError as error:
                raise Refused(400, f"the form cannot be read: {error}") from None
        return self._events.popleft()

    # -- what the parser calls ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._head = _Head()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._head.name += self._counted(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._head.value += self._counted(data[start:end])

    def _counted(self, piece: bytes) -> bytes:
        self._head.size += len(piece)
        if self._head.size > _PART_HEAD:
            raise Refused(400, "the headers of a part are too large")
        return piece

    def _header_end(self) -> None:
        self._head.headers[self._head.name.lower()] = self._head.value
        self._head.name = self._head.value = b""

    def _headers_finished(self) -> None:
        self._events.append(self._head)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _part_end(self) -> None:
        self._events.append(None)

    def _end(self) -> None:
        self._ended = True


_OVER = object()


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, "a form that is not UTF-8") from None
