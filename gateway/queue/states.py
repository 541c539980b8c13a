"""The state table: the only thing that decides how a recipient's state may change.

One row for each (state, event): the next state, and whether the sender hears of it. What is not in the table cannot
happen; asking for it raises :class:`~gateway.errors.QueueError`.

Live states::

    queued      due: it waits for its turn only
    delivering  claimed by an incarnation; the next attempt is already moved forward
    deferred    tried, waiting for the time of its next attempt
    held        waits for a person, until its hold expires
    noticing    deposited in the portal, the notice is not accepted yet
    deposited   waits in the portal to be picked up

Terminal states: ``delivered, picked_up, bounced, rejected, recalled, cancelled, expired, dropped``. ``dropped`` is
undeliverable mail that has nobody to tell: the null sender, and the automatic kinds. What was picked up or recalled is
at its end; its content goes later (``deposits``), and a recall can be taken back until it has gone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from gateway.errors import QueueError

__all__ = ["IN_QUEUE", "LIVE", "TABLE", "TERMINAL", "Notice", "State", "StateEvent", "Transition", "advance"]


class State(StrEnum):
    """Where a recipient of a message stands."""

    QUEUED = "queued"
    DELIVERING = "delivering"
    DEFERRED = "deferred"
    HELD = "held"
    NOTICING = "noticing"
    DEPOSITED = "deposited"
    DELIVERED = "delivered"
    PICKED_UP = "picked_up"
    BOUNCED = "bounced"
    REJECTED = "rejected"
    RECALLED = "recalled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DROPPED = "dropped"


class StateEvent(StrEnum):
    """What can happen to a recipient."""

    DUE = "due"  # the time of its next attempt has come
    CLAIM = "claim"  # a worker takes it, before it connects
    DELIVERED = "delivered"  # the peer answered 250 to the final dot
    DEFER = "defer"  # the attempt ended in something that may pass
    FAIL = "fail"  # refused for good, or no method is left
    EXPIRE = "expire"  # its time in the queue is over
    REJECT = "reject"  # a policy that became stricter
    HOLD = "hold"  # policy, an operator, or a message that kills workers
    RELEASE = "release"  # a person approved
    HOLD_EXPIRE = "hold_expire"  # nobody approved in time
    CANCEL = "cancel"  # an operator took it out
    RETRY = "retry"  # an operator wants it tried now
    UNCLAIM = "unclaim"  # given back untouched: the daemon stops
    LOST = "lost"  # its worker died
    BROUGHT_BACK = "brought_back"  # the store was restored from a backup: it may have ended since
    DEPOSIT = "deposit"  # it lies in the portal now, and its notice is on the way
    NOTICED = "noticed"  # the notice was accepted by the recipient's mail system
    NOTICE_FAIL = "notice_fail"  # the notice was refused for good, or came back
    OPEN = "open"  # the recipient has seen the body
    RECALL = "recall"  # the organisation took it back
    RESTORE = "restore"  # and gave it again, before the content was gone
    DEPOSIT_EXPIRE = "deposit_expire"  # nobody read it in time


class Notice(StrEnum):
    """Whether the sender is told; what DSN parameters say is looked at where the notice is made."""

    NONE = "none"
    FAILURE = "failure"


class Transition(NamedTuple):
    """One row of the table."""

    state: State
    notice: Notice = Notice.NONE


TABLE: dict[tuple[State, StateEvent], Transition] = {
    (State.QUEUED, StateEvent.CLAIM): Transition(State.DELIVERING),
    (State.QUEUED, StateEvent.HOLD): Transition(State.HELD),
    (State.QUEUED, StateEvent.CANCEL): Transition(State.CANCELLED, Notice.FAILURE),
    (State.QUEUED, StateEvent.RETRY): Transition(State.QUEUED),
    (State.QUEUED, StateEvent.REJECT): Transition(State.REJECTED, Notice.FAILURE),
    (State.DEFERRED, StateEvent.DUE): Transition(State.QUEUED),
    (State.DEFERRED, StateEvent.HOLD): Transition(State.HELD),
    (State.DEFERRED, StateEvent.CANCEL): Transition(State.CANCELLED, Notice.FAILURE),
    (State.DEFERRED, StateEvent.RETRY): Transition(State.QUEUED),
    (State.DEFERRED, StateEvent.REJECT): Transition(State.REJECTED, Notice.FAILURE),
    (State.DELIVERING, StateEvent.DELIVERED): Transition(State.DELIVERED),
    (State.DELIVERING, StateEvent.DEFER): Transition(State.DEFERRED),
    (State.DELIVERING, StateEvent.FAIL): Transition(State.BOUNCED, Notice.FAILURE),
    (State.DELIVERING, StateEvent.EXPIRE): Transition(State.EXPIRED, Notice.FAILURE),
    (State.DELIVERING, StateEvent.REJECT): Transition(State.REJECTED, Notice.FAILURE),
    (State.DELIVERING, StateEvent.HOLD): Transition(State.HELD),
    (State.DELIVERING, StateEvent.UNCLAIM): Transition(State.QUEUED),
    (State.DELIVERING, StateEvent.LOST): Transition(State.DEFERRED),
    (State.QUEUED, StateEvent.BROUGHT_BACK): Transition(State.HELD),
    (State.DEFERRED, StateEvent.BROUGHT_BACK): Transition(State.HELD),
    (State.DELIVERING, StateEvent.BROUGHT_BACK): Transition(State.HELD),
    (State.HELD, StateEvent.BROUGHT_BACK): Transition(State.HELD),
    (State.HELD, StateEvent.RELEASE): Transition(State.QUEUED),
    (State.HELD, StateEvent.HOLD_EXPIRE): Transition(State.BOUNCED, Notice.FAILURE),
    (State.HELD, StateEvent.CANCEL): Transition(State.CANCELLED, Notice.FAILURE),
    (State.HELD, StateEvent.REJECT): Transition(State.REJECTED, Notice.FAILURE),
    (State.DELIVERING, StateEvent.DEPOSIT): Transition(State.NOTICING),
    (State.NOTICING, StateEvent.NOTICED): Transition(State.DEPOSITED),
    (State.NOTICING, StateEvent.NOTICE_FAIL): Transition(State.BOUNCED, Notice.FAILURE),
    (State.NOTICING, StateEvent.OPEN): Transition(State.PICKED_UP),
    (State.NOTICING, StateEvent.RECALL): Transition(State.RECALLED),
    (State.NOTICING, StateEvent.DEPOSIT_EXPIRE): Transition(State.EXPIRED, Notice.FAILURE),
    (State.DEPOSITED, StateEvent.NOTICED): Transition(State.DEPOSITED),
    (State.DEPOSITED, StateEvent.NOTICE_FAIL): Transition(State.BOUNCED, Notice.FAILURE),
    (State.DEPOSITED, StateEvent.OPEN): Transition(State.PICKED_UP),
    (State.DEPOSITED, StateEvent.RECALL): Transition(State.RECALLED),
    (State.DEPOSITED, StateEvent.DEPOSIT_EXPIRE): Transition(State.EXPIRED, Notice.FAILURE),
    (State.RECALLED, StateEvent.RESTORE): Transition(State.DEPOSITED),
}

LIVE = frozenset({State.QUEUED, State.DELIVERING, State.DEFERRED, State.HELD, State.NOTICING, State.DEPOSITED})
TERMINAL = frozenset(State) - LIVE
#: What a worker or a person of ours has to do something about; the rest of what lives lies in the portal.
IN_QUEUE = LIVE - {State.NOTICING, State.DEPOSITED}


def advance(state: State, event: StateEvent, *, can_tell: bool = True) -> Transition:
    """The transition for this event. Raises :class:`QueueError` where the table has none.

    With ``can_tell`` false (null sender, automatic kinds) what would end with a notice of failure ends ``dropped``.
    """
    transition = TABLE.get((state, event))
    if transition is None:
        possible = ", ".join(sorted(str(known) for source, known in TABLE if source is state)) or "nothing"
        raise QueueError(f"a recipient that is {state} cannot {event}; possible: {possible}")
    if transition.notice is Notice.FAILURE and not can_tell and event is not StateEvent.CANCEL:
        return Transition(State.DROPPED)
    return transition
