"""Sealed bodies: a spool while a message comes in, rows or files afterwards, streams on the way out.

Up to 16 KiB of plain bytes stand in the row. Larger ones are files: made with O_EXCL under a temporary name in their
final directory, streamed, synced, renamed, the directory synced - and only then may a row name them. A body file
without a row is removed at start-up once it is old; a row without its file is corruption and says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
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
#: Bodies that are written or synced at a time, so that many large ones do not fill the threads that others need.
_AT_ONCE = 4
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
    """Body files under one directory, spread over 256 sub-directories by the last two digits of the message id.

    Whoever writes waits for its ``turn``, on the event loop.
    """

    def __init__(self, root: Path, fail: Callable[[str], None]) -> None:
        self._root = root
        self._fail = fail
        self.turn = asyncio.Semaphore(_AT_ONCE)

    def prepare(self) -> None:
        """Make the directories, durably, before a body is on its way: then none has to wait for another's.

        Raises :class:`StoreError`.
        """
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            self._sync_directory(self._root.parent)
            for directory in self.directories():
                directory.mkdir(mode=0o700, exist_ok=True)
            self._sync_directory(self._root)
        except OSError as error:
            raise translated(error) from error

    def directories(self) -> list[Path]:
        """All directories that hold body files."""
        return [self._root / f"{number:02x}" for number in range(256)]

    def path(self, name: str) -> Path:
        """Where a blob lives."""
        return self._root / name[-2:] / name

    def create(self, name: str) -> int:
        """A descriptor open for writing under the blob's temporary name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self.path(name).with_suffix(".tmp"), flags, 0o600)
        except OSError as error:
            raise translated(error) from error

    def write(self, handle: int, data: bytes | bytearray) -> None:
        """Write all of ``data``. Raises :class:`StoreError`; where the medium failed, the store fails."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(handle, view) :]
        except OSError as error:
            failure = translated(error)
            if isinstance(failure, StoreFailed):
                self._fail(str(failure))
            raise failure from error

    def commit(self, handle: int, name: str) -> None:
        """Sync, rename, sync the directory. A failed sync fails the store (promise P8). Raises :class:`StoreError`."""
        target = self.path(name)
        try:
            self._sync(handle)
        finally:
            os.close(handle)
        try:
            target.with_suffix(".tmp").rename(target)
            self._sync_directory(target.parent)
        except OSError as error:
            raise translated(error) from error

    def abandon(self, name: str) -> None:
        """Remove a file that no row names, committed or not; one that is gone already is fine."""
        self._unlink(self.path(name).with_suffix(".tmp"))
        self._unlink(self.path(name))

    def remove(self, name: str) -> None:
        """Remove a blob that no row names any more; one that is gone already is fine."""
        self._unlink(self.path(name))

    def older(self, directory: Path, than: float) -> list[str]:
        """The files in one of :meth:`directories` that were last changed before ``than`` (epoch seconds)."""
        found = []
        with suppress(FileNotFoundError):
            for path in sorted(directory.iterdir()):
                with suppress(FileNotFoundError):  # gone since it was listed
                    if path.stat().st_mtime < than:
                        found.append(path.name)
        return found

    def sweep(self, names: Iterable[str], is_known: Callable[[str], bool]) -> list[str]:
        """Remove those of these files that no row names; a temporary file is named by none."""
        removed = [name for name in names if name.endswith(".tmp") or not is_known(name)]
        for name in removed:
            self._unlink(self.path(name.removesuffix(".tmp")).with_name(name))
        return removed

    @staticmethod
    def _unlink(path: Path) -> None:
        with suppress(OSError):  # an orphan, swept at a later start
            path.unlink(missing_ok=True)

    def _sync(self, handle: int) -> None:
        try:
            os.fsync(handle)
        except OSError as error:
            self._fail(f"syncing a body failed: {error.strerror}")
            raise StoreFailed(f"syncing a body failed: {error.strerror}") from error

    def _sync_directory(self, directory: Path) -> None:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._sync(handle)
        finally:
            os.close(handle)


class Spool:
    """A body in the making: sealed before it touches a disk, hashed on the way.

    :meth:`write` any number of times, then :meth:`finish` or :meth:`abort`. Whoever is cancelled while waiting for the
    disk calls :meth:`abort`, which lets the disk end first: a file is never closed under a write.
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
        self._has_file = False
        self._at_work: asyncio.Future[None] | None = None
        self._finished: SealedBody | None = None

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
            await asyncio.to_thread(self._abandon)

    def disown(self) -> None:
        """A row names the body now, or may: :meth:`abort` leaves its file alone from here on."""
        self._finished = None
        self._has_file = False

    async def _on_disk(self, work: Callable[[bytearray], None]) -> None:
        async with self._files.turn:
            data, self._sealed = self._sealed, bytearray()  # handed over, not copied: there may be many of us
            self._at_work = asyncio.ensure_future(asyncio.to_thread(work, data))
            await asyncio.shield(self._at_work)
            self._at_work = None

    def _spill(self, data: bytearray) -> None:
        if self._handle is None:
            self._handle = self._files.create(self.message)
            self._has_file = True
        self._files.write(self._handle, data)

    def _commit(self, rest: bytearray) -> None:
        self._spill(rest)
        handle, self._handle = self._handle, None
        assert handle is not None
        self._files.commit(handle, self.message)

    def _abandon(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
        self._has_file = False
        self._files.abandon(self.message)


async def open_sealed(
    files: BlobFiles, *, message: str, key: bytes, inline: bytes | None, blob: str | None, size: int, digest: str
) -> AsyncGenerator[bytes, None]:
    """The plain bytes of a body, in chunks; every chunk was authenticated, length and digest are checked at the end.

    Raises :class:`StoreCorrupt` - possibly after chunks were given out, so the taker must not treat the body as
    whole before the iterator ends.
    """
    opener = Opener(key, message)
    seen = hashlib.sha256()
    length = 0

    async def sealed_pieces() -> AsyncGenerator[bytes, None]:
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

    async with aclosing(sealed_pieces()) as pieces:
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
