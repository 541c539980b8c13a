"""Every test of a room runs on SQLite and on PostgreSQL: which one it is stands in a file beside its store.

A room's ``conftest`` takes over ``pytest_generate_tests`` and ``tmp_path`` from here. Nothing else in a test needs to
know: :func:`database_of` finds the file from any data directory below. A test of what only SQLite has is marked
``sqlite``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.storage import SQLITE, DatabaseUrl
from gateway.testing import PostgresServer

__all__ = ["database_kind", "database_of", "is_sqlite", "pytest_generate_tests", "tmp_path", "use_database"]

_FILE = "store.url"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a directory runs twice, unless it is marked ``sqlite``."""
    given = any("database_kind" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize"))
    if "tmp_path" in metafunc.fixturenames and not given:
        only = metafunc.definition.get_closest_marker("sqlite") is not None
        kinds = ["sqlite"] if only else ["sqlite", "postgresql"]
        metafunc.parametrize("database_kind", kinds, indirect=True, scope="function")


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> str:
    """``sqlite`` or ``postgresql``."""
    return str(request.param)


@pytest.fixture
def tmp_path(tmp_path: Path, database_kind: str, request: pytest.FixtureRequest) -> Iterator[Path]:
    """pytest's own, with a database of that kind for every store below."""
    if database_kind == "sqlite":
        yield tmp_path
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    use_database(tmp_path, server.url(name))
    yield tmp_path
    server.drop_database(name)


def use_database(directory: Path, url: str) -> None:
    """Every store below this directory is in that database."""
    (directory / _FILE).write_text(url)


def database_of(data_dir: Path) -> DatabaseUrl:
    """Which database a store in this directory uses."""
    for directory in (data_dir, *data_dir.parents):
        if (directory / _FILE).is_file():
            return DatabaseUrl.parse((directory / _FILE).read_text())
    return SQLITE


def is_sqlite(data_dir: Path) -> bool:
    """Whether a store in this directory is in SQLite."""
    return database_of(data_dir).is_sqlite
