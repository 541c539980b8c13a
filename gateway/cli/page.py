"""Pages for people: lines that end where the terminal does, and facts under a name."""

from __future__ import annotations

from rich.text import Text

from gateway.cli.words import printable, terminal, wrapped

__all__ = ["WIDTH", "Page"]

WIDTH = 100
#: Where the words of a fact begin: behind its name.
_FACTS = 6
_WORDS = 20


class Page:
    """Lines of at most :data:`WIDTH` columns."""

    def __init__(self) -> None:
        self._console = terminal()
        self._width = min(self._console.width, WIDTH)

    def line(self, text: str, *, indent: int = 0, style: str = "", start: int = 0, end: int | None = None) -> None:
        """One line; what does not fit goes on below, at ``indent``. ``style`` is laid over its part."""
        rendered = Text(wrapped(printable(text), self._width, indent=indent))
        if style:
            rendered.stylize(style, start, end)
        self._console.print(rendered, soft_wrap=True)

    def fact(self, name: str, words: str, *, style: str = "") -> None:
        """A fact of an address, with its name in front."""
        self.line(f"{'':{_FACTS}}{name:<{_WORDS - _FACTS}}{words}", indent=_WORDS, style=style, start=_WORDS)
