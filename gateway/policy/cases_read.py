"""Reading ``tests``: a message written down in YAML, or an .eml file beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from gateway.config.faults import suggestion
from gateway.config.source import Node
from gateway.errors import Fault
from gateway.mail.address import Address, AddressError
from gateway.mail.protection import Assurance, Disposition
from gateway.policy.cases import Able, Case, Expected
from gateway.policy.evaluate import PROTECT_HEADER
from gateway.policy.reader import Reader, found

__all__ = ["read_case"]

_KEYS = ("name", "message", "recipient", "expect")
_MESSAGE_KEYS = (
    "from", "sender", "to", "subject", "body", "html", "headers", "attachments", "eml", "connector", "time",
)  # fmt: skip
_EXPECT_KEYS = ("method", "disposition", "tls", "methods", "rules", "no_rules", "actions")
_ACTIONS = (
    "strip_tag", "add_header", "remove_header", "prepend_subject", "replace_subject", "footer", "copy_to", "notify",
)  # fmt: skip
_MAX_EML = 4 << 20


def read_case(reader: Reader, node: Node, rules: set[str]) -> Case | None:
    """One test; None after a fault. ``rules``: the names that ``expect`` may use."""
    before = len(reader.faults)
    entries = dict(reader.entries(node, "key of a test", _KEYS))
    if node.mapping is None:
        return None
    for key in ("name", "message", "expect"):
        if key not in node.mapping:
            reader.fault(node, f"the test has no `{key}`")
    name = reader.text(entries["name"], "a name") if "name" in entries else ""
    able = _read_able(reader, entries["recipient"]) if "recipient" in entries else Able()
    expected = _read_expected(reader, entries["expect"], rules) if "expect" in entries else Expected()
    made = _Message(reader, entries["message"]) if "message" in entries else None
    if len(reader.faults) > before or made is None:
        return None
    place = Fault(reader.document.file, node.line, node.column, "")
    return Case(name or "", place, made.sender, made.recipients, made.data, made.connector, made.time, able, expected)


class _Message:
    """The message of a test, as its bytes and its envelope."""

    def __init__(self, reader: Reader, node: Node) -> None:
        self.reader = reader
        self.sender: Address | None = Address.parse("sender@clinic.example")
        self.recipients: tuple[Address, ...] = (Address.parse("recipient@isp.example"),)
        self.connector = ""
        self.time: float | None = None
        entries = dict(reader.entries(node, "key of message", _MESSAGE_KEYS))
        author = self._address(entries["from"]) if "from" in entries else self.sender
        self.sender = author
        if "sender" in entries:
            self.sender = None if entries["sender"].scalar == "<>" else self._address(entries["sender"])
        if "to" in entries:
            self.recipients = tuple(
                address for _, entry in reader.texts(entries["to"], "addresses") if (address := self._address(entry))
            )
        if "connector" in entries:
            self.connector = reader.text(entries["connector"], "the name of a connector") or ""
            reader.mentions("connector", self.connector, entries["connector"])
        if "time" in entries:
            self.time = _time(reader, entries["time"])
        self.data = self._eml(entries["eml"]) if "eml" in entries else self._written(entries, author)

    def _address(self, node: Node) -> Address | None:
        text = self.reader.text(node, "an address")
        try:
            return None if text is None else Address.parse(text)
        except AddressError as error:
            self.reader.fault(node, f"expected an address, found {text!r}: {error}")
            return None

    def _eml(self, node: Node) -> bytes:
        name = self.reader.text(node, "the name of a file") or ""
        try:
            with (Path(self.reader.document.file).parent / name).open("rb") as handle:
                data = handle.read(_MAX_EML + 1)
        except (OSError, ValueError) as error:
            self.reader.fault(node, f"{name} cannot be read: {error}")
            return b""
        if len(data) > _MAX_EML:
            self.reader.fault(node, f"{name} is larger than {_MAX_EML >> 20} MiB")
        return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    def _written(self, entries: dict[str, Node], author: Address | None) -> bytes:
        message = EmailMessage(policy=SMTP.clone(utf8=False))
        message["From"] = "" if author is None else str(author)
        message["To"] = ", ".join(str(address) for address in self.recipients)
        if "subject" in entries:
            message["Subject"] = self._text(entries["subject"]).replace("\r", " ").replace("\n", " ")
        if "headers" in entries:
            self._headers(message, entries["headers"])
        message.set_content(self._text(entries["body"]) if "body" in entries else "")
        if "html" in entries:
            message.add_alternative(self._text(entries["html"]), subtype="html")
        if "attachments" in entries:
            for entry in self.reader.items(entries["attachments"], "attachments"):
                self._attach(message, entry)
        return message.as_bytes()

    def _text(self, node: Node) -> str:
        if isinstance(node.scalar, str):
            return node.scalar
        self.reader.fault(node, f"expected a text, found {found(node)}; put it in quotes if it is meant as one")
        return ""

    def _headers(self, message: EmailMessage, node: Node) -> None:
        if node.mapping is None:
            self.reader.fault(node, f"expected a mapping of names and values, found {found(node)}")
            return
        for name, value in node.mapping.items():
            try:
                del message[name]
                message[name] = self._text(value)
            except ValueError as error:
                self.reader.fault(value, f"this is no header field: {error}")

    def _attach(self, message: EmailMessage, node: Node) -> None:
        """``{name, text}``, or ``{name, file}``."""
        entries = dict(self.reader.entries(node, "key of an attachment", ("name", "text", "file")))
        name = self._text(entries["name"]) if "name" in entries else "attachment"
        if "file" in entries:
            data = self._file(entries["file"])
            message.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
        else:
            message.add_attachment(self._text(entries["text"]) if "text" in entries else "", filename=name)

    def _file(self, node: Node) -> bytes:
        name = self._text(node)
        try:
            with (Path(self.reader.document.file).parent / name).open("rb") as handle:
                return handle.read(_MAX_EML)
        except (OSError, ValueError) as error:
            self.reader.fault(node, f"{name} cannot be read: {error}")
            return b""


def _time(reader: Reader, node: Node) -> float | None:
    try:
        when = datetime.fromisoformat(str(node.scalar))
    except ValueError:
        reader.fault(node, f"expected a time such as 2026-12-24T18:30+01:00, found {found(node)}")
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _read_able(reader: Reader, node: Node) -> Able:
    tls, keys = Assurance.AUTHENTICATED, {"smime": False, "pgp": False, "pdf": False}
    for key, value in reader.entries(node, "key of recipient", ("tls", *keys)):
        if key == "tls":
            level = reader.assurance(value)
            tls = tls if level is None else level
        elif isinstance(value.scalar, bool):
            keys[key] = value.scalar
        else:
            reader.fault(value, f"expected true or false, found {found(value)}")
    return Able(tls, **keys)


def _read_expected(reader: Reader, node: Node, rules: set[str]) -> Expected:
    got: dict[str, object] = {}
    if node.mapping is not None and not node.mapping:
        reader.fault(node, "the test expects nothing")
    for key, value in reader.entries(node, "key of expect", _EXPECT_KEYS):
        if key == "methods":
            got[key] = frozenset(reader.methods(value))
        elif key == "method":
            methods = reader.methods(value)
            if len(methods) > 1:
                reader.fault(value, "expected one method")
            got[key] = methods[0] if methods else None
        elif key == "tls":
            got[key] = reader.assurance(value)
        elif key == "disposition":
            got[key] = _disposition(reader, value)
        elif key == "actions":
            got[key] = _named(reader, value, "action", set(_ACTIONS))
        else:
            got[key] = _named(reader, value, "rule", rules)
    return Expected(**got)  # type: ignore[arg-type]  # each key has just been read as its own type


def _disposition(reader: Reader, node: Node) -> Disposition | None:
    try:
        return Disposition.parse(str(node.scalar))
    except ValueError:
        reader.fault(node, f"expected one of deliver, hold, reject, found {found(node)}")
        return None


def _named(reader: Reader, node: Node, what: str, known: set[str]) -> tuple[str, ...]:
    names = []
    for name, entry in [] if node.items == [] else reader.texts(node, f"names of {what}s"):
        if name not in known and name != PROTECT_HEADER and not name.startswith("kind "):
            reader.fault(entry, f"unknown {what} {name!r}{suggestion(name, sorted(known))}")
        names.append(name)
    return tuple(names)
