"""Copying the embedded database while others write to it, as of one moment.

SQLite's own backup begins anew whenever another process has written, and a read transaction that lasts for a whole copy
keeps the write-ahead log from being truncated: nothing would be shredded meanwhile, and the log would grow until mail
is refused. So pages are copied as they come, and those that changed are copied again until few are left:

1. A *look*, in turn with all writers: read from the log which pages it holds, move it into the database and truncate
   it, begin a read transaction. There is one every half second, and before the log is large.
2. Between two looks that read transaction stands. With it nobody else can begin the log anew, so the next look finds
   every change since this one in it (SQLite: walRestartLog needs the marks of all readers, and what may be moved into
   the database ends where the oldest reader began).
3. Meanwhile pages are read straight from the database file, each after it was struck off the list of those to copy. A
   look puts what it found on the list *after* it moved it: a page that was read too early is on it again.
4. Where few are left on the list, one more look; behind it the log is empty and the file stands still until our read
   transaction ends. The rest is read into memory, and the copy is what the database was at that look, to the byte.

Whatever writes without waiting for its turn is noticed (another generation of the log, another ``data_version``); then
everything is on the list again. How fast the copy can be written does not matter to anybody: looks have a thread of
their own.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.clock import Clock
from gateway.errors import StoreBusy, StoreCorrupt, StoreError
from gateway.store.database import database_path, open_engine, translated
from gateway.store.turnstile import Turnstile

__all__ = ["Copied", "HotCopy", "Pace", "require_whole"]

#: Seconds between two looks at most, and bytes of log that are reason for one before.
_INTERVAL: Final = 0.5
_LOG_SIZE: Final = 4 * 1024 * 1024
#: Seconds between two looks at the size of the log.
_GLANCE: Final = 0.02
#: Milliseconds that a look waits for readers.
_PATIENCE_MS: Final = 250
#: Seconds after which a reader that never ends is an error.
_LONGEST_WAIT: Final = 120.0
#: Pages copied at a time.
_RUN: Final = 64
#: Pages left at which the last look comes; and most that fit into memory when it has come.
_FEW: Final = 2048
_MOST: Final = 16384
#: Times that the list is worked off before more than a few may be left.
_ROUNDS: Final = 12

_WAL_HEADER: Final = struct.Struct(">8I")
_FRAME_HEADER: Final = struct.Struct(">6I")


class Pace:
    """Lets through so many bytes a second (None: as many as come), until ``stop`` is set."""

    def __init__(self, rate: int | None, stop: threading.Event) -> None:
        self._rate = rate
        self._stop = stop
        self._begun = time.monotonic()
        self._bytes = 0

    def passed(self, size: int) -> None:
        """So many went by: wait until more may. Raises :class:`StoreError` where it was stopped."""
        wait = 0.0
        if self._rate is not None:
            self._bytes += size
            wait = self._begun + self._bytes / self._rate - time.monotonic()
        if self._stop.wait(max(wait, 0.0)) if wait > 0 else self._stop.is_set():
            raise StoreError("the backup was stopped")


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that is whole: ``size`` in bytes, ``moment`` (seconds since the epoch) of the state that it holds."""

    size: int
    moment: float


class HotCopy:
    """One copy of the database under ``data_dir`` to ``target``, which must not be there yet. :meth:`run` makes it.

    Only for a process that ends afterwards: the database file stays open, since closing it would let go of the locks
    that SQLite holds on it in this process (POSIX ``fcntl``).
    """

    def __init__(self, data_dir: Path, target: Path, pace: Pace, clock: Clock) -> None:
        self._target = target
        self._clock = clock
        self._pace = pace
        self._path = database_path(data_dir)
        self._log = self._path.with_name(f"{self._path.name}-wal")
        self._engine = open_engine("sqlite", data_dir, writes=True)
        self._turnstile = Turnstile(data_dir / "run")
        self._source = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        header = os.pread(self._source, 100, 0)
        if not header.startswith(b"SQLite format 3\0"):
            raise StoreCorrupt(f"{self._path} is no database")
        size = int.from_bytes(header[16:18], "big")
        self._page = 65536 if size == 1 else size
        #: A byte for each page that is still to be copied.
        self._list = bytearray()
        self._connection: sqlite3.Connection
        self._looks = self._swept = 0
        self._looked = 0.0
        self._ended = threading.Event()
        self._wanted = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> Copied:
        """Copy; blocks. Raises :class:`StoreError`; what there is of the target then is worth nothing."""
        try:
            target = os.open(self._target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                return self._copy(target)
            finally:
                os.close(target)
        except (OSError, sqlite3.Error) as error:
            raise translated(error) from error
        finally:
            self._ended.set()
            self._turnstile.close()
            self._engine.dispose()

    @property
    def ended(self) -> bool:
        """Whether our read transaction stands in nobody's way any more."""
        return self._ended.is_set()

    def sweep(self) -> bool:
        """Whether the log was truncated by a look that began after this call; waits for one. False: not yet."""
        asked = self._looks
        self._wanted.set()
        deadline = time.monotonic() + 10 * _INTERVAL
        while self._swept <= asked and not self.ended and time.monotonic() < deadline:
            self._ended.wait(_GLANCE)
        return self._swept > asked

    # -- the copy -----------------------------------------------------------------------------------------------------

    def _copy(self, target: int) -> Copied:
        pooled = self._engine.raw_connection()
        try:
            connection = pooled.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            self._connection = connection
            connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
            self._look()
            self._list = bytearray(b"\1") * self._pages()
            stop = threading.Event()
            looking = threading.Thread(target=self._keep_looking, args=(stop,), name="backup-look", daemon=True)
            looking.start()
            try:
                self._work_off_the_list(target)
            finally:
                stop.set()
                looking.join()
            self._require_looks()
            rest, pages = self._last_pages()
            moment = self._clock.time()
            self._end_reading()
        finally:
            with suppress(sqlite3.Error):
                self._end_reading()
            pooled.invalidate()
            self._ended.set()
        for number, data in rest.items():
            _write(target, data, number * self._page)
        os.ftruncate(target, pages * self._page)
        os.fsync(target)
        return Copied(pages * self._page, moment)

    def _work_off_the_list(self, target: int) -> None:
        """Until few are left. Only the first time through keeps the pace: behind it are those who write."""
        for number in range(_ROUNDS):
            at = 0
            while (at := self._list.find(1, at)) >= 0:
                self._require_looks()
                length = 1
                while length < _RUN and at + length < len(self._list) and self._list[at + length]:
                    length += 1
                self._list[at : at + length] = bytes(length)  # first this: see the module
                data = os.pread(self._source, length * self._page, at * self._page)
                _write(target, data, at * self._page)
                if not number:
                    self._pace.passed(len(data))
                at += length
            self._pace.passed(0)
            if self._list.count(1) <= _FEW and number:
                return
            self.sweep()  # what is on the list now is what was written during this round

    def _last_pages(self) -> tuple[dict[int, bytes], int]:
        """What is left, by page, and how many pages there are, as of one look. Our read transaction stands."""
        deadline = time.monotonic() + _LONGEST_WAIT
        while not self._look():
            self._pace.passed(0)
            if time.monotonic() > deadline:
                raise StoreBusy("a read transaction of another program has kept the write-ahead log from ending")
        pages = self._pages()
        left = [number for number in range(min(len(self._list), pages)) if self._list[number]]
        left += range(len(self._list), pages)
        if len(left) > _MOST:
            raise StoreBusy("the store is written to faster than it can be copied: try it at a quieter time")
        return {number: os.pread(self._source, self._page, number * self._page) for number in left}, pages

    def _pages(self) -> int:
        return os.fstat(self._source).st_size // self._page

    # -- looking ------------------------------------------------------------------------------------------------------

    def _keep_looking(self, stop: threading.Event) -> None:
        try:
            while not stop.wait(_GLANCE):
                size = self._log_size()
                waited = time.monotonic() - self._looked
                if self._wanted.is_set() or size > _LOG_SIZE or (size and waited > _INTERVAL):
                    self._wanted.clear()
                    with suppress(StoreBusy):  # somebody writes for long; the read transaction stands
                        self._look()
        except BaseException as error:  # noqa: BLE001  told to the thread that copies
            self._failure = error

    def _require_looks(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def _look(self) -> bool:
        """One look; whether the log is empty behind it. Raises :class:`StoreBusy` where our turn does not come."""
        with self._turnstile.turn():
            self._looks += 1
            number = self._looks
            before, _ = self._read_log(pages=False)
            self._end_reading()
            version = self._version()
            generation, changed = self._read_log(pages=True)
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            undisturbed = generation == before and self._version() == version
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            self._looked = time.monotonic()
            empty = not busy and not self._log_size()
        if changed:
            missing = max(changed) - len(self._list)
            self._list += bytes(max(missing, 0))
            for page in changed:
                self._list[page - 1] = 1
        if not undisturbed:
            self._list[:] = b"\1" * max(len(self._list), self._pages())
        if not busy:
            self._swept = number
        return empty

    def _end_reading(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def _version(self) -> int:
        """Changes whenever another connection has committed."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _read_log(self, *, pages: bool) -> tuple[bytes, set[int]]:
        """Which generation of the log this is, and which pages it holds: at least all that were committed in it."""
        found: set[int] = set()
        try:
            handle = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b"", found
        try:
            header = os.pread(handle, _WAL_HEADER.size, 0)
            if len(header) < _WAL_HEADER.size:
                return b"", found
            generation = header[12:24]  # its number, and the salts that its frames repeat
            at = _WAL_HEADER.size
            while pages and len(frame := os.pread(handle, _FRAME_HEADER.size, at)) == _FRAME_HEADER.size:
                if frame[8:16] != generation[4:]:
                    break  # of a generation before
                found.add(_FRAME_HEADER.unpack(frame)[0])
                at += _FRAME_HEADER.size + self._page
            return generation, found
        finally:
            os.close(handle)


def _write(target: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(target, view, at)
        view, at = view[written:], at + written


def require_whole(database: Path) -> None:
    """Let SQLite look through a copy that nobody uses. Raises :class:`StoreCorrupt`."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as connection:
        try:
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            said = str(error)
    if said != "ok":
        raise StoreCorrupt(f"the copy of the database is not whole: {said}")
