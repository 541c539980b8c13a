"""What lies in the portal: its rows, and the changes of state that the portal makes, all within a transaction.

A deposit begins in the transaction that ends a delivery attempt and lives in four columns: ``ends`` says until when the
content is there (``NULL``: it is gone), ``notice`` which message of ours tells of it, ``opened`` when the body was seen
first, ``recalled`` since when nobody may see it. A recall shows at once; the content goes after :data:`UNDO`, and until
then it can be taken back. The state of the recipient follows ``gateway.queue.states``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, or_, select, tuple_, update

from gateway.errors import QueueError
from gateway.mail.protection import Assurance
from gateway.portal.names import Names, handle_of
from gateway.queue.outcomes import change_state
from gateway.queue.states import State, StateEvent
from gateway.store.schema import ENDING, deposits, messages, recipients
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = [
    "PAGE",
    "UNDO",
    "Deposit",
    "by_address",
    "by_handle",
    "by_id",
    "by_typed",
    "due_to_end",
    "extend",
    "insert_deposit",
    "mark_noticed",
    "mark_opened",
    "page",
    "recall",
    "restore",
    "set_phrase",
]

#: Seconds in which a recall can be taken back. With the checkpoint for shredding, which runs once a minute, nothing is
#: left ten minutes after a recall.
UNDO: Final = 300.0
#: Entries of an inbox, newest first.
_INBOX: Final = 500
#: Deposits in one read of a listing.
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Deposit:
    """A deposit as it was read. Times in seconds since the epoch.

    ``needs``: what the session that carried a code must have reached for the code to be enough alone.
    """

    message: str
    n: int
    key: str
    address: str
    sender: str | None
    connector: str
    received: float
    size: int
    state: State
    made: float
    expires: float
    ends: float | None
    needs: Assurance
    notice: str | None
    noticed: float | None
    notice_tls: Assurance | None
    phrase: bytes | None
    opened: float | None
    recalled: float | None
    reminded: int

    @property
    def id(self) -> str:
        """How people name it: as the recipient in the queue."""
        return f"{self.message}.{self.n}"

    def readable(self, now: float) -> bool:
        """Whether its recipient may see it."""
        return self.ends is not None and self.recalled is None and now < self.expires

    def as_json(self) -> dict[str, Any]:
        """What ``portal list`` and ``portal show`` print."""
        return {
            "id": self.id,
            "recipient": self.address,
            "sender": self.sender,
            "state": str(self.state),
            "deposited": self.made,
            "expires": self.expires,
            "content": self.ends is not None,
            "needs": str(self.needs),
            "noticed": self.noticed,
            "notice_assurance": None if self.notice_tls is None else str(self.notice_tls),
            "phrase": self.phrase is not None,
            "opened": self.opened,
            "recalled": self.recalled,
        }


_COLUMNS = select(
    deposits,
    recipients.c.address,
    recipients.c.state,
    messages.c.sender,
    messages.c.connector,
    messages.c.received,
    messages.c.size,
).select_from(
    deposits.join(recipients, (recipients.c.message == deposits.c.message) & (recipients.c.n == deposits.c.n)).join(
        messages, messages.c.id == deposits.c.message
    )
)


def _deposit(row: Any) -> Deposit:
    return Deposit(
        message=row.message,
        n=row.n,
        key=row.key,
        address=row.address,
        sender=row.sender,
        connector=row.connector,
        received=row.received,
        size=row.size,
        state=State(row.state),
        made=row.made,
        expires=row.expires,
        ends=row.ends,
        needs=Assurance.parse(row.needs),
        notice=row.notice,
        noticed=row.noticed,
        notice_tls=None if row.notice_tls is None else Assurance.parse(row.notice_tls),
        phrase=row.phrase,
        opened=row.opened,
        recalled=row.recalled,
        reminded=row.reminded,
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def by_id(connection: Connection, message: str, n: int) -> Deposit | None:
    """The deposit of one recipient."""
    row = connection.execute(_COLUMNS.where(deposits.c.message == message, deposits.c.n == n)).first()
    return None if row is None else _deposit(row)


def by_handle(connection: Connection, handle: bytes) -> Deposit | None:
    """The deposit of a link (see ``names.handle_of``)."""
    row = connection.execute(_COLUMNS.where(deposits.c.handle == handle).limit(1)).first()
    return None if row is None else _deposit(row)


def by_typed(connection: Connection, typed: str) -> list[Deposit]:
    """What a typed code may mean, newest first: almost always one."""
    rows = connection.execute(
        _COLUMNS.where(deposits.c.typed == typed, ENDING).order_by(deposits.c.message.desc()).limit(2)
    )
    return [_deposit(row) for row in rows]


def by_address(connection: Connection, key: str) -> list[Deposit]:
    """What lies there for an address, newest first."""
    rows = connection.execute(
        _COLUMNS.where(deposits.c.key == key, ENDING).order_by(deposits.c.message.desc()).limit(_INBOX)
    )
    return [_deposit(row) for row in rows]


def by_verp(connection: Connection, verp: str) -> Deposit | None:
    """The deposit whose notice came back."""
    row = connection.execute(_COLUMNS.where(deposits.c.verp == verp).limit(1)).first()
    return None if row is None else _deposit(row)


def by_notice(connection: Connection, notice: str) -> Deposit | None:
    """The deposit that this message of ours tells of."""
    row = connection.execute(_COLUMNS.where(deposits.c.notice == notice).limit(1)).first()
    return None if row is None else _deposit(row)


def page(
    connection: Connection,
    *,
    ids: Sequence[tuple[str, int | None]] = (),
    to: str = "",
    sender: str = "",
    gone: bool = False,
    after: tuple[str, int] = ("", 0),
    most: int = PAGE,
) -> list[Deposit]:
    """What lies there behind ``after``, oldest first; all that is given must fit. ``gone``: also what has ended.

    What is named by id is found though it has ended. ``to`` and ``sender`` are whole addresses.
    """
    query = _COLUMNS.order_by(deposits.c.message, deposits.c.n).limit(most)
    query = query.where(tuple_(deposits.c.message, deposits.c.n) > tuple_(*after))
    if ids:
        query = query.where(
            or_(*(
                deposits.c.message == message if n is None else (deposits.c.message == message) & (deposits.c.n == n)
                for message, n in ids
            ))
        )  # fmt: skip
    elif not gone:
        query = query.where(ENDING)
    if to:
        query = query.where(deposits.c.key == to)
    if sender:
        query = query.where(messages.c.sender == sender)
    return [_deposit(row) for row in connection.execute(query)]


def due_to_end(connection: Connection, now: float, most: int) -> list[Deposit]:
    """Whose content is to go by now."""
    rows = connection.execute(_COLUMNS.where(ENDING, deposits.c.ends <= now).order_by(deposits.c.ends).limit(most))
    return [_deposit(row) for row in rows]


def unread_until(connection: Connection, until: float, reminded: int, most: int) -> list[Deposit]:
    """Unread and announced, at their end before ``until``, reminded of less than ``reminded`` times."""
    rows = connection.execute(
        _COLUMNS.where(
            ENDING,
            deposits.c.ends <= until,
            deposits.c.opened.is_(None),
            deposits.c.recalled.is_(None),
            deposits.c.noticed.is_not(None),
            deposits.c.reminded < reminded,
        )
        .order_by(deposits.c.ends)
        .limit(most)
    )
    return [_deposit(row) for row in rows]


# -- changing ---------------------------------------------------------------------------------------------------------


def insert_deposit(
    transaction: Transaction,
    store: Store,
    names: Names,
    message: str,
    n: int,
    key: str,
    *,
    expires: float,
    needs: Assurance,
    notice: str,
) -> None:
    """A deposit begins: its row, and the key to the body for this recipient. Raises ``StoreCorrupt``."""
    store.keep_for_portal(transaction, message, n)
    transaction.connection.execute(
        insert(deposits).values(
            message=message,
            n=n,
            handle=handle_of(names.token(message, n)),
            typed=names.typed(message, n),
            verp=names.verp(message, n),
            key=key,
            made=transaction.now,
            expires=expires,
            ends=expires,
            needs=str(needs),
            notice=notice,
            reminded=0,
        )
    )


def fresh(transaction: Transaction, message: str, n: int) -> Deposit:
    """As it is in this transaction, kept as it is until its end. Raises :class:`QueueError` where there is none."""
    connection = transaction.connection
    connection.execute(
        select(recipients.c.n).where(recipients.c.message == message, recipients.c.n == n).with_for_update()
    )
    found = by_id(connection, message, n)
    if found is None:
        raise QueueError(f"{message}.{n} does not lie in the portal")
    return found


def set_values(transaction: Transaction, deposit: Deposit, **values: Any) -> None:
    """Write columns of one deposit."""
    transaction.connection.execute(
        update(deposits).where(deposits.c.message == deposit.message, deposits.c.n == deposit.n).values(**values)
    )


def change(
    transaction: Transaction,
    deposit: Deposit,
    event: StateEvent,
    facts: dict[str, Any] | None = None,
    *,
    can_tell: bool = True,
) -> State:
    """Move the recipient of a deposit. Raises :class:`QueueError` where its state does not allow it."""
    row = transaction.connection.execute(
        select(recipients).where(recipients.c.message == deposit.message, recipients.c.n == deposit.n)
    ).one()
    return change_state(transaction, row, event, can_tell=can_tell, facts=facts)


def mark_noticed(transaction: Transaction, deposit: Deposit, attained: Assurance) -> None:
    """The recipient's mail system took the notice, in a session that attained this."""
    set_values(transaction, deposit, notice=None, noticed=transaction.now, notice_tls=str(attained))
    if deposit.state is State.NOTICING:
        change(transaction, deposit, StateEvent.NOTICED, {"assurance": str(attained)})


def mark_opened(transaction: Transaction, message: str, n: int, facts: dict[str, Any]) -> bool:
    """Its recipient sees the body; whether for the first time. Raises :class:`QueueError` where it is not there."""
    deposit = fresh(transaction, message, n)
    if not deposit.readable(transaction.now):
        raise QueueError(f"{deposit.id} cannot be read any more")
    if deposit.opened is not None:
        transaction.event("viewed", facts, message=message, n=n)
        return False
    set_values(transaction, deposit, opened=transaction.now)
    if deposit.state in (State.NOTICING, State.DEPOSITED):
        change(transaction, deposit, StateEvent.OPEN, facts)
    return True


def recall(transaction: Transaction, message: str, n: int, facts: dict[str, Any]) -> Deposit:
    """Nobody sees it from now on; the content goes after :data:`UNDO`. Returns what it was, for an honest statement.

    Raises :class:`QueueError` where there is nothing to recall.
    """
    deposit = fresh(transaction, message, n)
    if deposit.ends is None:
        raise QueueError(f"{deposit.id} is not in the portal any more; its recipient is {deposit.state}")
    if deposit.recalled is not None:
        raise QueueError(f"{deposit.id} is recalled already")
    ends = min(deposit.ends, transaction.now + UNDO)
    set_values(transaction, deposit, recalled=transaction.now, ends=ends)
    told = {**facts, "read": deposit.opened is not None}
    if deposit.state in (State.NOTICING, State.DEPOSITED):
        change(transaction, deposit, StateEvent.RECALL, told)
    else:
        transaction.event("recalled", told, message=message, n=n)
    return deposit


def restore(transaction: Transaction, message: str, n: int, facts: dict[str, Any]) -> Deposit:
    """Take a recall back. Raises :class:`QueueError` where the content is gone, or nothing was recalled."""
    deposit = fresh(transaction, message, n)
    if deposit.recalled is None:
        raise QueueError(f"{deposit.id} is not recalled")
    if deposit.ends is None:
        raise QueueError(
            f"the content of {deposit.id} is gone: a recall can be taken back for {UNDO / 60:.0f} minutes. "
            "Ask the sender to send it again"
        )
    set_values(transaction, deposit, recalled=None, ends=deposit.expires)
    if deposit.state is State.RECALLED:
        change(transaction, deposit, StateEvent.RESTORE, facts)
    else:
        transaction.event("recall_undone", facts, message=message, n=n)
    return deposit


def extend(transaction: Transaction, message: str, n: int, until: float, facts: dict[str, Any]) -> Deposit:
    """Let it be read until then (epoch seconds). Raises :class:`QueueError` where it is gone or recalled."""
    deposit = fresh(transaction, message, n)
    if deposit.ends is None:
        raise QueueError(f"the content of {deposit.id} is gone; ask the sender to send it again")
    if deposit.recalled is not None:
        raise QueueError(f"{deposit.id} is recalled; restore it first")
    if until <= transaction.now:
        raise QueueError("that time is over already; to end it now, recall it")
    set_values(transaction, deposit, expires=until, ends=until, reminded=0)
    transaction.event("extended", {**facts, "until": until}, message=message, n=n)
    return deposit


def set_phrase(transaction: Transaction, deposit: Deposit, digest: bytes) -> None:
    """From now on four words open it, with a code."""
    set_values(transaction, deposit, phrase=digest)
    transaction.event("phrase_made", {"needs": str(deposit.needs)}, message=deposit.message, n=deposit.n)
