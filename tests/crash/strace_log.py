"""Reads what ``strace -f -yy -xx -o FILE`` wrote into values; no processes, no files: text in, calls out.

Why these options: ``-f`` puts the thread id first on every line; ``-yy`` names the file or the TCP connection behind
every descriptor, so that nothing has to be guessed from numbers that are used again; ``-xx`` writes every byte of every
string in hex, so that no quoting rule can be misread and database pages can be taken apart.

A call that other threads interrupt is written as two lines (``<unfinished ...>``, ``<... NAME resumed>``). Both numbers
are kept: what matters for an order proof is that one call had *returned* before another *began*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["NEVER", "Call", "parse"]

NEVER: Final = 1 << 62
"""The line number at which a call returned that never returned (the process died in it)."""

_LINE: Final = re.compile(r"^(?P<pid>\d+) +(?P<rest>.*)$")
_RESUMED: Final = re.compile(r"^<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_CALL: Final = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)$", re.DOTALL)
_RESULT: Final = re.compile(r"\)\s+= (?P<value>-?\d+|\?|0x[0-9a-f]+)(?P<tail>.*)$", re.DOTALL)
_STRING: Final = re.compile(r'"(?P<hex>(?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR: Final = re.compile(r"(?<![\w\\])(?:AT_FDCWD|-?\d+)<(?P<name>(?:->|[^<>\"])*)>")
_HEX: Final = re.compile(r"\\x([0-9a-f]{2})")
_PORTS: Final = re.compile(r"^TCP(?:v6)?:\[(?P<here>.*):(?P<port>\d+)->(?P<there>.*):(?P<peer>\d+)\]$")
_UNFINISHED: Final = "<unfinished ...>"


@dataclass(frozen=True, slots=True)
class Call:
    """One system call of one thread.

    ``begun`` and ``ended`` are line numbers of the log; ``ended`` is :data:`NEVER` for a call that did not return.
    ``names`` are what stands behind the descriptors among the arguments, in order (a path, or ``TCP:[a:1->b:2]``);
    ``strings`` the decoded strings among them; ``result`` is ``None`` where the call did not return a number.
    """

    begun: int
    ended: int
    pid: int
    name: str
    names: tuple[str, ...]
    strings: tuple[bytes, ...]
    arguments: str
    result: int | None
    result_name: str | None
    error: str | None
    injected: bool

    @property
    def succeeded(self) -> bool:
        """Did it return, and without an error?"""
        return self.result is not None and self.result >= 0

    @property
    def target(self) -> str:
        """What stands behind the first descriptor: the file written or synced, the connection sent on."""
        return self.names[0] if self.names else ""

    @property
    def payload(self) -> bytes:
        """The bytes written or sent, those of all vectors joined."""
        return b"".join(self.strings)

    @property
    def offset(self) -> int:
        """Where in the file ``pwrite64`` wrote."""
        if self.name != "pwrite64":
            raise ValueError(f"{self.name} has no offset")
        return int(self.arguments.rsplit(",", 1)[1])

    @property
    def peer_port(self) -> int | None:
        """The other end's port, where the first descriptor is a TCP connection."""
        found = _PORTS.match(self.target)
        return int(found["peer"]) if found else None


def parse(lines: Iterable[str]) -> list[Call]:
    """All calls of a log in the order in which they began; signals and exits are left out."""
    return sorted(_calls(lines), key=lambda call: call.begun)


def _calls(lines: Iterable[str]) -> Iterator[Call]:
    pending: dict[int, tuple[int, str]] = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.match(line.rstrip("\n"))
        if found is None:
            raise ValueError(f"line {number}: no thread id: {line[:80]!r}")
        pid, rest = int(found["pid"]), found["rest"]
        if rest.startswith(("+++", "---")):
            continue
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            begun, text = pending.pop(pid, (0, f"{resumed['name']}("))  # 0: begun before strace was attached
            yield _call(begun, number, pid, text + resumed["rest"])
        elif rest.endswith(_UNFINISHED):
            pending[pid] = (number, rest.removesuffix(_UNFINISHED).rstrip())
        else:
            yield _call(number, number, pid, rest)
    for pid, (begun, text) in pending.items():
        yield _call(begun, NEVER, pid, text + ") = ?")


def _call(begun: int, ended: int, pid: int, text: str) -> Call:
    head = _CALL.match(text)
    if head is None:
        raise ValueError(f"line {begun}: not a call: {text[:80]!r}")
    tail = _RESULT.search(head["arguments"])
    arguments = head["arguments"] if tail is None else head["arguments"][: tail.start()]
    result, result_name, error = None, None, None
    if tail is None or tail["value"] == "?":
        ended = NEVER
    else:
        result = int(tail["value"], 0)
        behind = re.match(r"<(?P<name>(?:->|[^<>\"])*)>", tail["tail"])
        result_name = _text(behind["name"]) if behind else None
        code = re.match(r" (?P<code>E[A-Z0-9]+)", tail["tail"])
        error = code["code"] if code and result < 0 else None
    return Call(
        begun=begun,
        ended=ended,
        pid=pid,
        name=head["name"],
        names=tuple(_text(name) for name in _DESCRIPTOR.findall(arguments)),
        strings=tuple(_bytes(string) for string in _STRING.findall(arguments)),
        arguments=arguments,
        result=result,
        result_name=result_name,
        error=error,
        injected=tail is not None and "(INJECTED)" in tail["tail"],
    )


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))


def _text(name: str) -> str:
    """A path in hex or a plain name such as ``TCP:[...]``, as text."""
    decoded = _HEX.sub(lambda found: chr(int(found[1], 16)), name)
    return decoded.encode("latin-1", "replace").decode("utf-8", "replace")
