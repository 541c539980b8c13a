"""From a received message to a durable one: judge, decide the state of each recipient, write, start delivery.

1. addresses of our own domain end here; postmaster@hostname goes to the configured postmaster
2. policy is evaluated for each recipient; a connector in stage ``observe`` only records what it would have said
3. rejected by all: refused (``soft``: 451); rejected by some: their part is reported to the sender
4. the body is finished - synced where it is a file - and the accept transaction makes everything durable
5. what is claimed with it goes straight to delivery
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from gateway.clock import Clock
from gateway.config.inbound import Connector, Stage
from gateway.config.model import Settings
from gateway.errors import Refusal, StoreAway, StoreError, StoreFailed
from gateway.ingress.seams import Submission
from gateway.mail.address import Address
from gateway.mail.bounce import LIMIT as BOUNCE_LIMIT
from gateway.mail.dsn import Action
from gateway.mail.envelope import Message, Notify, Recipient
from gateway.mail.ids import uuid7
from gateway.mail.protection import Assurance, Disposition, Method, Requirement, RuleMatch
from gateway.policy import ContentFacts, HeaderView, MessageFacts, Policy, evaluate, evaluate_envelope, protect_of
from gateway.policy.kinds import UNTOLD
from gateway.portal.aftermath import Aftermath
from gateway.queue.accept import AlreadyAccepted
from gateway.queue.notices import NoticeEntry, make_notice
from gateway.queue.queue import Queue, schedule_of
from gateway.queue.records import Claim, Idempotency, NewMessage, NewRecipient, silent_kinds
from gateway.queue.states import State
from gateway.queue.turns import origin_of
from gateway.scanning import ScanBusy, Scanners
from gateway.store.bodies import SealedBody, Spool, open_sealed
from gateway.store.writer import Transaction

__all__ = ["Dispatch", "IntakeObserver", "QueueIntake"]

_log = structlog.get_logger()


class Dispatch(Protocol):
    """Where claims that an accept made go to."""

    def has_room(self, origin: int, domains: Iterable[str], size: int) -> bool:
        """Whether a message may begin as claimed; ``origin`` is who takes turns with it."""
        ...

    def start(self, claims: Iterable[Claim]) -> None:
        """Deliver these claims."""
        ...


class IntakeObserver:
    """Hears what was decided, for metrics; this one listens to nothing."""

    def evaluated(self, seconds: float, rules: Iterable[str]) -> None:
        """A message was judged; the rules that matched, each once."""

    def alarm(self, kind: str) -> None:
        """Something needs a person."""


@dataclass(slots=True)
class QueueIntake:
    """The intake over a queue and a policy; see the seam ``gateway.ingress.seams.Intake``."""

    queue: Queue
    settings: Callable[[], Settings]
    policy: Callable[[], Policy]
    dispatch: Dispatch
    clock: Clock
    observer: IntakeObserver
    scanners: Scanners
    stopping: bool = False
    _aftermath: Aftermath = field(init=False)

    def __post_init__(self) -> None:
        self._aftermath = Aftermath.over(self.queue.store, self.settings)

    def ready(self) -> Refusal | None:
        """Stopping, no room, a store that failed or is away; None while mail can be taken."""
        store = self.queue.store
        if self.stopping:
            return Refusal(421, "4.3.2", "The service is stopping, please try again later", reason="stopping")
        if store.writer.failed:
            return Refusal(451, "4.3.0", StoreError.public, reason="store_failed", detail=store.writer.failed)
        if store.writer.away:
            return Refusal(451, "4.3.0", StoreError.public, reason="store_away", detail=store.writer.away)
        if store.space.problem:
            return Refusal(
                452,
                "4.3.1",
                "Insufficient system storage, please try again later",
                reason="no_space",
                detail=store.space.problem,
            )
        return None

    def new_id(self) -> str:
        """A fresh message id."""
        return uuid7(self.clock.time(), os.urandom(10))

    async def open_spool(self, message_id: str) -> Spool:
        """A sealed spool in the store."""
        self.queue.store.space.require()
        return self.queue.store.spool(message_id)

    def check_recipient(
        self, connectors: Sequence[Connector], sender: Address | None, recipient: Address
    ) -> Refusal | None:
        """Unknown addresses of our own domain, and reject rules that need only the envelope.

        A rule only refuses here where every connector that the message may turn out to come by would apply it.
        """
        local = self.settings().local
        if local.domain is not None and recipient.domain == local.domain and not self._is_notice_address(recipient):
            return Refusal(550, "5.1.1", "There is no such address here", reason="unknown_local")
        if not connectors or any(connector.stage is Stage.OBSERVE for connector in connectors):
            return None
        text = evaluate_envelope(self.policy(), sender, recipient)
        if text is None:
            return None
        if any(connector.stage is Stage.SOFT for connector in connectors):
            return self._soft(text)
        return Refusal(550, "5.7.1", text, reason="policy")

    async def accept(self, submission: Submission) -> str:
        """Judge and keep. Raises :class:`Refusal` and :class:`StoreError`; then nothing was kept."""
        spool = submission.spool
        assert isinstance(spool, Spool)
        recipients = await self._judge(submission, spool)
        self._refuse_where_due(submission, recipients)
        body = await spool.finish()
        self.queue.store.space.require()
        new = self._new_message(submission, recipients, body=body)
        notices = await self._reject_notices(new, submission.header_block)
        deliverable = [r.recipient.address.domain for r in recipients if r.state is State.QUEUED]
        size = body.size if body.plain is not None else 0
        claim = bool(deliverable) and self.dispatch.has_room(origin_of(new.message.envelope), deliverable, size)
        try:
            claims = await self.queue.accept(
                new,
                also=notices,
                claim=claim,
                header=submission.header_block,
                then=await self._follow_up(submission, body),
            )
        except AlreadyAccepted as repeated:
            await spool.abort()
            return repeated.message
        except (StoreAway, StoreFailed):
            spool.disown()  # whether its row is there is not known: the file must stay
            raise
        spool.disown()
        self.dispatch.start(claims)
        return new.message.id

    async def _follow_up(self, submission: Submission, body: SealedBody) -> Callable[[Transaction], None] | None:
        """What came back to the address of a notice, from the null sender: what it means is written as it is kept."""
        if submission.message.envelope.sender is not None:
            return None
        name = f"{self.settings().local.notices.casefold()}+"
        for recipient in submission.message.envelope.recipients:
            address = recipient.address
            if self._is_local(address) and address.local.casefold().startswith(name):
                return await self._aftermath.received(
                    address.local.casefold().removeprefix(name), await self._start(body)
                )
        return None

    async def _start(self, body: SealedBody) -> bytes:
        """As much of a message as says what came back."""
        data = bytearray()
        async with aclosing(self._reopened(body)) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) >= BOUNCE_LIMIT:
                    break
        return bytes(data)

    # -- judging ------------------------------------------------------------------------------------------------------

    async def _judge(self, submission: Submission, spool: Spool) -> list[NewRecipient]:
        started = self.clock.monotonic()
        policy = self.policy()
        common = await self._facts(submission, spool, policy)
        judged = [
            self._judge_one(submission, recipient, common, policy)
            for recipient in submission.message.envelope.recipients
        ]
        judged += self._copies(submission, judged, common, policy)
        matched = {match.name for entry in judged for match in entry.requirement.rules}
        self.observer.evaluated(self.clock.monotonic() - started, matched)
        return judged

    async def _facts(self, submission: Submission, spool: Spool, policy: Policy) -> MessageFacts:
        """What is the same for all recipients; the address of the first one stands for each."""
        message = submission.message
        return MessageFacts(
            sender=message.envelope.sender,
            recipient=message.envelope.recipients[0].address,
            subject=submission.subject,
            tags=submission.control.tags,
            protect=protect_of(submission.control.protect),
            author=submission.author,
            connector=submission.connector.name,
            kind=message.kind,
            header=HeaderView(submission.header_block) if policy.asks_header else None,
            size=message.size,
            recipients=len(message.envelope.recipients),
            time=self.clock.time(),
            content=await self._content(spool, policy) if policy.questions else None,
        )

    async def _content(self, spool: Spool, policy: Policy) -> ContentFacts:
        """What is in the message. One that is not in memory is read from where it was sealed. Raises ``Refusal``."""
        plain = spool.plain
        try:
            if plain is not None:
                return await self.scanners.examine(policy.examiner, plain)
            async with aclosing(self._reopened(await spool.finish())) as pieces:
                return await self.scanners.examine(policy.examiner, pieces)
        except ScanBusy as busy:
            raise Refusal(451, "4.3.2", ScanBusy.public, reason="scanners_busy", detail=str(busy)) from busy

    def _reopened(self, body: SealedBody) -> AsyncGenerator[bytes, None]:
        """The plain bytes of a body that no row names yet."""
        return open_sealed(
            self.queue.store.files,
            message=body.message,
            key=body.key,
            inline=body.inline,
            blob=body.blob,
            size=body.size,
            digest=body.digest,
        )

    def _judge_one(
        self, submission: Submission, recipient: Recipient, common: MessageFacts, policy: Policy
    ) -> NewRecipient:
        recipient = self._aliased(recipient)
        address = recipient.address
        requirement = evaluate(policy, replace(common, recipient=address))
        if self._is_local(address):
            return NewRecipient(recipient, requirement, State.DELIVERED, error="ends here: an address of our own")
        if address.key in submission.looping:
            return NewRecipient(recipient, requirement, State.REJECTED, error="5.4.6 mail loop: it passed three times")
        if submission.connector.stage is Stage.OBSERVE:
            return NewRecipient(recipient, _observed(requirement))
        if requirement.disposition is Disposition.REJECT:
            return NewRecipient(recipient, requirement, State.REJECTED, error=f"5.7.1 {requirement.reason}")
        if not requirement.methods and common.kind in UNTOLD:
            return NewRecipient(recipient, requirement, State.DROPPED, error="no method may carry mail of this kind")
        if requirement.disposition is Disposition.HOLD:
            expires = requirement.hold_expires or schedule_of(self.settings()).expire
            return NewRecipient(recipient, requirement, State.HELD, self.clock.time() + expires, requirement.reason)
        return NewRecipient(recipient, requirement)

    def _copies(
        self, submission: Submission, judged: Sequence[NewRecipient], common: MessageFacts, policy: Policy
    ) -> list[NewRecipient]:
        """Those to whom ``copy_to`` sends the message, too: judged as any recipient, but they make no further copies.

        What becomes of a copy is nobody's business but ours, so its failure is not reported to the sender.
        """
        if submission.connector.stage is Stage.OBSERVE:
            return []
        there = {entry.recipient.address.key for entry in judged}
        made = []
        for entry in judged:
            for text in entry.requirement.copy_to if entry.state is not State.REJECTED else ():
                address = Address.parse(text)
                if address.key in there:
                    continue
                there.add(address.key)
                copy = self._judge_one(submission, Recipient(address, frozenset({Notify.NEVER})), common, policy)
                made.append(copy if copy.state is not State.REJECTED else replace(copy, state=State.DROPPED))
        return made

    def _aliased(self, recipient: Recipient) -> Recipient:
        if recipient.address.local.casefold() != "postmaster":
            return recipient
        settings = self.settings()
        own = {f"postmaster@{domain}" for domain in (settings.hostname, settings.local.domain) if domain is not None}
        if recipient.address.key in own and settings.postmaster.key not in own:
            return replace(recipient, address=settings.postmaster)
        return recipient

    def _is_local(self, address: Address) -> bool:
        domain = self.settings().local.domain
        return domain is not None and address.domain == domain

    def _is_notice_address(self, address: Address) -> bool:
        """``notices`` itself, or with a token behind ``+`` (VERP): bounces of notices come back there."""
        name = self.settings().local.notices.casefold()
        local = address.local.casefold()
        return local in (name, "postmaster") or local.startswith(f"{name}+")

    def _refuse_where_due(self, submission: Submission, recipients: Sequence[NewRecipient]) -> None:
        """Refuse what is rejected for all. In stage ``soft`` one is enough: nobody's mail may bounce in that stage."""
        rejected = [entry.error.partition(" ") for entry in recipients if entry.state is State.REJECTED]
        by_policy = [text for code, _, text in rejected if code != "5.4.6"]
        if by_policy and submission.connector.stage is Stage.SOFT:
            raise self._soft(by_policy[0])
        if len(rejected) < len(recipients):
            return
        if not by_policy:
            raise Refusal(554, "5.4.6", "Mail loop: this message has passed here before", reason="loop")
        raise Refusal(550, "5.7.1", by_policy[0] or "Not allowed by policy", reason="policy")

    def _soft(self, text: str) -> Refusal:
        self.observer.alarm("soft_refusal")
        return Refusal(451, "4.7.1", text or "Not allowed by policy", reason="policy")

    # -- keeping ------------------------------------------------------------------------------------------------------

    def _new_message(self, submission: Submission, recipients: list[NewRecipient], *, body: SealedBody) -> NewMessage:
        envelope, header = submission.message.envelope, submission.header_block
        silent = envelope.sender is None or submission.message.kind in silent_kinds
        if silent:
            recipients = [
                replace(entry, state=State.DROPPED) if entry.state is State.REJECTED else entry for entry in recipients
            ]
        facts: dict[str, object] = {"stage": str(submission.connector.stage)}
        if submission.user:
            facts["user"] = submission.user
        if submission.violations:
            facts["would_refuse"] = list(submission.violations)
        if str(Method.PLAIN) in submission.control.protect:
            facts["ignored"] = "plain in X-Gateway-Protect"
        observed = submission.connector.stage is Stage.OBSERVE
        message = submission.message
        given = envelope.recipients
        if len(recipients) != len(given) or any(
            entry.recipient is not before for entry, before in zip(recipients, given, strict=True)
        ):
            message = replace(
                message, envelope=replace(envelope, recipients=tuple(entry.recipient for entry in recipients))
            )
        return NewMessage(
            message=message,
            body=body,
            recipients=tuple(recipients),
            eight_bit=submission.eight_bit or not header.isascii(),
            observed=observed,
            signature=submission.dkim_signature,
            idempotency=_idempotency(submission, message),
            facts=facts,
        )

    async def _reject_notices(self, new: NewMessage, header: bytes) -> list[NewMessage]:
        entries = [
            NoticeEntry(entry.recipient, *_status_and_words(entry.error))
            for entry in new.recipients
            if entry.state is State.REJECTED
        ]
        if not entries:
            return []
        notice = await make_notice(
            self.queue.store, self.settings(), self.clock, new.message, Action.FAILED, entries, header=header
        )
        return [] if notice is None else [notice]


def _status_and_words(error: str) -> tuple[str, str]:
    status, _, text = error.partition(" ")
    return status, text or "It was rejected by the policy of your organisation."


def _observed(requirement: Requirement) -> Requirement:
    """Stage ``observe``: the mail leaves as ``plain``; what policy would have asked stays in the record."""
    asked = requirement.as_json()
    effect = f"observed only: methods {', '.join(asked['methods'])}; tls {asked['tls']}; {asked['disposition']}"
    return Requirement(
        methods=frozenset({Method.PLAIN}),
        tls=Assurance.NONE,
        rules=(*requirement.rules, RuleMatch("stage observe", effect)),
        digest=requirement.digest,
    )


def _idempotency(submission: Submission, message: Message) -> Idempotency | None:
    key = submission.control.idempotency_key
    if not key:
        return None
    sender = "" if message.envelope.sender is None else message.envelope.sender.key
    recipients = sorted(recipient.address.key for recipient in message.envelope.recipients)
    return Idempotency(
        _digest("scope", submission.connector.name, sender, key),
        _digest("content", message.digest, *recipients),
    )


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
