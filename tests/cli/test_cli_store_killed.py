"""``kill -9`` at any statement of a verb that changes the store as a whole: it is the old one or the new one."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from gateway.store.database import open_engine
from gateway.store.migrate import current_version, expected_version, upgrade
from gateway.store.schema import metadata
from tests.cli.conftest import Cli, run_cli

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(600)]

_ROOT = Path(__file__).parents[2]
#: The more of it is done the fewer.
POINTS = [1, 2, 3, 5, 8, 13, 21, 34, 80, 170, 340]


def killed_in(source: Path, work: Path, *verb: str) -> list[Path]:
    """The directories in which the verb was killed."""
    points = ",".join(map(str, POINTS))
    command = [sys.executable, "-m", "tests.store.killed_at", str(source), str(work), points, *verb]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert len(killed) >= 6, "too few statements to prove anything"
    assert killed != POINTS, "the verb never came to its end"
    return [work / str(number) for number in killed]


def tables_of(directory: Path) -> str:
    with closing(sqlite3.connect(directory / "data/queue.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return "\n".join(sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema ORDER BY name") if sql)


def test_an_upgrade_killed_anywhere_leaves_the_old_tables_or_the_new(fresh: Cli, tmp_path: Path) -> None:
    fresh.data_dir.mkdir()
    engine = open_engine("sqlite", fresh.data_dir, writes=True)
    upgrade(engine, "0001")
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("INSERT INTO counters (name, value) VALUES ('recipients.queued', 7)")
    engine.dispose()
    template = tmp_path / "template"
    template.mkdir()
    for name in ("gateway.yaml", "policy.yaml"):
        shutil.copy(fresh.config.parent / name, template)
    shutil.copytree(fresh.data_dir, template / "data")
    before = tables_of(template)
    versions = set()
    for directory in killed_in(template, tmp_path / "work", "store", "migrate"):
        engine = open_engine("sqlite", directory / "data", writes=True)
        version = current_version(engine)
        versions.add(version)
        if version == "0001":
            assert tables_of(directory) == before
        upgrade(engine)
        assert current_version(engine) == expected_version()
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
            assert connection.exec_driver_sql("SELECT name, value FROM counters").all() == [("recipients.queued", 7)]
        engine.dispose()
    assert "0001" in versions
    assert versions <= {"0001", expected_version()}


def test_a_change_of_key_killed_anywhere_leaves_a_store_that_opens(cli: Cli, tmp_path: Path) -> None:
    template = cli.config.parent
    (cli.data_dir / "new.key").write_text("33" * 32)
    settings = yaml.safe_load(cli.config.read_text())
    settings["store"] = {"keys": ["file:new.key", "file:kek.key"]}
    cli.config.write_text(yaml.safe_dump(settings))
    for directory in killed_in(template, tmp_path / "work", "store", "rotate-key"):
        with closing(sqlite3.connect(directory / "data/queue.db")) as connection:
            wrapped = set(connection.execute("SELECT DISTINCT kek FROM ring_keys"))
        assert len(wrapped) == 1
        released = run_cli("queue", "release", "--state", "held", "--yes", "--config", str(directory / "gateway.yaml"))
        assert "2 of 2 recipients" in released.output
        again = run_cli("store", "rotate-key", "--config", str(directory / "gateway.yaml"))
        assert again.exit_code == 0, again.output


def test_a_restore_killed_anywhere_leaves_no_store_or_a_whole_one(cli: Cli, tmp_path: Path) -> None:
    template = cli.config.parent
    assert cli.run("store", "backup", str(template / "backup")).exit_code == 0
    key = (cli.data_dir / "kek.key").read_bytes()
    shutil.rmtree(cli.data_dir)
    cli.data_dir.mkdir()
    (cli.data_dir / "kek.key").write_bytes(key)
    for directory in killed_in(template, tmp_path / "work", "store", "restore", "DIRECTORY/backup"):
        config = str(directory / "gateway.yaml")
        if not (directory / "data/queue.db").exists():
            again = run_cli("store", "restore", str(directory / "backup"), "--config", config)
            assert again.exit_code == 0, again.output
        assert not (directory / "data/restoring").exists() or not (directory / "data/restoring/queue.db").exists()
        listed = json.loads(run_cli("queue", "list", "--json", "--config", config).stdout)["recipients"]
        assert [entry["hold_reason"].partition(";")[0] for entry in listed] == ["restored"] * 3


def test_a_backup_killed_anywhere_is_none(cli: Cli, tmp_path: Path) -> None:
    template = cli.config.parent
    for directory in killed_in(template, tmp_path / "work", "store", "backup", "DIRECTORY/backup"):
        config = str(directory / "gateway.yaml")
        if (directory / "backup").exists():  # killed behind its name, when the event was written
            assert (directory / "backup/manifest.json").exists()
            continue
        if (directory / "backup.partial").exists():
            refused = run_cli("store", "restore", str(directory / "backup.partial"), "--config", config)
            assert refused.exit_code == 1
        again = run_cli("store", "backup", str(directory / "backup"), "--config", config)
        assert again.exit_code == 0, again.output
        assert not (directory / "backup.partial").exists()
