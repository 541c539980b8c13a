"""From a policy and the facts to what one recipient's mail requires. Never raises; the order of rules means nothing.

1. methods = (defaults + what matching ``allow`` add) cut by every matching ``require``, by ``X-Gateway-Protect`` and by
   what the kind of mail leaves
2. assurance = the highest of the default and every matching ``require``; one above ``none`` also cuts ``plain``
3. a matching exception lowers the rules that it names, and nothing else
4. ``reject`` beats ``hold`` beats deliver; an empty set of methods is held as ``contradiction``
5. the edits and effects of the rules that matched

What cannot be known counts as true for ``require``, ``hold`` and edits that take something away; for ``reject`` it is a
hold (a refusal is for good, and must be known); for ``allow``, exceptions and all other actions it counts as false.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.mail.address import Address
from gateway.mail.edits import Edits, combined
from gateway.mail.envelope import Kind
from gateway.mail.protection import DEFAULT_PREFERENCE, Assurance, Disposition, Method, Requirement, RuleMatch
from gateway.policy.actions import Actions
from gateway.policy.conditions import Truth
from gateway.policy.facts import MessageFacts
from gateway.policy.kinds import LEFT
from gateway.policy.rules import Exempt, Hold, Policy, Require, Rule

__all__ = ["CONTRADICTION", "PROTECT_HEADER", "evaluate", "evaluate_envelope"]

CONTRADICTION = "contradiction"
"""Why mail is held that no method may carry. Releasing it cannot pass the empty set."""

PROTECT_HEADER = "X-Gateway-Protect"
"""The header that narrows like a rule, and the name it has among the rules that matched."""

_ANY = frozenset(Method)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one rule says about one message."""

    name: str
    added: frozenset[Method] = frozenset()
    kept: frozenset[Method] = _ANY
    tls: Assurance = Assurance.NONE
    hold: Hold | None = None
    reject: str | None = None
    actions: Actions | None = None
    effects: tuple[str, ...] = ()


def evaluate(policy: Policy, facts: MessageFacts) -> Requirement:
    """What this message needs on its way to this recipient."""
    untagged = replace(facts, tags=frozenset()) if facts.tags else facts
    exempts = [exempt for exempt in policy.exceptions if _holds(exempt, untagged)]
    verdicts = [_judge(rule, facts, untagged, exempts) for rule in policy.rules]
    if facts.protect is not None:
        verdicts.append(_judge_header(facts.protect))
    if facts.kind is not None and facts.kind in LEFT:
        verdicts.append(_judge_kind(facts.kind))
    verdicts = [verdict for verdict in verdicts if verdict.effects]
    if not verdicts and policy.unmatched.methods and facts.kind is not Kind.CALENDAR:
        return policy.unmatched
    return _combined(policy, facts, verdicts)


def _combined(policy: Policy, facts: MessageFacts, verdicts: list[_Verdict]) -> Requirement:
    methods = policy.protection.methods.union(*(verdict.added for verdict in verdicts))
    methods = methods.intersection(_ANY, *(verdict.kept for verdict in verdicts))
    rejects = [verdict.reject for verdict in verdicts if verdict.reject is not None]
    holds = {v.name: v.hold for v in verdicts if v.hold is not None and v.name not in facts.approvals}

    if rejects:
        disposition, reason = Disposition.REJECT, rejects[0]
    elif not methods:
        disposition, reason = Disposition.HOLD, CONTRADICTION
    elif holds:
        disposition, reason = Disposition.HOLD, "; ".join(sorted({hold.reason for hold in holds.values()}))
    else:
        disposition, reason = Disposition.DELIVER, ""
    ends = [hold.expires for hold in holds.values() if hold.expires is not None]
    actions = [verdict.actions for verdict in verdicts if verdict.actions is not None]
    return Requirement(
        methods=methods,
        # Method `tls` without any assurance would be `plain` by another name.
        tls=max([Assurance.ENCRYPTED, policy.protection.tls, *(verdict.tls for verdict in verdicts)]),
        disposition=disposition,
        reason=reason,
        hold_rules=tuple(sorted(holds)),
        hold_expires=min(ends, default=None),
        rules=tuple(RuleMatch(verdict.name, "; ".join(verdict.effects)) for verdict in verdicts),
        digest=policy.digest,
        prefer=_preference(policy, facts.kind),
        fallback_after=policy.protection.fallback_after,
        transforms=combined(done.edits for done in actions),
        copy_to=tuple(sorted(frozenset().union(*(done.copy_to for done in actions)))),
        notify=tuple(sorted(frozenset().union(*(done.notify for done in actions)))),
    )


def _preference(policy: Policy, kind: Kind | None) -> tuple[Method, ...]:
    """The one ranking; an invitation that has to be opened elsewhere is in nobody's calendar, so TLS comes first."""
    prefer = policy.protection.prefer
    if kind is not Kind.CALENDAR or prefer[:1] == (Method.TLS,):
        return prefer
    rest = tuple(method for method in (prefer or DEFAULT_PREFERENCE) if method is not Method.TLS)
    return (Method.TLS, *rest)


def evaluate_envelope(policy: Policy, sender: Address | None, recipient: Address) -> str | None:
    """Why mail from here to there is refused whatever it says, or ``None``: for the answer to RCPT.

    Only a ``reject`` that is true without knowing anything else counts, so nothing is refused that would pass later.
    """
    facts = MessageFacts(sender=sender, recipient=recipient)
    for rule in policy.rules:
        if rule.reject is not None and rule.when.truth(facts) is True:
            return _told(rule.name, rule.reject)
    return None


def _told(name: str, text: str) -> str:
    """The text of a reject as the sender reads it: with the rule, so that someone can ask about it."""
    return f"{text} (rule {name})"


_SILENT = _Verdict("")


def _holds(exempt: Exempt, facts: MessageFacts) -> bool:
    return facts.time is not None and facts.time < exempt.until and exempt.when.truth(facts) is True


def _judge(rule: Rule, facts: MessageFacts, untagged: MessageFacts, exempts: list[Exempt]) -> _Verdict:
    truth = _settled(rule, rule.when.truth(untagged))
    # A tag given by header may narrow and do nothing else: it makes a `require` match, and never unmakes one.
    narrows = truth is not False or (facts is not untagged and _settled(rule, rule.when.truth(facts)) is not False)
    if truth is False and not narrows:
        return _SILENT
    mark = " (cannot be known)" if truth is None else ""
    effects: list[str] = []
    verdict = _Verdict(rule.name)
    if rule.allow is not None and truth is True:
        verdict = replace(verdict, added=rule.allow)
        effects.append(f"allow {_names(rule.allow)}")
    if rule.require is not None and narrows:
        lowered = [exempt for exempt in exempts if rule.name in exempt.rules]
        require = _lowered(rule.require, lowered)
        kept = _ANY if require.methods is None else require.methods
        if require.tls > Assurance.NONE:
            kept -= {Method.PLAIN}
        verdict = replace(verdict, kept=kept, tls=require.tls)
        effects.append(f"require {_asked(require)}{mark}")
        effects += [f"lowered by {exempt.name}" for exempt in lowered]
    if rule.hold is not None and truth is not False:
        verdict = replace(verdict, hold=rule.hold)
        effects.append(f"hold: {rule.hold.reason}{mark}")
    if rule.reject is not None and truth is True:
        verdict = replace(verdict, reject=_told(rule.name, rule.reject))
        effects.append(f"reject: {rule.reject}")
    if rule.reject is not None and truth is None:
        verdict = replace(verdict, hold=_both(verdict.hold, Hold(f"unknown: {rule.name}")))
        effects.append(f"hold: unknown: {rule.name}")
    if rule.actions and truth is not False:
        actions = rule.actions if truth else _certain(rule.actions)
        if actions:
            verdict = replace(verdict, actions=actions)
            effects += actions.words()
    return replace(verdict, effects=tuple(effects))


def _certain(actions: Actions) -> Actions:
    """What is done though the condition cannot be known: only what takes something away that must not get out."""
    edits = actions.edits
    return Actions(
        Edits(strip_tags=edits.strip_tags, remove_headers=edits.remove_headers, replace_subject=edits.replace_subject)
    )


def _lowered(require: Require, exempts: list[Exempt]) -> Require:
    """What is left of it under these exceptions; of several the strictest assurance, and methods that all add."""
    if not exempts:
        return require
    methods = require.methods
    if methods is not None:
        methods |= frozenset.intersection(*(exempt.methods for exempt in exempts))
    tls = max(exempt.tls for exempt in exempts)
    # "Replaces": but an exception that asks for more than the rule does is no way to lower another rule.
    return Require(methods, min(tls, require.tls) if require.tls > Assurance.NONE else require.tls)


def _asked(require: Require) -> str:
    wanted = [] if require.methods is None else [_names(require.methods)]
    wanted += [f"tls {require.tls}"] if require.tls > Assurance.NONE else []
    return ", ".join(wanted)


def _judge_header(protect: frozenset[Method] | None) -> _Verdict:
    """``X-Gateway-Protect`` as a rule. `plain` in it is ignored: it must never widen, nor make a riddle of the rest."""
    if protect is None or protect == {Method.PLAIN}:
        return _Verdict(PROTECT_HEADER)
    kept = protect - {Method.PLAIN}
    return _Verdict(PROTECT_HEADER, kept=kept, effects=(f"require {_names(kept) or 'a method that is not known'}",))


def _judge_kind(kind: Kind) -> _Verdict:
    kept = LEFT[kind]
    return _Verdict(f"kind {kind}", kept=kept, effects=(f"require {_names(kept)}",))


def _settled(rule: Rule, truth: Truth) -> Truth:
    return False if truth is None and rule.ignore_unknown else truth


def _both(first: Hold | None, second: Hold) -> Hold:
    if first is None:
        return second
    return Hold("; ".join(sorted({first.reason, second.reason})), first.expires)


def _names(methods: frozenset[Method]) -> str:
    return " ".join(method for method in Method if method in methods)
