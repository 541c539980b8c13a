"""Reading values out of a policy file: each says what it expected and where, and reading goes on after a fault."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from gateway.config.faults import Notice, suggestion
from gateway.config.source import Document, Node
from gateway.config.values import parse_duration, parse_size
from gateway.config.written import shown
from gateway.errors import Fault
from gateway.mail.protection import Assurance, Method

__all__ = ["Mention", "Reader", "found"]


@dataclass(frozen=True, slots=True)
class Mention:
    """Something outside the policy that a policy names, such as a connector, and where."""

    what: str
    name: str
    place: Fault


class Reader:
    """One policy file being read; collects faults and notices instead of raising them."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.faults: list[Fault] = list(document.faults)
        self.notices: list[Notice] = []
        self.mentioned: list[Mention] = []

    def fault(self, node: Node, message: str) -> None:
        """Something is wrong with this value."""
        self.faults.append(Fault(self.document.file, node.line, node.column, message))

    def key_fault(self, parent: Node, key: str, message: str) -> None:
        """Something is wrong with this key."""
        self.faults.append(Fault(self.document.file, *parent.keys[key], message))

    def note(self, parent: Node, key: str, message: str) -> None:
        """Something about this key is worth knowing."""
        self.notices.append(Notice(self.document.file, *parent.keys[key], message))

    def mentions(self, what: str, name: str, node: Node) -> None:
        """Something is named that must exist in the configuration."""
        self.mentioned.append(Mention(what, name, Fault(self.document.file, node.line, node.column, "")))

    def entries(
        self, node: Node, what: str, known: Collection[str], later: Collection[str] = ()
    ) -> Iterator[tuple[str, Node]]:
        """The keys and values of a mapping that are known here; faults for those that are not, or not yet.

        ``what`` names one such key: "condition", "key of a rule". What is known to the language but not to this version
        must not be passed over in silence: ignoring it would weaken the policy.
        """
        if node.mapping is None:
            keys = f" with {', '.join(sorted(known))}" if len(known) <= 6 else ""
            self.fault(node, f"expected a mapping{keys}, found {found(node)}")
            return
        for key, value in node.mapping.items():
            if key in known:
                yield key, value
            elif key in later:
                self.key_fault(node, key, f"{what} {key!r} is not available in this version")
            else:
                self.key_fault(node, key, f"unknown {what} {key!r}{suggestion(key, known)}")

    def items(self, node: Node, what: str) -> list[Node]:
        """The entries of a list that must not be empty."""
        if node.items is None:
            self.fault(node, f"expected a list of {what}, found {found(node)}")
            return []
        if not node.items:
            self.fault(node, f"expected at least one entry in this list of {what}")
        return node.items

    def texts(self, node: Node, what: str) -> list[tuple[str, Node]]:
        """One text, or a list of texts that is not empty."""
        nodes = [node] if isinstance(node.scalar, str) else self.items(node, what)
        return [(text, entry) for entry in nodes if (text := self.text(entry, what)) is not None]

    def text(self, node: Node, what: str) -> str | None:
        """A text that is not empty."""
        if isinstance(node.scalar, str) and node.scalar.strip():
            return node.scalar
        hint = "; put it in quotes if it is meant as text" if node.scalar is not None else ""
        self.fault(node, f"expected {what}, found {found(node)}{hint}")
        return None

    def methods(self, node: Node) -> tuple[Method, ...]:
        """Methods of protection, one or several, in the order written."""
        methods: list[Method] = []
        for name, entry in self.texts(node, "methods"):
            try:
                method = Method(name)
            except ValueError:
                self.fault(entry, f"unknown method {name!r}{suggestion(name, [str(method) for method in Method])}")
                continue
            if method in methods:
                self.fault(entry, f"the method {name!r} is given twice")
            methods.append(method)
        return tuple(methods)

    def assurance(self, node: Node) -> Assurance | None:
        """A TLS assurance."""
        if isinstance(node.scalar, str):
            with suppress(ValueError):
                return Assurance.parse(node.scalar)
        self.fault(node, f"expected one of none, encrypted, verified, authenticated, found {found(node)}")
        return None

    def count(self, node: Node, least: int = 0) -> int | None:
        """A whole number, not below ``least``."""
        if isinstance(node.scalar, int) and not isinstance(node.scalar, bool) and node.scalar >= least:
            return node.scalar
        self.fault(node, f"expected a whole number of at least {least}, found {found(node)}")
        return None

    def size(self, node: Node) -> int | None:
        """Octets."""
        try:
            if isinstance(node.scalar, str):
                return parse_size(node.scalar)
        except ValueError as error:
            self.fault(node, str(error))
            return None
        self.fault(node, f"expected a size such as 25MB or 64KiB, found {found(node)}")
        return None

    def bounds(self, node: Node, read: Callable[[Node], int | None]) -> tuple[int | None, int | None]:
        """``{over: N, under: N}``, at least one of them."""
        over = under = None
        for key, value in self.entries(node, "bound", ("over", "under")):
            if key == "over":
                over = read(value)
            else:
                under = read(value)
        if node.mapping is not None and not node.mapping:
            self.fault(node, "expected over, under, or both")
        if over is not None and under is not None and under <= over + 1:
            self.fault(node, "no number is above `over` and below `under`")
        return over, under

    def duration(self, node: Node) -> float | None:
        """A duration above zero, in seconds."""
        try:
            seconds = parse_duration(node.scalar) if isinstance(node.scalar, str) else None
        except ValueError as error:
            self.fault(node, str(error))
            return None
        if seconds is None:
            self.fault(node, f"expected a duration such as 90s, 15m, 4h or 5d, found {found(node)}")
        elif seconds <= 0:
            self.fault(node, "expected a duration above zero")
            return None
        return seconds


def found(node: Node) -> str:
    """What stands there, in words."""
    if node.mapping is not None:
        return "a mapping"
    if node.items is not None:
        return "a list"
    return shown(node.scalar)
