"""The hash chain over events: pure functions, no storage.

Each event's hash covers its own fields and the hash before it in its stream; the first one covers the stream's name.
Changing, dropping or reordering an event breaks every hash behind it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Event", "canonical", "first_link", "link", "verify"]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_PLAIN = json.JSONEncoder(ensure_ascii=True)


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it is kept. ``data`` is canonical JSON text; ``n`` the recipient's number in its message."""

    stream: str
    seq: int
    time: float
    message: str | None
    n: int | None
    kind: str
    data: str
    hash: bytes


def canonical(data: dict[str, Any]) -> str:
    """The one JSON text of ``data``: keys sorted, no white space, nothing outside ASCII."""
    return _CANONICAL.encode(data)


def first_link(stream: str) -> bytes:
    """What stands before the first event of a stream."""
    return hashlib.sha256(b"secure-email-gateway event stream\0" + stream.encode()).digest()


def link(  # noqa: PLR0917  the fields of an event, in the order in which they are hashed
    previous: bytes, stream: str, seq: int, time: float, message: str | None, n: int | None, kind: str, data: str
) -> bytes:
    """The hash of an event, given the hash of the one before it."""
    record = _PLAIN.encode([stream, seq, repr(time), message, n, kind, data])
    return hashlib.sha256(previous + record.encode("ascii")).digest()


def verify(stream: str, events: Iterable[Event]) -> tuple[int, str]:
    """Check one stream from its beginning: how many events hold, and the first fault in words ("" where none)."""
    previous = first_link(stream)
    count = 0
    for event in events:
        if event.stream != stream or event.seq != count + 1:
            return count, f"event {count + 1} of stream {stream} is missing"
        expected = link(previous, event.stream, event.seq, event.time, event.message, event.n, event.kind, event.data)
        if expected != event.hash:
            return count, f"event {event.seq} of stream {stream} was changed"
        previous = event.hash
        count += 1
    return count, ""
