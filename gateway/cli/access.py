"""How verbs reach the store of a gateway, whether or not its daemon runs: the database is shared, by its own rules."""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import structlog

from gateway.cli import CliContext
from gateway.clock import SystemClock
from gateway.config.model import Settings
from gateway.errors import StoreError
from gateway.mail.reply import clean_text
from gateway.queue.queue import Queue
from gateway.queue.views import PAGE, Filter, select_recipients
from gateway.store.database import Reader, database_path, open_engine
from gateway.store.store import Store

__all__ = ["open_queue", "operator", "pages", "quiet", "reading", "require_store"]


def operator(given: str = "") -> str:
    """Who typed the command, for the audit trail: the person behind sudo where there is one.

    ``given`` is who they say they are: it stands before the user of the system, never in its place.
    """
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    behind = os.environ.get("SUDO_USER")
    user = f"{behind} (as {name})" if behind else name
    return f"{clean_text(given, 100)}, by {user}" if given else user


def quiet() -> None:
    """Only warnings of the rooms reach the terminal."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def require_store(settings: Settings) -> None:
    """Raise :class:`StoreError` where there is no store yet, or not one for this user."""
    path = database_path(settings.data_dir)
    if not settings.store.url.is_sqlite:
        return
    if not path.exists():
        raise StoreError(f"there is no store under {settings.data_dir} yet: the first `gateway run` makes it")
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreError(f"{path} may not be opened by this user: run this as the gateway's user, or as root")


@contextmanager
def reading(context: CliContext) -> Iterator[Reader]:
    """A reader of the store. Each read is a transaction of its own. Raises :class:`StoreError`."""
    settings = context.load().settings
    require_store(settings)
    reader = Reader(open_engine(settings.store.database, settings.data_dir, writes=False))
    try:
        yield reader
    finally:
        reader.close()


def pages(reader: Reader, wanted: Filter) -> Iterator[list[Any]]:
    """The rows that fit, oldest message first, page by page, so that no read transaction lasts."""
    after = ("", 0)
    while True:
        page = reader.run_blocking(partial(select_recipients, wanted=wanted, after=after))
        if page:
            yield page
        if len(page) < PAGE:
            return
        after = (page[-1].message, page[-1].n)


@asynccontextmanager
async def open_queue(context: CliContext) -> AsyncIterator[Queue]:
    """The queue, for a verb that changes something. Each use is a writer of its own with its own event stream."""
    quiet()
    settings = context.load().settings
    require_store(settings)
    clock = SystemClock()
    store = Store.open(settings, clock)
    queue = Queue.over(store, lambda: settings, clock)
    try:
        yield queue
    finally:
        queue.close()
        await store.close()
