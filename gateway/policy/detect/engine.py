"""Patterns over the plain view of a text, the frame in which every built-in detector looks, and what stands around it.

The plain view has one byte for each character, so that offsets in it are offsets in the text: ISO 8859-1, dashes of
every kind as ``-``, anything beyond as ``?``. Patterns are RE2 (linear time) and are compiled when first used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import re2

__all__ = [
    "MAX_MATCHES",
    "NEVER",
    "NO_MATCH",
    "Gates",
    "Judge",
    "Program",
    "Spans",
    "View",
    "accepted",
    "digits_of",
    "in_address",
    "plain_view",
    "token",
]

MAX_MATCHES = 10_000
"""A detector stops in a text after so many matches: no threshold asks for more, and memory stays flat."""

NEVER = -(1 << 30)
"""Where the match before ended, when there was none."""

NO_MATCH = 0
"""A judge's "no"; a match never ends at 0."""

_MEMORY = 8 << 20  # RE2's own default; the automaton of the lexicon needs a part of it
_GATES_MEMORY = 16 << 20  # some two dozen patterns; varied mail fills a part of it
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_LOOK_BACK = 256  # a longer run without a blank is not an address that a person would read
_LOOK_AHEAD = 128

Spans = Iterator[tuple[int, int]]
"""Places in a view, in order, without overlaps."""

Judge = Callable[[bytes, int, int, int], int]
"""``(plain, start, end, last)`` to where the match ends, or ``NO_MATCH``; ``last`` is the end of the match before."""


def plain_view(text: str) -> bytes:
    """The plain view of any text; never raises."""
    if text.isascii():
        return text.encode("ascii")
    for dash in _DASHES:
        text = text.replace(dash, "-")
    return text.encode("latin-1", "replace")


class Program:
    """One RE2 pattern, compiled when first asked. Its first group, if there is one, is what it finds."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    @cached_property
    def _compiled(self) -> tuple[Any, int]:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.max_mem = _MEMORY
        compiled = re2.compile(self.pattern.encode("latin-1"), options)  # type: ignore[no-untyped-call]  # no types
        return compiled.search, min(compiled.groups, 1)

    def prepare(self) -> None:
        """Compile now: before a fork, so that the processes share it."""
        assert self._compiled

    def search(self, plain: bytes, start: int = 0) -> tuple[int, int] | None:
        """The first place at or after ``start``; what stands before ``start`` counts as its surroundings."""
        search, group = self._compiled
        found = search(plain, start)
        if found is None:
            return None
        first, end = found.span(group)
        return int(first), int(end)

    def within(self, plain: bytes, start: int, end: int) -> bool:
        """Whether it is found in ``plain[start:end]``; the edges count as edges of the text."""
        return self._compiled[0](plain[max(0, start) : end]) is not None


class Gates:
    """Which of many programs find anything at all in a text: one pass over it for all of them (``re2.Set``)."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = tuple(dict.fromkeys(programs))

    @cached_property
    def _set(self) -> Any:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.max_mem = _GATES_MEMORY
        made = re2.Set.SearchSet(options)  # type: ignore[no-untyped-call]  # google-re2 ships no types
        for program in self.programs:
            made.Add(program.pattern.encode("latin-1"))
        made.Add(rb"\z")  # always there: without it in the answer, the engine has given up
        made.Compile()
        return made

    def prepare(self) -> None:
        """Compile now: before a fork, so that the processes share it."""
        assert self._set

    def open_in(self, plain: bytes) -> frozenset[Program]:
        """The programs that find something; all of them where that cannot be told."""
        found = self._set.Match(plain)
        if len(self.programs) not in found:
            return frozenset(self.programs)
        return frozenset(self.programs[index] for index in found if index < len(self.programs))


class View:
    """The plain view of one text, and which gates are open in it."""

    __slots__ = ("_gates", "_open", "asked", "plain")

    def __init__(self, text: str, gates: Gates) -> None:
        self.plain = plain_view(text)
        self._gates = gates
        self._open: frozenset[Program] | None = None
        #: The gates that were asked for since somebody put a set here.
        self.asked: set[Program] | None = None

    @property
    def open(self) -> frozenset[Program]:
        """The gates that find anything in the text."""
        if self._open is None:
            self._open = self._gates.open_in(self.plain)
        return self._open

    def has(self, program: Program) -> bool:
        """Whether a program, which must be one of the gates, finds anything in the text."""
        if self.asked is not None:
            self.asked.add(program)
        return program in self.open


def accepted(shape: Program, judge: Judge, view: View) -> Spans:
    """What has the shape, which must be one of the gates, and stands before the judge; in order, without overlaps."""
    if not view.has(shape):
        return
    plain = view.plain
    position = 0
    last = NEVER
    while (found := shape.search(plain, position)) is not None:
        end = judge(plain, *found, last)
        if end == NO_MATCH:
            position = found[0] + 1
        else:
            yield found[0], end
            position = last = end


def token(core: str) -> Program:
    """A shape that neither begins nor ends inside a word or a number. ``_`` is an edge: file names are full of it."""
    return Program(rf"(?:^|[^0-9A-Za-zÀ-ÖØ-öø-ÿ])({core})(?:$|[^0-9A-Za-zÀ-ÖØ-öø-ÿ])")


def digits_of(plain: bytes, start: int, end: int) -> bytes:
    """The digits in ``plain[start:end]``."""
    return plain[start:end].translate(None, _NOT_DIGITS)


_NOT_DIGITS = bytes(set(range(256)) - set(b"0123456789"))


def in_address(plain: bytes, start: int, end: int) -> bool:
    """Whether the place is part of a URL, a mail address or a message id: what stands there are keys of machines."""
    first = plain.rfind(b" ", max(0, start - _LOOK_BACK), start) + 1 or max(0, start - _LOOK_BACK)
    stop = plain.find(b" ", end, end + _LOOK_AHEAD)
    word = plain[first : stop if stop >= 0 else end + _LOOK_AHEAD]
    return b"://" in word or b"@" in word or word[:4].lower() == b"www."
