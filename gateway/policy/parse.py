"""From policy files to a :class:`Policy`, or to every fault in them at once.

1. groups and detectors of all files: any rule may name them
2. protection, rules (``rules_read``), exceptions (``exceptions_read``), tests (``cases_read``)
3. what only shows with all files together: names, contradictions, actions that clash

Whatever the language knows and this version does not is a fault where ignoring it would weaken the policy, and a notice
where it only means less comfort (``invariants``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from gateway.config.faults import Notice, in_order
from gateway.config.source import Document, Node
from gateway.errors import Fault
from gateway.mail.protection import Assurance, Method
from gateway.policy.about_content import questions_of
from gateway.policy.actions import clashes
from gateway.policy.cases import Case
from gateway.policy.cases_read import read_case
from gateway.policy.conditions import atoms
from gateway.policy.disjoint import are_disjoint
from gateway.policy.exceptions_read import check_names, read_exception
from gateway.policy.protection_read import read_protection
from gateway.policy.reader import Mention, Reader, found
from gateway.policy.rules import Exempt, Policy, Protection, Rule
from gateway.policy.rules_read import read_rule
from gateway.policy.scope import Scope, read_detectors, read_groups

__all__ = ["ParsedPolicy", "parse_policy"]

_SECTIONS = frozenset({"version", "protection", "rules", "groups", "detectors", "exceptions", "invariants", "tests"})
#: Pairs of rules with actions that are compared; a policy with more has outgrown reading.
_MAX_PAIRS = 200_000


@dataclass(frozen=True, slots=True)
class ParsedPolicy:
    """What came of the files. While there are ``faults``, ``policy`` must not be used.

    ``cases``: the policy tests. ``mentions``: what must exist in the configuration. ``files``: further files that were
    read, such as groups, with their bytes.
    """

    policy: Policy
    faults: tuple[Fault, ...] = ()
    notices: tuple[Notice, ...] = ()
    cases: tuple[Case, ...] = ()
    mentions: tuple[Mention, ...] = ()
    files: tuple[tuple[Path, bytes], ...] = ()


@dataclass(slots=True)
class _Found:
    """What is gathered over all files."""

    scope: Scope = field(default_factory=Scope)
    protection: Protection | None = None
    protection_place: Fault | None = None
    rules: list[tuple[Rule, Reader, Node]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    exceptions: list[tuple[Exempt, Reader, Node]] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)


def parse_policy(documents: Sequence[Document], now: float | None = None) -> ParsedPolicy:
    """The policy that these files say together; without files the default one.

    With ``now`` (seconds UTC) the notices say which exceptions are over.
    """
    gathered = _Found()
    readers = [Reader(document) for document in documents]
    files = [(reader, _sections(reader)) for reader in readers]
    for reader, sections in files:
        if "groups" in sections:
            read_groups(reader, sections["groups"], gathered.scope)
        if "detectors" in sections:
            read_detectors(reader, sections["detectors"], gathered.scope)
    for reader, sections in files:
        _read_file(reader, sections, gathered, now)
    for reader, sections in files:
        _read_list(reader, sections, "tests", lambda reader, node: _read_case(reader, node, gathered))
    if not any(reader.faults for reader in readers):
        _look_for_contradictions(gathered)
        _look_for_clashes(gathered)
        asks = {rule.name: rule.require is not None for rule, _, _ in gathered.rules}
        for exempt, reader, node in gathered.exceptions:
            check_names(reader, node, exempt, asks)
    _tell_what_is_not_read(gathered)
    scope = gathered.scope
    policy = Policy(
        gathered.protection or Protection(),
        tuple(rule for rule, _, _ in gathered.rules),
        tuple(exempt for exempt, _, _ in gathered.exceptions),
        tuple(scope.detectors.values()),
        tuple(sorted(scope.floors.items())),
    )
    return ParsedPolicy(
        policy,
        in_order(fault for reader in readers for fault in reader.faults),
        in_order(notice for reader in readers for notice in reader.notices),
        tuple(gathered.cases),
        tuple(mention for reader in readers for mention in reader.mentioned),
        tuple(sorted(scope.files.items())),
    )


def _sections(reader: Reader) -> dict[str, Node]:
    root = reader.document.root
    if reader.document.faults and not root.mapping:
        return {}
    sections = dict(reader.entries(root, "section", _SECTIONS))
    if root.mapping is None:
        return {}
    version = sections.get("version")
    if version is None:
        reader.fault(root, "the key 'version' is missing; expected `version: 1`")
    elif version.scalar != 1 or isinstance(version.scalar, bool):
        reader.fault(version, f"expected version 1, found {found(version)}")
    return sections


def _read_file(reader: Reader, sections: dict[str, Node], gathered: _Found, now: float | None) -> None:
    if "protection" in sections:
        _read_only_protection(reader, sections["protection"], gathered)
    _read_list(reader, sections, "rules", lambda reader, node: _read_rule(reader, node, gathered))
    _read_list(reader, sections, "exceptions", lambda reader, node: _read_exception(reader, node, gathered, now))
    if (node := sections.get("invariants")) is not None:
        if node.items is None:
            reader.fault(node, f"expected a list, found {found(node)}")
        else:
            reader.note(reader.document.root, "invariants", "the section 'invariants' has no effect yet")


def _read_list(reader: Reader, sections: dict[str, Node], name: str, read: Callable[[Reader, Node], None]) -> None:
    node = sections.get(name)
    if node is None or (node.items is not None and not node.items):
        return
    for entry in reader.items(node, name):
        read(reader, entry)


def _read_rule(reader: Reader, node: Node, gathered: _Found) -> None:
    rule = read_rule(reader, node, gathered.scope, gathered.names)
    if rule is not None:
        gathered.rules.append((rule, reader, node))


def _read_exception(reader: Reader, node: Node, gathered: _Found, now: float | None) -> None:
    exempt = read_exception(reader, node, gathered.scope, now)
    if exempt is not None:
        gathered.exceptions.append((exempt, reader, node))


def _read_case(reader: Reader, node: Node, gathered: _Found) -> None:
    case = read_case(reader, node, set(gathered.names))
    if case is not None:
        gathered.cases.append(case)


def _read_only_protection(reader: Reader, node: Node, gathered: _Found) -> None:
    root = reader.document.root
    if (first := gathered.protection_place) is not None:
        where = f"{first.file}, line {first.line}"
        reader.key_fault(root, "protection", f"`protection` stands in one file only; it is already in {where}")
        return
    gathered.protection_place = Fault(reader.document.file, *root.keys["protection"], "")
    gathered.protection = read_protection(reader, root, node)


def _tell_what_is_not_read(gathered: _Found) -> None:
    """Once, at the first rule that asks about text: what has none for us is unknown to all of them."""
    for rule, reader, node in gathered.rules:
        if any(questions_of(atom).of_text for atom in atoms(rule.when)):
            reader.note(
                node,
                "when",
                "attachments that are not text (PDF, office documents, archives) are not read in this version:"
                " for this and every other condition on content, what they hold cannot be known",
            )
            return


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


def _look_for_clashes(gathered: _Found) -> None:
    """Two rules that set the same single value differently, and may both match, would make the outcome arbitrary."""
    acting = [(rule, reader, node) for rule, reader, node in gathered.rules if rule.actions.edits]
    for number, ((one, _, first), (other, reader, node)) in enumerate(combinations(acting, 2)):
        if number >= _MAX_PAIRS:
            return
        different = list(clashes(one.actions.edits, other.actions.edits))
        if different and not are_disjoint(one.when, other.when):
            place = (node.mapping or {}).get("do", node)
            where = f"line {first.line}"
            reader.fault(
                place,
                f"{different[0]}: the rules {one.name!r} ({where}) and {other.name!r} set it differently, and a message"
                " may match both",
            )
