"""YAML with places: plain values, and for every key and value the line and column it was written at.

A small language on purpose. Mappings, lists, and scalars as in YAML 1.2 (``true``/``false``, ``null``, numbers, else
text - so ``off``, ``no`` and ``2026-12-31`` are text). Anchors work; tags, merge keys, several documents do not. Keys
are text, and twice the same one is a fault. Bounded in size, depth and number of values, aliases counted each time, so
that no file can eat the machine.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gateway.errors import Fault

__all__ = ["Document", "Node", "PathInFile", "parse_document", "read_document"]

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_NODES = 100_000

PathInFile = tuple[str | int, ...]
"""Keys and indexes from the top of the document to a value."""

_NULL = re.compile(r"(?:~|null|Null|NULL)?\Z")
_BOOLEAN = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,17}\.[0-9]{1,17}|\.[0-9]{1,17})\Z")


@dataclass(slots=True)
class Node:
    """A value and where it stands. ``children``: for a mapping by key, for a list in order.

    ``size``: how many values it holds, itself included, with every alias counted as what it stands for; ``height``: how
    many levels lie below it, counted in the same way.
    """

    line: int
    column: int
    scalar: Any = None
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    mapping: dict[str, Node] | None = None
    items: list[Node] | None = None
    size: int = 1
    height: int = 0

    def hold(self, below: Node) -> None:
        """Count a value that stands below this one."""
        self.size += below.size
        self.height = max(self.height, below.height + 1)

    def plain(self) -> Any:
        """The value as dicts, lists and scalars."""
        if self.mapping is not None:
            return {key: node.plain() for key, node in self.mapping.items()}
        if self.items is not None:
            return [node.plain() for node in self.items]
        return self.scalar

    def child(self, step: str | int) -> Node | None:
        """The value under a key or index, if there is one."""
        if self.mapping is not None and isinstance(step, str):
            return self.mapping.get(step)
        if self.items is not None and isinstance(step, int) and 0 <= step < len(self.items):
            return self.items[step]
        return None


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its name as the operator gave it, its values with their places, and what is wrong with its form."""

    file: str
    root: Node
    data: bytes = b""
    faults: tuple[Fault, ...] = ()

    def node(self, path: PathInFile) -> Node | None:
        """The value at this path, if there is one."""
        found: Node | None = self.root
        for step in path:
            found = None if found is None else found.child(step)
        return found

    def fault(self, path: PathInFile, message: str) -> Fault:
        """A fault at the value at this path; where there is none, at the nearest one above it."""
        found = self.root
        for step in path:
            below = found.child(step)
            if below is None:
                break
            found = below
        return Fault(self.file, found.line, found.column, message)

    def key_fault(self, path: PathInFile, message: str) -> Fault:
        """A fault at the key at the end of this path."""
        parent = self.node(path[:-1])
        if parent is None or (place := parent.keys.get(str(path[-1]))) is None:
            return self.fault(path, message)
        return Fault(self.file, *place, message)


def read_document(path: Path, file: str | None = None) -> Document:
    """The document in a file; whatever is wrong with the file itself is among its faults."""
    name = file or str(path)
    try:
        data = _read(path)
    except OSError as error:
        return _broken(name, f"cannot read the file: {error.strerror or error}")
    except ValueError as error:
        return _broken(name, str(error))
    return parse_document(data, name)


def _read(path: Path) -> bytes:
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        raise ValueError("this is a directory, not a file")
    if not stat.S_ISREG(kind):
        # A FIFO would hang whoever asks.
        raise ValueError("this is not a regular file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("the file is larger than 1 MiB")
    return data


def parse_document(data: bytes, file: str) -> Document:
    """The document in these bytes; never raises, its faults say what is wrong."""
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, column = _position(before, len(before))
        return _broken(file, f"the byte 0x{data[error.start]:02x} is not valid UTF-8", line, column)
    try:
        builder = _Builder(file)
        root = builder.build(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.reader.ReaderError as error:
        line, column = _position(text, error.position)
        code = error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")
        return _broken(file, f"the character U+{code:04X} is not allowed", line, column)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        return _broken(file, _in_words(error), *place)
    except (ValueError, OverflowError):
        # The scanner hands any 8 hex digits of an escape to chr().
        return _broken(file, "not valid YAML: an escape in a quoted text is not a character")
    except _FormError as error:
        return Document(file, Node(1, 1, mapping={}), data, (*builder.faults, error.fault))
    return Document(file, root, data, tuple(builder.faults))


def _broken(file: str, message: str, line: int = 1, column: int = 1) -> Document:
    return Document(file, Node(1, 1, mapping={}), b"", (Fault(file, line, column, message),))


def _position(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _in_words(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "the file is not valid YAML"
    if "\\t" in problem:
        return "not valid YAML: a tab where blanks are expected (YAML is indented with blanks)"
    if "mapping values are not allowed" in problem:
        return "not valid YAML: a `key: value` cannot stand here; look at the indentation and for a missing quote"
    context = f" {error.context}" if error.context else ""
    return f"not valid YAML: {problem}{context}"


class _FormError(Exception):
    """The rest of the document cannot be read."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Builder:
    """Makes nodes out of the parser's events: its own, because a place is needed for each, and a bound on all."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0

    def build(self, events: Iterator[Any]) -> Node:
        """The only document in the stream; an empty one is an empty mapping."""
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise self._error(event, "only one document is expected in a file; this `---` begins another one")
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event, events, 0)
        if root is None or (root.mapping is None and root.items is None and root.scalar is None):
            return Node(1, 1, mapping={})
        return root

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        if event.tag is not None:
            raise self._error(event, f"tags such as {event.tag!r} are not allowed")
        self._count(event, 1)
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        node = Node(*_place(event))
        if isinstance(event, yaml.MappingStartEvent):
            self._fill_mapping(node, events, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            node.items = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                item = self._node(event, events, depth + 1)
                node.items.append(item)
                node.hold(item)
        else:
            node.scalar = _scalar(event, self._whole(event))
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _fill_mapping(self, node: Node, events: Iterator[Any], depth: int) -> None:
        node.mapping = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be text")
            if event.tag is not None or event.anchor is not None:
                raise self._error(event, "tags and anchors are not allowed on a key")
            key, place = self._whole(event), _place(event)
            self._count(event, 1)
            value = self._node(next(events), events, depth + 1)
            node.hold(value)
            if key == "<<" and event.style is None:
                self.faults.append(Fault(self.file, *place, "merge keys (`<<`) are not supported"))
            elif key in node.mapping:
                first = node.keys[key]
                message = f"the key {key!r} is given twice; first in line {first[0]}"
                self.faults.append(Fault(self.file, *place, message))
            else:
                node.mapping[key] = value
                node.keys[key] = place

    def _alias(self, event: Any, depth: int) -> Node:
        if event.anchor not in self._anchors:
            raise self._error(event, f"there is no anchor &{event.anchor} before this alias")
        node = self._anchors[event.anchor]
        if node is None:
            raise self._error(event, f"the alias *{event.anchor} stands inside what it stands for")
        if depth + node.height > MAX_DEPTH:
            raise self._error(event, f"nested more than {MAX_DEPTH} levels deep")
        self._count(event, node.size)
        return node

    def _whole(self, event: Any) -> str:
        """The text of a scalar; an escape can make half a character, which cannot be written anywhere."""
        text = str(event.value)
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise self._error(event, "an escape in this text is not a character")
        return text

    def _count(self, event: Any, more: int) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES} values, counting what aliases stand for")

    def _error(self, event: Any, message: str) -> _FormError:
        return _FormError(Fault(self.file, *_place(event), message))


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _scalar(event: Any, text: str) -> Any:
    """Text, or for a plain scalar what YAML 1.2's core schema makes of it."""
    if event.style is not None:
        return text
    if _NULL.match(text):
        return None
    if _BOOLEAN.match(text):
        return text.lower() == "true"
    if _INTEGER.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return text
