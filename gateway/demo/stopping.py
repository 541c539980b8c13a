"""Being told to stop: Ctrl-C, SIGTERM, a terminal that closes. Once, heard for sure, and with time to clean up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["insistently", "stoppable"]

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.2


@contextmanager
def stoppable(work: Coroutine[Any, Any, T]) -> Iterator[tuple[asyncio.Task[T], list[signal.Signals]]]:
    """``work`` as a task that the first such signal cancels; the signals that came. Later ones break off nothing."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    told: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not told:
            task.cancel()
        told.append(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        yield task, told
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def insistently(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``. Cancelled, it cancels ``work`` until that has ended.

    Once is not enough: ``asyncio.wait_for`` of Python 3.11, under the SMTP client, loses a cancellation that meets a
    result.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,))
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_AGAIN)
    return await task
