"""Statements of the hot path: written in SQLAlchemy Core, compiled once, run on the driver's own cursor.

Building and caching an expression costs Core about 100 µs at each use, the same text on the driver's cursor 10 µs;
one message takes about ten statements. What is given up is the conversion of values: parameters and results are what
the driver takes and gives (str, int, float, bytes, None; SQLite gives booleans back as 0 and 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.sql import ClauseElement

__all__ = ["Prepared", "PreparedText"]


class PreparedText:
    """The text for one dialect, and how it takes its parameters."""

    __slots__ = ("parameters", "sql")

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        #: From values by name to what the driver's cursor takes, the statement's own constants filled in.
        self.parameters = _taker(
            list(compiled.positiontup or ()) if compiled.positional else None,  # type: ignore[attr-defined]
            {name: value for name, value in compiled.params.items() if value is not None},
        )


def _taker(names: list[str] | None, constants: dict[str, Any]) -> Callable[[Mapping[str, Any]], Any]:
    """``names`` is the order of the parameters where the dialect counts them, None where it names them."""
    if names is None:
        return (lambda values: {**constants, **values}) if constants else dict
    if len(names) < 2:  # itemgetter makes no tuple of one
        return lambda values: tuple({**constants, **values}[name] for name in names)
    take = itemgetter(*names)
    return (lambda values: take({**constants, **values})) if constants else take


class Prepared:
    """A Core statement whose parameters are all named bind parameters, or columns of an ``insert``."""

    __slots__ = ("_statement", "_texts")

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._texts: dict[str, PreparedText] = {}

    def text(self, dialect: Dialect) -> PreparedText:
        """The compiled text; compiled at the first use."""
        found = self._texts.get(dialect.name)
        if found is None:
            found = self._texts[dialect.name] = PreparedText(self._statement, dialect)
        return found

    def run(self, cursor: Any, dialect: Dialect, values: Mapping[str, Any]) -> Any:
        """Execute once; the cursor, for its rows and ``rowcount``. Raises the driver's own errors."""
        text = self.text(dialect)
        cursor.execute(text.sql, text.parameters(values))
        return cursor

    def run_many(self, cursor: Any, dialect: Dialect, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute for each row. Raises the driver's own errors."""
        text = self.text(dialect)
        cursor.executemany(text.sql, [text.parameters(row) for row in rows])
