"""Sealed bodies in S3-compatible object storage.

A body is one or more objects, ``NAME/000000``, ``NAME/000001``, ...: what the spool hands over at a time is one, so
nothing is kept in memory beside it. A body is whole when its last object was acknowledged; how many octets it has in
all follows from the size in its row. Whatever a dead gateway leaves behind is an object that can be listed and swept. A
multipart upload would leave what nobody sees and everybody pays for: its parts are in no listing of objects, and the
library has no way to list or to end them.

Below the prefix of the settings everything stands under the id of the store, so that two stores in one bucket never
take each other's bodies for orphans.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from gateway.config.storage import S3, Bucket
from gateway.errors import StoreCorrupt, StoreError
from gateway.store.blobs import BlobReader, BlobWriter

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")

__all__ = ["BlobObjects", "open_bucket"]

_log = structlog.get_logger()

#: Sealed bytes given out at once, at least.
_READ_SIZE = 256 * 1024
#: Bodies on their way in or out at the same time; the others wait.
_THREADS = 16
#: Seconds to connect, for one request, and for one with all that it is tried again.
_CONNECT, _REQUEST, _PATIENCE = 5, 30, 60
_RETRIES = 3
#: Names waiting to be removed; beyond that they are left for the sweep.
_WAITING = 10_000
#: Objects asked for at once.
_PAGE = 1000
#: Seconds that the end waits for removals.
_LAST_REMOVALS = 10.0
#: Seconds between two looks whether a backup is over that may need what is to be removed.
_BACKUP_LOOK = 1.0


def open_bucket(bucket: Bucket, settings: S3) -> S3Store:
    """A client for the bucket and prefix. Nothing is asked yet. Raises :class:`StoreError`."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ModuleNotFoundError as error:
        raise StoreError(
            f"object storage needs the package {error.name}: install secure-email-gateway with its extra `s3`"
        ) from None
    options: dict[str, str] = {}
    if settings.endpoint is not None:
        options["endpoint"] = settings.endpoint
    if settings.region is not None:
        options["region"] = settings.region
    if settings.access_key is not None and settings.secret_key is not None:
        options["access_key_id"] = settings.access_key.reveal().decode()
        options["secret_access_key"] = settings.secret_key.reveal().decode()
    in_clear = settings.endpoint is not None and settings.endpoint.startswith("http://")
    try:
        return S3Store(
            bucket.name,
            prefix=bucket.prefix or None,
            # Services other than Amazon's rarely have a host name for each bucket.
            virtual_hosted_style_request=settings.endpoint is None,
            client_options={
                "allow_http": in_clear,
                "connect_timeout": f"{_CONNECT}s",
                "timeout": f"{_REQUEST}s",
                "user_agent": "secure-email-gateway",
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_PATIENCE)},
            config={},
            **options,  # type: ignore[arg-type]  # each is one of its own names
        )
    except (BaseError, ValueError) as error:
        raise StoreError(f"object storage: {_words(error)}") from error


def _words(error: Exception) -> str:
    """The first line of an error: what follows shows the library from inside."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


class BlobObjects:
    """Bodies as objects; see :class:`gateway.store.blobs.Blobs`. ``store_id`` tells this store's from others'."""

    executor: Executor | None
    turn: asyncio.Semaphore

    def __init__(self, client: S3Store, store_id: str, is_backing_up: Callable[[], bool] = lambda: False) -> None:
        self._client = client
        self._is_backing_up = is_backing_up
        self._ends = threading.Event()
        self._root = store_id
        self.executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="bodies")
        self.turn = asyncio.Semaphore(_THREADS // 2)  # the others are for those that read
        self._removals: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._remover = threading.Thread(target=self._run_removals, name="bodies-remove", daemon=True)
        self._remover.start()

    def require_access(self) -> None:
        """Look whether the bucket is there and may be listed. Raises :class:`StoreError`."""
        self._guarded("it cannot be listed", lambda: next(iter(self._listing("")), None))

    # -- one body -----------------------------------------------------------------------------------------------------

    def create(self, name: str) -> BlobWriter:
        """See :meth:`Blobs.create`."""
        return _ObjectWriter(self, name)

    def open(self, name: str, size: int, offset: int = 0) -> BlobReader:
        """See :meth:`Blobs.open`."""
        return _ObjectReader(self, name, size, offset)

    def put(self, name: str, number: int, data: bytes | bytearray) -> None:
        """Keep one part; it is acknowledged when this returns. Raises :class:`StoreError`."""
        import obstore

        self._guarded(
            f"a part of {name} was not taken",
            lambda: obstore.put(self._client, self._path(name, number), bytes(data), use_multipart=False),
        )

    def lengths(self, name: str) -> list[int]:
        """How many bytes each part has, in their order. Raises :class:`StoreError`."""
        import obstore

        def look() -> list[tuple[str, int]]:
            pages = obstore.list(self._client, f"{self._root}/{name}/", chunk_size=_PAGE)
            return sorted((entry["path"], entry["size"]) for page in pages for entry in page)

        return [length for _, length in self._guarded(f"the parts of {name} cannot be listed", look)]

    def pieces(self, name: str, number: int, offset: int = 0) -> Iterator[bytes]:
        """The bytes of one part, from this one on.

        Raises :class:`StoreCorrupt` where it is gone, else :class:`StoreError`.
        """
        import obstore

        def begin() -> Iterator[bytes]:
            path = self._path(name, number)
            if offset:
                found = obstore.get(self._client, path, options={"range": {"offset": offset}})
            else:
                found = obstore.get(self._client, path)
            return iter(found.stream(min_chunk_size=_READ_SIZE))

        stream = self._guarded(f"a part of {name} cannot be read", begin)
        while True:
            piece = self._guarded(f"a part of {name} broke off", lambda: next(stream, None))
            if piece is None:
                return
            yield bytes(piece)

    def _path(self, name: str, number: int) -> str:
        return f"{self._root}/{name}/{number:06d}"

    # -- removal ------------------------------------------------------------------------------------------------------

    def abandon(self, name: str) -> None:
        """See :meth:`Blobs.abandon`."""
        self._delete(name)

    def remove(self, name: str) -> None:
        """See :meth:`Blobs.remove`; a thread of its own does it."""
        try:
            self._removals.put_nowait(name)
        except queue.Full:
            _log.warning("body_left_behind", body=name, error="too many wait to be removed")

    def _run_removals(self) -> None:
        while (name := self._removals.get()) is not None:
            while self._is_backing_up() and not self._ends.wait(_BACKUP_LOOK):
                pass
            if self._is_backing_up():
                _log.warning("body_left_behind", body=name, error="a backup is being made")
            else:
                self._delete(name)

    def remove_aside(self) -> None:
        """See :meth:`Blobs.remove_aside`: what a backup needs is removed later, not put aside."""

    def _delete(self, name: str) -> bool:
        import obstore

        def delete(paths: list[str]) -> None:
            obstore.delete(self._client, paths)

        try:
            for page in self._listing(f"{name}/"):
                self._guarded(f"{name} was not removed", partial(delete, [path for path, _ in page]))
        except StoreError as error:  # an orphan, swept at a later start
            _log.warning("body_left_behind", body=name, error=str(error))
            return False
        return True

    def _listing(self, below: str) -> Iterator[list[tuple[str, float]]]:
        """The objects of this store below that name, a page at a time: path, and when it was made (epoch seconds)."""
        import obstore

        begin = f"{self._root}/{below}"
        pages = self._guarded("it cannot be listed", lambda: iter(obstore.list(self._client, begin, chunk_size=_PAGE)))
        while True:
            page = self._guarded("it cannot be listed", lambda: next(pages, None))
            if page is None:
                return
            yield [(entry["path"], entry["last_modified"].timestamp()) for entry in page]

    def old(self, than: float) -> Iterator[list[str]]:
        """See :meth:`Blobs.old`; a body is as old as its newest object in the page."""
        for page in self._listing(""):
            made: dict[str, float] = {}
            for path, moment in page:
                name = path.removeprefix(f"{self._root}/").partition("/")[0]
                made[name] = max(moment, made.get(name, 0.0))
            yield [name for name, moment in made.items() if moment < than]

    def sweep(self, names: Iterable[str], is_known: Callable[[str], bool]) -> list[str]:
        """See :meth:`Blobs.sweep`."""
        return [name for name in names if not is_known(name) and self._delete(name)]

    def close(self) -> None:
        """See :meth:`Blobs.close`; what waits to be removed gets a moment."""
        self._ends.set()
        try:
            self._removals.put_nowait(None)
        except queue.Full:
            return  # they are orphans by now
        self._remover.join(_LAST_REMOVALS)
        if self.executor is not None:
            self.executor.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _guarded(what: str, work: Callable[[], T]) -> T:
        from obstore.exceptions import BaseError

        try:
            return work()
        except (BaseError, OSError, ValueError) as error:
            if "NoSuchBucket" in str(error):
                raise StoreError(f"object storage: {what}: there is no such bucket") from None
            if isinstance(error, FileNotFoundError):
                raise StoreCorrupt(f"object storage: {what}: it is gone") from None
            raise StoreError(f"object storage: {what}: {_words(error)}") from error


class _ObjectWriter:
    """A body on its way in: what is handed over at a time is one object."""

    def __init__(self, objects: BlobObjects, name: str) -> None:
        self._objects = objects
        self._name = name
        self._number = 0

    def write(self, data: bytes | bytearray) -> None:
        self._objects.put(self._name, self._number, data)
        self._number += 1

    def commit(self) -> None:
        """Each part was acknowledged when it was written."""

    def close(self) -> None:
        """Nothing is open between two parts."""


class _ObjectReader:
    """A body on its way out, object after object."""

    def __init__(self, objects: BlobObjects, name: str, size: int, offset: int = 0) -> None:
        self._pieces = self._all(objects, name, size, offset)

    @staticmethod
    def _all(objects: BlobObjects, name: str, size: int, offset: int) -> Iterator[bytes]:
        number = 0
        if offset:  # which part it is in follows from the lengths of those before
            size -= offset
            for length in objects.lengths(name):
                if offset < length:
                    break
                offset -= length
                number += 1
        while size > 0:
            for piece in objects.pieces(name, number, offset):
                size -= len(piece)
                yield piece
            number, offset = number + 1, 0

    def read(self) -> bytes:
        return next(self._pieces, b"")

    def close(self) -> None:
        """The connection goes with the last reference; a read that is under way ends by itself."""
