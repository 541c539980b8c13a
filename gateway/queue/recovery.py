"""Taking over what a dead worker had claimed.

Beside its lock file death is known at once, from the released lock; from elsewhere once the heartbeat has stood still
for a lease. What the dead worker had not put on a connection is due again at once - once per recipient: a second loss
keeps the schedule that its claim had moved forward, a third holds the message as ``poison``, because it may be what
kills the workers. What was on a connection may have arrived: it follows the schedule, and counts as a possible
duplicate. A worker that ended in order and left a claim behind, because it was on a connection, is no loss.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, bindparam, select

from gateway.queue.flights import flights_path, read_flights
from gateway.queue.outcomes import change_state
from gateway.queue.states import StateEvent
from gateway.store.incarnation import boot_id, remove_if_dead
from gateway.store.schema import incarnations, recipients
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = ["Recovered", "recover", "strange_owners", "sweep_run_dir"]

#: Length of an incarnation's id in text; other files in the directory are not ours to judge.
_INCARNATION = 36
#: A recipient whose worker died this often is held.
POISON_LOSSES = 3

_NEXT_OWNER = (
    select(recipients.c.claimed_by)
    .where(recipients.c.claimed_by.is_not(None), recipients.c.claimed_by > bindparam("after"))
    .order_by(recipients.c.claimed_by)
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many recipients came back: all, those that may arrive twice, those held as poison."""

    recipients: int = 0
    possible_duplicates: int = 0
    poisoned: int = 0


def strange_owners(connection: Connection, own: str) -> list[str]:
    """Incarnations other than ours that hold claims: a seek in the index for each, however many claims they hold."""
    found: list[str] = []
    last = ""
    while (owner := connection.execute(_NEXT_OWNER, {"after": last}).scalar()) is not None:
        last = owner
        if owner != own:
            found.append(owner)
    return found


def sweep_run_dir(run_dir: Path, owners: Collection[str]) -> int:
    """Remove what dead processes left behind that hold no claims (``owners`` do); how many processes."""
    gone = 0
    for path in sorted(run_dir.glob("*.lock")):
        name = path.stem
        if len(name) == _INCARNATION and name not in owners and remove_if_dead(path):
            flights_path(run_dir, name).unlink(missing_ok=True)
            gone += 1
    return gone


def recover(transaction: Transaction, store: Store, owner: str) -> Recovered:
    """Give back what ``owner`` had claimed, where it is dead for certain; the batch is one transaction."""
    connection, now = transaction.connection, transaction.now
    if not store.lives.is_dead(connection, owner):
        return Recovered()
    known = connection.execute(
        select(incarnations.c.boot, incarnations.c.ended).where(incarnations.c.id == owner)
    ).first()
    flights = read_flights(store.run_dir, owner) if known is not None and known.boot == boot_id() else None
    died = known is None or known.ended is None
    # What another gateway is about to take over, or a frozen one holds in a transaction that it cannot end, is passed
    # over until the next look: waiting for it would hold up all that shares our transaction.
    query = select(recipients).where(recipients.c.claimed_by == owner).order_by(recipients.c.message, recipients.c.n)
    rows = connection.execute(query.with_for_update(skip_locked=True)).all()
    duplicates = poisoned = 0
    for row in rows:
        losses = row.losses + died
        in_flight = flights is None or row.message in flights
        duplicates += in_flight
        facts = {"owner": owner, "losses": losses, "possible_duplicate": in_flight}
        if died and losses >= POISON_LOSSES:
            poisoned += 1
            change_state(
                transaction,
                row,
                StateEvent.HOLD,
                values={"losses": losses, "hold_reason": "poison", "hold_until": row.expires},
                facts={**facts, "reason": "poison"},
            )
            transaction.event("alarm", {"alarm": "poison"}, message=row.message, n=row.n)
            continue
        values = {"losses": losses, "last_error": "the worker that had it ended"}
        if losses <= 1 and not in_flight:
            values["next_attempt"] = now
        change_state(transaction, row, StateEvent.LOST, values=values, facts=facts)
    path = flights_path(store.run_dir, owner)
    transaction.after_commit(lambda: path.unlink(missing_ok=True))
    return Recovered(len(rows), duplicates, poisoned)
