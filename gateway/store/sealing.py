"""Encryption at rest: AES-256-GCM in 64 KiB chunks under a data key that is used for one body only.

The shape is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015): the nonce of a chunk is its
number and a flag for the last one, so chunks cannot be cut off, dropped or swapped. No nonce repeats because no data
key seals two bodies. The message id is authenticated with every chunk, so a body cannot be moved to another row.

Sealed form: 8 bytes ``SEGWBDY1``, then chunks of 65536 plain bytes + 16 bytes tag, the last one shorter (down to an
empty chunk with its tag).
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import StoreCorrupt

__all__ = [
    "CHUNK",
    "KEY_SIZE",
    "MAGIC",
    "Opener",
    "RangeOpener",
    "Sealer",
    "chunk_offset",
    "sealed_range",
    "sealed_size",
]

MAGIC = b"SEGWBDY1"
CHUNK = 65536
TAG = 16
KEY_SIZE = 32
_FRAME = CHUNK + TAG


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def sealed_size(plain: int) -> int:
    """How many bytes ``plain`` bytes take when sealed."""
    chunks = max(1, -(-plain // CHUNK))
    return len(MAGIC) + plain + chunks * TAG


def sealed_range(size: int, start: int, end: int) -> tuple[int, int]:
    """Which chunks hold the plain bytes ``start`` to ``end`` (more than none) of ``size``: the first, and how many."""
    assert 0 <= start < end <= size
    first = start // CHUNK
    return first, (end - 1) // CHUNK - first + 1


def chunk_offset(number: int) -> int:
    """Where this chunk begins in the sealed form."""
    return len(MAGIC) + number * _FRAME


class Sealer:
    """Seals one body, fed in pieces of any size. Use a fresh random key for each."""

    def __init__(self, key: bytes, message_id: str) -> None:
        self._aead = AESGCM(key)
        self._bound = MAGIC + message_id.encode("ascii")
        self._number = 0
        self._pending = bytearray()
        self._started = False

    def update(self, data: bytes) -> bytes:
        """Sealed bytes that are complete by now; a chunk is held back until it is known not to be the last."""
        self._pending += data
        out = [b"" if self._started else MAGIC]
        self._started = True
        offset = 0
        view = memoryview(self._pending)
        while len(self._pending) - offset > CHUNK:
            out.append(self._chunk(bytes(view[offset : offset + CHUNK]), last=False))
            offset += CHUNK
        view.release()
        if offset:
            del self._pending[:offset]
        return b"".join(out)

    def finish(self) -> bytes:
        """The last sealed bytes; the sealer cannot be used after it."""
        head = b"" if self._started else MAGIC
        return head + self._chunk(bytes(self._pending), last=True)

    def _chunk(self, plain: bytes, *, last: bool) -> bytes:
        sealed = self._aead.encrypt(_nonce(self._number, last=last), plain, self._bound)
        self._number += 1
        return sealed


class Opener:
    """Opens one body, fed in pieces of any size; never gives out a byte that was not authenticated."""

    def __init__(self, key: bytes, message_id: str) -> None:
        self._aead = AESGCM(key)
        self._bound = MAGIC + message_id.encode("ascii")
        self._number = 0
        self._pending = bytearray()
        self._started = False

    def update(self, sealed: bytes) -> Iterator[bytes]:
        """The plain chunks that these sealed bytes complete. Raises :class:`StoreCorrupt`."""
        self._pending += sealed
        if not self._started:
            if len(self._pending) < len(MAGIC):
                return
            if not self._pending.startswith(MAGIC):
                raise StoreCorrupt("a sealed body does not begin with its mark")
            del self._pending[: len(MAGIC)]
            self._started = True
        while len(self._pending) > _FRAME:
            frame = bytes(self._pending[:_FRAME])
            del self._pending[:_FRAME]
            yield self._chunk(frame, last=False)

    def finish(self) -> bytes:
        """The last plain chunk. Raises :class:`StoreCorrupt` where the body was cut short or changed."""
        if not self._started:
            raise StoreCorrupt("a sealed body is empty")
        return self._chunk(bytes(self._pending), last=True)

    def _chunk(self, frame: bytes, *, last: bool) -> bytes:
        try:
            plain = self._aead.decrypt(_nonce(self._number, last=last), frame, self._bound)
        except (InvalidTag, ValueError):
            raise StoreCorrupt(f"chunk {self._number} of a sealed body is not what was written") from None
        self._number += 1
        return plain


class RangeOpener:
    """Opens chunks from ``first`` on of a body of ``size`` plain bytes; gives out no byte that was not authenticated.

    Each chunk is proved to be that chunk of that message, and the last to be the last: a body of another length does
    not open. What the chunks are together - their digest - only a reading of the whole can prove (:class:`Opener`).
    """

    def __init__(self, key: bytes, message_id: str, *, size: int, first: int) -> None:
        self._aead = AESGCM(key)
        self._bound = MAGIC + message_id.encode("ascii")
        self._number = first
        self._last = max(1, -(-size // CHUNK)) - 1
        self._last_frame = size - self._last * CHUNK + TAG
        self._pending = bytearray()

    def update(self, sealed: bytes) -> Iterator[bytes]:
        """The plain chunks that these sealed bytes complete. Raises :class:`StoreCorrupt`."""
        self._pending += sealed
        while self._number <= self._last:
            is_last = self._number == self._last
            length = self._last_frame if is_last else _FRAME
            if len(self._pending) < length:
                return
            frame = bytes(self._pending[:length])
            del self._pending[:length]
            try:
                plain = self._aead.decrypt(_nonce(self._number, last=is_last), frame, self._bound)
            except (InvalidTag, ValueError):
                raise StoreCorrupt(f"chunk {self._number} of a sealed body is not what was written") from None
            self._number += 1
            yield plain
