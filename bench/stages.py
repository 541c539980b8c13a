"""How a sampled stack is told to be of a stage: by the innermost frame that says something.

py-spy sees Python frames only. Where the innermost one stands on a line that calls into C, the line's own text tells
what C is busy with (:data:`_CALLS`); else the first frame from the inside that a rule knows decides (:data:`_RULES`).
Frames that serve everybody - ``json``, ``re``, dataclasses, ``gateway/mail`` - have no rule: they count for whoever
called them.
"""

from __future__ import annotations

import linecache
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["STAGES", "Frame", "parse", "stage_of"]

_ROOT: Final = Path(__file__).parents[1]

STAGES: Final = (
    "event loop in C",
    "TLS and sockets",
    "ingress session",
    "policy",
    "sealing",
    "store and queue, Python",
    "SQLite in C",
    "delivery",
    "events and JSON",
    "log",
    "metrics",
    "other",
)

#: Innermost lines that call into C: (where, what the line says, stage).
_CALLS: Final = tuple(
    (re.compile(where), re.compile(says), stage)
    for where, says, stage in (
        (r"gateway/(ingress|delivery)/", r"\.(write|writelines|sendall)\(", "TLS and sockets"),
        (r"gateway/(store|queue)/", r"\.(execute|executemany|commit|rollback|fetch\w*)\(", "SQLite in C"),
    )
)

#: From the specific to the general: (path, a part of the function's name, stage).
_RULES: Final = tuple(
    (re.compile(path), function, stage)
    for path, function, stage in (
        (r"(^|/)ssl\.py$|(^|/)asyncio/sslproto\.py$|^gateway/ingress/client_tls\.py$", "", "TLS and sockets"),
        (r"(^|/)socket\.py$", "", "TLS and sockets"),
        (r"^gateway/delivery/(contexts|trust|judge|peer)\.py$", "", "TLS and sockets"),
        (r"^sqlalchemy/engine/default\.py$", "do_commit", "SQLite in C"),
        (r"^sqlalchemy/engine/default\.py$", "do_execute", "SQLite in C"),
        (r"^sqlalchemy/", "", "store and queue, Python"),
        (r"^(structlog|logging)/|^gateway/observe/log\.py$", "", "log"),
        (r"^prometheus_client/|^gateway/observe/|^gateway/app/observer\.py$", "", "metrics"),
        (r"^gateway/audit/|^gateway/jsontext\.py$|^gateway/delivery/trace_fields\.py$", "", "events and JSON"),
        (r"^gateway/store/(sealing|keyring|bodies|shred)\.py$", "", "sealing"),
        (r"^gateway/(store|queue)/", "", "store and queue, Python"),
        (r"^gateway/(policy|scanning)/", "", "policy"),
        (r"^gateway/(delivery|protect|directory)/", "", "delivery"),
        (r"^gateway/ingress/|^aiosmtpd/", "", "ingress session"),
        (r"^gateway/app/", "", "other"),
    )
)
#: Threads that wait, though py-spy now and then takes them for awake: (path of the innermost frame, its function).
_ASLEEP: Final = (
    (re.compile(r"concurrent/futures/thread\.py$"), "_worker"),
    (re.compile(r"^(threading|queue|selectors)\.py$"), ""),
    (re.compile(r"gateway/store/writer\.py$"), "Writer._run"),
)
_FRAME: Final = re.compile(r"(?P<function>.*) \((?P<path>.*?)(?::(?P<line>\d+))?\)")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack; ``path`` begins at the package, without what stands before it on this machine."""

    function: str
    path: str
    line: int

    @property
    def text(self) -> str:
        """The source line, where it is one of the project's own."""
        return linecache.getline(str(_ROOT / self.path), self.line) if self.path.startswith("gateway/") else ""


def parse(line: str) -> tuple[int, str, list[Frame], int]:
    """A line of py-spy's raw format: thread id, thread name, frames from the outermost on, samples."""
    stack, _, count = line.rpartition(" ")
    head, *rest = stack.split(";")
    thread, _, name = head.partition(": ")
    frames = []
    for part in rest:
        match = _FRAME.fullmatch(part)
        if match is not None:
            frames.append(Frame(match["function"], match["path"], int(match["line"] or 0)))
    return int(thread.strip("thread ()"), 0), name, frames, int(count)


def stage_of(frames: list[Frame]) -> str | None:
    """The stage of a stack; ``None`` where the thread is asleep."""
    if not frames:
        return "other"
    innermost = frames[-1]
    if any(path.search(innermost.path) and innermost.function.startswith(name) for path, name in _ASLEEP):
        return None
    if innermost.path.endswith("asyncio/runners.py"):
        return "event loop in C"
    for where, says, stage in _CALLS:
        if where.match(innermost.path) and says.search(innermost.text):
            return stage
    for frame in reversed(frames):
        for path, function, found in _RULES:
            if path.search(frame.path) and function in frame.function:
                return found
    return "other"
