"""Messages as their readers get them: the accepted octets with what policy changes in them, as in delivery.

Nothing is held as a whole but the text that is shown. What was found out about a message - where its parts are, which
patches policy's edits make - is kept for a minute or two, so that a page, its frame and its files read it once. Whether
somebody may see it is looked up before each use, and not here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import GatewayError
from gateway.mail.edits.footers import MAX_SIZE
from gateway.mail.edits.patches import Patch, growth
from gateway.mail.edits.rendering import Rendering, render, render_header
from gateway.mail.headers import HeaderError, split_message
from gateway.portal.mailbox import Entry, Mailbox
from gateway.portal.reading import MessageIndex, View, compose, gather, index_message
from gateway.portal.reading.heading import heading_of
from gateway.portal.reading.patched import patched_read

__all__ = ["CannotShow", "Content", "Contents"]

#: Seconds that what was found out is kept; entries; octets of texts and pictures that are kept with them.
_KEPT: Final = 90.0
_MOST_KEPT: Final = 64
_MOST_OCTETS: Final = 32_000_000
#: Octets of a message in which its header block is looked for: more than any that was accepted.
_HEADER: Final = 262_144
#: Views that are made at the same time: each may hold some megabytes and a thread.
_AT_ONCE: Final = 2
_MOST_SUBJECTS: Final = 2000


class CannotShow(GatewayError):
    """What policy changes in it cannot be carried out, and without that it must not be shown."""


@dataclass(slots=True)
class Content:
    """A message that is being read. :meth:`read` gives octets of it, as this reader gets them."""

    entry: Entry
    mailbox: Mailbox
    patches: tuple[Patch, ...]
    index: MessageIndex | None = None
    view: View | None = None

    @property
    def size(self) -> int:
        """All octets."""
        return self.entry.deposit.size + growth(self.patches)

    def read(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Octets ``start`` to ``end``. Raises :class:`StoreCorrupt`."""
        return patched_read(self._original, self.patches)(start, end)

    def _original(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        return self.mailbox.octets(self.entry, start, end)

    @property
    def kept_octets(self) -> int:
        """About how much memory this takes."""
        index = self.index
        known = 0 if index is None else len(index.header) + sum(len(part.head) for part in index.parts)
        return known + (0 if self.view is None else len(self.view.document.content))


@dataclass(slots=True)
class Contents:
    """The messages that are being read in this process."""

    mailbox: Mailbox
    _kept: OrderedDict[str, Content] = field(default_factory=OrderedDict)
    _subjects: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _making: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def indexed(self, entry: Entry) -> tuple[Content, MessageIndex]:
        """A message and where its parts are. Raises :class:`StoreError`, :class:`CannotShow`."""
        content = self._kept.get(_key(entry))
        if content is None:
            content = Content(entry, self.mailbox, await self._patches(entry))
        if content.index is None:
            content.index = await index_message(content.read, content.size)
            self._keep(content)
        return content, content.index

    async def view(self, entry: Entry) -> View:
        """What is shown of a message. Raises :class:`StoreError`, :class:`CannotShow`."""
        content, index = await self.indexed(entry)
        if content.view is None:
            async with self._making:
                gathered = await gather(index, content.read)
                content.view = await asyncio.to_thread(compose, gathered, language=entry.face.language)
            self._keep(content)
        return content.view

    async def subject(self, entry: Entry) -> str:
        """The subject, for a list; "" where it cannot be read."""
        key = _key(entry)
        known = self._subjects.get(key)
        if known is None:
            try:
                block = await self._block(entry)
                if entry.edits:
                    patches = render_header(block, entry.edits).patches
                    block = patches[0].new if patches else block
                known = heading_of(block).subject
            except (HeaderError, GatewayError):
                return ""
            self._subjects[key] = known
            if len(self._subjects) > _MOST_SUBJECTS:
                self._subjects.popitem(last=False)
        return known

    # -- what policy changes ------------------------------------------------------------------------------------------

    async def _patches(self, entry: Entry) -> tuple[Patch, ...]:
        if not entry.edits:
            return ()
        try:
            return (await self._rendering(entry)).patches
        except HeaderError as error:
            if entry.edits.conceals:
                raise CannotShow(f"the header block of {entry.deposit.id} cannot be read: {error}") from error
            return ()

    async def _rendering(self, entry: Entry) -> Rendering:
        size = entry.deposit.size
        if entry.edits.footers and size <= MAX_SIZE:
            async with self._making:
                whole = await self._octets(entry, size)
                return await asyncio.to_thread(render, whole, entry.edits)
        return render_header(await self._block(entry), entry.edits)

    async def _block(self, entry: Entry) -> bytes:
        data = bytearray()
        async with aclosing(self.mailbox.octets(entry, 0, min(entry.deposit.size, _HEADER))) as pieces:
            async for piece in pieces:
                data += piece
                if data.startswith(b"\r\n") or b"\r\n\r\n" in data:
                    break
        return split_message(bytes(data))[0]

    async def _octets(self, entry: Entry, end: int) -> bytes:
        async with aclosing(self.mailbox.octets(entry, 0, end)) as pieces:
            return b"".join([piece async for piece in pieces])

    # -- what is kept -------------------------------------------------------------------------------------------------

    def _keep(self, content: Content) -> None:
        key = _key(content.entry)
        is_new = key not in self._kept
        self._kept[key] = content
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEPT or sum(each.kept_octets for each in self._kept.values()) > _MOST_OCTETS:
            self._kept.popitem(last=False)
        if is_new:
            asyncio.get_running_loop().call_later(_KEPT, self._forget, key, content)

    def _forget(self, key: str, content: Content) -> None:
        if self._kept.get(key) is content:
            del self._kept[key]


def _key(entry: Entry) -> str:
    return f"{entry.deposit.id}:{entry.edits.key}"
