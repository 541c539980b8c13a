"""From what the model objects to, to what an operator reads: plain words, the place, a suggestion.

A value is repeated only where it cannot be a secret: secrets speak for themselves in ``values``.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import ValidationError

from gateway.config.section import Section
from gateway.config.source import Document, PathInFile
from gateway.config.written import shown
from gateway.errors import Fault

__all__ = ["Notice", "in_order", "model_faults", "section_at", "section_in", "suggestion"]


@dataclass(frozen=True, slots=True)
class Notice(Fault):
    """Something worth knowing about a file that is valid: printed as ``FILE:LINE:COL: note: message``."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: note: {self.message}"


_F = TypeVar("_F", bound=Fault)


def in_order(faults: Iterable[_F]) -> tuple[_F, ...]:
    """Faults or notices as a reader meets them: by file as first named, then by place; each once."""
    unique = dict.fromkeys(faults)
    files = {name: index for index, name in enumerate(dict.fromkeys(fault.file for fault in unique))}
    return tuple(sorted(unique, key=lambda fault: (files[fault.file], fault.line, fault.column, fault.message)))


def suggestion(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'x'?`` - or what is known here, where nothing is near and the list is short."""
    words = sorted(known)
    folded = {entry.lower(): entry for entry in words}
    near = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f", did you mean {folded[near[0]]!r}?"
    return f"; known here: {', '.join(words)}" if 0 < len(words) <= 12 else ""


def section_in(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section that an annotation leads to, and whether a key or an index stands between."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return section_in(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        for part in typing.get_args(annotation):
            found = section_in(part)
            if found[0] is not None:
                return found
    if origin in {tuple, dict}:
        # tuple[X, ...] holds its type first, dict[K, X] last
        arguments = [part for part in typing.get_args(annotation) if part is not Ellipsis]
        return section_in(arguments[-1])[0], True
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    return None, False


def section_at(top: type[Section], path: PathInFile) -> type[Section] | None:
    """The section whose keys stand at this path below ``top``."""
    current: type[Section] | None = top
    steps = list(path)
    while steps and current is not None:
        field = current.model_fields.get(str(steps.pop(0)))
        if field is None:
            return None
        annotation = field.annotation
        nested, between = section_in(annotation)
        # tuple[DkimKey, ...] in a dict needs two steps; each one taken leads to the same section
        while between and steps and (isinstance(steps[0], int) or _is_mapping_key(annotation)):
            annotation = _inner(annotation)
            steps.pop(0)
            between = typing.get_origin(_bare(annotation)) in {tuple, dict}
        current = nested
    return current


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def _is_mapping_key(annotation: Any) -> bool:
    return typing.get_origin(_bare(annotation)) is dict


def _inner(annotation: Any) -> Any:
    return [part for part in typing.get_args(_bare(annotation)) if part is not Ellipsis][-1]


def model_faults(document: Document, error: ValidationError, top: type[Section]) -> list[tuple[PathInFile, Fault]]:
    """Each objection of the model as a fault with its place, and the path that it speaks of."""
    details = error.errors(include_url=False)
    # A list whose entries are all wrong is also "too short": saying so would be a fault that nobody made.
    return [_fault(document, detail, top) for detail in details if detail["type"] != "too_short" or not detail["input"]]


def _fault(document: Document, detail: Mapping[str, Any], top: type[Section]) -> tuple[PathInFile, Fault]:
    path: PathInFile = tuple(detail["loc"])
    if path and path[-1] == "[key]":
        return path[:-1], document.key_fault(path[:-1], _words(detail))
    if detail["type"] == "extra_forbidden":
        section = section_at(top, path[:-1])
        hint = suggestion(str(path[-1]), section.model_fields if section is not None else ())
        return path, document.key_fault(path, f"unknown key {str(path[-1])!r}{hint}")
    if detail["type"] == "missing":
        return path, document.fault(path[:-1], f"the key {str(path[-1])!r} is missing; it has no default")
    if "values" in path and document.node(path) is None:
        # `value:` is the short form of a list `values:` with one entry
        short = path[: path.index("values")]
        if document.node((*short, "value")) is not None:
            return path, document.fault((*short, "value"), _words(detail))
    return path, document.fault(path, _words(detail))


_Wording = Callable[[Mapping[str, Any], str], str]

_WORDING: Mapping[str, _Wording] = types.MappingProxyType(
    {
        "value_error": lambda context, _: str(context["error"]),
        "enum": lambda context, found: f"expected {_unquoted(context)}, found {found}",
        "literal_error": lambda context, found: f"expected {_unquoted(context)}, found {found}",
        "string_type": lambda _, found: f"expected text, found {found}; put it in quotes if it is meant as text",
        "string_too_short": lambda _, __: "expected text, found none",
        "string_pattern_mismatch": lambda _, found: f"{found} has a character that is not allowed here",
        "bool_type": lambda _, found: f"expected true or false, found {found}",
        "bool_parsing": lambda _, found: f"expected true or false, found {found}",
        "greater_than_equal": lambda context, found: f"expected at least {context['ge']}, found {found}",
        "less_than_equal": lambda context, found: f"expected at most {context['le']}, found {found}",
        "too_short": lambda _, __: "expected at least one entry, found none",
        "tuple_type": lambda _, found: f"expected a list, found {found}",
        "dict_type": lambda _, found: f"expected a mapping, found {found}",
        "model_type": lambda _, found: f"expected a mapping, found {found}",
    }
)


def _words(detail: Mapping[str, Any]) -> str:
    wording = _WORDING.get(detail["type"])
    if wording is None:
        return "this value is not valid here"
    return wording(detail.get("ctx", {}), _found(detail["input"]))


def _unquoted(context: Mapping[str, Any]) -> str:
    return str(context["expected"]).replace("'", "").replace(" or ", ", ")


def _found(value: object) -> str:
    return "nothing (leave the key out to keep its default)" if value is None else shown(value)
