"""One claim, from decision to outcome.

1. a changed policy decides anew; the result joins what was decided before and can only be stricter
2. what is held or rejected by now is not sent
3. the best method that nothing speaks against; none left: bounce ``5.7.10`` with each method's reason
4. where this method goes to, and what a session there must show (``nexthop``)
   (the portal is no place to go to: what goes there is a row and a key in step 7)
5. the transaction - with what policy wants changed in the message (``rendered``), signed as it leaves (``signing``) -
   over a connection that a worker of that site owns (``sites``)
6. what it means: delivered, refused for good, the next method, or another time (``progress``, ``verdict``)
7. outcomes, evidence and notices in one transaction

Steps 3 to 6 repeat while a method failed definitely and another is left.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.config.model import Settings
from gateway.config.outbound import Route
from gateway.delivery.carried import Failed, HostFailure
from gateway.delivery.nexthop import NextHop, Unreachable, find_next_hop
from gateway.delivery.progress import Circumstances, Progress
from gateway.delivery.rendered import CannotRender, Renderer, once
from gateway.delivery.signing import CannotSign, Signer
from gateway.delivery.sites import Sites
from gateway.delivery.trace_fields import trace_fields
from gateway.delivery.transaction import Transaction
from gateway.delivery.waiting_facts import facts_now
from gateway.directory.resolver import Resolver
from gateway.errors import GuardViolation, StoreCorrupt
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.dsn import Action
from gateway.mail.edits.rendering import without_broken_signatures
from gateway.mail.envelope import Recipient
from gateway.mail.headers import HeaderError, split_message
from gateway.mail.protection import Assurance, Method
from gateway.policy import MessageFacts, Policy, evaluate
from gateway.portal.depositor import OUTWARD, Depositor, portal_obstacle
from gateway.protect.choose import unavailable
from gateway.protect.sevenbit import CannotConvert, to_seven_bit
from gateway.queue.notices import NoticeEntry, is_wanted, make_notice
from gateway.queue.outcomes import LeaseLost
from gateway.queue.queue import Queue, schedule_of
from gateway.queue.records import Claim, NewMessage
from gateway.queue.system_mail import return_requirement
from gateway.scanning import Scanners

__all__ = ["Deliverer", "DeliveryObserver"]

_log = structlog.get_logger()

#: Largest body that is rewritten for a peer without 8BITMIME.
_MAX_CONVERTED = 25_000_000


class DeliveryObserver:
    """Hears what happened, for metrics; this one listens to nothing. Label values are from closed sets."""

    def passed_over(self, method: Method, reason: str) -> None:
        """A method was passed over: ``definite`` or ``fallback_after``."""

    def fallback(self, before: Method, after: Method, reason: str) -> None:
        """Another method was tried instead, for such a reason."""

    def finished(self, method: Method, outcome: str, seconds: float) -> None:
        """A recipient's attempt ended."""

    def alarm(self, kind: str) -> None:
        """Something needs a person."""


@dataclass(slots=True)
class Deliverer:
    """Delivers claims. Settings and policy are asked for at each use, so that a reload takes effect at once."""

    queue: Queue
    sites: Sites
    resolver: Resolver
    settings: Callable[[], Settings]
    policy: Callable[[], Policy]
    scanners: Scanners
    clock: Clock
    chance: random.Random
    loop_key: bytes
    observer: DeliveryObserver = field(default_factory=DeliveryObserver)
    renderer: Renderer = field(default_factory=Renderer)
    signer: Signer = field(init=False)
    _depositor: Depositor = field(init=False)
    #: Bound once: putting a logger together costs more than what it says.
    _log: FilteringBoundLogger = field(default_factory=lambda: structlog.get_logger().bind())

    def __post_init__(self) -> None:
        self.signer = Signer(self.settings, self.clock)
        self._depositor = Depositor.over(self.queue.store)

    async def deliver(self, claim: Claim) -> None:
        """Carry the claim to its outcome. Raises :class:`LeaseLost` and :class:`StoreError`."""
        started = self.clock.monotonic()
        flight = _Flight(self.queue, claim.message.id)
        try:
            progress = await self._begin(claim)
            while pending := [entry for entry in progress if entry.outcome is None]:
                await self._step(claim, pending, flight)
            await self._record(claim, progress)
        except Exception:
            flight.land()
            raise
        flight.land()  # not when we are being ended: what is in the air then may have arrived (see Scheduler)
        seconds = self.clock.monotonic() - started
        for entry in progress:
            if entry.outcome is not None and entry.tried is not None:
                self.observer.finished(entry.tried, str(entry.outcome.event), seconds)

    # -- 1 and 2: is the decision still right? ------------------------------------------------------------------------

    async def _begin(self, claim: Claim) -> list[Progress]:
        common: MessageFacts | None = None
        policy, progress = self.policy(), []
        for recipient in claim.recipients:
            requirement, changed = recipient.requirement, False
            if claim.system and requirement.digest != OUTWARD.digest:
                now = return_requirement(self.settings(), claim.message.envelope.connector)
                if now.tls > requirement.tls:  # the return route asks for more by now, or is gone: then never in clear
                    requirement, changed = now, True
            elif not (claim.system or claim.observed) and requirement.digest != policy.digest:
                common = common or await self._facts(claim, policy)
                facts = replace(common, recipient=recipient.recipient.address, approvals=recipient.approvals)
                requirement, changed = requirement.join(evaluate(policy, facts)), True
            known = unavailable(portal_obstacle(self.settings(), claim.message.envelope.sender))
            entry = Progress(recipient, requirement, changed, known, unsure_since=recipient.unsure_since)
            entry.stop_where_not_to_send(self.clock.time(), schedule_of(self.settings()).expire)
            progress.append(entry)
        return progress

    async def _facts(self, claim: Claim, policy: Policy) -> MessageFacts:
        return await facts_now(
            claim.message,
            policy,
            lambda: self._body(claim),
            self.scanners,
            now=self.clock.time(),
            header_limit=self.settings().limits.header_size,
        )

    # -- 3 to 6: one method, for those that it is the best for --------------------------------------------------------

    async def _step(self, claim: Claim, pending: Sequence[Progress], flight: _Flight) -> None:
        """Try the best method of the first recipient, for all that share it, the assurance they need, and the changes.

        A recipient with a higher need is carried apart: it must not fail those who can be reached with less.
        """
        groups: dict[tuple[Method, Assurance, str], list[Progress]] = {}
        for entry in pending:
            best = entry.choose()
            if best is not None:
                needed = Assurance.NONE if best is Method.PLAIN else entry.requirement.tls
                groups.setdefault((best, needed, entry.requirement.transforms.key), []).append(entry)
        if not groups:
            return
        (method, required, _), group = next(iter(groups.items()))
        self._note_method(group, method)
        if method is Method.PORTAL:
            self._deposit(claim, group)
            return
        hop = await find_next_hop(
            self.resolver,
            self.settings(),
            group[0].recipient.recipient.address,
            method,
            required,
            return_route=self._return_route(claim),
            system=claim.system,
            chance=self.chance,
        )
        if isinstance(hop, Unreachable):
            failure = HostFailure(hop.host, "", hop.failure)
            self._not_carried(claim, group, method, failure, status=hop.status)
        else:
            await self._carry(claim, group, method, hop, self._transaction(claim, group, required, flight))
        for entry in group:
            self._note_passed_over(entry, method)

    def _deposit(self, claim: Claim, group: Sequence[Progress]) -> None:
        settings = self.settings()
        for entry in group:
            address = entry.recipient.recipient.address
            entry.deposited(
                partial(
                    self._depositor.deposit,
                    settings=settings,
                    message=claim.message,
                    n=entry.recipient.n,
                    recipient=address,
                    requirement=entry.requirement,
                )
            )
            self._note_passed_over(entry, Method.PORTAL)

    async def _carry(
        self, claim: Claim, group: Sequence[Progress], method: Method, hop: NextHop, transaction: Transaction
    ) -> None:
        host = hop.hops[0].host if hop.hops else ""
        try:
            if edits := group[0].requirement.transforms:
                transaction, changes = await self.renderer.render(transaction, edits)
                for entry in group:
                    entry.changes = changes
            carried = await self.sites.carry(hop, transaction, self._seven_bit, origin=claim.origin)
        except CannotConvert as error:
            failure = Failure(Stage.MAIL, Verdict.DEFINITE, f"the peer lacks 8BITMIME and {error}")
            self._not_carried(claim, group, method, HostFailure(host, "", failure), status="5.6.3")
        except CannotRender as error:
            _log.error("rendering_failed", message=claim.message.id, error=str(error))
            self.observer.alarm("rendering_failed")
            failure = Failure(Stage.MAIL, Verdict.TEMPORARY, f"what policy changes could not be changed: {error}")
            self._not_carried(claim, group, method, HostFailure(host, "", failure))
        except CannotSign as error:
            self.observer.alarm("signing_failed")
            failure = Failure(Stage.MAIL, Verdict.TEMPORARY, f"it could not be signed: {error}")
            self._not_carried(claim, group, method, HostFailure(host, "", failure))
        except StoreCorrupt as error:
            _log.critical("body_corrupt", message=claim.message.id, error=str(error))
            self.observer.alarm("body_corrupt")
            for entry in group:
                entry.corrupt(str(error))
        except GuardViolation as error:
            _log.critical("guard_violation", message=claim.message.id, error=str(error))
            self.observer.alarm("guard_violation")
            failure = Failure(Stage.MAIL, Verdict.TEMPORARY, "stopped by the guard before any of it was sent")
            self._not_carried(claim, group, method, HostFailure(host, "", failure))
        else:
            if isinstance(carried, Failed):
                self._not_carried(claim, group, method, *carried.failures)
                return
            around = self._circumstances(claim)
            for entry, result in zip(group, carried.result.recipients, strict=True):
                entry.note(carried.notes)
                entry.carried(method, carried, result, around)

    def _not_carried(
        self, claim: Claim, group: Sequence[Progress], method: Method, *failures: HostFailure, status: str = ""
    ) -> None:
        around = self._circumstances(claim)
        for entry in group:
            entry.not_carried(method, failures, around, status)

    def _circumstances(self, claim: Claim) -> Circumstances:
        schedule = schedule_of(self.settings())
        return Circumstances(
            self.clock.time(),
            claim.message.received,
            self.chance.random(),
            schedule,
            ageless=self.queue.timekeeper.in_doubt,
        )

    def _note_method(self, group: Sequence[Progress], method: Method) -> None:
        for entry in group:
            if entry.tried is not None and entry.tried is not method:
                reason = "definite" if entry.known[entry.tried].definite else "fallback_after"
                self.observer.fallback(entry.tried, method, reason)
            entry.tried = method

    def _note_passed_over(self, entry: Progress, method: Method) -> None:
        known = entry.known.get(method)
        if known is not None:
            self.observer.passed_over(method, "definite" if known.definite else "fallback_after")

    def _return_route(self, claim: Claim) -> Route | None:
        """Mail of our own goes back the way that its connector names."""
        if not claim.system:
            return None
        name = claim.message.envelope.connector
        return next((known.return_route for known in self.settings().connectors if known.name == name), None)

    # -- 5: the transaction -------------------------------------------------------------------------------------------

    def _transaction(
        self, claim: Claim, group: Sequence[Progress], required: Assurance, flight: _Flight
    ) -> Transaction:
        envelope = claim.message.envelope
        recipients = tuple(entry.recipient.recipient for entry in group)
        trace = partial(self._trace, claim)
        return Transaction(
            message_id=claim.message.id,
            sender=envelope.sender,
            recipients=recipients,
            body=lambda: self._body(claim),
            size=claim.message.size,
            required=required,
            prefix=trace(recipients),
            eight_bit=claim.eight_bit,
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
            permit=flight.take_off,
            plain=claim.plain,
            trace=trace,
            finish=partial(self.signer.finish, claim) if self.settings().dkim else None,
        )

    def _trace(self, claim: Claim, recipients: Sequence[Recipient]) -> bytes:
        addresses = [recipient.address for recipient in recipients]
        return trace_fields(claim.message, self.settings().hostname, self.loop_key, addresses)

    def _body(self, claim: Claim) -> AsyncIterator[bytes]:
        if claim.plain is not None:
            return once(claim.plain)
        return self.queue.store.body(claim.message.id)

    async def _seven_bit(self, transaction: Transaction) -> Transaction:
        """The same transaction for a peer without 8BITMIME. Raises :class:`CannotConvert`."""
        if transaction.size > _MAX_CONVERTED:
            raise CannotConvert("the message is too large to be rewritten")
        original = transaction.plain or b"".join([piece async for piece in transaction.body()])
        converted = await asyncio.to_thread(_rewritten, original)
        return replace(transaction, body=lambda: once(converted), plain=converted, size=len(converted), eight_bit=False)

    # -- 7: durable ---------------------------------------------------------------------------------------------------

    async def _record(self, claim: Claim, progress: Sequence[Progress]) -> None:
        notices = []
        for action in Action:
            said = [entry.notice[1] for entry in progress if entry.notice is not None and entry.notice[0] is action]
            notice = await self._notice(claim, action, said)
            if notice is not None:
                notices.append(notice)
        outcomes = [entry.outcome for entry in progress if entry.outcome is not None]
        await self.queue.record(claim, outcomes, notices)
        for outcome in outcomes:
            self._log.info(
                "attempt",
                message=claim.message.id,
                recipient=outcome.n,
                domain=claim.domain,
                outcome=str(outcome.event),
                method=outcome.method,
                error=outcome.error or None,
                host=outcome.attempts[-1].host if outcome.attempts else None,
            )

    async def _notice(self, claim: Claim, action: Action, entries: list[NoticeEntry]) -> NewMessage | None:
        if not claim.can_tell or not any(is_wanted(entry.recipient, action) for entry in entries):
            return None
        return await make_notice(
            self.queue.store,
            self.settings(),
            self.clock,
            claim.message,
            action,
            entries,
            retry_until=claim.recipients[0].expires if action is Action.DELAYED else None,
            header=None if claim.plain is None else split_message(claim.plain)[0],
        )


@dataclass(slots=True)
class _Flight:
    """Marks the message as being on a connection, once, from directly before MAIL FROM until its outcome stands."""

    queue: Queue
    message: str
    flying: bool = False

    def take_off(self) -> None:
        """Called before MAIL FROM. Raises :class:`LeaseLost` where the claim may belong to somebody else by now."""
        if not self.queue.holds_lease():
            raise LeaseLost(f"the lease on {self.message} was not renewed in time")
        if not self.flying:
            self.queue.flights.take_off(self.message)
            self.flying = True

    def land(self) -> None:
        """The outcome is durable, or the claim is lost."""
        if self.flying:
            self.queue.flights.land(self.message)
            self.flying = False


def _rewritten(original: bytes) -> bytes:
    """7-bit, and without the signatures that this breaks: a wrong one is worse than none (RFC 6376 section 5.3)."""
    converted = to_seven_bit(original)
    try:
        return without_broken_signatures(original, converted)
    except HeaderError as error:
        raise CannotConvert(str(error)) from error
