"""Reading ``when``: the conditions of a rule. Several keys in one mapping mean all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from gateway.config.source import Node
from gateway.policy.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Not,
    RecipientDomainIs,
    RecipientIs,
    SenderIs,
    SubjectContains,
    SubjectMatches,
    SubjectTag,
    compile_pattern,
)
from gateway.policy.facts import normal_text
from gateway.policy.patterns import AddressPattern, DomainPattern
from gateway.policy.reader import Reader

__all__ = ["read_condition"]

_LATER = frozenset(
    {"from", "group", "connector", "header", "sensitivity_label", "content", "attachment", "size", "recipient_count"}
    | {"time", "kind", "encrypted_already"}
)
"""Conditions of the language that this version cannot judge."""

_TAG = re.compile(r"[\w.+-]{1,64}\Z")


def read_condition(reader: Reader, node: Node) -> Condition | None:
    """The condition that a mapping stands for; ``None`` after a fault."""
    if node.mapping is not None and not node.mapping:
        reader.fault(node, 'expected a condition; `recipient: "*"` is true for every message')
        return None
    before = len(reader.faults)
    parts = [_READERS[key](reader, value) for key, value in reader.entries(node, "condition", _READERS, _LATER)]
    whole = [part for part in parts if part is not None]
    if len(reader.faults) > before or not whole:
        return None
    return whole[0] if len(whole) == 1 else AllOf(tuple(whole))


def _several(reader: Reader, node: Node) -> tuple[Condition, ...]:
    parts = [read_condition(reader, entry) for entry in reader.items(node, "conditions")]
    return tuple(part for part in parts if part is not None)


def _all(reader: Reader, node: Node) -> Condition | None:
    return AllOf(_several(reader, node))


def _any(reader: Reader, node: Node) -> Condition | None:
    return AnyOf(_several(reader, node))


def _not(reader: Reader, node: Node) -> Condition | None:
    part = read_condition(reader, node)
    return None if part is None else Not(part)


def _addresses(reader: Reader, node: Node) -> tuple[AddressPattern, ...]:
    patterns = []
    for text, entry in reader.texts(node, "addresses or patterns"):
        try:
            patterns.append(AddressPattern.parse(text))
        except ValueError as error:
            reader.fault(entry, str(error))
    return tuple(patterns)


def _sender(reader: Reader, node: Node) -> Condition | None:
    return SenderIs(_addresses(reader, node))


def _recipient(reader: Reader, node: Node) -> Condition | None:
    return RecipientIs(_addresses(reader, node))


def _recipient_domain(reader: Reader, node: Node) -> Condition | None:
    patterns = []
    for text, entry in reader.texts(node, "domains or patterns"):
        try:
            patterns.append(DomainPattern.parse(text))
        except ValueError as error:
            reader.fault(entry, str(error))
    return RecipientDomainIs(tuple(patterns))


def _subject(reader: Reader, node: Node) -> Condition | None:
    if node.mapping is not None and not node.mapping:
        reader.fault(node, "expected contains, matches or tag")
        return None
    entries = reader.entries(node, "subject condition", _SUBJECT_READERS, {"tag_typo"})
    parts = [_SUBJECT_READERS[key](reader, value) for key, value in entries]
    whole = [part for part in parts if part is not None]
    return None if not whole else whole[0] if len(whole) == 1 else AllOf(tuple(whole))


def _contains(reader: Reader, node: Node) -> Condition | None:
    texts = []
    for text, entry in reader.texts(node, "texts"):
        if not normal_text(text):
            # It would be found in every subject.
            reader.fault(entry, "nothing that can be seen is left of this text")
        texts.append(text)
    return SubjectContains(tuple(texts))


def _matches(reader: Reader, node: Node) -> Condition | None:
    patterns = []
    for text, entry in reader.texts(node, "patterns"):
        try:
            compile_pattern(text)
        except ValueError as error:
            reader.fault(entry, str(error))
        else:
            patterns.append(text)
    return SubjectMatches(tuple(patterns))


def _tag(reader: Reader, node: Node) -> Condition | None:
    tags = []
    for text, entry in reader.texts(node, "tags"):
        if not _TAG.match(text):
            reader.fault(
                entry, f"expected a tag of letters and digits, such as secure, without brackets, found {text!r}"
            )
        tags.append(text)
    return SubjectTag(tuple(tags))


_Readers = Mapping[str, Callable[[Reader, Node], Condition | None]]

_SUBJECT_READERS: _Readers = MappingProxyType({"contains": _contains, "matches": _matches, "tag": _tag})

_READERS: _Readers = MappingProxyType(
    {
        "all": _all,
        "any": _any,
        "not": _not,
        "sender": _sender,
        "recipient": _recipient,
        "recipient_domain": _recipient_domain,
        "subject": _subject,
    }
)
