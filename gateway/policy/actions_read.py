"""Reading ``do``: the actions of a rule, a list of mappings with one key each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from gateway.config.source import Node
from gateway.mail.address import Address, AddressError
from gateway.mail.edits import EditError, Edits, Footer
from gateway.policy.actions import Actions
from gateway.policy.reader import Reader, found
from gateway.policy.when import read_tags

__all__ = ["read_actions"]

#: Actions of the language that this version cannot carry out.
_LATER = frozenset({"expires", "sign", "reply", "forward", "download", "authentication"})


@dataclass(slots=True)
class _Doing:
    """What was read so far."""

    edits: dict[str, Any] = field(default_factory=dict)
    copy_to: set[str] = field(default_factory=set)
    notify: set[str] = field(default_factory=set)

    def add(self, reader: Reader, node: Node, **changes: Any) -> None:
        """Take these into the edits; each is looked at alone, so that a fault stands where it was made."""
        try:
            Edits(**changes)
        except EditError as error:
            reader.fault(node, str(error))
            return
        for name, value in changes.items():
            before = self.edits.get(name)
            if isinstance(value, frozenset):
                self.edits[name] = value | (before or frozenset())
            elif isinstance(value, tuple):
                self.edits[name] = (*(before or ()), *value)
            elif before is not None and before != value:
                reader.fault(node, f"`{name}` is given twice")
            else:
                self.edits[name] = value


def read_actions(reader: Reader, node: Node) -> Actions:
    """All actions of a rule together; what is wrong is told to the reader."""
    doing = _Doing()
    for entry in reader.items(node, "actions"):
        for key, value in reader.entries(entry, "action", _READERS, _LATER):
            _READERS[key](reader, value, doing)
    return Actions(Edits(**doing.edits), frozenset(doing.copy_to), frozenset(doing.notify))


def _strip_tag(reader: Reader, node: Node, doing: _Doing) -> None:
    doing.add(reader, node, strip_tags=frozenset(tag.casefold() for tag in read_tags(reader, node)))


def _add_header(reader: Reader, node: Node, doing: _Doing) -> None:
    if node.mapping is None or not node.mapping:
        reader.fault(node, f"expected a mapping of names and values, such as {{X-Class: phi}}, found {found(node)}")
        return
    for name, value in node.mapping.items():
        text = reader.text(value, "the value of the field")
        if text is None:
            continue
        if any(name.casefold() == known.casefold() for known, _ in doing.edits.get("add_headers", ())):
            reader.fault(value, f"the field {name} is added twice")
        doing.add(reader, value, add_headers=((name, text),))


def _remove_header(reader: Reader, node: Node, doing: _Doing) -> None:
    for name, entry in reader.texts(node, "names of fields"):
        doing.add(reader, entry, remove_headers=frozenset({name.lower()}))


def _replace_subject(reader: Reader, node: Node, doing: _Doing) -> None:
    text = reader.text(node, "the new subject")
    if text is not None:
        doing.add(reader, node, replace_subject=text)


def _prepend_subject(reader: Reader, node: Node, doing: _Doing) -> None:
    text = reader.text(node, "what goes before the subject")
    if text is not None:
        doing.add(reader, node, prepend_subject=(text,))


def _footer(reader: Reader, node: Node, doing: _Doing) -> None:
    text, html = "", ""
    if node.mapping is None:
        text = reader.text(node, "the text of the footer, or a mapping with text and html") or ""
    else:
        for key, value in reader.entries(node, "key of footer", ("text", "html")):
            said = reader.text(value, "the footer") or ""
            text, html = (said, html) if key == "text" else (text, said)
    if not text and node.mapping is None:
        return
    try:
        doing.add(reader, node, footers=(Footer(text, html),))
    except EditError as error:
        reader.fault(node, str(error))


def _addresses(reader: Reader, node: Node) -> set[str]:
    addresses = set()
    for text, entry in reader.texts(node, "addresses"):
        if "*" in text:
            reader.fault(entry, f"expected an address, found the pattern {text!r}")
            continue
        try:
            addresses.add(str(Address.parse(text)))
        except AddressError as error:
            reader.fault(entry, f"expected an address, found {text!r}: {error}")
    return addresses


def _copy_to(reader: Reader, node: Node, doing: _Doing) -> None:
    doing.copy_to |= _addresses(reader, node)


def _notify(reader: Reader, node: Node, doing: _Doing) -> None:
    doing.notify |= _addresses(reader, node)


_READERS: Mapping[str, Callable[[Reader, Node, _Doing], None]] = MappingProxyType(
    {
        "strip_tag": _strip_tag,
        "add_header": _add_header,
        "remove_header": _remove_header,
        "prepend_subject": _prepend_subject,
        "replace_subject": _replace_subject,
        "footer": _footer,
        "copy_to": _copy_to,
        "notify": _notify,
    }
)
