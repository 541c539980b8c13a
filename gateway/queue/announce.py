"""Whom to tell of what happens in the queue, in the transaction in which it happens: holds, matched rules, alarms.

- mail is held: its sender (a DSN ``delayed``, as NOTIFY allows) and the reviewers, once an hour a sender and reason
- a rule with ``notify`` matched: the addresses that it names, once an hour a sender and rule
- an alarm rings, or is over: ``notify.alerts``, once an hour a kind

Automatic mail and the null sender have nobody to tell; reviewers hear of it all the same. How often is decided in
``telling``, how it is written in ``gateway.mail.announcements``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gateway.config.model import Settings
from gateway.mail.address import Address
from gateway.mail.announcements import (
    Alarm,
    HeldMail,
    MatchedMail,
    Rest,
    Seen,
    about_alarm,
    about_alarm_rest,
    about_held,
    about_held_rest,
    about_held_rest_to_sender,
    about_matched,
    about_matched_rest,
    about_over,
    about_over_rest,
    hold_in_words,
)
from gateway.mail.dsn import Action
from gateway.mail.envelope import Message, Recipient
from gateway.mail.letter import moment
from gateway.mail.protection import Requirement
from gateway.mail.reply import clean_text
from gateway.observe.alarms import ALARMS, AlarmWords
from gateway.queue.notices import NoticeEntry, is_wanted, report_now
from gateway.queue.records import Claim, NewMessage, NewRecipient, Outcome, silent_kinds
from gateway.queue.states import State, StateEvent
from gateway.queue.system_mail import letters
from gateway.queue.telling import About, sum_up, tell
from gateway.store.store import Store
from gateway.store.writer import Transaction

__all__ = [
    "HeldNow",
    "held_by_decision",
    "holding_rules",
    "is_worth_telling",
    "reviewers",
    "summarise",
    "tell_accepted",
    "tell_alarm",
    "tell_held",
    "tell_over",
]

#: Recipients that one notice about a hold names to the sender; it stands in a row, and the row has a limit.
_REPORTED = 50
#: Recipients whose decision a letter about a rule names.
_DECISIONS = 10
_UNKNOWN_ALARM = AlarmWords("something needs a person", "look at the log")


@dataclass(frozen=True, slots=True)
class HeldNow:
    """One recipient that is held from now on, until ``until`` (epoch seconds)."""

    recipient: Recipient
    reason: str
    rules: tuple[str, ...]
    until: float


def reviewers(settings: Settings) -> tuple[Address, ...]:
    """Who is told of held mail."""
    return settings.notify.reviewers or settings.notify.alerts


def holding_rules(requirement: Requirement) -> tuple[str, ...]:
    """The rules behind a hold; where they contradict each other, all that matched."""
    return requirement.hold_rules or tuple(match.name for match in requirement.rules)


# -- accepted ---------------------------------------------------------------------------------------------------------


def is_worth_telling(new: NewMessage) -> bool:
    """Whether anybody has to hear of this message as it is accepted. Asked for every message."""
    return not new.system and any(entry.state is State.HELD or entry.requirement.notify for entry in new.recipients)


def tell_accepted(
    transaction: Transaction, store: Store, settings: Settings, new: NewMessage, header: bytes | None
) -> int:
    """Tell of holds and matched rules; ``header`` is the original's. How many messages of ours were written."""
    held = [
        HeldNow(entry.recipient, entry.requirement.reason, holding_rules(entry.requirement), entry.hold_until or 0.0)
        for entry in new.recipients
        if entry.state is State.HELD
    ]
    told = 0
    if held:
        whole = len(held) == len(new.recipients)
        told += tell_held(transaction, store, settings, new.message, held, header, whole=whole)
    return told + _tell_matched(transaction, store, settings, new)


def held_by_decision(claim: Claim, outcomes: Sequence[Outcome]) -> list[HeldNow]:
    """Those whom a policy of now holds, that had been let through before; damaged mail is for the alarm to tell."""
    recipients = {entry.n: entry.recipient for entry in claim.recipients}
    return [
        HeldNow(recipients[outcome.n], outcome.hold_reason, holding_rules(outcome.requirement), outcome.hold_until)
        for outcome in outcomes
        if outcome.event is StateEvent.HOLD and outcome.requirement is not None and outcome.hold_until is not None
    ]


# -- held -------------------------------------------------------------------------------------------------------------


def tell_held(
    transaction: Transaction,
    store: Store,
    settings: Settings,
    message: Message,
    held: Sequence[HeldNow],
    header: bytes | None,
    *,
    whole: bool,
    by: str = "",
) -> int:
    """Tell the sender and the reviewers that these recipients are held, ``by`` an operator or by policy ("").

    ``header`` is the original's header block, of which the sender's notice quotes the id; ``whole``: no other recipient
    of the message is live. How many messages of ours were written.
    """
    reason = "; ".join(sorted({entry.reason for entry in held}))
    told = 0
    wanted = [entry for entry in held if is_wanted(entry.recipient, Action.DELAYED)]
    sender = message.envelope.sender
    if sender is not None and message.kind not in silent_kinds and wanted:
        about = About("held", (str(sender),), message.envelope.connector, str(sender), reason)

        def to_sender() -> Iterable[NewMessage]:
            yield _report(store, settings, transaction.now, message, wanted, header)

        told += tell(transaction, store, settings, about, _seen(message, wanted), to_sender)
    to = reviewers(settings)
    if to:
        name = "" if sender is None else str(sender)
        about = About("review", tuple(map(str, to)), sender=name, reason=reason)

        def to_reviewers() -> Iterable[NewMessage]:
            mail = HeldMail(
                message=message.id,
                sender=name,
                recipients=tuple(str(entry.recipient.address) for entry in held),
                whole=whole,
                rules=tuple(sorted({rule for entry in held for rule in entry.rules})),
                reason=reason,
                received=message.received,
                until=min(entry.until for entry in held),
                size=message.size,
                by=by,
            )
            text = about_held(mail, settings.hostname)
            return letters(store, settings, transaction.now, to, text, about="review", parent=message.id)

        told += tell(transaction, store, settings, about, _seen(message, held), to_reviewers)
    return told


def _report(
    store: Store, settings: Settings, now: float, message: Message, held: Sequence[HeldNow], header: bytes | None
) -> NewMessage:
    entries = [
        NoticeEntry(
            entry.recipient,
            "4.7.0",
            f"Why: {clean_text(hold_in_words(entry.reason), 300)}. Until: {moment(entry.until)}.",
        )
        for entry in held[:_REPORTED]
    ]
    if len(held) > _REPORTED:
        entries[-1] = replace(
            entries[-1],
            explanation=f"{entries[-1].explanation} The same holds for {len(held) - _REPORTED} more recipients.",
        )
    until = min(entry.until for entry in held)
    return report_now(store, settings, now, message, Action.DELAYED, entries, header or b"", until=until, held=True)


def _seen(message: Message, held: Sequence[HeldNow]) -> Seen:
    return Seen(message.received, message.id, str(held[0].recipient.address))


# -- rules with `notify` ----------------------------------------------------------------------------------------------


def _tell_matched(transaction: Transaction, store: Store, settings: Settings, new: NewMessage) -> int:
    message, told = new.message, 0
    sender = "" if message.envelope.sender is None else str(message.envelope.sender)
    for rules, to in _by_rules(new.recipients).items():
        matched = [entry for entry in new.recipients if set(rules) & {match.name for match in entry.requirement.rules}]
        about = About("rule", to, sender=sender, rules=rules)

        def build(
            rules: tuple[str, ...] = rules, to: tuple[str, ...] = to, matched: list[NewRecipient] = matched
        ) -> Iterable[NewMessage]:
            mail = MatchedMail(
                message.id,
                sender,
                tuple(str(entry.recipient.address) for entry in matched),
                rules,
                message.received,
                message.size,
                tuple(_decided(entry) for entry in matched[:_DECISIONS]),
            )
            addresses = [Address.parse(text) for text in to]
            return letters(
                store, settings, transaction.now, addresses, about_matched(mail), about="rule", parent=message.id
            )

        seen = Seen(message.received, message.id, str(matched[0].recipient.address))
        told += tell(transaction, store, settings, about, seen, build)
    return told


def _by_rules(entries: Iterable[NewRecipient]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Who is to hear of which rules: those whose effect on a recipient was to notify them."""
    rules: dict[str, set[str]] = {}
    for entry in entries:
        for address in entry.requirement.notify:
            named = {match.name for match in entry.requirement.rules if f"notify {address}" in match.effect.split("; ")}
            rules.setdefault(address, set()).update(named)
    found: dict[tuple[str, ...], list[str]] = {}
    for address, named in sorted(rules.items()):
        found.setdefault(tuple(sorted(named)), []).append(address)
    return {names: tuple(addresses) for names, addresses in found.items()}


def _decided(entry: NewRecipient) -> str:
    requirement = entry.requirement
    match entry.state:
        case State.HELD:
            what = f"held: {hold_in_words(requirement.reason)}"
        case State.QUEUED:
            methods = ", ".join(str(method) for method in requirement.ranking())
            what = f"to be delivered by {methods}; tls {requirement.tls} or better"
        case _:
            what = f"{entry.state}: {entry.error}" if entry.error else str(entry.state)
    return f"{entry.recipient.address}: {clean_text(what, 300)}"


# -- alarms -----------------------------------------------------------------------------------------------------------


def tell_alarm(
    transaction: Transaction,
    store: Store,
    settings: Settings,
    kind: str,
    *,
    problem: str = "",
    times: int = 1,
) -> int:
    """Tell ``notify.alerts`` that an alarm rang. How many messages of ours were written."""
    to = settings.notify.alerts
    if not to:
        return 0
    now = transaction.now
    about = About("alarm", kind=kind, problem=clean_text(problem), since=now)

    def build() -> Iterable[NewMessage]:
        text = about_alarm(_alarm(about, times), settings.hostname)
        return letters(store, settings, now, to, text, about="alarm")

    return tell(transaction, store, settings, about, Seen(now, "", ""), build, times=times)


def tell_over(
    transaction: Transaction, store: Store, settings: Settings, kind: str, *, problem: str, since: float
) -> int:
    """Tell ``notify.alerts`` that an alarm is over. How many messages of ours were written."""
    to = settings.notify.alerts
    if not to:
        return 0
    now = transaction.now
    about = About("over", kind=kind, problem=clean_text(problem), since=since)

    def build() -> Iterable[NewMessage]:
        return letters(store, settings, now, to, about_over(_alarm(about), now, settings.hostname), about="alarm over")

    return tell(transaction, store, settings, about, Seen(now, "", ""), build)


def _alarm(about: About, times: int = 1) -> Alarm:
    known = ALARMS.get(about.kind, _UNKNOWN_ALARM)
    return Alarm(about.kind, about.problem, known.means, known.remedy, about.since, times)


# -- when the hour is over --------------------------------------------------------------------------------------------


def summarise(transaction: Transaction, store: Store, settings: Settings, key: str) -> int:
    """Tell what came in the hour of this telling, if it is over; how many messages of ours were written."""

    def build(about: About, rest: Rest, began: float) -> Iterable[NewMessage]:
        now = transaction.now
        to: Sequence[Address] = [Address.parse(text) for text in about.to]
        parent = rest.some[0].message if rest.some else None
        name = settings.hostname
        match about.topic:
            case "held":
                text = about_held_rest_to_sender(rest, name, reason=about.reason, postmaster=str(settings.postmaster))
            case "review":
                text = about_held_rest(rest, name, sender=about.sender, reason=about.reason)
            case "rule":
                text = about_matched_rest(rest, sender=about.sender, rules=about.rules)
            case "alarm":
                text = about_alarm_rest(replace(_alarm(about), since=began), rest, name)
            case _:
                text = about_over_rest(about.kind, rest, name)
        if about.topic in {"alarm", "over"}:
            to = settings.notify.alerts
        return letters(
            store, settings, now, to, text, about=f"{about.topic} summary", parent=parent, connector=about.connector
        )

    return sum_up(transaction, store, settings, key, build)
