"""What a policy's files may refer to by name: groups of addresses, and detectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.faults import suggestion
from gateway.config.source import Node
from gateway.policy.detect import BUILT_IN, Detector, own_detector
from gateway.policy.patterns import AddressPattern
from gateway.policy.reader import Reader, found

__all__ = ["Scope", "read_detectors", "read_groups"]

_MAX_FILE = 4 << 20
_NAME_WANTED = "a name of letters, digits, - and _"


@dataclass(slots=True)
class Scope:
    """Groups by name; the policy's own detectors by name, and how many finds each needs to count; files read."""

    groups: dict[str, tuple[AddressPattern, ...]] = field(default_factory=dict)
    detectors: dict[str, Detector] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    files: dict[Path, bytes] = field(default_factory=dict)

    def detector_names(self) -> list[str]:
        """All that a rule may name."""
        return sorted({*BUILT_IN, *self.detectors})


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 64 and text.replace("-", "").replace("_", "").isalnum()


def _named(reader: Reader, node: Node, what: str, taken: Mapping[str, object]) -> list[tuple[str, Node]]:
    if node.mapping is None:
        reader.fault(node, f"expected a mapping, found {found(node)}")
        return []
    entries = []
    for name, value in node.mapping.items():
        if not _is_name(name):
            reader.key_fault(node, name, f"expected {_NAME_WANTED}, found {name!r}")
        elif name in taken:
            reader.key_fault(node, name, f"the {what} {name!r} is defined twice")
        else:
            entries.append((name, value))
    return entries


# -- groups ---------------------------------------------------------------------------------------------------------


def read_groups(reader: Reader, node: Node, scope: Scope) -> None:
    """Add the groups of this file: lists of patterns, ``file:PATH`` with one on each line."""
    for name, value in _named(reader, node, "group", scope.groups):
        patterns: list[AddressPattern] = []
        for text, entry in reader.texts(value, "addresses, patterns or file:PATH"):
            patterns += _members(reader, entry, text, scope)
        scope.groups[name] = tuple(sorted(set(patterns)))


def _members(reader: Reader, entry: Node, text: str, scope: Scope) -> list[AddressPattern]:
    if text.startswith("file:"):
        return _from_file(reader, entry, text.removeprefix("file:"), scope)
    if text.startswith("group:"):
        reader.fault(entry, "a group does not hold other groups; a condition takes several")
        return []
    if text.startswith("ldap:"):
        reader.fault(entry, "groups from LDAP are not available in this version")
        return []
    try:
        return [AddressPattern.parse(text)]
    except ValueError as error:
        reader.fault(entry, str(error))
        return []


def _from_file(reader: Reader, entry: Node, name: str, scope: Scope) -> list[AddressPattern]:
    path = Path(reader.document.file).parent / name
    try:
        with path.open("rb") as handle:
            data = handle.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            reader.fault(entry, f"{name} is larger than {_MAX_FILE >> 20} MiB")
            return []
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reader.fault(entry, f"{name} cannot be read: {error.strerror if isinstance(error, OSError) else error}")
        return []
    scope.files[path] = data
    patterns = []
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].strip()
        if not said:
            continue
        try:
            patterns.append(AddressPattern.parse(said))
        except ValueError as error:
            reader.fault(entry, f"{name}, line {number}: {error}")
            if len(reader.faults) > 20:
                return []
    return patterns


# -- detectors ------------------------------------------------------------------------------------------------------


def read_detectors(reader: Reader, node: Node, scope: Scope) -> None:
    """Add the detectors of this file: ``{pattern, near: {words, within}, at_least}`` by name."""
    for name, value in _named(reader, node, "detector", scope.detectors):
        if name in BUILT_IN:
            reader.key_fault(node, name, f"{name!r} is built in; give yours another name")
            continue
        _read_detector(reader, name, value, scope)


def _read_detector(reader: Reader, name: str, node: Node, scope: Scope) -> None:
    before = len(reader.faults)
    pattern: str | None = None
    words: list[str] = []
    within, floor = 60, 1
    for key, value in reader.entries(node, "key of a detector", ("pattern", "near", "at_least")):
        if key == "pattern":
            pattern = reader.text(value, "a pattern (RE2 syntax)")
        elif key == "at_least":
            floor = reader.count(value, least=1) or 1
        else:
            for part, entry in reader.entries(value, "key of near", ("words", "within")):
                if part == "words":
                    words = [text for text, _ in reader.texts(entry, "words")]
                else:
                    within = reader.count(entry, least=1) or within
            if not words and len(reader.faults) == before:
                reader.fault(value, "`near` needs words")
    if pattern is None and len(reader.faults) == before and node.mapping is not None:
        reader.fault(node, "the detector has no `pattern`")
    if len(reader.faults) > before or pattern is None:
        scope.detectors.setdefault(name, BUILT_IN["us_ssn"])  # so that rules that name it do not fail, too
        return
    try:
        scope.detectors[name] = own_detector(name, pattern, near_words=words, within=within)
        scope.floors[name] = floor
    except ValueError as error:
        reader.fault(node, str(error))


def unknown_name(reader: Reader, node: Node, what: str, name: str, known: list[str]) -> None:
    """A fault for a name that nothing has."""
    reader.fault(node, f"unknown {what} {name!r}{suggestion(name, known)}")
