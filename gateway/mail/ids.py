"""Message ids: UUIDv7 (RFC 9562 section 5.7), sortable by time, unguessable beyond it."""

from __future__ import annotations

__all__ = ["uuid7"]


def uuid7(unix_seconds: float, randomness: bytes) -> str:
    """The id for this moment; ``randomness`` is ten fresh random bytes."""
    milliseconds = int(unix_seconds * 1000) & 0xFFFF_FFFF_FFFF
    value = milliseconds << 80 | int.from_bytes(randomness[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
