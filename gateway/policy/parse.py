"""From policy files to a :class:`Policy`, or to every fault in them at once.

Whatever the language knows and this version does not is a fault where ignoring it would weaken the policy (a
condition, an outcome, an action), and a notice where it only means less comfort (``tests``, ``invariants``,
``exceptions``: without an exception the stricter rule simply holds).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gateway.config.faults import Notice, in_order
from gateway.config.source import Document, Node
from gateway.errors import Fault
from gateway.mail.protection import Assurance, Method
from gateway.policy.evaluate import CONTRADICTION, PROTECT_HEADER
from gateway.policy.reader import Reader, found
from gateway.policy.rules import Hold, Policy, Protection, Require, Rule
from gateway.policy.when import read_condition

__all__ = ["ParsedPolicy", "parse_policy"]

_SECTIONS = frozenset({"version", "protection", "rules", "groups", "detectors", "exceptions", "invariants", "tests"})
_MAPPINGS_WITHOUT_EFFECT = ("groups", "detectors")
_LISTS_WITHOUT_EFFECT = ("exceptions", "invariants", "tests")
_OUTCOMES = frozenset({"require", "allow", "hold", "reject"})
_RULE_KEYS = frozenset({"name", "when", "unknown"}) | _OUTCOMES
_RULE_KEYS_LATER = frozenset({"do"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")
_RESERVED = frozenset({PROTECT_HEADER.casefold(), CONTRADICTION})
_MAX_REJECT = 200  # with code and rule name it must fit into one reply line (RFC 5321 section 4.5.3.1.5: 512 octets)


@dataclass(frozen=True, slots=True)
class ParsedPolicy:
    """What came of the files. While there are ``faults``, ``policy`` must not be used."""

    policy: Policy
    faults: tuple[Fault, ...] = ()
    notices: tuple[Notice, ...] = ()


@dataclass(slots=True)
class _Found:
    """What is gathered over all files."""

    protection: Protection | None = None
    protection_place: Fault | None = None
    rules: list[tuple[Rule, Reader, Node]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


def parse_policy(documents: Sequence[Document]) -> ParsedPolicy:
    """The policy that these files say together; without files the default one."""
    gathered = _Found()
    readers = [Reader(document) for document in documents]
    for reader in readers:
        _read_file(reader, gathered)
    if not any(reader.faults for reader in readers):
        _look_for_contradictions(gathered)
    policy = Policy(gathered.protection or Protection(), tuple(rule for rule, _, _ in gathered.rules))
    return ParsedPolicy(
        policy,
        in_order(fault for reader in readers for fault in reader.faults),
        in_order(notice for reader in readers for notice in reader.notices),
    )


def _read_file(reader: Reader, gathered: _Found) -> None:
    root = reader.document.root
    if reader.document.faults and not root.mapping:
        return
    sections = dict(reader.entries(root, "section", _SECTIONS))
    if root.mapping is None:
        return
    version = sections.get("version")
    if version is None:
        reader.fault(root, "the key 'version' is missing; expected `version: 1`")
    elif version.scalar != 1 or isinstance(version.scalar, bool):
        reader.fault(version, f"expected version 1, found {found(version)}")
    if "protection" in sections:
        _read_only_protection(reader, root, sections["protection"], gathered)
    if "rules" in sections and not _is_empty_list(sections["rules"]):
        for node in reader.items(sections["rules"], "rules"):
            _read_rule(reader, node, gathered)
    for name in (*_MAPPINGS_WITHOUT_EFFECT, *_LISTS_WITHOUT_EFFECT):
        if name in sections:
            _note_without_effect(reader, root, name, sections[name])


def _is_empty_list(node: Node) -> bool:
    return node.items is not None and not node.items


def _note_without_effect(reader: Reader, root: Node, name: str, node: Node) -> None:
    if name in _MAPPINGS_WITHOUT_EFFECT and node.mapping is None:
        reader.fault(node, f"expected a mapping, found {found(node)}")
    elif name in _LISTS_WITHOUT_EFFECT and node.items is None:
        reader.fault(node, f"expected a list, found {found(node)}")
    else:
        reader.note(root, name, f"the section {name!r} has no effect yet")


# -- protection -----------------------------------------------------------------------------------------------------


def _read_only_protection(reader: Reader, root: Node, node: Node, gathered: _Found) -> None:
    if (first := gathered.protection_place) is not None:
        where = f"{first.file}, line {first.line}"
        reader.key_fault(root, "protection", f"`protection` stands in one file only; it is already in {where}")
        return
    gathered.protection_place = Fault(reader.document.file, *root.keys["protection"], "")
    gathered.protection = _read_protection(reader, root, node)


def _read_protection(reader: Reader, root: Node, node: Node) -> Protection:
    protection = Protection()
    for key, value in reader.entries(node, "key of protection", ("methods", "tls", "prefer", "fallback_after")):
        if key == "methods":
            protection = replace(protection, methods=frozenset(reader.methods(value)))
            if Method.PLAIN in protection.methods:
                reader.note(
                    root, "protection", "the defaults allow plain: mail that no rule requires more of may go clear"
                )
        elif key == "prefer":
            protection = replace(protection, prefer=_read_preference(reader, value))
        elif key == "tls" and (level := reader.assurance(value)) is not None:
            if level is Assurance.NONE:
                message = "method tls without assurance protects nothing; to allow clear text, add plain to the methods"
                reader.fault(value, message)
            protection = replace(protection, tls=level)
        elif key == "fallback_after" and (seconds := reader.duration(value)) is not None:
            protection = replace(protection, fallback_after=seconds)
    return protection


def _read_preference(reader: Reader, node: Node) -> tuple[Method, ...]:
    prefer = reader.methods(node)
    if Method.PLAIN in prefer and Method.TLS not in prefer[: prefer.index(Method.PLAIN)]:
        place = node if node.items is None else node.items[prefer.index(Method.PLAIN)]
        reader.fault(place, "plain must not be preferred to tls: put tls before it")
    return prefer


# -- rules ----------------------------------------------------------------------------------------------------------


def _read_rule(reader: Reader, node: Node, gathered: _Found) -> None:
    before = len(reader.faults)
    entries = dict(reader.entries(node, "key of a rule", _RULE_KEYS, _RULE_KEYS_LATER))
    if node.mapping is None:
        return
    name = _read_name(reader, node, entries.get("name"), gathered)
    when = None
    if "when" in entries:
        when = read_condition(reader, entries["when"])
    else:
        reader.fault(node, 'the rule has no `when`; `when: {recipient: "*"}` is true for every message')
    if not (_OUTCOMES | _RULE_KEYS_LATER) & node.mapping.keys():
        reader.fault(node, "the rule has no outcome; expected one of require, allow, hold, reject")
    require = _read_require(reader, entries["require"]) if "require" in entries else None
    allow = _read_allow(reader, entries["allow"]) if "allow" in entries else None
    hold = _read_hold(reader, entries["hold"], name) if "hold" in entries else None
    reject = _read_reject(reader, entries["reject"]) if "reject" in entries else None
    ignore = _read_unknown(reader, entries["unknown"]) if "unknown" in entries else False
    if len(reader.faults) > before or when is None:
        return
    if allow is not None:
        methods = " ".join(method for method in Method if method in allow)
        reader.note(node, "allow", f"the rule {name!r} allows {methods}")
    if ignore:
        reader.note(node, "unknown", f"the rule {name!r} does not apply where its condition cannot be known")
    rule = Rule(name, when, require, allow, hold, reject, ignore)
    gathered.rules.append((rule, reader, node))


def _read_name(reader: Reader, rule: Node, node: Node | None, gathered: _Found) -> str:
    if node is None:
        reader.fault(rule, "the rule has no `name`; logs and traces speak of it by name")
        return ""
    if not isinstance(node.scalar, str) or not _NAME.match(node.scalar):
        reader.fault(node, f"expected a name of at most 64 letters, digits, blanks and . _ -, found {found(node)}")
        return ""
    name = node.scalar
    if name.casefold() in _RESERVED:
        reader.fault(node, f"the name {name!r} has a meaning of its own")
    elif name in gathered.names:
        reader.fault(node, f"the name {name!r} is given to two rules; first in {gathered.names[name]}")
    gathered.names.setdefault(name, f"{reader.document.file}, line {node.line}")
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
        return None if reason is None else Hold(_one_line(reader, node, reason))
    hold = Hold(name)
    for key, value in reader.entries(node, "key of hold", ("for", "expires")):
        if key == "for" and (reason := reader.text(value, "what the message waits for")) is not None:
            hold = replace(hold, reason=_one_line(reader, value, reason))
        elif key == "expires" and (seconds := reader.duration(value)) is not None:
            hold = replace(hold, expires=seconds)
    return hold


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


# -- all files together ---------------------------------------------------------------------------------------------


def _look_for_contradictions(gathered: _Found) -> None:
    """A rule that leaves no method for any message that it matches can only ever hold mail: that is a mistake."""
    protection = gathered.protection or Protection()
    reachable = protection.methods.union(*(rule.allow or frozenset() for rule, _, _ in gathered.rules))
    for rule, reader, node in gathered.rules:
        if rule.require is None or node.mapping is None:
            continue
        kept = reachable if rule.require.methods is None else reachable & rule.require.methods
        if rule.require.tls > Assurance.NONE:
            kept -= {Method.PLAIN}
        if not kept:
            have = " ".join(method for method in Method if method in reachable) or "none"
            message = f"the rule {rule.name!r} leaves no method at all: the defaults and every `allow` give {have}"
            reader.fault(node.mapping["require"], message)
