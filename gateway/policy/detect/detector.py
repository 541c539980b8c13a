"""The face of every detector, and one message as detectors look at it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice
from typing import Any, Protocol

from gateway.policy.detect.engine import MAX_MATCHES, Program, Spans, View
from gateway.policy.detect.gates import gates

__all__ = ["BuiltIn", "Detector", "Match", "Scan", "Shared", "edition"]


@dataclass(frozen=True, slots=True)
class Match:
    """A place in a text, in characters: ``text[start:end]``."""

    start: int
    end: int


class Detector(Protocol):
    """Finds one kind of thing. Texts come from ``normal_text``; others do no harm, but hide things between lines.

    Matches are in order, do not overlap, and are at most ``MAX_MATCHES`` a text. Nothing here raises, whatever the
    text; time and memory are linear in it. Detectors can be pickled.
    """

    @property
    def name(self) -> str:
        """What policy calls it."""
        ...

    def find(self, text: str) -> list[Match]:
        """The matches in one text, as if it were the whole message."""
        ...

    def find_in_message(self, texts: Sequence[str]) -> list[list[Match]]:
        """The matches in each of a message's texts; what stands in one may decide about another."""
        ...

    def canonical(self) -> Any:
        """A plain form for the policy's digest: changes when what it finds may have changed."""
        ...


class Shared(ABC):
    """A detector that shares with others what is known about a message."""

    __slots__ = ()

    @abstractmethod
    def find_in(self, scan: Scan) -> list[list[Match]]:
        """``find_in_message`` for the scan's texts, with what it knows already."""


class Scan:
    """One message's texts and what was found so far: several detectors look at it for little more than the cost of one.

    Each text is looked through once for everything that could interest any built-in detector; most then have nothing
    to do. What several detectors need (``phi`` and its parts) is found once.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = tuple(texts)
        self._views: tuple[View, ...] | None = None
        self._open: frozenset[Program] | None = None
        self._found: dict[object, list[list[Match]]] = {}
        #: What a detector that found nothing has found. Not to be changed.
        self.nothing: list[list[Match]] = [[] for _ in self.texts]

    @property
    def views(self) -> tuple[View, ...]:
        """The plain view of each text."""
        if self._views is None:
            self._views = tuple(View(text, gates()) for text in self.texts)
        return self._views

    @property
    def open(self) -> frozenset[Program]:
        """The gates that find anything in any of the texts."""
        if self._open is None:
            self._open = frozenset().union(*(view.open for view in self.views))
        return self._open

    def matches(self, detector: Detector) -> list[list[Match]]:
        """What the detector finds in each text."""
        if isinstance(detector, Shared):
            return detector.find_in(self)
        return self.once(detector, lambda: detector.find_in_message(self.texts))

    def once(self, what: object, look: Callable[[], list[list[Match]]]) -> list[list[Match]]:
        """What ``look`` gives, asked once for each ``what``."""
        found = self._found.get(what)
        if found is None:
            found = self._found[what] = look()
        return found

    def has(self, detector: Detector) -> bool:
        """Whether it finds anything in the whole message."""
        found = self.matches(detector)
        return found is not self.nothing and any(found)


#: For each detector the gates that it asks for while all of them are closed: it finds nothing then.
_needs: dict[Callable[[View], Spans], frozenset[Program]] = {}


@dataclass(frozen=True, slots=True)
class BuiltIn(Shared):
    """A detector over the plain view of each text: a function from it to places in it."""

    name: str
    spans: Callable[[View], Spans]

    def find(self, text: str) -> list[Match]:
        """See ``Detector``."""
        return self._matches(View(text, gates()))

    def find_in_message(self, texts: Sequence[str]) -> list[list[Match]]:
        """See ``Detector``; each text by itself."""
        return [self.find(text) for text in texts]

    def find_in(self, scan: Scan) -> list[list[Match]]:
        """See ``Shared``.

        A detector to which the gates it asks for are closed finds nothing, and asks for the same ones next time: which
        they are is learnt the first time, so that most detectors are done with most messages by one look.
        """
        needs = _needs.get(self.spans)
        if needs is not None and needs.isdisjoint(scan.open):
            return scan.nothing
        return scan.once(self.spans, lambda: [self._learning(view) for view in scan.views])

    def _learning(self, view: View) -> list[Match]:
        if self.spans in _needs:
            return self._matches(view)
        view.asked = set()
        found = self._matches(view)
        if view.asked and view.asked.isdisjoint(view.open):
            _needs[self.spans] = frozenset(view.asked)
        view.asked = None
        return found

    def canonical(self) -> Any:
        """The name and the edition of the whole package."""
        return {"detector": self.name, "edition": edition()}

    def _matches(self, view: View) -> list[Match]:
        return [Match(start, end) for start, end in islice(self.spans(view), MAX_MATCHES)]


@cache
def edition() -> str:
    """A digest of this package, code and data: what built-in detectors find changes only with it."""
    seal = hashlib.sha256()
    package = resources.files(__package__)
    for folder in (package, package.joinpath("data")):
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_file():
                seal.update(entry.name.encode() + b"\0" + hashlib.sha256(entry.read_bytes()).digest())
    return seal.hexdigest()[:16]
