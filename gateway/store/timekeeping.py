"""Whether the wall clock can be believed, as a value and as a row that survives a restart.

The machine's monotonic clock cannot be set, so the distance between the two says when the wall clock was: by more than
an hour, and it is in *doubt* (``jump``). A start has nothing to compare with but the last event that was written: when
that is more than a week away, in either direction, the clock is in doubt too (``start``). Doubt ends when time agrees
again, or when a person says that the clock is right. A doubt of a jump that a reboot finds cannot end by itself any
more (``reboot``): the distance of another boot means nothing.

The row belongs to a host: its processes share both clocks.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, replace
from hashlib import sha256

from sqlalchemy import Connection, func, insert, select, update

from gateway.store.incarnation import boot_id
from gateway.store.schema import events, meta, streams

__all__ = ["LONGEST_PAUSE", "MAX_STEP", "ClockRecord", "begin", "judged", "load", "save"]

#: Seconds that wall and monotonic time may drift apart: nothing that disciplines a clock gently comes near it.
MAX_STEP = 3600.0
#: Seconds between the last event and a start.
LONGEST_PAUSE = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class ClockRecord:
    """What is known: ``offset`` is wall minus monotonic time (of this ``boot``) when the clock was last believed.

    ``doubt``: "" or ``jump``, ``start``, ``reboot``; ``since``: wall time by ``offset`` at which it began; ``last``:
    the last event before a start in doubt.
    """

    boot: str
    offset: float
    doubt: str = ""
    since: float | None = None
    last: float | None = None


def judged(record: ClockRecord, boot: str, wall: float, monotonic: float) -> ClockRecord:
    """What this look at the two clocks makes of what was known."""
    offset = wall - monotonic
    same = record.boot == boot
    near = same and abs(offset - record.offset) <= MAX_STEP
    match record.doubt:
        case "" if near:
            return record
        case "" if same:
            return replace(record, doubt="jump", since=record.offset + monotonic)
        case "":
            return ClockRecord(boot, offset)
        case "jump" if near:
            return ClockRecord(boot, record.offset)
        case "jump" if same:
            return record
        case "start" if record.last is not None and abs(wall - record.last) <= LONGEST_PAUSE:
            return ClockRecord(boot, offset)
    doubt = "reboot" if record.doubt == "jump" else record.doubt
    return record if near and doubt == record.doubt else replace(record, boot=boot, offset=offset, doubt=doubt)


def begin(connection: Connection, wall: float, monotonic: float) -> ClockRecord:
    """A process opens the store: judge, also by the last event, and keep the result. In the caller's transaction."""
    boot = boot_id()
    known = load(connection)
    record = ClockRecord(boot, wall - monotonic) if known is None else judged(known, boot, wall, monotonic)
    last = _last_event(connection)
    if not record.doubt and last is not None and abs(wall - last) > LONGEST_PAUSE:
        record = replace(record, doubt="start", since=wall, last=last)
    if record != known:
        save(connection, record)
    return record


def _last_event(connection: Connection) -> float | None:
    """When the last event was written: by the heads of the chains that no later one linked, a row for each."""
    head = (events.c.stream == streams.c.id) & (events.c.seq == streams.c.seq)
    query = select(func.max(events.c.time)).select_from(streams.join(events, head)).where(streams.c.linked_by.is_(None))
    last: float | None = connection.execute(query).scalar()
    return last


def load(connection: Connection) -> ClockRecord | None:
    """The record of this host."""
    value = connection.execute(select(meta.c.value).where(meta.c.key == _key())).scalar()
    return None if value is None else ClockRecord(**json.loads(value))


def save(connection: Connection, record: ClockRecord) -> None:
    """Replace the record of this host."""
    value = json.dumps(asdict(record)).encode()
    if not connection.execute(update(meta).where(meta.c.key == _key()).values(value=value)).rowcount:
        connection.execute(insert(meta).values(key=_key(), value=value))


def _key() -> str:
    return f"clock.{sha256(socket.gethostname().encode()).hexdigest()[:16]}"
