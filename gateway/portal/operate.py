"""What operators do to what lies in the portal, each with an event that says who and why."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import select

from gateway.errors import QueueError
from gateway.mail.address import Address
from gateway.portal import deposits
from gateway.portal.depositor import Depositor
from gateway.portal.deposits import Deposit, fresh, set_values
from gateway.queue.queue import Queue
from gateway.queue.records import message_from_row
from gateway.queue.states import State
from gateway.store.schema import messages
from gateway.store.writer import Transaction

__all__ = ["extend", "recall", "resend", "restore"]


async def recall(queue: Queue, message: str, n: int, *, operator: str, reason: str) -> Deposit:
    """Nobody sees it from now on; as it was before. Raises :class:`QueueError`."""
    return await _do(queue, partial(deposits.recall, message=message, n=n, facts=_facts(operator, reason)))


async def restore(queue: Queue, message: str, n: int, *, operator: str, reason: str) -> Deposit:
    """Take a recall back while its content is there. Raises :class:`QueueError`."""
    return await _do(queue, partial(deposits.restore, message=message, n=n, facts=_facts(operator, reason)))


async def extend(queue: Queue, message: str, n: int, until: float, *, operator: str, reason: str) -> Deposit:
    """Let it be read until then (epoch seconds). Raises :class:`QueueError`."""
    facts = _facts(operator, reason)
    return await _do(queue, partial(deposits.extend, message=message, n=n, until=until, facts=facts))


async def resend(queue: Queue, message: str, n: int, *, operator: str, reason: str) -> Deposit:
    """Mail the notice once more. Raises :class:`QueueError` where it cannot be read any more."""
    depositor = Depositor.over(queue.store)
    settings = queue.settings()

    def job(transaction: Transaction) -> Deposit:
        deposit = fresh(transaction, message, n)
        if not deposit.readable(transaction.now):
            raise QueueError(f"{deposit.id} cannot be read any more; its recipient is {deposit.state}")
        if deposit.state is State.NOTICING:
            raise QueueError(f"the notice of {deposit.id} is on its way still; see `gateway trace {message}`")
        row = transaction.connection.execute(select(messages).where(messages.c.id == message)).one()
        about, _ = message_from_row(row, ())
        notice = depositor.remind(
            transaction, settings, about, n, Address.parse(deposit.address), deposit.expires, reminder=False
        )
        set_values(transaction, deposit, notice=notice)
        transaction.event("notice_sent_again", _facts(operator, reason), message=message, n=n)
        return deposit

    return await _do(queue, job)


async def _do(queue: Queue, job: Callable[[Transaction], Deposit]) -> Deposit:
    deposit = await queue.store.write(job)
    queue.wake.set()
    return deposit


def _facts(operator: str, reason: str) -> dict[str, str]:
    return {"operator": operator, "reason": reason} if reason else {"operator": operator}
