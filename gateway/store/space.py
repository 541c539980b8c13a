"""The free-space floor and the size of the write-ahead log: back-pressure before it hurts."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.errors import StoreFull
from gateway.store.database import database_path

__all__ = ["MAX_WAL", "SpaceWatch"]

#: A write-ahead log above this is back-pressure: something keeps the checkpoint from finishing.
MAX_WAL = 64 * 1024 * 1024
#: Free inodes below this share are treated like full.
_MIN_INODES = 1000


class SpaceWatch:
    """Looks at the file system of the data directory when told to; cheap to ask in between."""

    def __init__(self, data_dir: Path, floor: int) -> None:
        self._data_dir = data_dir
        self._wal = database_path(data_dir).with_name(database_path(data_dir).name + "-wal")
        self.floor = floor
        self.free = 0
        self.wal = 0
        self.problem = ""

    def look(self) -> None:
        """Measure again; :attr:`problem` says what is wrong, "" where nothing is."""
        status = os.statvfs(self._data_dir)
        self.free = status.f_bavail * status.f_frsize
        try:
            self.wal = self._wal.stat().st_size
        except FileNotFoundError:
            self.wal = 0
        if self.free < self.floor:
            self.problem = f"{self.free} bytes free under data_dir, the floor is {self.floor}"
        elif status.f_files and status.f_favail < _MIN_INODES:
            self.problem = f"{status.f_favail} inodes free under data_dir"
        elif self.wal > MAX_WAL:
            self.problem = f"the write-ahead log has grown to {self.wal} bytes"
        else:
            self.problem = ""

    def require(self, size: int = 0) -> None:
        """Raise :class:`StoreFull` where there is no room for ``size`` more bytes."""
        if self.problem:
            raise StoreFull(self.problem)
        if self.free - size < self.floor:
            raise StoreFull(f"{size} bytes would pass the free-space floor")
