"""Reading what conditions have in common: texts, patterns, words of a closed set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from gateway.config.faults import suggestion
from gateway.config.source import Node
from gateway.policy.conditions import compile_pattern
from gateway.policy.facts import normal_text
from gateway.policy.reader import Reader

__all__ = ["read_one_of", "read_patterns", "read_visible_texts"]

T = TypeVar("T")


def read_visible_texts(reader: Reader, node: Node) -> tuple[str, ...]:
    """Texts of which something is left once they are normal: any other would be found in everything."""
    texts = []
    for text, entry in reader.texts(node, "texts"):
        if not normal_text(text):
            reader.fault(entry, "nothing that can be seen is left of this text")
        texts.append(text)
    return tuple(texts)


def read_patterns(reader: Reader, node: Node) -> tuple[str, ...]:
    """Patterns in the syntax of RE2, each of which compiles."""
    patterns = []
    for text, entry in reader.texts(node, "patterns"):
        try:
            compile_pattern(text)
        except ValueError as error:
            reader.fault(entry, str(error))
        else:
            patterns.append(text)
    return tuple(patterns)


def read_one_of(reader: Reader, node: Node, what: str, several: str, known: Mapping[str, T]) -> list[T]:
    """One or several of these words; ``what`` is one such word, ``several`` names them in a fault."""
    values = []
    for name, entry in reader.texts(node, several):
        if name in known:
            values.append(known[name])
        else:
            reader.fault(entry, f"unknown {what} {name!r}{suggestion(name, list(known))}")
    return values
