"""How verbs reach the store of a gateway, whether or not its daemon runs: the database is shared, by its own rules."""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from gateway.cli import CliContext
from gateway.clock import SystemClock
from gateway.config.model import Settings
from gateway.errors import StoreError
from gateway.queue.queue import Queue
from gateway.store.database import Reader, database_path, open_engine
from gateway.store.store import Store

__all__ = ["open_queue", "operator", "quiet", "read_store"]

T = TypeVar("T")


def operator() -> str:
    """Who typed the command, for the audit trail: the person behind sudo where there is one."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    behind = os.environ.get("SUDO_USER")
    return f"{behind} (as {name})" if behind else name


def quiet() -> None:
    """Only warnings of the rooms reach the terminal."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


@contextmanager
def _reader(settings: Settings) -> Iterator[Reader]:
    if settings.store.url == "sqlite" and not database_path(settings.data_dir).exists():
        raise StoreError(f"there is no store under {settings.data_dir} yet: the first `gateway run` makes it")
    reader = Reader(open_engine(settings.store.url, settings.data_dir, writes=False))
    try:
        yield reader
    finally:
        reader.close()


def read_store(context: CliContext, job: Callable[[Connection], T]) -> T:
    """The result of one short read. Raises :class:`StoreError`, also where there is no store yet."""
    with _reader(context.load().settings) as reader:
        return reader.run_blocking(job)


@asynccontextmanager
async def open_queue(context: CliContext) -> AsyncIterator[Queue]:
    """The queue, for a verb that changes something. Each use is a writer of its own with its own event stream."""
    quiet()
    settings = context.load().settings
    if settings.store.url == "sqlite" and not database_path(settings.data_dir).exists():
        raise StoreError(f"there is no store under {settings.data_dir} yet: the first `gateway run` makes it")
    clock = SystemClock()
    store = Store.open(settings, clock)
    queue = Queue.over(store, lambda: settings, clock)
    try:
        yield queue
    finally:
        queue.close()
        await store.close()
