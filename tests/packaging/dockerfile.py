"""A Dockerfile as a list of instructions: enough to look at ours, and to replay what it builds without an engine."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Instruction", "Stage", "command_of", "environment", "read"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """``name`` in upper case; ``flags`` as written (``--mount=...``); ``words`` is the rest, on one line."""

    name: str
    flags: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next."""

    base: str
    instructions: tuple[Instruction, ...]

    def of(self, name: str) -> list[Instruction]:
        """Those of one name, in order."""
        return [each for each in self.instructions if each.name == name]

    def only(self, name: str) -> str:
        """The words of the only one of this name."""
        (found,) = self.of(name)
        return found.words


def read(path: Path) -> list[Stage]:
    """The stages; raises ``ValueError`` for a line that is no instruction."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    stages: list[tuple[str, list[Instruction]]] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        match = re.match(r"([A-Z]+)\s+((?:--\S+\s+)*)(.+)\Z", line)
        if match is None:
            raise ValueError(f"{path}: {line}")
        name, flags, words = match.groups()
        if name == "FROM":
            stages.append((words, []))
        else:
            stages[-1][1].append(Instruction(name, tuple(flags.split()), words))
    return [Stage(base, tuple(found)) for base, found in stages]


def command_of(words: str) -> list[str]:
    """The program and its arguments in the JSON form of CMD, ENTRYPOINT and ``HEALTHCHECK ... CMD``."""
    found: list[str] = json.loads(words.partition("CMD ")[2] if "CMD " in words else words)
    return found


def environment(stage: Stage, path: str) -> dict[str, str]:
    """What ENV sets, with ``$PATH`` as given."""
    pairs = (pair.partition("=") for each in stage.of("ENV") for pair in shlex.split(each.words))
    return {name: value.replace("$PATH", path) for name, _, value in pairs}
