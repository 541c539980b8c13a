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
from gateway.store.counting import counted
from gateway.store.database import open_engine
from gateway.store.migrate import current_version, expected_version, require_current, upgrade
from gateway.store.schema import HELD, LIVE_MESSAGES, READY, WAITING, messages, metadata, recipients
from tests.both_databases import database_of


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(database_of(tmp_path).reveal(), tmp_path, writes=True)
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
    for table in metadata.sorted_tables:
        for index in table.indexes:
            where = index.dialect_options["sqlite"]["where"]
            name = str(index.name)
            assert ("WHERE" in found[name]) is (where is not None)
            if where is not None and engine.dialect.name == "sqlite":  # PostgreSQL writes it in words of its own
                assert f"WHERE {where}" in found[name]


def read_indexes(engine: Engine) -> dict[str, str]:
    query = "select name, sql from sqlite_master where type = 'index' and sql is not null"
    if engine.dialect.name != "sqlite":
        query = "select indexname as name, indexdef as sql from pg_indexes where schemaname = 'public'"
    with engine.connect() as connection:
        return {row.name: row.sql for row in connection.execute(text(query))}


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_what_waits_is_found_by_its_index_on_postgresql_too(engine: Engine) -> None:
    require_current(engine)
    wanted = {
        "ix_recipients_ready": select(recipients.c.n).where(READY, recipients.c.origin == 7, recipients.c.domain > "a"),
        "ix_recipients_waiting": select(recipients.c.n).where(WAITING, recipients.c.next_attempt <= 1.0),
        "ix_messages_live": select(messages.c.id).where(LIVE_MESSAGES).order_by(messages.c.id).limit(1),
        "ix_recipients_hold_until": select(recipients.c.message).where(HELD, recipients.c.hold_until <= 1.0),
        "ix_recipients_claimed_by": select(recipients.c.claimed_by).where(recipients.c.claimed_by.is_not(None)),
        "ix_messages_parent": select(messages.c.id).where(messages.c.parent == "x"),
    }
    with engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # the tables are empty: else it would read them
        for name, query in wanted.items():
            written = query.compile(engine, compile_kwargs={"literal_binds": True})
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {written}").scalars())
            assert name in plan, plan


@pytest.mark.sqlite
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


def test_what_was_counted_before_there_were_several_gateways_still_counts(engine: Engine) -> None:
    upgrade(engine, "0001")
    assert current_version(engine) == "0001"
    with engine.connect() as connection, connection.begin():
        connection.execute(text("insert into counters (name, value) values ('recipients.queued', 7)"))
        connection.execute(
            text("insert into incarnations (id, host, boot, pid, started, heartbeat) values ('i', 'h', 'b', 1, 0, 0)")
        )
    with pytest.raises(StoreError, match="gateway store migrate"):
        require_current(engine)
    assert upgrade(engine) == expected_version()
    with engine.connect() as connection:
        assert counted(connection) == {"recipients.queued": 7}
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.sqlite
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
