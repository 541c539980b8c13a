"""Reading ``protection``: the defaults, which stand in one file only."""

from __future__ import annotations

from dataclasses import replace

from gateway.config.source import Node
from gateway.mail.protection import Assurance, Method
from gateway.policy.reader import Reader
from gateway.policy.rules import Protection

__all__ = ["read_protection"]


def read_protection(reader: Reader, root: Node, node: Node) -> Protection:
    """The defaults of this mapping, with what is worth knowing about them."""
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
