"""What people see: on a terminal a table that changes as deliveries happen, elsewhere a line for each change.

At most 100 columns. Only colours that can be read on dark and on light ground; whatever is said is said in words too.
"""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from gateway.demo.record import Fate
from gateway.demo.words import asked, outcome, shown, style
from gateway.queue.states import State

__all__ = ["WIDTH", "Board", "Screen"]

WIDTH = 100
_MARGIN = 2
#: Room for a recipient's address in front of words about it.
_NAME = 23


class Screen:
    """Where the tour is printed. ``console``: default is standard output; a test gives its own."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        # Where there is no terminal nothing has a width: it is read later, elsewhere.
        self.console.width = min(self.console.width, WIDTH) if self.live else WIDTH

    @property
    def live(self) -> bool:
        """Whether lines can be changed after they were printed."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def title(self, words: str) -> None:
        """The beginning of an act."""
        self.console.print()
        self.console.print(Rule(Text(words, style="bold"), align="left", style="default"))

    def say(self, words: str, *, style: str = "") -> None:
        """A paragraph."""
        self._paragraph(words, style, 0, None)

    def about(self, name: str, words: str, *, style: str = "bold") -> None:
        """A paragraph about somebody, named in front."""
        self._paragraph(f"{name:<{_NAME}} {words}", style, _MARGIN, len(name))

    def _paragraph(self, words: str, style: str, hanging: int, styled: int | None) -> None:
        margin = " " * _MARGIN
        text = textwrap.fill(
            words,
            self.console.width,
            initial_indent=margin,
            subsequent_indent=margin + " " * hanging,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        shown = Text(text)
        shown.stylize(style, _MARGIN, None if styled is None else _MARGIN + styled)
        self.console.print(shown, soft_wrap=True)

    def code(self, text: str) -> None:
        """Something to be typed or compared: kept line by line, never broken."""
        for each in text.splitlines():
            self.console.print(Text(f"{'':{_MARGIN + 2}}{each}", style="bold"), soft_wrap=True)

    def quote(self, text: str) -> None:
        """What somebody else wrote, line by line."""
        for each in text.splitlines():
            self.console.print(Text(f"{'':{_MARGIN}}| {each}"), soft_wrap=True)

    def yaml(self, text: str) -> None:
        """A file, in colours where there are any."""
        if self.live:
            self.console.print(Padding(_coloured(text), (0, 0, 0, _MARGIN), expand=False))
        else:
            self.quote(text)

    def blank(self) -> None:
        """An empty line."""
        self.console.print()

    def board(self, kinds: Mapping[str, str]) -> Board:
        """A board of recipients; ``kinds`` says what the host of a domain is."""
        return Board(self, kinds)


class Board(AbstractContextManager["Board"]):
    """The recipients of a message, one row each. Call :meth:`show` whenever there is something to look at."""

    def __init__(self, screen: Screen, kinds: Mapping[str, str]) -> None:
        self._screen = screen
        self._kinds = kinds
        self._told: dict[str, State] = {}
        self._last: tuple[Fate, ...] = ()
        self._live = Live(console=screen.console, auto_refresh=False) if screen.live else None
        self._around: AbstractContextManager[object] = self._live or nullcontext()

    def __enter__(self) -> Self:
        self._around.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._around.__exit__(*error)  # type: ignore[arg-type]  # handed on as it came
        if self._last:
            self._screen.console.print(table(self._last, self._kinds, time.time()))

    def show(self, fates: Iterable[Fate]) -> None:
        """These recipients, as they stand now."""
        fates, now = tuple(fates), time.time()
        if self._live is not None:
            self._live.update(table(fates, self._kinds, now), refresh=True)
            return
        for fate in fates:
            if fate.state in {State.QUEUED, State.DELIVERING} or self._told.get(fate.recipient) is fate.state:
                continue
            self._told[fate.recipient] = fate.state
            self._screen.about(fate.recipient, outcome(fate, now)[0], style="")
        self._last = fates


def table(fates: Iterable[Fate], kinds: Mapping[str, str], now: float) -> Table:
    """Recipient, what policy asks, what the host showed, outcome; two lines each."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", expand=True)
    for name, share in (("recipient", 26), ("policy asks", 21), ("the host showed", 26), ("outcome", 24)):
        made.add_column(name, ratio=share, overflow="fold")
    for fate in fates:
        kind = kinds.get(fate.recipient.rpartition("@")[2], "")
        made.add_row(
            _cell(fate.recipient, kind, "bold"),
            _cell(*asked(fate)),
            _cell(*shown(fate)),
            _cell(*outcome(fate, now), style(fate)),
        )
    return made


def _coloured(policy: str) -> Text:
    """YAML with its comments set back and its keys marked."""
    text = Text(policy.rstrip())
    text.highlight_regex(re.compile(r"[\w]+(?=:(?: |$))", re.MULTILINE), "cyan")
    text.highlight_regex(re.compile(r"(?<= )# .*$", re.MULTILINE), "dim")
    return text


def _cell(first: str, second: str, emphasis: str = "") -> Text:
    return Text.assemble((first, emphasis), *([("\n" + second, "dim")] if second else []))
