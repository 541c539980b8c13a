"""Jobs of a site, and which of them share a transaction.

A message for recipients of many domains that all go to one site - the smart host of a route, a hoster - is carried
once, however many claims it came in (RFC 5321 section 4.5.4.1). Shared are only transactions of one message with one
rendering and one required level; each job hears of its own recipients alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from gateway.delivery.carried import Carried, Failed
from gateway.delivery.transaction import Transaction
from gateway.delivery.turns import TurnLine

__all__ = ["MAX_RECIPIENTS", "Job", "Load"]

#: Recipients that every server takes in one transaction (RFC 5321 section 4.5.3.1.8).
MAX_RECIPIENTS = 100


@dataclass(slots=True, eq=False)
class Job:
    """One claim's transaction to carry, for whom, and what to do where the peer needs 7-bit."""

    origin: int
    transaction: Transaction
    seven_bit: Callable[[Transaction], Awaitable[Transaction]]
    done: asyncio.Future[Carried | Failed]

    def settle(self, outcome: Carried | Failed) -> None:
        """Whoever waits for it hears this, unless they gave up."""
        if not self.done.done():
            self.done.set_result(outcome)


class Load:
    """The jobs that go in one transaction: one at first, with :meth:`gather` all that can share it."""

    def __init__(self, first: Job) -> None:
        self._jobs = [first]

    def gather(self, line: TurnLine[Job]) -> None:
        """Add what stands directly behind in the sender's line and differs in nothing but the recipients."""
        first = self._jobs[0]
        room = MAX_RECIPIENTS - sum(len(job.transaction.recipients) for job in self._jobs)

        def fits(job: Job) -> bool:
            return len(job.transaction.recipients) <= room and _alike(first.transaction, job.transaction)

        while (mate := line.pop_next(first.origin, fits)) is not None:
            self._jobs.append(mate)
            room -= len(mate.transaction.recipients)

    def transaction(self) -> Transaction:
        """The one that carries all of them; its mark against loops names every recipient of it."""
        first = self._jobs[0].transaction
        if len(self._jobs) == 1 or first.trace is None:
            return first
        recipients = tuple(recipient for job in self._jobs for recipient in job.transaction.recipients)
        return replace(first, recipients=recipients, prefix=first.trace(recipients), permit=self._permit)

    def _permit(self) -> None:
        for job in self._jobs:
            if job.transaction.permit is not None:
                job.transaction.permit()

    async def seven_bit(self, transaction: Transaction) -> Transaction:
        """The same for a peer without 8BITMIME; raises what the job's own function raises."""
        return await self._jobs[0].seven_bit(transaction)

    def carried(self, carried: Carried) -> None:
        """The transaction took place: each job hears of its own recipients."""
        result, start = carried.result, 0
        for job in self._jobs:
            end = start + len(job.transaction.recipients)
            own = replace(result, recipients=result.recipients[start:end])
            job.settle(carried if len(self._jobs) == 1 else replace(carried, result=own))
            start = end

    def failed(self, failed: Failed) -> None:
        """There was no transaction."""
        for job in self._jobs:
            job.settle(failed)

    def broken(self, error: Exception) -> None:
        """It failed by itself, not by the peer."""
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(error)

    def cancel(self) -> None:
        """The worker is being ended."""
        for job in self._jobs:
            job.done.cancel()


def _alike(one: Transaction, other: Transaction) -> bool:
    return (
        None not in {one.trace, other.trace}
        and one.message_id == other.message_id
        and one.rendering == other.rendering
        and one.required is other.required
        and one.sender == other.sender
    )
