"""The hash chain over events: pure functions, no storage.

A *record* is what one transaction did with one message (or with none): its events, in their order. Each record's hash
covers its own fields and the hash before it in its stream; the first one covers the stream's name. Changing, dropping
or reordering a record breaks every hash behind it. Events that happen together share a record, because nothing is
gained by chaining what one transaction writes or does not write as a whole - and a message takes two records, not six.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.jsontext import from_json, to_sorted_json

__all__ = ["Happening", "Record", "canonical", "first_link", "happenings", "kinds_of", "link", "verify"]


@dataclass(frozen=True, slots=True)
class Happening:
    """One event inside a record; ``n`` is the recipient's number in its message, None where it is about none."""

    kind: str
    n: int | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it is kept. ``kinds`` names the events in it; ``data`` is their canonical JSON text."""

    stream: str
    seq: int
    time: float
    message: str | None
    kinds: str
    data: str
    hash: bytes


def canonical(events: Sequence[tuple[str, int | None, dict[str, Any]]]) -> str:
    """The one JSON text of these (kind, recipient, data): ``[[kind, n, {...}], ...]``, keys sorted, no white space.

    Raises ``TypeError`` for what is no JSON.
    """
    return to_sorted_json(events)


def happenings(data: str) -> list[Happening]:
    """The inverse of :func:`canonical`."""
    return [Happening(kind, n, facts) for kind, n, facts in from_json(data)]


def kinds_of(events: Iterable[tuple[str, int | None, dict[str, Any]]]) -> str:
    """The kinds, each once, in their order, between blanks: `` accepted claimed ``; so one is found as `` KIND ``."""
    return f" {' '.join(dict.fromkeys(event[0] for event in events))} "


def first_link(stream: str) -> bytes:
    """What stands before the first record of a stream."""
    return hashlib.sha256(b"secure-email-gateway event stream\0" + stream.encode()).digest()


def link(  # noqa: PLR0917  the fields of a record, in the order in which they are hashed
    previous: bytes, stream: str, seq: int, time: float, message: str | None, kinds: str, data: str
) -> bytes:
    """The hash of a record, given the hash of the one before it."""
    head = f"{stream}\0{seq}\0{time!r}\0{'-' if message is None else '=' + message}\0{kinds}\0"
    return hashlib.sha256(b"%b%b%b" % (previous, head.encode(), data.encode())).digest()


def verify(stream: str, records: Iterable[Record]) -> tuple[int, str]:
    """Check one stream from its beginning: how many records hold, and the first fault in words ("" where none)."""
    previous = first_link(stream)
    count = 0
    for record in records:
        if record.stream != stream or record.seq != count + 1:
            return count, f"record {count + 1} of stream {stream} is missing"
        if record.hash != link(
            previous, record.stream, record.seq, record.time, record.message, record.kinds, record.data
        ):
            return count, f"record {record.seq} of stream {stream} was changed"
        previous = record.hash
        count += 1
    return count, ""
