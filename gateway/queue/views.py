"""What people see of the queue: listings and traces, in the JSON shapes of the interface contract.

Every read is short and pages: a listing never holds a read transaction open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, or_, select

from gateway.audit.chain import happenings
from gateway.jsontext import from_json
from gateway.mail.protection import Decision, Requirement
from gateway.queue.states import LIVE, State
from gateway.store.counting import counted
from gateway.store.schema import LIVE_MESSAGES, events, messages, recipients

__all__ = [
    "Filter",
    "counts",
    "list_recipients",
    "oldest_received",
    "parse_id",
    "recipient_id",
    "select_recipients",
    "trace_messages",
]

PAGE = 500
_LIVE_IDS = (
    select(messages.c.id)
    .where(LIVE_MESSAGES, messages.c.id >= bindparam("begin"))
    .order_by(messages.c.id)
    .limit(bindparam("most"))
)


def recipient_id(message: str, n: int) -> str:
    """How people name one recipient of one message."""
    return f"{message}.{n}"


def parse_id(text: str) -> tuple[str, int | None]:
    """A message id, or one recipient's id. Raises ``ValueError``."""
    message, dot, number = text.partition(".")
    if len(message) != 36 or (dot and not (number.isascii() and number.isdigit())):
        raise ValueError(
            f"{text!r} is no message id; it looks like 0192f0c1-2345-7abc-8def-0123456789ab, maybe with .1"
        )
    return message, int(number) if number else None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients: all fields that are given must fit. ``ids`` hold message or recipient ids."""

    ids: tuple[str, ...] = ()
    states: frozenset[State] = frozenset()
    to: str = ""
    sender: str = ""
    domain: str = ""
    since: float | None = None
    held_for: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing was given, so that it would mean everything."""
        return self == Filter()


def _filtered(wanted: Filter) -> Select[Any]:
    query = select(
        recipients, messages.c.sender, messages.c.received, messages.c.connector, messages.c.size, messages.c.kind
    ).join(messages, messages.c.id == recipients.c.message)
    if wanted.ids:
        clauses = []
        for text in wanted.ids:
            message, n = parse_id(text)
            clause = recipients.c.message == message
            clauses.append(clause if n is None else and_(clause, recipients.c.n == n))
        query = query.where(or_(*clauses))
    if wanted.states:
        query = query.where(recipients.c.state.in_(sorted(str(state) for state in wanted.states)))
    if wanted.to:
        query = query.where(recipients.c.key == wanted.to.casefold())
    if wanted.domain:
        query = query.where(recipients.c.domain == wanted.domain.lower())
    if wanted.sender:
        query = query.where(messages.c.sender == wanted.sender)
    if wanted.held_for:
        query = query.where(recipients.c.state == str(State.HELD), recipients.c.hold_reason == wanted.held_for)
    if wanted.since is not None:
        query = query.where(messages.c.received >= wanted.since)
    return query


def select_recipients(
    connection: Connection, wanted: Filter, *, after: tuple[str, int] = ("", 0), limit: int = PAGE
) -> list[Any]:
    """A page of rows behind ``after``, oldest message first; with message columns joined."""
    message, n = after
    query = _filtered(wanted).order_by(messages.c.id, recipients.c.n)
    query = query.where(messages.c.id >= message, or_(messages.c.id > message, recipients.c.n > n))
    if wanted.ids or wanted.states or wanted.to:
        return list(connection.execute(query.limit(limit)))
    query = query.where(recipients.c.state.in_(sorted(LIVE)))
    found: list[Any] = []
    while len(found) < limit:
        # Asked for by itself SQLite takes the index of what lives; in a join it would walk through all of history.
        live = list(connection.scalars(_LIVE_IDS, {"begin": message, "most": limit + 1}))
        if not live or live == [message]:
            break
        found += connection.execute(query.where(messages.c.id.in_(live)).limit(limit - len(found)))
        message = live[-1]
        query = query.where(messages.c.id > message)
    return found


def list_recipients(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Rows in the shape of ``queue list``."""
    return [
        {
            "id": recipient_id(row.message, row.n),
            "message": row.message,
            "recipient": row.address,
            "state": row.state,
            "attempts": row.attempts,
            "next_attempt": row.next_attempt if row.state in ("queued", "deferred", "delivering") else None,
            "last_error": row.last_error,
            "sender": row.sender,
            "received": row.received,
            "connector": row.connector,
            "hold_reason": row.hold_reason if row.state == "held" else None,
            "hold_until": row.hold_until if row.state == "held" else None,
        }
        for row in rows
    ]


def trace_messages(connection: Connection, message_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The life of these messages, in the shape of ``trace``."""
    found = []
    for message_id in message_ids:
        row = connection.execute(select(messages).where(messages.c.id == message_id)).first()
        if row is not None:
            found.append(_trace_one(connection, row))
    return found


def _trace_one(connection: Connection, row: Any) -> dict[str, Any]:
    by_recipient: dict[int | None, list[dict[str, Any]]] = {}
    query = select(events).where(events.c.message == row.id).order_by(events.c.time, events.c.stream, events.c.seq)
    for record in connection.execute(query):
        for event in happenings(record.data):
            by_recipient.setdefault(event.n, []).append({"time": record.time, "kind": event.kind, "data": event.data})
    envelope = from_json(row.envelope)
    return {
        "id": row.id,
        "received": row.received,
        "connector": row.connector,
        "client": row.client,
        "tls": envelope["tls"],
        "sender": row.sender or "<>",
        "size": row.size,
        "digest": row.digest,
        "kind": row.kind,
        "observed": row.observed,
        "parent": row.parent,
        "notices": list(connection.scalars(select(messages.c.id).where(messages.c.parent == row.id))),
        "events": by_recipient.get(None, []),
        "recipients": [
            _trace_recipient(recipient, by_recipient.get(recipient.n, []))
            for recipient in connection.execute(
                select(recipients).where(recipients.c.message == row.id).order_by(recipients.c.n)
            )
        ],
    }


def _trace_recipient(row: Any, happened: list[dict[str, Any]]) -> dict[str, Any]:
    if row.decision is not None:
        decision = from_json(row.decision)
    else:
        requirement = Requirement.from_json(from_json(row.requirement))
        decision = Decision(requirement, None).as_json(row.address)
    return {
        "id": recipient_id(row.message, row.n),
        "recipient": row.address,
        "state": row.state,
        "method": row.method,
        "decision": decision,
        "attempts": [event["data"] for event in happened if event["kind"] == "attempt"],
        "next_attempt": row.next_attempt if State(row.state) in LIVE else None,
        "last_error": row.last_error,
        "hold_reason": row.hold_reason,
        "events": happened,
    }


def counts(connection: Connection) -> dict[str, int]:
    """Recipients by live state, from the counter rows."""
    return {
        name.removeprefix("recipients."): value
        for name, value in counted(connection).items()
        if name.startswith("recipients.")
    }


def oldest_received(connection: Connection) -> float | None:
    """When the oldest message in the queue came in; the ids sort by time, so an index answers.

    What lies in the portal has left the queue: it waits for its reader, not for us.
    """
    query = select(messages.c.received).where(LIVE_MESSAGES).order_by(messages.c.id).limit(1)
    result: float | None = connection.execute(query).scalar()
    return result
