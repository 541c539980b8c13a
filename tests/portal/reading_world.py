"""Messages for tests of reading: indexed in pieces of any size, read like a sealed body is."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from gateway.portal.reading import MessageIndex, Part, Read, View, compose, gather, part_octets
from gateway.portal.reading.structure import Indexer

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


T = TypeVar("T")


def finished(work: Coroutine[Any, Any, T]) -> T:
    """What comes of work that never waits; no event loop is needed, and there may be another's."""
    try:
        work.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError("it waits")


def lines(*each: str | bytes) -> bytes:
    """CRLF after each."""
    return b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in each)


def indexed(message: bytes, piece: int = 65_536) -> MessageIndex:
    """The index of a message that came in pieces of this size."""
    indexer = Indexer()
    for start in range(0, len(message), piece):
        indexer.feed(message[start : start + piece])
    return indexer.finish()


def reader(message: bytes, piece: int = 1000) -> Read:
    """Ranges of a message that is in memory."""

    async def read(start: int, end: int) -> AsyncGenerator[bytes, None]:
        for place in range(start, end, piece):
            yield message[place : min(end, place + piece)]

    return read


def octets(message: bytes, part: Part, start: int = 0, end: int | None = None) -> bytes:
    """The decoded octets of a part."""

    async def collect() -> bytes:
        stop = part.size if end is None else end
        return b"".join([piece async for piece in part_octets(part, reader(message), start, stop)])

    return finished(collect())


def viewed(message: bytes) -> View:
    """The whole way."""
    index = indexed(message)
    return compose(finished(gather(index, reader(message))))


def html_of(view: View) -> str:
    """What stands in the body of the document."""
    text = view.document.content.decode()
    return text.partition('<main dir="auto">')[2].rpartition("</main>")[0]


def letter(html: str, *, charset: str = "utf-8", subject: str = "Letter") -> bytes:
    """A message that is only HTML."""
    body = base64.encodebytes(html.encode(charset, "surrogatepass")).replace(b"\n", b"\r\n")
    return (
        lines(
            "From: Dr. Who <who@clinic.example>",
            "To: pat@isp.example",
            f"Subject: {subject}",
            "MIME-Version: 1.0",
            f"Content-Type: text/html; charset={charset}",
            "Content-Transfer-Encoding: base64",
            "",
        )
        + body
    )
