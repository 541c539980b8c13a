"""Sealed bodies: a spool while a message comes in, rows or files afterwards, streams on the way out.

Up to 16 KiB of plain bytes stand in the row. Larger ones are files: made with O_EXCL under a temporary name in their
final directory, streamed, synced, renamed, the directory synced - and only then may a row name them. A body file
without a row is removed at start-up once it is old; a row without its file is corruption and says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import StoreCorrupt, StoreError, StoreFailed
from gateway.store.database import translated
from gateway.store.sealing import Opener, Sealer

__all__ = ["INLINE_LIMIT", "MEMORY_LIMIT", "BlobFiles", "SealedBody", "Spool", "data_key_purpose", "open_sealed"]

#: Plain bytes up to which a body stands in its row.
INLINE_LIMIT = 16 * 1024
#: Plain bytes up to which a body is also kept in memory for its first delivery.
MEMORY_LIMIT = 256 * 1024
#: Sealed bytes gathered before a write goes to the file's thread.
_WRITE_SIZE = 512 * 1024
#: Sealed bytes read at once.
_READ_SIZE = 256 * 1024
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


class BlobFiles:
    """Body files under one directory, spread over 256 sub-directories by the last two digits of the message id."""

    def __init__(self, root: Path, fail: Callable[[str], None]) -> None:
        self._root = root
        self._fail = fail

    def prepare(self) -> None:
        """Make the root directory, durably. Raises :class:`StoreError`."""
        self._make_directory(self._root)

    def path(self, name: str) -> Path:
        """Where a blob lives."""
        return self._root / name[-2:] / name

    def create(self, name: str) -> int:
        """A descriptor open for writing under the blob's temporary name."""
        target = self.path(name)
        try:
            self._make_directory(target.parent)
            return os.open(
                target.with_suffix(".tmp"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise translated(error) from error

    def write(self, handle: int, data: bytes) -> None:
        """Write all of ``data``. Raises :class:`StoreError`."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(handle, view) :]
        except OSError as error:
            raise translated(error) from error

    def commit(self, handle: int, name: str) -> None:
        """Sync, rename, sync the directory. A failed sync fails the store (promise P8)."""
        target = self.path(name)
        try:
            self._sync(handle)
        finally:
            os.close(handle)
        try:
            target.with_suffix(".tmp").rename(target)
        except OSError as error:
            raise translated(error) from error
        self._sync_directory(target.parent)

    def abandon(self, handle: int, name: str) -> None:
        """Close and remove a file that was not committed."""
        os.close(handle)
        self.path(name).with_suffix(".tmp").unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a blob that no row names any more; one that is gone already is fine."""
        try:
            self.path(name).unlink(missing_ok=True)
        except OSError:  # an orphan, swept at a later start
            return

    def sweep(self, is_known: Callable[[str], bool], older_than: float) -> list[str]:
        """Remove files that no row names and that were last changed before ``older_than`` (epoch seconds)."""
        removed = []
        for path in sorted(self._root.glob("??/*")):
            name = path.name.removesuffix(".tmp")
            if path.stat().st_mtime < older_than and (path.suffix == ".tmp" or not is_known(name)):
                path.unlink(missing_ok=True)
                removed.append(path.name)
        return removed

    def _sync(self, handle: int) -> None:
        try:
            os.fsync(handle)
        except OSError as error:
            self._fail(f"syncing a body failed: {error.strerror}")
            raise StoreFailed(f"syncing a body failed: {error.strerror}") from error

    def _sync_directory(self, directory: Path) -> None:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._sync(handle)
        finally:
            os.close(handle)

    def _make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise translated(error) from error
        self._sync_directory(directory.parent)


class Spool:
    """A body in the making: sealed before it touches a disk, hashed on the way.

    :meth:`write` any number of times, then :meth:`finish` or :meth:`abort`.
    """

    def __init__(self, files: BlobFiles, message_id: str, key: bytes) -> None:
        self.message = message_id
        self.size = 0
        self._files = files
        self._key = key
        self._sealer = Sealer(key, message_id)
        self._hash = hashlib.sha256()
        self._sealed = bytearray()
        self._plain: bytearray | None = bytearray()
        self._handle: int | None = None
        self._finished: SealedBody | None = None

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
            await asyncio.to_thread(self._spill, bytes(self._sealed))
            self._sealed.clear()

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
            await asyncio.to_thread(self._commit, bytes(self._sealed))
        self._sealed.clear()
        self._plain = None
        self._finished = SealedBody(self.message, self.size, self._hash.hexdigest(), self._key, inline, blob, plain)
        return self._finished

    async def abort(self) -> None:
        """Forget the body: its file is removed, committed or not. Only for a body that no row names."""
        handle, self._handle = self._handle, None
        finished, self._finished = self._finished, None
        if handle is not None:
            await asyncio.to_thread(self._files.abandon, handle, self.message)
        elif finished is not None and finished.blob is not None:
            await asyncio.to_thread(self._files.remove, finished.blob)

    def disown(self) -> None:
        """A row names the body now, or may: :meth:`abort` leaves its file alone from here on."""
        self._finished = None

    def _spill(self, data: bytes) -> None:
        if self._handle is None:
            self._handle = self._files.create(self.message)
        self._files.write(self._handle, data)

    def _commit(self, rest: bytes) -> None:
        self._spill(rest)
        handle, self._handle = self._handle, None
        assert handle is not None
        self._files.commit(handle, self.message)


async def open_sealed(
    files: BlobFiles, *, message: str, key: bytes, inline: bytes | None, blob: str | None, size: int, digest: str
) -> AsyncIterator[bytes]:
    """The plain bytes of a body, in chunks; every chunk was authenticated, length and digest are checked at the end.

    Raises :class:`StoreCorrupt` - possibly after chunks were given out, so the taker must not treat the body as
    whole before the iterator ends.
    """
    opener = Opener(key, message)
    seen = hashlib.sha256()
    length = 0

    async def sealed_pieces() -> AsyncIterator[bytes]:
        if inline is not None:
            yield inline
            return
        assert blob is not None
        try:
            handle = await asyncio.to_thread(os.open, files.path(blob), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise StoreCorrupt(f"the body file of {message} is gone") from None
        except OSError as error:
            raise StoreError(f"the body file of {message} cannot be read: {error.strerror}") from error
        try:
            while piece := await asyncio.to_thread(os.read, handle, _READ_SIZE):
                yield piece
        finally:
            os.close(handle)

    async for piece in sealed_pieces():
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
