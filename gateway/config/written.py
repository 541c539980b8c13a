"""What values have in common: where they stand, and how they are repeated to whoever wrote them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationInfo

__all__ = ["Surroundings", "one_or_many", "shown", "surroundings_of", "text_of"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a value stands: ``base`` is what relative paths start from; ``environ`` answers ``${NAME}``."""

    base: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def surroundings_of(info: ValidationInfo) -> Surroundings:
    """What the validation context says; without one, the current directory and the process's environment."""
    return info.context if isinstance(info.context, Surroundings) else Surroundings(Path())


def shown(value: object) -> str:
    """A value as the operator wrote it, short enough for one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = str(value)
    short = text if len(text) <= 60 else text[:57] + "..."
    return repr(short) if isinstance(value, str) else short


def text_of(value: object, expected: str) -> str:
    """``value`` if it is a text that is not empty; else ``ValueError``, saying what was expected."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected {expected}, found {shown(value)}")
    return value


def one_or_many(value: object) -> object:
    """A bare value where a list is expected is a list of one."""
    return [value] if isinstance(value, (str, int)) and not isinstance(value, bool) else value
