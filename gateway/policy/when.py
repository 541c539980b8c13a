"""Reading ``when``: the conditions of a rule. Several keys in one mapping mean all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from gateway.config.source import Node
from gateway.mail.envelope import Kind
from gateway.policy.about_envelope import (
    ConnectorIs,
    FromIs,
    KindIs,
    RecipientCount,
    RecipientDomainIs,
    RecipientIs,
    SenderIs,
    SizeIs,
)
from gateway.policy.about_header import (
    HeaderContains,
    HeaderExists,
    HeaderMatches,
    LabelIs,
    SubjectContains,
    SubjectMatches,
    SubjectTag,
    SubjectTagTypo,
)
from gateway.policy.conditions import AllOf, AnyOf, Condition, Not
from gateway.policy.patterns import AddressPattern, DomainPattern
from gateway.policy.reader import Reader
from gateway.policy.scope import Scope, unknown_name
from gateway.policy.when_content import read_attachment, read_content, read_encrypted
from gateway.policy.when_texts import read_one_of, read_patterns, read_visible_texts
from gateway.policy.when_time import read_time

__all__ = ["read_addresses", "read_condition", "read_tags"]

_Read = Callable[[Reader, Node, Scope], Condition | None]

_TAG = re.compile(r"[\w.+-]{1,64}\Z")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}\Z")


def read_condition(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    """The condition that a mapping stands for; ``None`` after a fault."""
    if node.mapping is not None and not node.mapping:
        reader.fault(node, 'expected a condition; `recipient: "*"` is true for every message')
        return None
    before = len(reader.faults)
    parts = [_READERS[key](reader, value, scope) for key, value in reader.entries(node, "condition", _READERS)]
    return _whole(parts) if len(reader.faults) == before else None


def _whole(parts: list[Condition | None]) -> Condition | None:
    whole = tuple(part for part in parts if part is not None)
    return None if not whole else whole[0] if len(whole) == 1 else AllOf(whole)


# -- combining ------------------------------------------------------------------------------------------------------


def _several(reader: Reader, node: Node, scope: Scope) -> tuple[Condition, ...]:
    parts = [read_condition(reader, entry, scope) for entry in reader.items(node, "conditions")]
    return tuple(part for part in parts if part is not None)


def _all(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    return AllOf(_several(reader, node, scope))


def _any(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    return AnyOf(_several(reader, node, scope))


def _not(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    part = read_condition(reader, node, scope)
    return None if part is None else Not(part)


# -- envelope -------------------------------------------------------------------------------------------------------


def read_addresses(reader: Reader, node: Node, scope: Scope) -> tuple[AddressPattern, ...]:
    """Addresses, patterns and ``group:NAME``."""
    patterns: list[AddressPattern] = []
    for text, entry in reader.texts(node, "addresses or patterns"):
        if text.startswith("group:"):
            patterns += _group(reader, entry, text.removeprefix("group:"), scope)
            continue
        try:
            patterns.append(AddressPattern.parse(text))
        except ValueError as error:
            reader.fault(entry, str(error))
    return tuple(patterns)


def _group(reader: Reader, node: Node, name: str, scope: Scope) -> tuple[AddressPattern, ...]:
    if name not in scope.groups:
        unknown_name(reader, node, "group", name, sorted(scope.groups))
        return ()
    return scope.groups[name]


def _sender(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    return SenderIs(read_addresses(reader, node, scope))


def _from(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    return FromIs(read_addresses(reader, node, scope))


def _recipient(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    return RecipientIs(read_addresses(reader, node, scope))


def _in_group(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    names = reader.texts(node, "names of groups")
    return RecipientIs(tuple(pattern for name, entry in names for pattern in _group(reader, entry, name, scope)))


def _recipient_domain(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    patterns = []
    for text, entry in reader.texts(node, "domains or patterns"):
        try:
            patterns.append(DomainPattern.parse(text))
        except ValueError as error:
            reader.fault(entry, str(error))
    return RecipientDomainIs(tuple(patterns))


def _connector(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    names = reader.texts(node, "names of connectors")
    for name, entry in names:
        reader.mentions("connector", name, entry)
    return ConnectorIs(frozenset(name for name, _ in names))


def _kind(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    known = {str(kind): kind for kind in Kind}
    return KindIs(frozenset(read_one_of(reader, node, "kind of mail", "kinds of mail", known)))


def _size(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    over, under = reader.bounds(node, reader.size)
    return SizeIs(over, under)


def _recipient_count(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    over, under = reader.bounds(node, reader.count)
    return RecipientCount(over, under)


def _time(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    return read_time(reader, node)


# -- header ---------------------------------------------------------------------------------------------------------


def _subject(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    if node.mapping is not None and not node.mapping:
        reader.fault(node, "expected contains, matches, tag or tag_typo")
        return None
    entries = reader.entries(node, "subject condition", _SUBJECT_READERS)
    return _whole([_SUBJECT_READERS[key](reader, value, scope) for key, value in entries])


def _subject_contains(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    return SubjectContains(read_visible_texts(reader, node))


def _subject_matches(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    return SubjectMatches(read_patterns(reader, node))


def read_tags(reader: Reader, node: Node) -> tuple[str, ...]:
    """Tags without their brackets."""
    tags = []
    for text, entry in reader.texts(node, "tags"):
        if not _TAG.match(text):
            reader.fault(
                entry, f"expected a tag of letters and digits, such as secure, without brackets, found {text!r}"
            )
        tags.append(text)
    return tuple(tags)


def _subject_tag(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    return SubjectTag(read_tags(reader, node))


def _subject_tag_typo(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    return SubjectTagTypo(read_tags(reader, node))


def _header(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    name, parts, exists = "", [], True
    for key, value in reader.entries(node, "key of header", ("name", "contains", "matches", "exists")):
        if key == "name":
            name = (reader.text(value, "the name of a header field") or "").lower()
            if name and not _FIELD_NAME.match(name):
                reader.fault(value, f"expected the name of a header field, found {name!r}")
        elif key == "exists":
            if not isinstance(value.scalar, bool):
                reader.fault(value, "expected true or false")
            exists = value.scalar is True
        else:
            parts.append((key, value))
    if not name and node.mapping is not None and "name" not in node.mapping:
        reader.fault(node, "the header condition has no `name`")
    there = HeaderExists(name)
    if not parts:
        return there if exists else Not(there)
    if not exists:
        reader.fault(node, "a field that does not exist neither contains nor matches anything")
    read: list[Condition | None] = [
        HeaderContains(name, read_visible_texts(reader, value))
        if key == "contains"
        else HeaderMatches(name, read_patterns(reader, value))
        for key, value in parts
    ]
    return _whole(read)


def _label(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    names = reader.texts(node, "labels, by GUID or name")
    return LabelIs(frozenset(text.strip().casefold() for text, _ in names))


# -- the tables -----------------------------------------------------------------------------------------------------

_SUBJECT_READERS: Mapping[str, _Read] = MappingProxyType(
    {
        "contains": _subject_contains,
        "matches": _subject_matches,
        "tag": _subject_tag,
        "tag_typo": _subject_tag_typo,
    }
)

_READERS: Mapping[str, _Read] = MappingProxyType(
    {
        "all": _all,
        "any": _any,
        "not": _not,
        "sender": _sender,
        "from": _from,
        "recipient": _recipient,
        "recipient_domain": _recipient_domain,
        "group": _in_group,
        "connector": _connector,
        "kind": _kind,
        "subject": _subject,
        "header": _header,
        "sensitivity_label": _label,
        "size": _size,
        "recipient_count": _recipient_count,
        "time": _time,
        "encrypted_already": read_encrypted,
        "attachment": read_attachment,
        "content": read_content,
    }
)
