"""Sealed bodies: a spool while a message comes in, rows or files afterwards, streams on the way out.

Up to 128 KiB of plain bytes stand in the row. Larger ones are files or objects (``blobs``), durable before a row may
name them. One without a row is removed at start-up once it is old; a row without its body is corruption and says so.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from gateway.errors import StoreCorrupt
from gateway.store.blobs import Blobs, BlobWriter
from gateway.store.sealing import CHUNK, Opener, RangeOpener, Sealer, chunk_offset, sealed_range, sealed_size

__all__ = [
    "INLINE_LIMIT",
    "MEMORY_LIMIT",
    "SealedBody",
    "Spool",
    "data_key_purpose",
    "open_range",
    "open_sealed",
    "seal_small",
]

#: Plain bytes up to which a body stands in its row: its share of the commit is cheaper than a file and two syncs.
INLINE_LIMIT = 128 * 1024
#: Plain bytes up to which a body is also kept in memory for its first delivery.
MEMORY_LIMIT = 256 * 1024
#: Sealed bytes gathered before a write goes to the file's thread.
_WRITE_SIZE = 512 * 1024
#: A file without a row is only removed when it is older than this, in seconds: its row may be on the way.
ORPHAN_AGE = 86400.0


def data_key_purpose(message_id: str) -> str:
    """What the data key of this message is wrapped for."""
    return f"data-key/{message_id}"


@dataclass(frozen=True, slots=True)
class SealedBody:
    """A finished body: ready to be named by a row.

    Exactly one of ``inline`` (sealed bytes) and ``blob`` (name) is set. ``plain`` holds the bytes themselves where
    they are small enough to be delivered straight from memory.
    """

    message: str
    size: int
    digest: str
    key: bytes
    inline: bytes | None
    blob: str | None
    plain: bytes | None


class Spool:
    """A body in the making: sealed before it touches a disk, hashed on the way.

    :meth:`write` any number of times, then :meth:`finish` or :meth:`abort`. Whoever is cancelled while waiting for the
    disk calls :meth:`abort`, which lets the disk end first: a file is never closed under a write.
    """

    def __init__(self, files: Blobs, message_id: str, key: bytes) -> None:
        self.message = message_id
        self.size = 0
        self._files = files
        self._key = key
        self._sealer = Sealer(key, message_id)
        self._hash = hashlib.sha256()
        self._sealed = bytearray()
        self._plain: bytearray | None = bytearray()
        self._writer: BlobWriter | None = None
        self._has_file = False
        self._at_work: asyncio.Future[None] | None = None
        self._finished: SealedBody | None = None

    @property
    def plain(self) -> bytes | None:
        """The plain bytes so far, where they are few enough to be kept in memory."""
        if self._finished is not None:
            return self._finished.plain
        return None if self._plain is None else bytes(self._plain)

    def digest(self) -> str:
        """The lower-case hex SHA-256 of the plain bytes so far."""
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        """Add plain bytes. Raises :class:`StoreError`."""
        self.size += len(data)
        self._hash.update(data)
        if self._plain is not None:
            self._plain += data
            if len(self._plain) > MEMORY_LIMIT:
                self._plain = None
        self._sealed += self._sealer.update(data)
        if len(self._sealed) >= _WRITE_SIZE:
            await self._on_disk(self._spill)

    async def finish(self) -> SealedBody:
        """The body, durable where it is a file. Calling again gives the same. Raises :class:`StoreError`."""
        if self._finished is not None:
            return self._finished
        self._sealed += self._sealer.finish()
        plain = None if self._plain is None else bytes(self._plain)
        inline = blob = None
        if self.size <= INLINE_LIMIT:
            inline = bytes(self._sealed)
        else:
            blob = self.message
            await self._on_disk(self._commit)
        self._sealed.clear()
        self._plain = None
        self._finished = SealedBody(self.message, self.size, self._hash.hexdigest(), self._key, inline, blob, plain)
        return self._finished

    async def abort(self) -> None:
        """Forget the body: its file is removed, committed or not. Only for a body that no row names."""
        if self._at_work is not None:
            await asyncio.wait({self._at_work})
        self._finished = None
        if self._has_file:
            await asyncio.get_running_loop().run_in_executor(self._files.executor, self._abandon)

    def disown(self) -> None:
        """A row names the body now, or may: :meth:`abort` leaves its file alone from here on."""
        self._finished = None
        self._has_file = False

    async def _on_disk(self, work: Callable[[bytearray], None]) -> None:
        async with self._files.turn:
            data, self._sealed = self._sealed, bytearray()  # handed over, not copied: there may be many of us
            self._at_work = asyncio.get_running_loop().run_in_executor(self._files.executor, work, data)
            await asyncio.shield(self._at_work)
            self._at_work = None

    def _spill(self, data: bytearray) -> None:
        if self._writer is None:
            self._writer = self._files.create(self.message)
            self._has_file = True
        self._writer.write(data)

    def _commit(self, rest: bytearray) -> None:
        self._spill(rest)
        writer, self._writer = self._writer, None
        assert writer is not None
        writer.commit()

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        self._has_file = False
        self._files.abandon(self.message)


def seal_small(message_id: str, data: bytes, key: bytes) -> SealedBody:
    """A body that stands in its row, at once. Raises ``ValueError`` above :data:`INLINE_LIMIT`."""
    if len(data) > INLINE_LIMIT:
        raise ValueError("too large to stand in its row")
    sealer = Sealer(key, message_id)
    sealed = sealer.update(data) + sealer.finish()
    return SealedBody(message_id, len(data), hashlib.sha256(data).hexdigest(), key, sealed, None, data)


async def open_sealed(
    files: Blobs, *, message: str, key: bytes, inline: bytes | None, blob: str | None, size: int, digest: str
) -> AsyncGenerator[bytes, None]:
    """The plain bytes of a body, in chunks; every chunk was authenticated, length and digest are checked at the end.

    Raises :class:`StoreCorrupt`, and :class:`StoreError` where it cannot be read now - possibly after chunks were given
    out, so the taker must not treat the body as whole before the iterator ends.
    """
    opener = Opener(key, message)
    seen = hashlib.sha256()
    length = 0

    async with aclosing(_sealed_pieces(files, inline, blob, size, 0)) as pieces:
        async for piece in pieces:
            for plain in opener.update(piece):
                seen.update(plain)
                length += len(plain)
                yield plain
    last = opener.finish()
    seen.update(last)
    length += len(last)
    if length != size or seen.hexdigest() != digest:
        raise StoreCorrupt(f"the body of {message} has another length or digest than was accepted")
    if last:
        yield last


async def open_range(
    files: Blobs, *, message: str, key: bytes, inline: bytes | None, blob: str | None, size: int, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    """The plain bytes ``start`` to ``end`` of a body of ``size``, in chunks; only what holds them is read.

    Every chunk was authenticated, in its place; the digest of the whole cannot be checked by a range. Raises like
    :func:`open_sealed`, and ``ValueError`` where the range is not in the body.
    """
    if not 0 <= start <= end <= size:
        raise ValueError("the range is not in the body")
    if start == end:
        return
    first, count = sealed_range(size, start, end)
    begin, stop = chunk_offset(first), min(chunk_offset(first + count), sealed_size(size))
    opener = RangeOpener(key, message, size=size, first=first)
    place = first * CHUNK
    async with aclosing(_sealed_pieces(files, inline, blob, size, begin)) as pieces:
        async for piece in pieces:
            for plain in opener.update(piece[: stop - begin]):
                yield plain[max(0, start - place) : end - place]
                place += len(plain)
            begin += len(piece)
            if begin >= stop:
                break
    if place < end:
        raise StoreCorrupt(f"the body of {message} is shorter than was accepted")


async def _sealed_pieces(
    files: Blobs, inline: bytes | None, blob: str | None, size: int, offset: int
) -> AsyncGenerator[bytes, None]:
    """The sealed bytes from ``offset`` on, of a body of ``size`` plain bytes."""
    if inline is not None:
        yield inline[offset:]
        return
    assert blob is not None
    loop = asyncio.get_running_loop()
    reader = await loop.run_in_executor(files.executor, files.open, blob, sealed_size(size), offset)
    try:
        while piece := await loop.run_in_executor(files.executor, reader.read):
            yield piece
    finally:
        reader.close()
