"""Statements of the hot path: written in SQLAlchemy Core, compiled once, run on the driver's own cursor.

Building and caching an expression costs Core about 100 µs at each use, the same text on the driver's cursor 10 µs;
one message takes about ten statements. What is given up is the conversion of values: parameters and results are what
the driver takes and gives (str, int, float, bytes, None; SQLite gives booleans back as 0 and 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.sql import ClauseElement

__all__ = ["Prepared", "PreparedText"]


class PreparedText:
    """The text for one dialect, and how it takes its parameters."""

    __slots__ = ("_constants", "names", "sql")

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        #: The order of parameters where the dialect counts them, None where it names them.
        self.names: tuple[str, ...] | None = tuple(compiled.positiontup or ()) if compiled.positional else None  # type: ignore[attr-defined]

        self._constants = {name: value for name, value in compiled.params.items() if value is not None}

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """The values, and the statement's own constants, as the driver's cursor takes them."""
        if self.names is None:
            return {**self._constants, **values}
        if not self._constants:
            return [values[name] for name in self.names]
        return [values[name] if name in values else self._constants[name] for name in self.names]


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
