"""A recipient's fate in words: the cells of a table, a line, and why it went as it did. All of it from the trace."""

from __future__ import annotations

from itertools import groupby
from types import MappingProxyType

from gateway.demo.record import Fate, Try
from gateway.queue.states import State

__all__ = ["asked", "line", "outcome", "shown", "style", "why"]

_STYLES = MappingProxyType(
    {
        State.DELIVERED: "green",
        State.DEPOSITED: "green",
        State.PICKED_UP: "green",
        State.BOUNCED: "red",
        State.REJECTED: "red",
        State.EXPIRED: "red",
        State.HELD: "magenta",
    }
)
_PROOF = MappingProxyType(
    {
        "encrypted": "who only listens reads nothing, but who is at the other end is not proved",
        "verified": "a trusted certificate for the host's name",
        "authenticated": "a trusted certificate for the host's name, and signed DNS gave that name",
    }
)


def style(fate: Fate) -> str:
    """How its outcome is coloured: readable on dark and on light ground."""
    return _STYLES.get(fate.state, "")


def asked(fate: Fate) -> tuple[str, str]:
    """What policy asks for, and the rules that matched."""
    wanted = "tls, else in clear" if "plain" in fate.methods else f"tls {fate.level}"
    return wanted, ", ".join(name for name, _ in fate.rules) or "(no rule matched)"


def shown(fate: Fate) -> tuple[str, str]:
    """What the host showed in the last attempt, and what is wrong with that."""
    tried = fate.last
    if tried is None:
        return "", ""
    if tried.tls is None:
        if fate.state is State.DELIVERED:
            return "no TLS", ""
        return (tried.outcome, "") if tried.host != "DNS" else ("no host", "")
    return f"{tried.tls.version}, {tried.tls.assurance}", _flaw(tried)


def _flaw(tried: Try) -> str:
    if tried.tls is None:
        return ""
    return "; ".join(fault for fault in (tried.tls.chain, tried.tls.name) if fault not in {"", "ok"})


def outcome(fate: Fate, now: float) -> tuple[str, str]:
    """Where it stands, and what there is to say about that."""
    match fate.state:
        case State.DELIVERED:
            return f"delivered by {fate.method}", f"at try {fate.tries}" if fate.tries > 1 else ""
        case State.HELD:
            return "held", fate.hold_reason
        case State.NOTICING:
            return "in the portal", "its notice is under way"
        case State.DEPOSITED:
            return "in the portal", "its recipient was told"
        case State.PICKED_UP:
            return "read in the portal", ""
        case State.DEFERRED:
            reply = "" if fate.last is None else fate.last.reply
            wait = max(0, round((fate.next_attempt or now) - now))
            return "waits", f"{reply or fate.error}; next try in {wait} s"
        case State.QUEUED | State.DELIVERING:
            return "under way", ""
        case _:
            return str(fate.state), _reason(fate)


def _reason(fate: Fate) -> str:
    if fate.passed_over and not _refused(fate):
        return "no method is left"
    return _reply(fate) or fate.error


def _reply(fate: Fate) -> str:
    return "" if fate.last is None else fate.last.reply


def _refused(fate: Fate) -> bool:
    """Whether the host itself said no for good."""
    return _reply(fate).startswith("5")


def line(fate: Fate, now: float) -> str:
    """All of it in one line, for where lines cannot change."""
    parts = [": ".join(part for part in outcome(fate, now) if part)]
    if fate.tried:
        parts.append(": ".join(part for part in shown(fate) if part))
    wanted, rules = asked(fate)
    parts.append(f"asked: {wanted} {rules if rules.startswith('(') else f'({rules})'}")
    return "; ".join(part for part in parts if part)


def why(fate: Fate) -> str:
    """A few sentences: rules, what was tried, what was passed over, how it ended."""
    said = [f"Rule {name}: {effect}." for name, effect in fate.rules]
    said += _passed(fate)
    said += _tries(fate)
    said.append(_end(fate))
    said += [f"Changed on the way out: {change}." for change in fate.changed]
    return " ".join(part for part in said if part)


def _passed(fate: Fate) -> list[str]:
    """Each reason once, with the methods that it stopped."""
    by_reason = groupby(fate.passed_over, key=lambda passed: passed[1])
    return [f"Not {', '.join(method for method, _ in group)}: {reason}." for reason, group in by_reason]


def _tries(fate: Fate) -> list[str]:
    if fate.tries < 2:
        return []
    return [f"Try {number}: {each.reply or each.outcome}." for number, each in enumerate(fate.tried, 1)]


def _end(fate: Fate) -> str:
    match fate.state:
        case State.DELIVERED if fate.method == "plain":
            return "So it went in the clear, which policy allows here."
        case State.DELIVERED:
            return _session(fate)
        case State.HELD:
            return "It waits for a person; `gateway queue list` shows it."
        case State.NOTICING | State.DEPOSITED | State.PICKED_UP:
            return _told(fate)
        case State.BOUNCED if _refused(fate):
            return f"The session was good enough, but the host refused: {_reply(fate)}. The sender was told."
        case State.BOUNCED if fate.passed_over:
            return "No method was left: nothing was sent, and the sender was told."
        case State.BOUNCED:
            return f"There is no way to deliver it: {fate.error}. The sender was told."
        case _:
            return ""


def _told(fate: Fate) -> str:
    """How its recipient was told, and what opens it."""
    if not fate.notice:
        return "So it lies sealed in the portal; the notice is under way."
    way = "in the clear" if fate.notice == "none" else f"by TLS that was {fate.notice}"
    opens = (
        "that is too little for a code alone, so the sender was mailed four words to tell by phone"
        if fate.phrase
        else "that is enough for a code by mail to open it"
    )
    return f"So it lies sealed in the portal. The notice, without any content, went {way}: {opens}."


def _session(fate: Fate) -> str:
    """What the session that carried it proved, beside what was asked."""
    tried = fate.last
    if tried is None or tried.tls is None:
        return ""
    flaw = _flaw(tried)
    proof = _PROOF.get(tried.tls.assurance, tried.tls.assurance)
    enough = f" Policy asks for {fate.level}: good enough." if flaw else ""
    return f"The session was {tried.tls.assurance}: {proof}{f' ({flaw})' if flaw else ''}.{enough}"
