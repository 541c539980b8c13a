"""Where sealed bodies above the inline limit lie: the seam, and the files behind it.

A body file is made with O_EXCL under a temporary name in its final directory, streamed, synced, renamed, the directory
synced - and only then may a row name it. Objects in S3-compatible storage: see ``blob_objects``.

While a backup is being made (``backup_lock``) a file that no row names any more is put aside, so that the backup finds
what its moment names; the next look of whoever sweeps removes it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from gateway.errors import StoreCorrupt, StoreError, StoreFailed
from gateway.store.database import translated

__all__ = ["BlobFiles", "BlobReader", "BlobWriter", "Blobs"]

#: Body files that are written or synced at a time, so that many large ones do not fill the threads that others need.
_AT_ONCE = 4
#: Sealed bytes read at once.
_READ_SIZE = 256 * 1024
#: Where files lie that only a backup still needs, below the directory of bodies.
_ASIDE = "aside"


class BlobWriter(Protocol):
    """A body on its way in. Every method blocks, and raises :class:`StoreError`."""

    def write(self, data: bytes | bytearray) -> None:
        """Append sealed bytes."""
        ...

    def commit(self) -> None:
        """All of it is durable under its name when this returns; nothing may be written any more."""
        ...

    def close(self) -> None:
        """It was given up; :meth:`Blobs.abandon` removes what there is of it."""
        ...


class BlobReader(Protocol):
    """A body on its way out. Both methods block."""

    def read(self) -> bytes:
        """The next sealed bytes, none at the end. Raises :class:`StoreError`."""
        ...

    def close(self) -> None:
        """Nothing more is wanted."""
        ...


class Blobs(Protocol):
    """A place for sealed bodies. A name is given once, by the message that it belongs to.

    ``executor`` runs what blocks; None: the event loop's own. Whoever writes waits for its ``turn``, on the event loop.
    """

    executor: Executor | None
    turn: asyncio.Semaphore

    def create(self, name: str) -> BlobWriter:
        """Begin a body. Raises :class:`StoreError`."""
        ...

    def open(self, name: str, size: int, offset: int = 0) -> BlobReader:
        """Begin to read a body of so many sealed octets, from this one on.

        Raises :class:`StoreCorrupt` where it is gone, else :class:`StoreError`.
        """
        ...

    def abandon(self, name: str) -> None:
        """Remove a body that no row names, committed or not; one that is gone already is fine. Blocks."""
        ...

    def remove(self, name: str) -> None:
        """Remove a body that no row names any more; does not wait for a network. What stays behind is swept later."""
        ...

    def remove_aside(self) -> None:
        """Remove what was only kept for a backup that is over. Blocks."""
        ...

    def old(self, than: float) -> Iterator[list[str]]:
        """The names of what was last changed before ``than`` (epoch seconds), a part at a time. Blocks."""
        ...

    def sweep(self, names: Iterable[str], is_known: Callable[[str], bool]) -> list[str]:
        """Remove those of the names that :meth:`old` gave which no row names; which they were. Blocks."""
        ...

    def close(self) -> None:
        """Nothing is read or written any more."""
        ...


class _FileWriter:
    """One body file in the making."""

    def __init__(self, files: BlobFiles, name: str, handle: int) -> None:
        self._files = files
        self._name = name
        self._handle = handle

    def write(self, data: bytes | bytearray) -> None:
        self._files.write(self._handle, data)

    def commit(self) -> None:
        handle, self._handle = self._handle, -1
        self._files.commit(handle, self._name)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class _FileReader:
    """One body file, read from its beginning, or from where :meth:`skip` has gone."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def skip(self, offset: int) -> None:
        os.lseek(self._handle, offset, os.SEEK_SET)

    def read(self) -> bytes:
        try:
            return os.read(self._handle, _READ_SIZE)
        except OSError as error:
            raise translated(error) from error

    def close(self) -> None:
        os.close(self._handle)


class BlobFiles:
    """Body files under one directory, spread over 256 sub-directories by the last two digits of the message id."""

    executor: Executor | None = None

    def __init__(
        self, root: Path, fail: Callable[[str], None], is_backing_up: Callable[[], bool] = lambda: False
    ) -> None:
        self._root = root
        self._fail = fail
        self._is_backing_up = is_backing_up
        self.turn = asyncio.Semaphore(_AT_ONCE)

    def prepare(self) -> None:
        """Make the directories, durably, before a body is on its way: then none has to wait for another's.

        Raises :class:`StoreError`.
        """
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            self._sync_directory(self._root.parent)
            for directory in (*self.directories(), self._root / _ASIDE):
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

    def create(self, name: str) -> BlobWriter:
        """See :meth:`Blobs.create`; it is written under a temporary name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return _FileWriter(self, name, os.open(self.path(name).with_suffix(".tmp"), flags, 0o600))
        except OSError as error:
            raise translated(error) from error

    def open(self, name: str, size: int, offset: int = 0) -> BlobReader:  # noqa: ARG002  a file knows where it ends
        """See :meth:`Blobs.open`."""
        for path in (self.path(name), self._root / _ASIDE / name):
            try:
                reader = _FileReader(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"the body file of {name} cannot be read: {error.strerror}") from error
            if offset:
                reader.skip(offset)
            return reader
        raise StoreCorrupt(f"the body file of {name} is gone")

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
        if self._is_backing_up():
            with suppress(OSError):  # an orphan, swept at a later start
                self.path(name).rename(self._root / _ASIDE / name)
            return
        self._unlink(self.path(name))

    def remove_aside(self) -> None:
        """See :meth:`Blobs.remove_aside`."""
        with suppress(OSError):
            for path in (self._root / _ASIDE).iterdir():
                if self._is_backing_up():
                    return
                self._unlink(path)

    def old(self, than: float) -> Iterator[list[str]]:
        """See :meth:`Blobs.old`; one directory is one part."""
        for directory in self.directories():
            yield self._older(directory, than)

    @staticmethod
    def _older(directory: Path, than: float) -> list[str]:
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

    def close(self) -> None:
        """See :meth:`Blobs.close`."""
