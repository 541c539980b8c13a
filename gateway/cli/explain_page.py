"""The page of ``gateway explain`` for people, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gateway.cli.page import Page
from gateway.config.inbound import Connector, Stage
from gateway.config.model import Settings
from gateway.delivery.preview import Preview
from gateway.delivery.signing import foretell
from gateway.mail.protection import Assurance, Disposition
from gateway.policy import MessageFacts, Policy
from gateway.policy.examine import Passage, masked, passages

__all__ = ["Explained", "explained_as_json", "show"]


@dataclass(frozen=True, slots=True)
class Explained:
    """What was asked: the message as it would be accepted, and what policy knows of it."""

    message: bytes
    facts: MessageFacts
    connector: Connector | None
    policy: Policy
    settings: Settings

    def signature(self, preview: Preview) -> str | None:
        """What would become of DKIM for this recipient; None where there is no key for From, or nothing is sent."""
        if preview.decision.method is None or self.connector is None:
            return None
        edits = preview.decision.requirement.transforms
        note = foretell(self.settings, self.connector.name, self.message, edits, self.facts.time or 0.0)
        return None if note is None else note.detail


_COLOURS = {"deliver": "green", "wait": "yellow", "hold": "yellow", "unknown": "yellow"}
_WORDS = {
    "deliver": "would be sent now",
    "unknown": "would be tried",
    "bounce": "would bounce",
    "hold": "would be held",
    "reject": "would be rejected",
    "wait": "would wait",
}


def explained_as_json(asked: Explained, found: list[Preview], *, with_text: bool) -> dict[str, Any]:
    """The shape of interfaces.md, with what policy knew of the message beside; ``text`` where it is asked for."""
    facts = asked.facts
    told: dict[str, Any] = {
        "policy": asked.policy.digest,
        "message": {
            "sender": "" if facts.sender is None else str(facts.sender),
            "from": None if facts.author is None else str(facts.author),
            "subject_known": facts.subject is not None,
            "connector": facts.connector,
            "stage": None if asked.connector is None else str(asked.connector.stage),
            "kind": str(facts.kind),
            "size": facts.size,
            "unread": [] if facts.content is None else list(facts.content.unread),
        },
        "recipients": [{**each.as_json(), "dkim": asked.signature(each)} for each in found],
    }
    if with_text:
        texts, unread = passages(asked.message, asked.policy.examiner)
        told["text"] = [
            {
                "where": passage.where,
                "text": masked(passage),
                "finds": [{"name": name, "start": match.start, "end": match.end} for name, match in passage.finds],
            }
            for passage in texts
        ]
        told["unread"] = list(unread)
    return told


def show(asked: Explained, found: list[Preview], *, with_text: bool) -> None:
    """Print it."""
    page = Page()
    _message(page, asked)
    for preview in found:
        page.line("")
        _recipient(page, preview, asked.signature(preview))
    if with_text:
        _text(page, asked)


def _message(page: Page, asked: Explained) -> None:
    facts, connector = asked.facts, asked.connector
    sender = "<>" if facts.sender is None else str(facts.sender)
    kind = "" if str(facts.kind) == "ordinary" else f", {facts.kind}"
    page.line(f"{sender}: {facts.size} octets{kind}, policy {asked.policy.digest[:12]}", style="bold", end=len(sender))
    if connector is None:
        page.line("  no connector takes this sender: it would be refused; the rest is as if one did", style="red")
    else:
        page.line(f"  by connector {connector.name}, stage {connector.stage}")
        if connector.stage is Stage.OBSERVE:
            page.line("  stage observe: policy is only recorded, the message would leave as plain", style="yellow")
        elif connector.stage is Stage.SOFT:
            page.line("  stage soft: what is rejected for one recipient is refused for now (451), for all")
    if facts.content is not None:
        for reason in facts.content.unread:
            page.line(f"  cannot be known: {reason}", indent=4, style="yellow")


def _recipient(page: Page, preview: Preview, signature: str | None) -> None:
    decision = preview.decision
    requirement = decision.requirement
    name = str(preview.recipient)
    outcome = preview.outcome
    how = f" by {decision.method}" if decision.method is not None and outcome in {"deliver", "wait", "unknown"} else ""
    why = requirement.reason if requirement.disposition is not Disposition.DELIVER else ""
    unseen = "; nobody looked at the hosts" if outcome == "unknown" else ""
    words = f"{_WORDS[outcome]}{how}{f': {why}' if why else ''}{unseen}"
    page.line(f"{name}  {words}", indent=4, style=_COLOURS.get(outcome, "red"), start=len(name) + 2)
    allowed = " ".join(str(method) for method in requirement.ranking()) or "nothing"
    page.fact("allowed", f"{allowed}; tls {requirement.tls} or better")
    for rule in requirement.rules:
        page.fact("rule", f"{rule.name}: {rule.effect}")
    if not requirement.rules:
        page.fact("rule", "none matched: the defaults hold")
    for (reason, definite), group in groupby(decision.passed_over, key=lambda each: (each.reason, each.definite)):
        later = "" if definite else " (once it has lasted for fallback_after)"
        page.fact("not", f"{' '.join(str(each.method) for each in group)}: {reason}{later}")
    if preview.obstacle is not None:
        page.fact("obstacle", str(preview.obstacle))
    for change in requirement.transforms.planned():
        page.fact("change", f"{change.action} {change.detail}".rstrip())
    if signature is not None:
        page.fact("dkim", signature)
    for address in requirement.copy_to:
        page.fact("copy to", address)
    for address in requirement.notify:
        page.fact("tells", address)
    _evidence(page, preview)
    _portal(page, preview)
    for remedy in preview.remedies:
        page.fact("they could", f"{remedy.host}: {remedy.advice.missing}: {remedy.advice.remedy}")


def _evidence(page: Page, preview: Preview) -> None:
    evidence = preview.evidence
    if evidence is None:
        return
    took = evidence["milliseconds"]
    page.fact("goes to", f"{evidence['host']} [{evidence['address']}]{f', {took:.0f} ms' if took is not None else ''}")
    tls = evidence["tls"]
    if tls is None:
        page.fact("", "in clear", style="red")
        return
    group = f" {evidence['group']}" if evidence["group"] else ""
    page.fact(
        "", f"{tls['version']} {tls['cipher']}{group}, {tls['assurance']}; chain: {tls['chain']}; name: {tls['name']}"
    )


def _portal(page: Page, preview: Preview) -> None:
    """How the recipient would come to what lies in the portal."""
    way = preview.portal
    if way is None:
        return
    page.fact("notice", "a link, and a code by mail, open it" if way.phrase is not True else "a link by mail")
    if way.attained is None:
        page.fact("", f"the code alone, where its mail travels by TLS that is {way.needs} or better")
    elif way.phrase:
        travels = "in clear" if way.attained is Assurance.NONE else f"by TLS that is only {way.attained}"
        page.fact(
            "phrase",
            f"mail to them travels {travels}, and {way.needs} is needed: a code is not enough. The sender is mailed "
            "four words to tell them by phone",
            style="yellow",
        )


def _text(page: Page, asked: Explained) -> None:
    texts, unread = passages(asked.message, asked.policy.examiner)
    page.line("")
    page.line("the text that is judged; what was found is masked", style="bold")
    for passage in texts:
        page.line("")
        page.line(f"  {passage.where}", style="bold")
        page.line(f"    {masked(passage) or '(empty)'}", indent=4)
        for words in _finds(passage):
            page.line(f"    found: {words}", indent=6, style="yellow")
    for reason in unread:
        page.line(f"  not read: {reason}", indent=4, style="yellow")


def _finds(passage: Passage) -> list[str]:
    """Each finder once, with how often."""
    counted: dict[str, int] = {}
    for name, _ in passage.finds:
        counted[name] = counted.get(name, 0) + 1
    return [f"{name} ({times}x)" if times > 1 else name for name, times in counted.items()]
