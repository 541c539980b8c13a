"""One claim, from decision to outcome.

1. a changed policy decides anew; the result joins what was decided before and can only be stricter
2. what is held or rejected by now is not sent
3. the best method that nothing speaks against; none left: bounce ``5.7.10`` with each method's reason
4. where this method goes to, and what a session there must show
5. the transaction, over a connection that a worker of that site owns
6. what it means: delivered, refused for good, the next method, or another time (``verdict``)
7. outcomes, evidence and notices in one transaction

Steps 3 to 6 repeat while a method failed definitely and another is left.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from gateway.clock import Clock
from gateway.config.model import Settings
from gateway.config.outbound import Route
from gateway.delivery.nexthop import Unreachable, find_next_hop
from gateway.delivery.sites import Carried, Failed, HostFailure, Sites
from gateway.delivery.trace_fields import trace_fields
from gateway.delivery.transaction import RecipientResult, Transaction
from gateway.delivery.verdict import combined, status_of
from gateway.directory.resolver import Resolver
from gateway.errors import GuardViolation, StoreCorrupt
from gateway.mail.attempt import Attempt, Failure, Stage, Verdict
from gateway.mail.dsn import Action
from gateway.mail.headers import decode_text, fields, split_message
from gateway.mail.protection import Assurance, Capability, Decision, Disposition, Method, Requirement
from gateway.mail.reply import Reply
from gateway.policy import MessageFacts, Policy, evaluate
from gateway.protect.choose import choose, unavailable
from gateway.protect.sevenbit import CannotConvert, to_seven_bit
from gateway.queue.notices import NoticeEntry, is_wanted, make_notice
from gateway.queue.outcomes import LeaseLost
from gateway.queue.queue import Queue, schedule_of
from gateway.queue.records import Claim, ClaimedRecipient, NewMessage, Outcome
from gateway.queue.states import StateEvent

__all__ = ["Deliverer", "DeliveryObserver"]

_log = structlog.get_logger()

#: Largest body that is rewritten for a peer without 8BITMIME.
_MAX_CONVERTED = 25_000_000


class DeliveryObserver:
    """Hears what happened, for metrics; this one listens to nothing. Label values are from closed sets."""

    def passed_over(self, method: Method, reason: str) -> None:
        """A method was passed over."""

    def fallback(self, before: Method, after: Method, reason: str) -> None:
        """Another method was tried instead."""

    def finished(self, method: Method, outcome: str, seconds: float) -> None:
        """A recipient's attempt ended."""

    def alarm(self, kind: str) -> None:
        """Something needs a person."""


@dataclass(slots=True)
class _Progress:
    """What is known about one recipient while its claim is worked on."""

    recipient: ClaimedRecipient
    requirement: Requirement
    changed: bool
    known: dict[Method, Capability] = field(default_factory=unavailable)
    attempts: list[Attempt] = field(default_factory=list)
    unsure_since: float | None = None
    decision: Decision | None = None
    outcome: Outcome | None = None
    notice: tuple[Action, NoticeEntry] | None = None
    tried: Method | None = None


@dataclass(slots=True)
class Deliverer:
    """Delivers claims. Seams are given as functions, so that a reload of the settings takes effect at the next use."""

    queue: Queue
    sites: Sites
    resolver: Resolver
    settings: Callable[[], Settings]
    policy: Callable[[], Policy]
    clock: Clock
    chance: random.Random
    loop_key: bytes
    observer: DeliveryObserver = field(default_factory=DeliveryObserver)

    async def deliver(self, claim: Claim) -> None:
        """Carry the claim to its outcome. Raises only :class:`LeaseLost` and :class:`StoreError`."""
        started = self.clock.monotonic()
        flight = _Flight(self.queue, claim.message.id)
        progress = [await self._begin(claim, recipient) for recipient in claim.recipients]
        try:
            while pending := [entry for entry in progress if entry.outcome is None]:
                await self._step(claim, pending, flight)
            await self._record(claim, progress)
        except Exception:
            flight.land()
            raise
        flight.land()  # not when we are being ended: what is in the air then may have arrived (see Scheduler)
        seconds = self.clock.monotonic() - started
        for entry in progress:
            assert entry.outcome is not None
            self.observer.finished(entry.tried or Method.TLS, str(entry.outcome.event), seconds)

    # -- 1 and 2: is the decision still right? ------------------------------------------------------------------------

    async def _begin(self, claim: Claim, recipient: ClaimedRecipient) -> _Progress:
        requirement = recipient.requirement
        policy = self.policy()
        changed = False
        if not claim.system and not claim.observed and requirement.digest != policy.digest:
            requirement = requirement.join(await self._evaluate(claim, recipient, policy))
            changed = True
        entry = _Progress(recipient, requirement, changed, unsure_since=recipient.unsure_since)
        if requirement.disposition is Disposition.REJECT:
            text = requirement.reason or "not allowed by policy"
            entry.outcome = self._outcome(entry, StateEvent.REJECT, error=text)
            entry.notice = (Action.FAILED, NoticeEntry(recipient.recipient, "5.7.1", text))
        elif requirement.disposition is Disposition.HOLD:
            until = self.clock.time() + (requirement.hold_expires or schedule_of(self.settings()).expire)
            entry.outcome = self._outcome(
                entry, StateEvent.HOLD, error="", hold_reason=requirement.reason, hold_until=until
            )
        return entry

    async def _evaluate(self, claim: Claim, recipient: ClaimedRecipient, policy: Policy) -> Requirement:
        """The requirement by the policy of now. The subject is read out of the sealed body."""
        subject: str | None = ""
        try:
            block = await self._header(claim)
            found = [header for header in fields(block) if header.name == "subject"]
            if len(found) == 1:
                subject = decode_text(found[0].value)
            elif found:
                subject = None
        except (ValueError, StoreCorrupt):
            subject = None
        facts = MessageFacts(
            sender=claim.message.envelope.sender,
            recipient=recipient.recipient.address,
            subject=subject,
            approvals=recipient.approvals,
        )
        return evaluate(policy, facts)

    async def _header(self, claim: Claim) -> bytes:
        limit = self.settings().limits.header_size
        data = b""
        async for piece in self._body(claim):
            data += piece
            block, rest = split_message(data)
            if rest or len(data) > limit:
                return block
        return split_message(data)[0]

    # -- 3 to 6: one method, for those that it is the best for -------------------------------------------------------

    async def _step(self, claim: Claim, pending: list[_Progress], flight: _Flight) -> None:
        """Decide for everyone who has no outcome; try the method of the first, for all who share it."""
        ready: list[_Progress] = []
        for entry in pending:
            entry.decision = choose(entry.requirement, entry.known)
            if entry.decision.method is None:
                self._no_method(entry, entry.decision)
            else:
                ready.append(entry)
        if not ready:
            return
        method = ready[0].decision.method if ready[0].decision else None
        assert method is not None
        group = [entry for entry in ready if entry.decision is not None and entry.decision.method is method]
        required = Assurance.NONE if method is Method.PLAIN else max(entry.requirement.tls for entry in group)
        for entry in group:
            self._note_method(entry, method)
        hop = await find_next_hop(
            self.resolver,
            self.settings(),
            group[0].recipient.recipient.address,
            method,
            required,
            return_route=self._return_route(claim),
            chance=self.chance,
        )
        if isinstance(hop, Unreachable):
            self._all_failed(claim, group, method, (HostFailure(hop.host, "", hop.failure),), hop.status)
            return
        transaction = self._transaction(claim, group, required, flight)
        try:
            carried = await self.sites.carry(hop, transaction, self._seven_bit)
        except CannotConvert as error:
            failure = Failure(Stage.MAIL, Verdict.DEFINITE, f"the peer lacks 8BITMIME and {error}")
            self._all_failed(claim, group, method, (HostFailure(hop.hops[0].host, "", failure),), "5.6.3")
        except StoreCorrupt as error:
            self._corrupt(claim, group, error)
        except GuardViolation as error:
            _log.critical("guard_violation", message=claim.message.id, error=str(error))
            self.observer.alarm("guard_violation")
            failure = Failure(Stage.MAIL, Verdict.TEMPORARY, "stopped by the guard before any of it was sent")
            self._all_failed(claim, group, method, (HostFailure("", "", failure),))
        else:
            if isinstance(carried, Failed):
                self._all_failed(claim, group, method, carried.failures)
            else:
                self._carried(claim, group, method, carried)

    def _note_method(self, entry: _Progress, method: Method) -> None:
        if entry.tried is not None and entry.tried is not method:
            self.observer.fallback(entry.tried, method, entry.known[entry.tried].reason)
        entry.tried = method

    def _return_route(self, claim: Claim) -> Route | None:
        """Mail of our own goes back the way that its connector names."""
        if not claim.system:
            return None
        name = claim.message.envelope.connector
        return next((known.return_route for known in self.settings().connectors if known.name == name), None)

    def _transaction(
        self, claim: Claim, group: Sequence[_Progress], required: Assurance, flight: _Flight
    ) -> Transaction:
        envelope = claim.message.envelope
        addresses = [entry.recipient.recipient.address for entry in group]
        return Transaction(
            message_id=claim.message.id,
            sender=envelope.sender,
            recipients=tuple(entry.recipient.recipient for entry in group),
            body=lambda: self._body(claim),
            size=claim.message.size,
            required=required,
            prefix=trace_fields(claim.message, self.settings().hostname, self.loop_key, addresses),
            eight_bit=claim.eight_bit,
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
            permit=flight.take_off,
        )

    def _body(self, claim: Claim) -> AsyncIterator[bytes]:
        if claim.plain is not None:
            return _once(claim.plain)
        return self.queue.store.body(claim.message.id)

    async def _seven_bit(self, transaction: Transaction) -> Transaction:
        """The same transaction for a peer without 8BITMIME. Raises :class:`CannotConvert`."""
        if transaction.size > _MAX_CONVERTED:
            raise CannotConvert("the message is too large to be rewritten")
        data = b"".join([piece async for piece in transaction.body()])
        converted = to_seven_bit(data)
        return replace(transaction, body=lambda: _once(converted), size=len(converted), eight_bit=False)

    # -- 6: what it means ----------------------------------------------------------------------------------------------

    def _carried(self, claim: Claim, group: Sequence[_Progress], method: Method, carried: Carried) -> None:
        for entry, result in zip(group, carried.result.recipients, strict=True):
            self._note_failures(entry, carried.before)
            entry.attempts.append(self._attempt(carried, result))
            if result.failure is None:
                self._delivered(entry, method, carried)
            else:
                before = [failure.failure for failure in carried.before]
                self._failed(
                    claim, entry, method, result.failure, before, carried.host, result.status, carried.result.unknown
                )

    def _attempt(self, carried: Carried, result: RecipientResult) -> Attempt:
        failure = result.failure
        return Attempt(
            time=self.clock.time(),
            host=carried.host,
            address=carried.address,
            tls=carried.evidence,
            reply=result.reply,
            outcome="delivered" if failure is None else str(failure.reason),
            stage=None if failure is None else failure.stage,
            unknown=carried.result.unknown and failure is not None,
        )

    def _note_failures(self, entry: _Progress, failures: Sequence[HostFailure]) -> None:
        now = self.clock.time()
        for failed in failures:
            entry.attempts.append(
                Attempt(
                    now,
                    failed.host,
                    failed.address,
                    failed.evidence,
                    failed.failure.reply,
                    failed.failure.reason,
                    failed.failure.stage,
                )
            )

    def _delivered(self, entry: _Progress, method: Method, carried: Carried) -> None:
        entry.outcome = self._outcome(entry, StateEvent.DELIVERED, method=method)
        if not carried.result.dsn:
            words = f"It was accepted by {carried.host}, which does not report delivery."
            entry.notice = (
                Action.RELAYED,
                NoticeEntry(entry.recipient.recipient, "2.0.0", words, str(carried.result.reply or ""), carried.host),
            )

    def _all_failed(
        self,
        claim: Claim,
        group: Sequence[_Progress],
        method: Method,
        failures: Sequence[HostFailure],
        status: str = "",
    ) -> None:
        """No transaction took place: the hosts' failures together say what it means."""
        causes = [failed.failure for failed in failures]
        verdict = combined(causes)
        worst = next((cause for cause in reversed(causes) if cause.verdict is verdict), causes[-1])
        summary = worst if len({str(cause) for cause in causes}) == 1 else _summed_up(causes, verdict, worst)
        host = next((failed.host for failed in reversed(failures) if failed.failure is worst), "")
        for entry in group:
            self._note_failures(entry, failures)
            self._failed(claim, entry, method, summary, [], host, status, False)

    def _failed(
        self,
        claim: Claim,
        entry: _Progress,
        method: Method,
        failure: Failure,
        before: Sequence[Failure],
        host: str,
        status: str,
        unknown: bool,
    ) -> None:
        now = self.clock.time()
        verdict = failure.verdict
        if verdict is Verdict.TEMPORARY and any(
            earlier.verdict in (Verdict.DEFINITE, Verdict.ASSURANCE) for earlier in before
        ):
            verdict = Verdict.ASSURANCE
        if verdict is Verdict.FINAL:
            self._bounce(entry, method, failure, host, status_of(failure, permanent=True, status=status))
        elif verdict is Verdict.DEFINITE:
            self._cannot(entry, method, str(failure), definite=True)
        elif verdict is Verdict.ASSURANCE:
            entry.unsure_since = entry.unsure_since or now
            if now - entry.unsure_since >= entry.requirement.fallback_after:
                self._cannot(entry, method, f"{failure} (for longer than fallback_after)", definite=False)
            else:
                self._defer(claim, entry, method, failure, host, unknown=unknown)
        else:
            self._defer(claim, entry, method, failure, host, unknown=unknown)

    def _cannot(self, entry: _Progress, method: Method, reason: str, *, definite: bool) -> None:
        entry.known[method] = Capability(method, possible=False, reason=reason, definite=definite)
        self.observer.passed_over(method, "definite" if definite else "fallback_after")

    def _no_method(self, entry: _Progress, decision: Decision) -> None:
        reasons = "; ".join(f"{passed.method}: {passed.reason}" for passed in decision.passed_over)
        text = f"no protection that policy allows is possible for this recipient ({reasons or 'none is allowed'})"
        entry.outcome = self._outcome(entry, StateEvent.FAIL, error=f"5.7.10 {text}")
        words = (
            "Your organisation's policy requires this message to be protected, and no allowed way of protecting it "
            "works for this recipient. Nothing of it was sent."
        )
        entry.notice = (Action.FAILED, NoticeEntry(entry.recipient.recipient, "5.7.10", words, reasons))

    def _bounce(self, entry: _Progress, method: Method, failure: Failure, host: str, status: str) -> None:
        entry.outcome = self._outcome(entry, StateEvent.FAIL, error=str(failure), method=method)
        words = "The recipient's mail system refused it for good." if failure.reply else failure.reason
        diagnostic = _diagnostic(failure)
        entry.notice = (
            Action.FAILED,
            NoticeEntry(entry.recipient.recipient, status, words, diagnostic, host if failure.reply else ""),
        )

    def _defer(
        self, claim: Claim, entry: _Progress, method: Method, failure: Failure, host: str, *, unknown: bool
    ) -> None:
        now = self.clock.time()
        schedule = schedule_of(self.settings())
        recipient = entry.recipient
        remote = host if failure.reply else ""
        if now >= recipient.expires:
            entry.outcome = self._outcome(
                entry, StateEvent.EXPIRE, error=str(failure), method=method, possible_duplicate=unknown
            )
            words = "It could not be delivered in the time that is allowed for it."
            entry.notice = (
                Action.FAILED,
                NoticeEntry(recipient.recipient, "5.4.7", words, _diagnostic(failure), remote),
            )
            return
        fallback_at = None if entry.unsure_since is None else entry.unsure_since + entry.requirement.fallback_after
        when = schedule.next_attempt(
            now, recipient.attempts, self.chance.random(), expires=recipient.expires, fallback_at=fallback_at
        )
        late = not recipient.delay_notified and now - claim.message.received >= schedule.delay_notice
        entry.outcome = self._outcome(
            entry,
            StateEvent.DEFER,
            error=str(failure),
            method=method,
            next_attempt=when,
            delay_notified=True if late else None,
            possible_duplicate=unknown,
        )
        if late:
            status = status_of(failure, permanent=False)
            words = "It is still waiting, and will be tried again."
            entry.notice = (
                Action.DELAYED,
                NoticeEntry(recipient.recipient, status, words, _diagnostic(failure), remote),
            )

    def _corrupt(self, claim: Claim, group: Sequence[_Progress], error: StoreCorrupt) -> None:
        """What is stored is not what was accepted: nothing of it may leave; a person must look."""
        _log.critical("body_corrupt", message=claim.message.id, error=str(error))
        self.observer.alarm("body_corrupt")
        for entry in group:
            entry.outcome = self._outcome(
                entry, StateEvent.HOLD, error=str(error), hold_reason="corrupt", hold_until=entry.recipient.expires
            )

    def _outcome(
        self,
        entry: _Progress,
        event: StateEvent,
        *,
        error: str = "",
        method: Method | None = None,
        next_attempt: float | None = None,
        delay_notified: bool | None = None,
        hold_reason: str = "",
        hold_until: float | None = None,
        possible_duplicate: bool = False,
    ) -> Outcome:
        address = str(entry.recipient.recipient.address)
        decision = entry.decision or Decision(entry.requirement, None)
        evidence = next((attempt.tls for attempt in reversed(entry.attempts) if attempt.tls is not None), None)
        return Outcome(
            n=entry.recipient.n,
            event=event,
            error=error,
            method=None if method is None else str(method),
            decision=decision.as_json(address, None if evidence is None else evidence.as_json()),
            attempts=tuple(entry.attempts),
            next_attempt=next_attempt,
            unsure_since=entry.unsure_since,
            delay_notified=delay_notified,
            requirement=entry.requirement if entry.changed else None,
            hold_reason=hold_reason,
            hold_until=hold_until,
            possible_duplicate=possible_duplicate,
        )

    # -- 7: durable ----------------------------------------------------------------------------------------------------

    async def _record(self, claim: Claim, progress: Sequence[_Progress]) -> None:
        notices = [
            notice
            for action in Action
            if (
                notice := await self._notice(
                    claim, action, [e.notice[1] for e in progress if e.notice and e.notice[0] is action]
                )
            )
        ]
        outcomes = [entry.outcome for entry in progress if entry.outcome is not None]
        await self.queue.record(claim, outcomes, notices)
        for outcome in outcomes:
            _log.info(
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
        settings = self.settings()
        retry_until = claim.recipients[0].expires if action is Action.DELAYED else None
        header = None if claim.plain is None else split_message(claim.plain)[0]
        return await make_notice(
            self.queue.store,
            settings,
            self.clock,
            claim.message,
            action,
            entries,
            retry_until=retry_until,
            header=header,
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


def _summed_up(causes: Sequence[Failure], verdict: Verdict, worst: Failure) -> Failure:
    """Several hosts, several reasons: all of them in one text."""
    text = "; ".join(dict.fromkeys(str(cause) for cause in causes))
    return Failure(worst.stage, verdict, text, None if worst.reply is None else worst.reply)


def _diagnostic(failure: Failure) -> str:
    reply: Reply | None = failure.reply
    return failure.reason if reply is None else str(reply)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
