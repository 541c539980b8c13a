"""The portal's clockwork, run by one worker: what is over ends, who has not read is reminded, old rows go.

Each step looks for what is due by an index and does a batch; nothing grows with what lies there. While the clock is in
doubt nothing ends for its age (see ``gateway.queue.timekeeping``).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from sqlalchemy import select

from gateway.errors import QueueError, StoreError
from gateway.mail.address import Address
from gateway.portal import codes, counts, sessions
from gateway.portal.aftermath import end_deposit, recipient_of
from gateway.portal.depositor import Depositor
from gateway.portal.deposits import Deposit, due_to_end, fresh, set_values, unread_until
from gateway.portal.observer import PortalObserver
from gateway.queue.notices import NoticeEntry, read_header
from gateway.queue.queue import Queue
from gateway.queue.records import message_from_row
from gateway.queue.states import State, StateEvent
from gateway.store.schema import messages
from gateway.store.writer import Transaction

__all__ = ["Keeper"]

_log = structlog.get_logger()

#: Seconds between two steps.
INTERVAL: Final = 5.0
_DAY: Final = 86400.0
#: Seconds before its end at which an unread message is told of again.
REMINDERS: Final = (7 * _DAY, _DAY)
#: A reminder that would come this soon after the message is left out.
_TOO_SOON: Final = 2 * _DAY
_BATCH: Final = 50
#: Seconds between two looks for reminders, and for rows that are over.
_SELDOM: Final = 60.0
_UNREAD = (
    "The recipient did not read it in the secure portal in the time that is allowed for it. It is not kept any more."
)


@dataclass(slots=True)
class Keeper:
    """See the module. ``queue`` gives store, settings and clock."""

    queue: Queue
    observer: PortalObserver = field(default_factory=PortalObserver)
    _depositor: Depositor = field(init=False)
    _seldom: float = field(init=False)

    def __post_init__(self) -> None:
        self._depositor = Depositor.over(self.queue.store)
        self._seldom = self.queue.clock.monotonic() - _SELDOM

    async def run(self) -> None:
        """Step, every few seconds, until cancelled."""
        while True:
            try:
                await self.step()
            except StoreError as error:
                _log.warning("portal_keeper_waits", error=str(error))
            await self.queue.clock.sleep(INTERVAL)

    async def step(self) -> None:
        """Everything that is due, a batch of each. Raises :class:`StoreError`."""
        if not self.queue.timekeeper.in_doubt:
            await self.end_due()
        now = self.queue.clock.monotonic()
        if now - self._seldom >= _SELDOM:
            self._seldom = now
            if not self.queue.timekeeper.in_doubt:
                await self.remind()
            await self.queue.store.write(_forget)

    async def end_due(self) -> int:
        """End what is at its end; how many."""
        store = self.queue.store
        now = self.queue.clock.time()
        ended = 0
        for deposit in await store.read(lambda connection: due_to_end(connection, now, _BATCH)):
            unread = deposit.state in (State.NOTICING, State.DEPOSITED)
            header = await read_header(store, deposit.message, deposit.n) if unread else b""

            def job(transaction: Transaction, deposit: Deposit = deposit, header: bytes = header) -> State:
                return self._end(transaction, fresh(transaction, deposit.message, deposit.n), header)

            with suppress(QueueError):  # read, restored or extended since it was looked at
                state = await store.write(job)
                ended += 1
                self.observer.happened("expired" if unread else "withdrawn")
                if unread:
                    self.queue.observer.terminal("portal", str(state))
        if ended:
            self.queue.wake.set()
        return ended

    def _end(self, transaction: Transaction, deposit: Deposit, header: bytes) -> State:
        if deposit.ends is None or deposit.ends > transaction.now:
            raise QueueError(f"{deposit.id} is not at its end")
        if deposit.state in (State.NOTICING, State.DEPOSITED):
            entry = NoticeEntry(recipient_of(transaction, deposit), "5.4.7", _UNREAD)
            store, settings = self.queue.store, self.queue.settings()
            return end_deposit(transaction, store, settings, deposit, StateEvent.DEPOSIT_EXPIRE, entry, header)
        self.queue.store.withdraw(transaction, deposit.message, deposit.n)
        return deposit.state

    async def remind(self) -> int:
        """Tell again of what is unread and near its end; how many reminders."""
        store, settings = self.queue.store, self.queue.settings()
        if settings.portal.url is None:
            return 0
        told = 0
        for number, before in enumerate(REMINDERS, 1):
            until = self.queue.clock.time() + before
            due = partial(unread_until, until=until, reminded=number, most=_BATCH)
            for deposit in await store.read(due):

                def job(transaction: Transaction, deposit: Deposit = deposit, number: int = number) -> int:
                    return self._remind(transaction, deposit, number)

                with suppress(QueueError):
                    reminded = await store.write(job)
                    told += reminded
                    if reminded:
                        self.observer.happened("reminded")
        if told:
            self.queue.wake.set()
        return told

    def _remind(self, transaction: Transaction, deposit: Deposit, number: int) -> int:
        deposit = fresh(transaction, deposit.message, deposit.n)
        if deposit.reminded >= number or deposit.opened is not None or deposit.recalled is not None:
            return 0
        set_values(transaction, deposit, reminded=number)
        if transaction.now - (deposit.noticed or transaction.now) < _TOO_SOON or deposit.sender is None:
            return 0
        row = transaction.connection.execute(select(messages).where(messages.c.id == deposit.message)).one()
        message, _ = message_from_row(row, ())
        address = Address.parse(deposit.address)
        self._depositor.remind(transaction, self.queue.settings(), message, deposit.n, address, expires=deposit.expires)
        transaction.event("reminded", {"number": number}, message=deposit.message, n=deposit.n)
        return 1


def _forget(transaction: Transaction) -> None:
    """Rows that mean nothing any more."""
    for forget in (codes.forget_over, sessions.forget_over, counts.forget_over):
        forget(transaction, 500)
