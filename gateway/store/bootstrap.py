"""Finding the operator's keys when a store is opened, and making the first one when there is nothing to lose yet.

A key file is made only while the store has no ring keys, under the store's lock, and only at a ``file:`` source -
never where the key is a credential or an environment variable, because somebody else keeps it there. Rows whose key
is not given are a reason to refuse to start: answering 250 with a new key would hide that the old mail is lost.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from gateway.config.values import KeySource
from gateway.errors import KeyMissing, StoreError
from gateway.store.keyring import Kek, create_key_file, parse_key

__all__ = ["load_keks", "prepare_data_dir", "store_lock"]

_log = structlog.get_logger()


def make_directory(path: Path) -> None:
    """Make a directory and those above it, each durable in the one above before anything can stand in it.

    Raises ``OSError``.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def prepare_data_dir(data_dir: Path) -> None:
    """Make the data directory, readable by us only. Raises :class:`StoreError`."""
    try:
        make_directory(data_dir)
        make_directory(data_dir / "run")
    except OSError as error:
        raise StoreError(f"cannot make the data directory {data_dir}: {error.strerror}") from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise StoreError(f"the data directory {data_dir} is not writable by this user")


@contextmanager
def store_lock(data_dir: Path) -> Iterator[None]:
    """Only one process at a time bootstraps or migrates a store."""
    try:
        handle = os.open(data_dir / "run" / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot take the lock of the store: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def load_keks(
    sources: Sequence[KeySource], data_dir: Path, environ: Mapping[str, str], *, store_is_new: bool
) -> list[Kek]:
    """The operator's keys, the wrapping one first. Raises :class:`KeyMissing` or :class:`StoreError`."""
    keks: list[Kek] = []
    for position, source in enumerate(sources):
        try:
            data = source.read(data_dir, environ)
        except OSError as error:
            raise StoreError(f"the key-encryption key {source} cannot be read: {error.strerror}") from error
        if data is None:
            data = _make_first_key(source, data_dir, may_make=store_is_new and position == 0)
        try:
            keks.append(Kek(parse_key(data)))
        except ValueError as error:
            raise KeyMissing(f"{source}: {error}") from None
    return keks


def _make_first_key(source: KeySource, data_dir: Path, *, may_make: bool) -> bytes:
    if source.kind != "file":
        raise KeyMissing(
            f"the key-encryption key {source} is not there; it is never made at such a place: "
            "provide 32 random bytes, for example with `openssl rand -hex 32`"
        )
    if not may_make:
        raise KeyMissing(
            f"the key-encryption key {source} is not there but the store holds data; "
            "put back the file that it was sealed with"
        )
    path = source.path(data_dir)
    key = create_key_file(path)
    _log.warning(
        "key_created",
        path=str(path),
        remedy="BACK THIS FILE UP NOW, apart from the store: without it no stored mail can be read",
    )
    return key
