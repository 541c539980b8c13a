"""What our letters say: mail that waits for review, rules that matched, alarms - and the summary of what came after.

Each function gives a subject and blocks of lines for :class:`~gateway.mail.letter.Letter`. Ids, addresses, names of
rules and reasons stand in them; nothing of anybody's mail does. What stands in a command is quoted for the shell: a
sender may choose an address that would be one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shlex import quote

from gateway.mail.letter import Block, facts, moment, words
from gateway.mail.reply import clean_text

__all__ = [
    "Alarm",
    "HeldMail",
    "MatchedMail",
    "Rest",
    "Seen",
    "about_alarm",
    "about_alarm_rest",
    "about_held",
    "about_held_rest",
    "about_held_rest_to_sender",
    "about_matched",
    "about_matched_rest",
    "about_over",
    "about_over_rest",
    "hold_in_words",
]

#: Recipients that are named; the rest are counted.
_NAMED = 5

Text = tuple[str, tuple[Block, ...]]


@dataclass(frozen=True, slots=True)
class HeldMail:
    """A message that waits. Times in seconds since the epoch; ``sender`` is "" for the null sender.

    ``recipients`` are those that it is held for; ``whole``: all that it has. ``by`` is the operator who held it, ""
    where policy did.
    """

    message: str
    sender: str
    recipients: tuple[str, ...]
    whole: bool
    rules: tuple[str, ...]
    reason: str
    received: float
    until: float
    size: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class MatchedMail:
    """A message that rules with ``notify`` matched. ``decisions``: what becomes of it, a line each."""

    message: str
    sender: str
    recipients: tuple[str, ...]
    rules: tuple[str, ...]
    received: float
    size: int
    decisions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm: its kind, what was seen, what it means and what to do; ``times`` it rang just now."""

    kind: str
    problem: str
    means: str
    remedy: str
    since: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Seen:
    """One of what came after, for the list in a summary."""

    time: float
    message: str
    recipients: str


@dataclass(frozen=True, slots=True)
class Rest:
    """What came after somebody was told, and nobody was told of by itself."""

    number: int
    first: float
    last: float
    some: tuple[Seen, ...] = ()


# -- mail that waits --------------------------------------------------------------------------------------------------


def hold_in_words(reason: str) -> str:
    """Why mail waits, for people who have not written the rules."""
    said = []
    for part in reason.split("; "):
        if part == "contradiction":
            said.append("the rules for it contradict each other, so that no way of sending it is left")
        elif part.startswith("unknown: "):
            said.append(f"not all of it could be examined (rule {part.removeprefix('unknown: ')})")
        else:
            said.append(part)
    return "; ".join(said)


def about_held(held: HeldMail, hostname: str) -> Text:
    """To reviewers: a message waits for them, and how to let it go."""
    which = held.message if held.whole else f"{held.message} --state held"
    return (
        f"Held for review: {held.message}",
        (
            words("A message waits for your review."),
            facts(
                {
                    "message": held.message,
                    "from": held.sender or "<> (a system)",
                    "to": _named(held.recipients),
                    "received": moment(held.received),
                    "size": _size(held.size),
                    "rule": ", ".join(held.rules),
                    "reason": hold_in_words(held.reason),
                    "held by": held.by,
                    "until": f"{moment(held.until)}; then it goes back to its sender"
                    if held.sender
                    else f"{moment(held.until)}; then it is dropped: it has no sender to go back to",
                }
            ),
            ("To look at it:", f"    gateway queue show {held.message}"),
            _deciding(which, contradiction="contradiction" in held.reason.split("; ")),
            words(f"Run these on {hostname}, as the gateway's user or as root."),
        ),
    )


def about_held_rest(rest: Rest, hostname: str, *, sender: str, reason: str) -> Text:
    """To reviewers: how many more wait for the same reason."""
    which = f"--state held --from {quote(sender)}" if sender else "--state held"
    return (
        f"Held for review: {_more(rest.number, 'message')} of {sender or '<>'}",
        (
            words(
                f"Since you were told last, {_more(rest.number, 'message')} of {sender or 'the null sender'} "
                f"{_was(rest.number, 'has', 'have')} been held for the same reason: {hold_in_words(reason)}."
            ),
            facts({"first": moment(rest.first), "last": moment(rest.last)}),
            _listed(rest),
            ("To see all that waits of this sender:", f"    gateway queue list {which}"),
            ("To let all of them go, or none (you are asked first):", *_verbs(which)),
            words(f"Run these on {hostname}, as the gateway's user or as root."),
        ),
    )


def about_held_rest_to_sender(rest: Rest, hostname: str, *, reason: str, postmaster: str) -> Text:
    """To the sender: how many more of theirs wait for the same reason."""
    return (
        f"{_more(rest.number, 'message')} of yours {_was(rest.number, 'waits', 'wait')} for review",
        (
            words(f"This is the mail gateway at {hostname}."),
            words(
                f"Since you were told last, {_more(rest.number, 'message')} that you sent "
                f"{_was(rest.number, 'has', 'have')} been held until somebody in your organisation has looked at "
                f"{_was(rest.number, 'it', 'them')}, for the same reason: {hold_in_words(reason)}."
            ),
            _listed(rest, by_recipient=True),
            words(
                "You do not need to send anything again. What is approved is delivered; what is not approved in time "
                "comes back to you with a notice of its own."
            ),
            words(f"Questions: {postmaster}; please name the recipient and the time."),
        ),
    )


def _deciding(which: str, *, contradiction: bool) -> Block:
    if contradiction:
        return (
            "Its rules leave no method, so that it cannot be released as it is. Change",
            "them, then decide it anew by the rules of then - or take it out:",
            f'    gateway queue redecide {which} --allow-weaker --reason "..."',
            f'    gateway queue cancel {which} --reason "..."',
        )
    return ("To let it go, or to take it out for good:", *_verbs(which))


def _verbs(which: str) -> Block:
    return tuple(f'    gateway queue {verb} {which} --reason "..."' for verb in ("release", "cancel"))


# -- rules that say `notify` ------------------------------------------------------------------------------------------


def about_matched(mail: MatchedMail) -> Text:
    """To whom a rule's ``notify`` names: it matched, and what became of the message."""
    rules = ", ".join(mail.rules)
    return (
        f"Rule {rules} matched {mail.message}",
        (
            words(f"The rule{'s' if len(mail.rules) > 1 else ''} {rules} matched a message."),
            facts(
                {
                    "message": mail.message,
                    "from": mail.sender or "<> (a system)",
                    "to": _named(mail.recipients),
                    "received": moment(mail.received),
                    "size": _size(mail.size),
                }
            ),
            ("What was decided:", *(line for decision in mail.decisions for line in _bullet(decision))),
            ("The whole story:", f"    gateway trace {mail.message}"),
        ),
    )


def about_matched_rest(rest: Rest, *, sender: str, rules: Sequence[str]) -> Text:
    """How many more messages of this sender the same rules matched."""
    names = ", ".join(rules)
    since = f" --from {quote(sender)}" if sender else ""
    return (
        f"Rule {names} matched {_more(rest.number, 'message')} of {sender or '<>'}",
        (
            words(
                f"Since you were told last, {_more(rest.number, 'message')} of {sender or 'the null sender'} matched "
                f"{names}."
            ),
            facts({"first": moment(rest.first), "last": moment(rest.last)}),
            _listed(rest),
            ("What became of them:", f"    gateway trace --since 2h{since}"),
        ),
    )


# -- alarms -----------------------------------------------------------------------------------------------------------


def about_alarm(alarm: Alarm, hostname: str) -> Text:
    """To the people who look after the gateway."""
    return (
        f"Alarm: {alarm.kind}",
        (
            words(f"{alarm.kind}: {alarm.means}."),
            facts(
                {
                    "seen": alarm.problem,
                    "since": moment(alarm.since),
                    "times": str(alarm.times) if alarm.times > 1 else "",
                }
            ),
            words(f"What to do: {alarm.remedy}."),
            _where(alarm.kind, hostname),
            words("What happens again within the hour is counted and told together."),
        ),
    )


def about_alarm_rest(alarm: Alarm, rest: Rest, hostname: str) -> Text:
    """How often it rang again since they were told; ``alarm.problem`` is what was seen first."""
    return (
        f"Alarm: {alarm.kind}, {rest.number} more {_was(rest.number, 'time', 'times')}",
        (
            words(f"{alarm.kind}: {alarm.means}."),
            words(f"Since you were told last it rang {rest.number} more {_was(rest.number, 'time', 'times')}."),
            facts({"told": moment(alarm.since), "first": moment(rest.first), "last": moment(rest.last)}),
            words(f"What to do: {alarm.remedy}."),
            _where(alarm.kind, hostname),
        ),
    )


def about_over(alarm: Alarm, over: float, hostname: str) -> Text:
    """It is over."""
    return (
        f"Over: {alarm.kind}",
        (
            words(f"The alarm {alarm.kind} on {hostname} is over; nothing is left to do for it."),
            facts({"seen": alarm.problem, "since": moment(alarm.since), "over": moment(over)}),
        ),
    )


def about_over_rest(kind: str, rest: Rest, hostname: str) -> Text:
    """It came and went several times within the hour."""
    return (
        f"Over: {kind}",
        (
            words(
                f"The alarm {kind} on {hostname} came and went {rest.number} more "
                f"{_was(rest.number, 'time', 'times')} since you were told last."
            ),
            facts({"last over": moment(rest.last)}),
        ),
    )


def _where(kind: str, hostname: str) -> Block:
    return (
        f"Where to look, on {hostname}:",
        "    journalctl -u gateway | grep alarm",
        "    gateway doctor",
        f"    docs/troubleshooting.md, section Alarms, `{kind}`",
    )


# -- parts ------------------------------------------------------------------------------------------------------------


def _named(addresses: Iterable[str]) -> str:
    every = list(addresses)
    shown = ", ".join(every[:_NAMED])
    return shown if len(every) <= _NAMED else f"{shown} and {len(every) - _NAMED} more"


def _listed(rest: Rest, *, by_recipient: bool = False) -> Block:
    lines = [
        clean_text(f"{moment(seen.time)[-9:-4]}  {seen.recipients if by_recipient else seen.message}", 200)
        for seen in rest.some
    ]
    if not lines:
        return ()
    more = rest.number - len(lines)
    head = "Received (UTC), and the first recipient:" if by_recipient else "Received (UTC), message id:"
    return (head, *(f"    {line}" for line in lines), *([f"    ... and {more} more"] if more > 0 else []))


def _bullet(text: str) -> Block:
    first, *others = words(text) or ("",)
    return (f"  {first}", *(f"    {line}" for line in others))


def _more(number: int, what: str) -> str:
    return f"{number} more {what}{'' if number == 1 else 's'}"


def _was(number: int, one: str, many: str) -> str:
    return one if number == 1 else many


def _size(octets: int) -> str:
    if octets < 10_000:
        return f"{octets} bytes"
    return f"{octets / 1000:.0f} kB" if octets < 10_000_000 else f"{octets / 1_000_000:.0f} MB"
