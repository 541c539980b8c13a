"""Reading conditions on content: ``content``, ``attachment``, ``encrypted_already``."""

from __future__ import annotations

from gateway.config.source import Node
from gateway.mail.content import FileType
from gateway.policy.about_content import (
    AttachmentIs,
    ContentContains,
    ContentDetects,
    ContentMatches,
    ContentUnreadable,
    EncryptedAlready,
)
from gateway.policy.conditions import AllOf, Condition, Not
from gateway.policy.facts import normal_text
from gateway.policy.reader import Reader, found
from gateway.policy.scope import Scope, unknown_name
from gateway.policy.when_texts import read_one_of, read_patterns, read_visible_texts

__all__ = ["read_attachment", "read_content", "read_encrypted"]

_WAYS = {name: name for name in ("smime", "pgp", "pdf")}
_TYPES = {str(kind): kind for kind in FileType}
_CONTENT_KEYS = ("contains", "matches", "detects", "at_least", "unreadable")
_ATTACHMENT_KEYS = ("type", "name", "size", "encrypted", "count")


def read_content(reader: Reader, node: Node, scope: Scope) -> Condition | None:
    """``{contains, matches, detects, at_least, unreadable}``: all that is given must hold."""
    if node.mapping is not None and not node.mapping:
        reader.fault(node, "expected contains, matches, detects or unreadable")
        return None
    parts: list[Condition] = []
    detectors: frozenset[str] = frozenset()
    floor = 1
    for key, value in reader.entries(node, "key of content", _CONTENT_KEYS):
        if key == "contains":
            parts.append(ContentContains(frozenset(_folded(text) for text in read_visible_texts(reader, value))))
        elif key == "matches":
            parts.append(ContentMatches(frozenset(read_patterns(reader, value))))
        elif key == "detects":
            detectors = _detectors(reader, value, scope)
        elif key == "at_least":
            floor = reader.count(value, least=1) or 1
        elif not isinstance(value.scalar, bool):
            reader.fault(value, f"expected true or false, found {found(value)}")
        else:
            parts.append(ContentUnreadable() if value.scalar else Not(ContentUnreadable()))
    if detectors:
        parts.append(ContentDetects(detectors, floor))
    elif node.mapping is not None and "at_least" in node.mapping and "detects" not in node.mapping:
        reader.key_fault(node, "at_least", "`at_least` counts what `detects` finds, which is not given")
    return None if not parts else parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _folded(text: str) -> str:
    return normal_text(text).casefold()


def _detectors(reader: Reader, node: Node, scope: Scope) -> frozenset[str]:
    names = []
    known = scope.detector_names()
    for name, entry in reader.texts(node, "names of detectors"):
        if name not in known:
            unknown_name(reader, entry, "detector", name, known)
        names.append(name)
    return frozenset(names)


def read_attachment(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    """``{type, name, size, encrypted, count}``: attachments that are all of it."""
    if node.mapping is not None and not node.mapping:
        reader.fault(node, "expected type, name, size, encrypted or count")
        return None
    types: list[FileType] = []
    names: tuple[str, ...] = ()
    over = under = None
    encrypted: bool | None = None
    count = 1
    for key, value in reader.entries(node, "key of attachment", _ATTACHMENT_KEYS):
        if key == "type":
            types = read_one_of(reader, value, "type of file", "types of files", _TYPES)
        elif key == "name":
            names = tuple(text for text, _ in reader.texts(value, "file names or patterns"))
        elif key == "size":
            over, under = reader.bounds(value, reader.size)
        elif key == "count":
            more, fewer = reader.bounds(value, reader.count)
            if fewer is not None:
                reader.fault(value, "only `over` is possible here: put the condition in `not` for fewer")
            count = (more or 0) + 1
        elif isinstance(value.scalar, bool):
            encrypted = value.scalar
        else:
            reader.fault(value, f"expected true or false, found {found(value)}")
    return AttachmentIs(frozenset(types), names, over, under, encrypted, count)


def read_encrypted(reader: Reader, node: Node, _scope: Scope) -> Condition | None:
    """``true``, ``false``, or the ways that count: smime, pgp, pdf."""
    if isinstance(node.scalar, bool):
        any_way = EncryptedAlready(frozenset(_WAYS))
        return any_way if node.scalar else Not(any_way)
    ways = read_one_of(reader, node, "way of protection", "true, false, or some of smime, pgp, pdf", _WAYS)
    return EncryptedAlready(frozenset(ways))
