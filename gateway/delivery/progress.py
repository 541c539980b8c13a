"""One recipient on its way through an attempt: what was tried, what is known against each method, how it ends.

Everything here is a function of values: the time, the chance for jitter and the schedule are given. ``deliver``
drives it; ``verdict`` says what failures mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gateway.delivery.carried import Carried, HostFailure
from gateway.delivery.transaction import RecipientResult
from gateway.delivery.verdict import cannot, status_of, summed_up
from gateway.mail.attempt import Attempt, Failure, Stage, Verdict
from gateway.mail.dsn import Action
from gateway.mail.edits import Change
from gateway.mail.protection import Capability, Decision, Disposition, Method, Requirement
from gateway.protect.choose import choose, unavailable
from gateway.queue.notices import NoticeEntry
from gateway.queue.records import ClaimedRecipient, Outcome
from gateway.queue.retry import RetrySchedule
from gateway.queue.states import StateEvent
from gateway.store.writer import Transaction

__all__ = ["Circumstances", "Progress"]


#: Nothing that is allowed would protect it (RFC 5248 registry: "encryption needed").
_NO_PROTECTION = "5.7.10"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an ending depends on beside the failure. Times in seconds since the epoch; ``chance`` in [0, 1).

    ``ageless``: the clock is in doubt, so that nothing ends, and nobody is told, for its age.
    """

    now: float
    received: float
    chance: float
    schedule: RetrySchedule
    ageless: bool = False


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A failure of one method for one recipient, with who said so."""

    method: Method
    failure: Failure
    host: str = ""
    status: str = ""
    unknown: bool = False

    @property
    def remote(self) -> str:
        """The host, where it was the host that spoke."""
        return self.host if self.failure.reply is not None else ""

    @property
    def diagnostic(self) -> str:
        """The peer's words, else ours."""
        reply = self.failure.reply
        return self.failure.reason if reply is None else str(reply)


@dataclass(slots=True)
class Progress:
    """The state of one recipient during an attempt; ``outcome`` is set once it is decided.

    ``changed``: the requirement is not the one that the row holds. ``notice``: what the sender may be told.
    ``changes``: what was changed in the message for it; None where it did not come to that.
    ``causes``: for each method that failed for good, the status where the form of the message was the reason, else "".
    """

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
    changes: tuple[Change, ...] | None = None
    causes: dict[Method, str] = field(default_factory=dict)

    # -- deciding -----------------------------------------------------------------------------------------------------

    def stop_where_not_to_send(self, now: float, longest_hold: float) -> None:
        """End here what is rejected or held by now."""
        requirement = self.requirement
        if requirement.disposition is Disposition.REJECT:
            text = requirement.reason or "not allowed by policy"
            self._end(StateEvent.REJECT, error=text)
            self._tell(Action.FAILED, "5.7.1", text)
        elif requirement.disposition is Disposition.HOLD:
            until = now + (requirement.hold_expires or longest_hold)
            self._end(StateEvent.HOLD, hold_reason=requirement.reason, hold_until=until)

    def choose(self) -> Method | None:
        """The best method that nothing speaks against; where none is left the recipient has failed."""
        self.decision = choose(self.requirement, self.known)
        if self.decision.method is None:
            self._no_method(self.decision)
        return self.decision.method

    def _no_method(self, decision: Decision) -> None:
        reasons = "; ".join(f"{passed.method}: {passed.reason}" for passed in decision.passed_over)
        status = self._cause()
        if status == _NO_PROTECTION:
            text = f"no protection that policy allows is possible for this recipient ({reasons or 'none is allowed'})"
            words = (
                "Your organisation's policy requires this message to be protected, and no allowed way of protecting it "
                "works for this recipient. Nothing of it was sent."
            )
        else:
            text = f"the recipient's mail system cannot take this message as it is ({reasons})"
            words = (
                "The recipient's mail system cannot take a message of this kind, and it cannot be changed into one "
                "that it takes. Nothing of it was sent."
            )
        self._end(StateEvent.FAIL, error=f"{status} {text}")
        self._tell(Action.FAILED, status, words, reasons)

    def _cause(self) -> str:
        """No protection, unless every method that was tried failed over the message's form."""
        causes = set(self.causes.values())
        return causes.pop() if len(causes) == 1 and "" not in causes else _NO_PROTECTION

    def note(self, last: Sequence[Change]) -> None:
        """The last changes to the message, in the place of those of a method that was tried before."""
        actions = {change.action for change in last}
        if last:
            self.changes = (*(c for c in self.changes or () if c.action not in actions), *last)

    # -- what a site said ---------------------------------------------------------------------------------------------

    def carried(self, method: Method, carried: Carried, result: RecipientResult, around: Circumstances) -> None:
        """A transaction took place, and this came of it for us."""
        self._note(carried.before, around.now)
        failure = result.failure
        # Who was refused before the dot was not in the transaction that may have been taken.
        unknown = carried.result.unknown and failure is not None and failure.stage is Stage.DOT
        self.attempts.append(
            Attempt(
                time=around.now,
                host=carried.host,
                address=carried.address,
                tls=carried.evidence,
                reply=result.reply,
                outcome="delivered" if failure is None else failure.reason,
                stage=None if failure is None else failure.stage,
                unknown=unknown,
            )
        )
        if failure is None:
            self._delivered(method, carried)
            return
        earlier = {failed.failure.verdict for failed in carried.before}
        if failure.verdict is Verdict.TEMPORARY and earlier & {Verdict.DEFINITE, Verdict.ASSURANCE}:
            failure = Failure(failure.stage, Verdict.ASSURANCE, failure.reason, failure.reply)
        self._failed(_Trouble(method, failure, carried.host, result.status, unknown), around)

    def not_carried(
        self, method: Method, failures: Sequence[HostFailure], around: Circumstances, status: str = ""
    ) -> None:
        """No session was good enough at any host; all failures together say what it means."""
        self._note(failures, around.now)
        failure, host = summed_up(failures)
        self._failed(_Trouble(method, failure, host, status), around)

    def deposited(self, also: Callable[[Transaction], None]) -> None:
        """It lies in the portal from the transaction on that writes this; ``also`` is the portal's part of it."""
        self._end(StateEvent.DEPOSIT, method=Method.PORTAL, also=also)

    def corrupt(self, error: str) -> None:
        """What is stored is not what was accepted: nothing of it may leave; a person must look."""
        self._end(StateEvent.HOLD, error=error, hold_reason="corrupt", hold_until=self.recipient.expires)

    def _note(self, failures: Sequence[HostFailure], now: float) -> None:
        for failed in failures:
            failure = failed.failure
            self.attempts.append(
                Attempt(now, failed.host, failed.address, failed.evidence, failure.reply, failure.reason, failure.stage)
            )

    def _delivered(self, method: Method, carried: Carried) -> None:
        self._end(StateEvent.DELIVERED, method=method)
        if not carried.result.dsn:  # RFC 3461 section 5.2.2: we say "relayed" for a peer that will not report
            words = f"It was accepted by {carried.host}, which does not report delivery."
            self._tell(Action.RELAYED, "2.0.0", words, str(carried.result.reply or ""), carried.host)

    # -- what a failure means -----------------------------------------------------------------------------------------

    def _failed(self, trouble: _Trouble, around: Circumstances) -> None:
        failure = trouble.failure
        if failure.verdict is Verdict.FINAL:
            self._bounce(trouble)
        elif failure.verdict is Verdict.DEFINITE:
            self.known[trouble.method] = cannot(trouble.method, failure)
            self.causes[trouble.method] = trouble.status if trouble.status.startswith("5.6.") else ""
        elif failure.verdict is Verdict.ASSURANCE and self._fallback_is_due(around.now):
            self.known[trouble.method] = cannot(trouble.method, failure)
            self.causes[trouble.method] = ""
        else:
            self._defer(trouble, around)

    def _fallback_is_due(self, now: float) -> bool:
        """Start the fallback clock where it does not run yet; whether its time is over. It never resets."""
        if self.unsure_since is None:
            self.unsure_since = now
        # The same sum as in _defer: what was put off to that very moment must find it come.
        return now >= self.unsure_since + self.requirement.fallback_after

    def _bounce(self, trouble: _Trouble) -> None:
        failure = trouble.failure
        self._end(StateEvent.FAIL, error=str(failure), method=trouble.method)
        words = "The recipient's mail system refused it for good." if failure.reply else failure.reason
        status = status_of(failure, permanent=True, status=trouble.status)
        self._tell(Action.FAILED, status, words, trouble.diagnostic, trouble.remote)

    def _defer(self, trouble: _Trouble, around: Circumstances) -> None:
        recipient, failure = self.recipient, trouble.failure
        if around.now >= recipient.expires and not around.ageless:
            self._end(StateEvent.EXPIRE, error=str(failure), method=trouble.method, possible_duplicate=trouble.unknown)
            words = "It could not be delivered in the time that is allowed for it."
            self._tell(Action.FAILED, "5.4.7", words, trouble.diagnostic, trouble.remote)
            return
        fallback_at = None if self.unsure_since is None else self.unsure_since + self.requirement.fallback_after
        expires = math.inf if around.ageless else recipient.expires
        when = around.schedule.next_attempt(
            around.now, recipient.attempts, around.chance, expires=expires, fallback_at=fallback_at
        )
        age = around.now - around.received
        late = not (recipient.delay_notified or around.ageless) and age >= around.schedule.delay_notice
        self._end(
            StateEvent.DEFER,
            error=str(failure),
            method=trouble.method,
            next_attempt=when,
            delay_notified=True if late else None,
            possible_duplicate=trouble.unknown,
        )
        if late:
            words = "It is still waiting, and will be tried again."
            status = status_of(failure, permanent=False)
            self._tell(Action.DELAYED, status, words, trouble.diagnostic, trouble.remote)

    # -- the ending ---------------------------------------------------------------------------------------------------

    def _tell(self, action: Action, status: str, words: str, diagnostic: str = "", remote: str = "") -> None:
        self.notice = (action, NoticeEntry(self.recipient.recipient, status, words, diagnostic, remote))

    def _end(
        self,
        event: StateEvent,
        *,
        error: str = "",
        method: Method | None = None,
        next_attempt: float | None = None,
        delay_notified: bool | None = None,
        hold_reason: str = "",
        hold_until: float | None = None,
        possible_duplicate: bool = False,
        also: Callable[[Transaction], None] | None = None,
    ) -> None:
        address = str(self.recipient.recipient.address)
        decision = self.decision or Decision(self.requirement, None)
        if self.changes is not None:
            decision = replace(decision, changes=self.changes)
        evidence = next((attempt.tls for attempt in reversed(self.attempts) if attempt.tls is not None), None)
        self.outcome = Outcome(
            n=self.recipient.n,
            event=event,
            error=error,
            method=None if method is None else str(method),
            decision=decision.as_json(address, None if evidence is None else evidence.as_json()),
            attempts=tuple(self.attempts),
            next_attempt=next_attempt,
            unsure_since=self.unsure_since,
            delay_notified=delay_notified,
            requirement=self.requirement if self.changed else None,
            hold_reason=hold_reason,
            hold_until=hold_until,
            possible_duplicate=possible_duplicate,
            also=also,
        )
