"""What becomes of waiting mail when a store comes back from a backup.

Whatever was live at the moment of the backup may have been delivered, bounced or cancelled since: nobody knows. So it
is held as ``restored`` until a person releases or cancels it, and each trace says of what moment it is and that it may
arrive twice. What a person or policy held already is still held for that reason; the word stands before it. What lies
in the portal lies there again: reading it twice hurts nobody.

``resume`` leaves it to the gateway instead, each recipient marked as a possible duplicate: for a backup that was made
after the gateway had stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, or_, select, update

from gateway.queue.outcomes import change_state
from gateway.queue.states import State, StateEvent
from gateway.store.manifest import Manifest
from gateway.store.restore import Restoring
from gateway.store.schema import recipients
from gateway.store.writer import Transaction

__all__ = ["RESTORED", "Back", "bring_back"]

#: Why it is held.
RESTORED: Final = "restored"
_STATES: Final = (State.QUEUED, State.DELIVERING, State.DEFERRED, State.HELD)
#: Seconds that it is held at least: nobody's mail ends because a restore took its time.
_FOREVER: Final = 365 * 86400.0
#: Seconds that mail has at least to be tried, where it goes on by itself.
_LEAST_TIME: Final = 3600.0
#: Recipients in one transaction.
_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Back:
    """How many recipients came back live, and how many of them are held now."""

    recipients: int
    held: int


async def bring_back(store: Restoring, *, operator: str, resume: bool) -> Back:
    """Decide about everything that is in the queue, page by page, and write the event of the restore."""
    manifest = store.manifest
    facts = {"backup": manifest.id, "made": manifest.made, "operator": operator, "possible_duplicate": True}
    total = held = 0
    after = ("", 0)
    while True:
        page = await store.read(lambda connection, after=after: _page(connection, after))  # type: ignore[misc]  # bound at once
        if not page:
            break

        def job(transaction: Transaction, page: list[Any] = page) -> int:
            if resume:
                for row in page:
                    _go_on(transaction, row, facts)
                return 0
            return sum(_hold(transaction, row, facts) is State.HELD for row in page)

        held += await store.write(job)
        total += len(page)
        after = (page[-1].message, page[-1].n)
    done = Back(total, held)
    await store.write(lambda transaction: _note(transaction, manifest, done, operator, resume=resume))
    return done


def _page(connection: Connection, after: tuple[str, int]) -> list[Any]:
    message, n = after
    query = (
        select(recipients)
        .where(
            recipients.c.state.in_([str(state) for state in _STATES]),
            recipients.c.message >= message,
            or_(recipients.c.message > message, recipients.c.n > n),
        )
        .order_by(recipients.c.message, recipients.c.n)
        .limit(_PAGE)
    )
    return list(connection.execute(query))


def _hold(transaction: Transaction, row: Any, facts: dict[str, Any]) -> State:
    reason = RESTORED
    if row.state == State.HELD and row.hold_reason and not row.hold_reason.startswith(RESTORED):
        reason = f"{RESTORED}; {row.hold_reason}"
    elif row.state == State.HELD and row.hold_reason:
        reason = row.hold_reason
    until = max(transaction.now + _FOREVER, row.hold_until or 0.0)
    values = {"hold_reason": reason, "hold_until": until, "losses": 0}
    return change_state(transaction, row, StateEvent.BROUGHT_BACK, values=values, facts={**facts, "reason": reason})


def _go_on(transaction: Transaction, row: Any, facts: dict[str, Any]) -> None:
    now = transaction.now
    values = {"expires": max(row.expires, now + _LEAST_TIME)}
    if row.state == State.DELIVERING:
        values["next_attempt"] = now
        change_state(transaction, row, StateEvent.LOST, values=values, facts={**facts, "reason": RESTORED})
        return
    transaction.connection.execute(
        update(recipients).where(recipients.c.message == row.message, recipients.c.n == row.n).values(**values)
    )
    transaction.event("restored", facts, message=row.message, n=row.n)


def _note(transaction: Transaction, manifest: Manifest, done: Back, operator: str, *, resume: bool) -> None:
    transaction.event(
        "restored",
        {
            "backup": manifest.id,
            "made": manifest.made,
            "gateway": manifest.gateway,
            "heads": manifest.heads,
            "recipients": done.recipients,
            "held": done.held,
            "resume": resume,
            "operator": operator,
        },
    )
