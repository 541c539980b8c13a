"""A store is made at the version that this code expects; older ones wait for the operator, newer ones are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, select, text

from gateway.errors import StoreError
from gateway.queue.views import oldest_received
from gateway.store.database import open_engine
from gateway.store.migrate import current_version, expected_version, require_current, upgrade
from gateway.store.schema import HELD, LIVE_MESSAGES, READY, WAITING, messages, metadata, recipients


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine("sqlite", tmp_path, writes=True)
    yield engine
    engine.dispose()


def test_a_new_store_is_made_at_once_and_equals_the_tables_of_the_code(engine: Engine) -> None:
    assert current_version(engine) is None
    require_current(engine)
    assert current_version(engine) == expected_version()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    require_current(engine)
    assert upgrade(engine) == expected_version()


def test_the_conditions_of_partial_indexes_are_those_of_the_code(engine: Engine) -> None:
    require_current(engine)
    found = read_indexes(engine)
    assert found["ix_recipients_ready"].endswith(f"WHERE {READY}")
    assert found["ix_recipients_waiting"].endswith(f"WHERE {WAITING}")
    assert found["ix_recipients_hold_until"].endswith(f"WHERE {HELD}")
    assert found["ix_messages_live"].endswith(f"WHERE {LIVE_MESSAGES}")
    for table in metadata.sorted_tables:
        for index in table.indexes:
            where = index.dialect_options["sqlite"]["where"]
            name = str(index.name)
            assert (f"WHERE {where}" in found[name]) if where is not None else ("WHERE" not in found[name])


def read_indexes(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.execute(text("select name, sql from sqlite_master where type = 'index' and sql is not null"))
        return {row.name: row.sql for row in rows}


def test_what_waits_is_found_by_its_index_however_much_has_ended(engine: Engine) -> None:
    """Work grows with what is due, not with history: with bound states SQLite would read every row."""
    require_current(engine)
    statements: list[str] = []
    with engine.connect() as connection:
        connection.connection.driver_connection.set_trace_callback(statements.append)  # type: ignore[union-attr]  # sqlite3's own
        oldest_received(connection)
        connection.execute(select(recipients).where(HELD, recipients.c.hold_until <= 1.0)).all()
        connection.execute(select(messages.c.id).where(messages.c.parent == "x")).all()
        connection.connection.driver_connection.set_trace_callback(None)  # type: ignore[union-attr]  # the same
        plans = [
            [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
            for statement in statements
            if statement.startswith("SELECT")
        ]
    assert "ix_messages_live" in plans[0][0]
    assert "ix_recipients_hold_until" in plans[1][0]
    assert "ix_messages_parent" in plans[2][0]


def test_an_unknown_version_is_taken_for_newer_and_refused(engine: Engine) -> None:
    require_current(engine)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(StoreError, match="newer than this gateway"):
        require_current(engine)
    assert current_version(engine) == "9999"


def test_a_known_older_version_waits_for_the_operator(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    require_current(engine)
    monkeypatch.setattr("gateway.store.migrate.expected_version", lambda: "9999")  # as a later release would see it
    with pytest.raises(StoreError, match="gateway store migrate"):
        require_current(engine)


def test_another_kind_of_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="'postgresql' is not available"):
        open_engine("postgresql://secret@db.example/x", tmp_path, writes=True)


def test_every_connection_has_the_settings_that_durability_hangs_on(engine: Engine, tmp_path: Path) -> None:
    reader = open_engine("sqlite", tmp_path, writes=False)
    for opened in (engine, reader):
        for _ in range(2):  # also one that was in the pool
            with opened.connect() as connection:
                found = [
                    connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
                ]
                assert found == ["wal", 2, 1, 1]
    reader.dispose()
