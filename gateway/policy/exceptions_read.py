"""Reading ``exceptions``: the only way below a ``require``, with owner, reason and end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.config.faults import suggestion
from gateway.config.source import Node
from gateway.mail.protection import Assurance, Method
from gateway.policy.about_envelope import RecipientIs, SenderIs
from gateway.policy.conditions import AllOf, Condition
from gateway.policy.reader import Reader, found
from gateway.policy.rules import Exempt
from gateway.policy.scope import Scope
from gateway.policy.when import read_addresses, read_condition

__all__ = ["check_names", "read_exception"]

_KEYS = ("to", "sender", "when", "rules", "tls", "methods", "owner", "reason", "until")


def read_exception(reader: Reader, node: Node, scope: Scope, now: float | None) -> Exempt | None:
    """One exception; None after a fault. ``now`` (seconds UTC) tells which are over."""
    before = len(reader.faults)
    entries = dict(reader.entries(node, "key of an exception", _KEYS))
    if node.mapping is None:
        return None
    for key in ("rules", "tls", "owner", "reason", "until"):
        if key not in node.mapping:
            reader.fault(node, f"the exception has no `{key}`")
    when = _condition(reader, node, entries, scope)
    rules = [name for name, _ in reader.texts(entries["rules"], "names of rules")] if "rules" in entries else []
    tls = _assurance(reader, entries["tls"]) if "tls" in entries else Assurance.ENCRYPTED
    methods = reader.methods(entries["methods"]) if "methods" in entries else ()
    if Method.PLAIN in methods:
        reader.fault(entries["methods"], "an exception never allows plain")
    owner, reason = (_line(reader, entries[key]) if key in entries else "" for key in ("owner", "reason"))
    until, ends = _until(reader, entries["until"]) if "until" in entries else (0.0, "")
    if len(reader.faults) > before or when is None:
        return None
    exempt = Exempt(when, frozenset(rules), tls, frozenset(methods), owner, reason, until, ends)
    added = f", methods {' '.join(methods)}" if methods else ""
    lowered = ", ".join(sorted(rules))
    over = _over(until, now)
    reader.note(node, "rules", f"exception from {lowered}: tls {tls}{added}; {owner}: {reason}; ends {ends}{over}")
    return exempt


def _condition(reader: Reader, node: Node, entries: dict[str, Node], scope: Scope) -> Condition | None:
    parts: list[Condition | None] = []
    if "to" in entries:
        parts.append(RecipientIs(read_addresses(reader, entries["to"], scope)))
    if "sender" in entries:
        parts.append(SenderIs(read_addresses(reader, entries["sender"], scope)))
    if "when" in entries:
        parts.append(read_condition(reader, entries["when"], scope))
    if not parts:
        reader.fault(node, "the exception says for whom by none of `to`, `sender`, `when`")
        return None
    whole = tuple(part for part in parts if part is not None)
    return whole[0] if len(whole) == 1 else AllOf(whole)


def _assurance(reader: Reader, node: Node) -> Assurance:
    level = reader.assurance(node)
    if level is Assurance.NONE:
        reader.fault(node, "an exception never goes below `encrypted`")
    return level or Assurance.ENCRYPTED


def _line(reader: Reader, node: Node) -> str:
    text = reader.text(node, "a line of text") or ""
    if len(text) > 200 or not text.isprintable():
        reader.fault(node, "expected one line of at most 200 characters")
    return text


def _until(reader: Reader, node: Node) -> tuple[float, str]:
    """The day itself is the last one, in UTC."""
    try:
        day = datetime.strptime(str(node.scalar), "%Y-%m-%d").replace(tzinfo=UTC)
        return (day + timedelta(days=1)).timestamp(), f"{day:%Y-%m-%d}"
    except (ValueError, OverflowError):
        reader.fault(node, f"expected the last day, such as 2026-12-31, found {found(node)}")
        return 0.0, ""


def _over(until: float, now: float | None) -> str:
    return ": it is over, and without effect" if now is not None and now >= until else ""


def check_names(reader: Reader, node: Node, exempt: Exempt, asks: dict[str, bool]) -> None:
    """The rules it names must exist, and require something: an exception lowers nothing else."""
    place = (node.mapping or {}).get("rules", node)
    for name in sorted(exempt.rules):
        if name not in asks:
            reader.fault(place, f"unknown rule {name!r}{suggestion(name, list(asks))}")
        elif not asks[name]:
            reader.fault(place, f"the rule {name!r} has no `require`: an exception lowers nothing else")
