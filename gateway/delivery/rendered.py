"""The rendering of a transaction: what policy wants changed in the message, made anew at each attempt.

The accepted bytes never change, and a large body is not held: what is sent is streamed from where it is stored, with
patches. Only to find the places for footers a message of up to 25 MB is in memory, one at a time.

Where this fails, nothing is lost and nothing leaves bare:

* a header block that cannot be read is about this message, and waiting does not help it. What was only to be added is
  left out, which the trace says; but where something was to be taken out (a tag, a field, the subject), it stays here.
* any other fault is ours: it stays here, whatever was asked. It is not known what would come out, and a person who
  hears the alarm can mend it.

"Here" means: tried again later, with an alarm each time, until its time in the queue is over and the sender is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from gateway.delivery.transaction import Transaction
from gateway.errors import GatewayError, StoreError
from gateway.mail.edits import Change, Edits
from gateway.mail.edits.footers import MAX_SIZE
from gateway.mail.edits.patches import Patch, Patcher, patched
from gateway.mail.edits.rendering import Rendering, render, render_header
from gateway.mail.headers import HeaderError, split_message

__all__ = ["CannotRender", "Renderer", "once"]

_log = structlog.get_logger()

#: What takes longer than a moment is rendered in a thread. Octets.
_AT_ONCE = 32 * 1024

Body = Callable[[], AsyncIterator[bytes]]


class CannotRender(GatewayError):
    """The changes that policy asks for cannot be made, and without them the message must not leave."""


@dataclass(slots=True)
class Renderer:
    """Renders the transactions of one process."""

    #: One whole message in memory at a time, beside those that are small.
    _whole: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    async def render(self, transaction: Transaction, edits: Edits) -> tuple[Transaction, tuple[Change, ...]]:
        """The transaction that says what it is to say, and what was changed, or was left out and why.

        Raises :class:`CannotRender`, and :class:`StoreError` where the body cannot be read.
        """
        try:
            rendering = await self._rendering(transaction, edits)
        except HeaderError as error:
            if edits.conceals:
                raise CannotRender(f"the header block cannot be read: {error}") from error
            reason = f"left out: {error}"
            return transaction, tuple(Change(planned.action, reason, done=False) for planned in edits.planned())
        except (StoreError, CannotRender):
            raise
        except Exception as error:
            _log.exception("rendering_failed", message=transaction.message_id)
            raise CannotRender("a fault of our own; the log has it under this message id") from error
        if not rendering.patches:
            return transaction, rendering.changes
        return _with(transaction, rendering, edits.key), rendering.changes

    async def _rendering(self, transaction: Transaction, edits: Edits) -> Rendering:
        plain = transaction.plain
        if plain is not None:
            return await _in_time(len(plain), render, plain, edits)
        if edits.footers and transaction.size <= MAX_SIZE:
            async with self._whole:
                whole = b"".join([piece async for piece in transaction.body()])
                return await _in_time(len(whole), render, whole, edits)
        block = await _header(transaction.body)
        note = f"the message is larger than {MAX_SIZE // 1_000_000} MB"
        return await _in_time(
            len(block), lambda held, wanted: render_header(held, wanted, footer_note=note), block, edits
        )


async def _in_time(size: int, work: Callable[[bytes, Edits], Rendering], data: bytes, edits: Edits) -> Rendering:
    if size <= _AT_ONCE:
        return work(data, edits)
    return await asyncio.to_thread(work, data, edits)


async def _header(body: Body) -> bytes:
    """The header block; its size was limited when the message came."""
    data = bytearray()
    async for piece in body():
        seen = max(len(data) - 3, 0)
        data += piece
        if data.startswith(b"\r\n") or data.find(b"\r\n\r\n", seen) >= 0:
            break
    return split_message(bytes(data))[0]


def _with(transaction: Transaction, rendering: Rendering, key: str) -> Transaction:
    patches = rendering.patches
    plain = None if transaction.plain is None else patched(transaction.plain, patches)
    original = transaction.body
    return replace(
        transaction,
        body=(lambda: _patched(original, patches)) if plain is None else (lambda: once(plain)),
        plain=plain,
        size=transaction.size + rendering.growth,
        eight_bit=transaction.eight_bit or rendering.eight_bit,
        rendering=key,
    )


async def _patched(body: Body, patches: Sequence[Patch]) -> AsyncIterator[bytes]:
    patcher = Patcher(patches)
    async for piece in body():
        yield patcher.feed(piece)
    yield patcher.finish()


async def once(data: bytes) -> AsyncIterator[bytes]:
    """A body that is in memory."""
    yield data
