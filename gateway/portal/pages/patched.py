"""Octets of a message with patches over it, from anywhere in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from gateway.mail.edits.patches import Patch
from gateway.portal.reading import Read

__all__ = ["patched_octets"]


async def patched_octets(
    read: Read, size: int, patches: Sequence[Patch], start: int, end: int
) -> AsyncGenerator[bytes, None]:
    """Octets ``start`` to ``end`` of what the patches, in order, make of a message of ``size`` octets."""
    position = source = 0  # where we are in what comes out, and in the message
    for patch in (*patches, Patch(size, size, b"")):
        between = patch.start - source
        first, last = max(start - position, 0), min(end - position, between)
        if first < last:
            async with aclosing(read(source + first, source + last)) as pieces:
                async for piece in pieces:
                    yield piece
        position += between
        new = patch.new[max(start - position, 0) : max(end - position, 0)]
        if new:
            yield new
        position += len(patch.new)
        source = patch.end
        if position >= end:
            return
