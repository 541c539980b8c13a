"""Reading one rule: its name, when it applies, and what follows."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace

from gateway.config.source import Node
from gateway.config.values import parse_duration
from gateway.mail.protection import Method
from gateway.policy.actions import Actions
from gateway.policy.actions_read import read_actions
from gateway.policy.evaluate import CONTRADICTION, PROTECT_HEADER
from gateway.policy.reader import Reader, found
from gateway.policy.rules import Hold, Require, Rule
from gateway.policy.scope import Scope
from gateway.policy.when import read_condition

__all__ = ["read_rule"]

_OUTCOMES = frozenset({"require", "allow", "hold", "reject", "do"})
_RULE_KEYS = frozenset({"name", "when", "unknown"}) | _OUTCOMES
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")
#: Names that appear among the rules that matched without being one.
_RESERVED = frozenset({PROTECT_HEADER.casefold(), CONTRADICTION, "stage observe"})
_MAX_REJECT = 200  # with code and rule name it must fit into one reply line (RFC 5321 section 4.5.3.1.5: 512 octets)


def read_rule(reader: Reader, node: Node, scope: Scope, names: dict[str, str]) -> Rule | None:
    """One rule; None after a fault. ``names``: where each name was given first, to which this one is added."""
    before = len(reader.faults)
    entries = dict(reader.entries(node, "key of a rule", _RULE_KEYS))
    if node.mapping is None:
        return None
    name = _read_name(reader, node, entries.get("name"), names)
    when = None
    if "when" in entries:
        when = read_condition(reader, entries["when"], scope)
    else:
        reader.fault(node, 'the rule has no `when`; `when: {recipient: "*"}` is true for every message')
    if not _OUTCOMES & node.mapping.keys():
        reader.fault(node, "the rule has no outcome; expected one of require, allow, hold, reject, do")
    require = _read_require(reader, entries["require"]) if "require" in entries else None
    allow = _read_allow(reader, entries["allow"]) if "allow" in entries else None
    hold = _read_hold(reader, entries["hold"], name) if "hold" in entries else None
    reject = _read_reject(reader, entries["reject"]) if "reject" in entries else None
    ignore = _read_unknown(reader, entries["unknown"]) if "unknown" in entries else False
    actions = read_actions(reader, entries["do"]) if "do" in entries else Actions()
    if len(reader.faults) > before or when is None:
        return None
    if allow is not None:
        methods = " ".join(method for method in Method if method in allow)
        reader.note(node, "allow", f"the rule {name!r} allows {methods}")
    if ignore:
        reader.note(node, "unknown", f"the rule {name!r} does not apply where its condition cannot be known")
    return Rule(name, when, require, allow, hold, reject, ignore, actions)


def _read_name(reader: Reader, rule: Node, node: Node | None, names: dict[str, str]) -> str:
    if node is None:
        reader.fault(rule, "the rule has no `name`; logs and traces speak of it by name")
        return ""
    if not isinstance(node.scalar, str) or not _NAME.match(node.scalar):
        reader.fault(node, f"expected a name of at most 64 letters, digits, blanks and . _ -, found {found(node)}")
        return ""
    name = node.scalar
    if name.casefold() in _RESERVED:
        reader.fault(node, f"the name {name!r} has a meaning of its own")
    elif name in names:
        reader.fault(node, f"the name {name!r} is given to two rules; first in {names[name]}")
    names.setdefault(name, f"{reader.document.file}, line {node.line}")
    return name


def _read_require(reader: Reader, node: Node) -> Require | None:
    require = Require()
    if node.mapping is not None and not node.mapping:
        reader.fault(node, "expected methods, tls, or both")
    for key, value in reader.entries(node, "key of require", ("methods", "tls")):
        if key == "methods":
            methods = reader.methods(value)
            if Method.PLAIN in methods:
                place = value if value.items is None else _place_of(value, Method.PLAIN)
                reader.fault(place, "plain cannot be required: a require protects")
            require = replace(require, methods=frozenset(methods))
        elif (level := reader.assurance(value)) is not None:
            require = replace(require, tls=level)
    return require


def _place_of(node: Node, method: Method) -> Node:
    return next((item for item in node.items or [] if item.scalar == str(method)), node)


def _read_allow(reader: Reader, node: Node) -> frozenset[Method]:
    if node.mapping is not None and not node.mapping:
        reader.fault(node, "expected methods")
    methods: frozenset[Method] = frozenset()
    for _, value in reader.entries(node, "key of allow", ("methods",)):
        methods = frozenset(reader.methods(value))
    return methods


def _read_hold(reader: Reader, node: Node, name: str) -> Hold | None:
    if node.scalar is True:
        return Hold(name)
    if node.mapping is None:
        reason = reader.text(node, "true, what it waits for, or a mapping with `for` and `expires`")
        if reason is not None and _is_duration(reason):
            reader.fault(node, f"expected what the message waits for, found a time; write {{expires: {reason}}}")
        return None if reason is None else Hold(_one_line(reader, node, reason))
    hold = Hold(name)
    for key, value in reader.entries(node, "key of hold", ("for", "expires")):
        if key == "for" and (reason := reader.text(value, "what the message waits for")) is not None:
            hold = replace(hold, reason=_one_line(reader, value, reason))
        elif key == "expires" and (seconds := reader.duration(value)) is not None:
            hold = replace(hold, expires=seconds)
    return hold


def _is_duration(text: str) -> bool:
    with suppress(ValueError):
        return parse_duration(text) > 0
    return False


def _one_line(reader: Reader, node: Node, text: str) -> str:
    if len(text) > _MAX_REJECT or not text.isprintable():
        reader.fault(node, f"expected one line of at most {_MAX_REJECT} characters")
    return text


def _read_reject(reader: Reader, node: Node) -> str | None:
    text = reader.text(node, "the text that the sender is told")
    if text is None:
        return None
    if not text.isascii() or not text.isprintable() or len(text) > _MAX_REJECT:
        message = f"this text goes into an SMTP reply: expected one line of at most {_MAX_REJECT} ASCII characters"
        reader.fault(node, message)
    return text


def _read_unknown(reader: Reader, node: Node) -> bool:
    if node.scalar != "ignore":
        reader.fault(node, f"expected ignore, found {found(node)}")
    return True
