"""Changes to bytes that are too many to hold: what is put in the place of which octets.

A rendering of a large message is its patches; what is between them is streamed from where it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Patch", "Patcher", "growth", "patched", "smallest_patch"]


@dataclass(frozen=True, slots=True)
class Patch:
    """Octets ``start`` to ``end`` of the original become ``new``."""

    start: int
    end: int
    new: bytes


def growth(patches: Iterable[Patch]) -> int:
    """How many octets more there are after all of them; negative where there are fewer."""
    return sum(len(patch.new) - (patch.end - patch.start) for patch in patches)


def smallest_patch(old: bytes, new: bytes, start: int) -> Patch:
    """The patch that makes ``new`` of ``old``, which stands at ``start``, less what both begin and end with."""
    most = min(len(old), len(new))
    before, after = memoryview(old), memoryview(new)
    head = _common(most, lambda size: before[:size] == after[:size])
    tail = _common(most - head, lambda size: before[len(old) - size :] == after[len(new) - size :])
    return Patch(start + head, start + len(old) - tail, new[head : len(new) - tail])


def _common(most: int, is_common: Callable[[int], bool]) -> int:
    """The largest size for which this holds, where it holds for each smaller one."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if is_common(middle):
            least = middle
        else:
            most = middle - 1
    return least


def patched(data: bytes, patches: Sequence[Patch]) -> bytes:
    """``data`` with the patches, which are in order and do not overlap."""
    patcher = Patcher(patches)
    return patcher.feed(data) + patcher.finish()


class Patcher:
    """The same for bytes that come piece by piece; what is left over at the end is in :meth:`finish`."""

    def __init__(self, patches: Sequence[Patch]) -> None:
        self._patches = list(reversed(patches))
        self._position = 0

    def feed(self, piece: bytes) -> bytes:
        """The next bytes of the original, as they are to be."""
        if not self._patches:
            return piece
        start, end = self._position, self._position + len(piece)
        self._position = end
        out: list[bytes] = []
        done = start
        while self._patches and self._patches[-1].start < end:
            patch = self._patches[-1]
            if patch.start >= start:
                out.append(piece[done - start : patch.start - start])
            if patch.end > end:
                done = end
                break  # the rest of what it replaces is still to come
            out.append(patch.new)
            done = patch.end
            self._patches.pop()
        out.append(piece[done - start :])
        return b"".join(out)

    def finish(self) -> bytes:
        """The new bytes of what stands at, or reaches to, the very end."""
        left = b"".join([patch.new for patch in reversed(self._patches)])
        self._patches.clear()
        return left
