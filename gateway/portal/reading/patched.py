"""A message as it was deposited: the accepted bytes with policy's edits, range by range (``gateway.mail.edits``)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from gateway.mail.edits.patches import Patch
from gateway.portal.reading.parts import Read

__all__ = ["patched_read", "pieces_of"]


def pieces_of(patches: Sequence[Patch], start: int, end: int) -> Iterator[bytes | tuple[int, int]]:
    """What bytes ``start`` to ``end`` of the patched message are: new bytes, and ranges of the original, in order.

    ``patches`` are in order and do not overlap; ``end`` is not behind the end of the patched message.
    """
    done = 0  # of the original
    place = 0  # of the patched
    for patch in patches:
        yield from _kept(done, place, patch.start - done, start, end)
        place += patch.start - done
        new = patch.new[max(0, start - place) : max(0, end - place)]
        if new:
            yield new
        place += len(patch.new)
        done = patch.end
        if place >= end:
            return
    yield from _kept(done, place, end - place, start, end)


def _kept(done: int, place: int, length: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The part of ``length`` bytes of the original at ``done``, ``place`` in the patched, that the range covers."""
    first, last = max(start, place), min(end, place + length)
    if first < last:
        yield done + first - place, done + last - place


def patched_read(read: Read, patches: Sequence[Patch]) -> Read:
    """Reads ranges of the patched message, where ``read`` reads those of the original."""
    if not patches:
        return read

    async def ranged(start: int, end: int) -> AsyncGenerator[bytes, None]:
        for piece in pieces_of(patches, start, end):
            if isinstance(piece, bytes):
                yield piece
                continue
            async with aclosing(read(*piece)) as pieces:
                async for data in pieces:
                    yield data

    return ranged
