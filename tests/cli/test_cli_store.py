"""Backup, restore and change of key by the command line: what waits is held, and nothing is sent twice unseen."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.audit.chain import Record, happenings, verify
from gateway.store.backup_lock import backing_up
from gateway.store.database import open_engine
from gateway.store.incarnation import Incarnation
from gateway.store.migrate import upgrade
from tests.cli.conftest import Cli


def made(cli: Cli, *options: str, name: str = "backup") -> Path:
    directory = cli.config.parent / name
    result = cli.run("store", "backup", str(directory), *options)
    assert result.exit_code == 0, result.output
    return directory


def emptied(cli: Cli) -> None:
    """The data directory is lost; the key, which is kept apart, comes back."""
    key = (cli.data_dir / "kek.key").read_bytes()
    shutil.rmtree(cli.data_dir)
    cli.data_dir.mkdir(mode=0o700)
    (cli.data_dir / "kek.key").write_bytes(key)


def rows(cli: Cli, query: str) -> list[Any]:
    with closing(sqlite3.connect(cli.data_dir / "queue.db")) as connection:
        return connection.execute(query).fetchall()


def events(cli: Cli, kind: str) -> list[dict[str, Any]]:
    found = rows(cli, "SELECT data FROM events ORDER BY time, stream, seq")
    return [event.data for (data,) in found for event in happenings(data) if event.kind == kind]


def require_whole_chains(cli: Cli) -> None:
    columns = "stream, seq, time, message, kinds, data, hash"
    for (stream,) in rows(cli, "SELECT id FROM streams"):
        records = rows(cli, f"SELECT {columns} FROM events WHERE stream = '{stream}' ORDER BY seq")
        assert verify(stream, (Record(*record) for record in records))[1] == ""


def test_a_restored_queue_waits_for_a_person(cli: Cli) -> None:
    before = cli.states()
    directory = made(cli)
    emptied(cli)
    result = cli.run("store", "restore", str(directory), "--operator", "Ada")
    assert result.exit_code == 0, result.output
    assert "3 of them are held as restored" in result.output
    after = cli.states()
    assert {address for address, state in before.items() if state in {"deferred", "held"}} == {
        address for address, state in after.items() if state == "held"
    }
    assert all(after[address] == state for address, state in before.items() if state in {"delivered", "bounced"})
    listed = cli.json("queue", "list")["recipients"]
    assert {entry["recipient"]: entry["hold_reason"] for entry in listed} == {
        "later@good.example": "restored",
        "held1@good.example": "restored; review",
        "held2@good.example": "restored; review",
    }
    assert [entry["recipient"] for entry in cli.json("queue", "list", "--held-for", "restored")["recipients"]] == [
        "later@good.example"
    ]
    told = cli.json("trace", "--to", "later@good.example")["messages"][0]["recipients"][0]["events"][-1]
    assert told["kind"] == "held"
    assert told["data"]["possible_duplicate"] is True
    assert "by Ada, by ops" in cli.run("trace", "--to", "later@good.example").output.replace("operator=", "by ")
    (event,) = events(cli, "restored")
    assert (event["recipients"], event["held"], event["resume"]) == (3, 3, False)
    assert event["operator"].startswith("Ada")
    require_whole_chains(cli)
    heads = {head["stream"] for head in event["heads"]}
    links = {link["stream"] for opening in events(cli, "stream_opened") for link in opening["links"]}
    assert heads <= links


def test_what_is_released_goes_and_the_counters_are_right(cli: Cli) -> None:
    directory = made(cli)
    emptied(cli)
    assert cli.run("store", "restore", str(directory)).exit_code == 0
    result = cli.run("queue", "release", "--held-for", "restored", "--yes", "--reason", "not delivered before")
    assert "release: 1 of 1 recipients" in result.output
    assert cli.states()["later@good.example"] == "queued"
    counted = dict(rows(cli, "SELECT name, sum(value) FROM counters WHERE name LIKE 'recipients.%' GROUP BY name"))
    real = dict(rows(cli, "SELECT state, count(*) FROM recipients GROUP BY state"))
    for state in ("queued", "deferred", "delivering", "held"):
        assert counted[f"recipients.{state}"] == real.get(state, 0)


def test_a_backup_of_a_gateway_that_had_stopped_can_be_resumed(cli: Cli) -> None:
    directory = made(cli)
    emptied(cli)
    done = cli.json("store", "restore", str(directory), "--resume")
    assert (done["recipients"], done["held"]) == (3, 0)
    assert cli.states()["later@good.example"] == "deferred"
    told = cli.json("trace", "--to", "later@good.example")["messages"][0]["recipients"][0]["events"][-1]
    assert (told["kind"], told["data"]["possible_duplicate"]) == ("restored", True)
    assert "it may arrive twice" in cli.run("trace", "--to", "later@good.example").output


def test_a_claim_in_the_backup_counts_as_a_possible_duplicate(cli: Cli) -> None:
    with closing(sqlite3.connect(cli.data_dir / "queue.db", isolation_level=None)) as connection:
        connection.execute("UPDATE recipients SET state = 'delivering', claimed_by = 'x' WHERE state = 'deferred'")
        connection.execute("UPDATE counters SET value = 1 WHERE name = 'recipients.delivering'")
        connection.execute("UPDATE counters SET value = 0 WHERE name = 'recipients.deferred'")
    directory = made(cli)
    for options, state in ([], "held"), (["--resume"], "deferred"):
        emptied(cli)
        assert cli.run("store", "restore", str(directory), *options).exit_code == 0
        assert cli.states()["later@good.example"] == state
        assert rows(cli, "SELECT count(*) FROM recipients WHERE claimed_by IS NOT NULL") == [(0,)]
        assert rows(cli, "SELECT sum(value) FROM counters WHERE name = 'recipients.delivering'") == [(0,)]


def test_no_restore_over_a_store_or_under_a_running_gateway(cli: Cli) -> None:
    directory = made(cli)
    result = cli.run("store", "restore", str(directory))
    assert (result.exit_code, "there is a store under" in result.output) == (1, True)
    emptied(cli)
    (cli.data_dir / "run").mkdir()
    running = Incarnation.begin(cli.data_dir / "run")
    result = cli.run("store", "restore", str(directory))
    assert (result.exit_code, "stop it first" in result.output) == (1, True)
    running.release()
    assert cli.run("store", "restore", str(directory)).exit_code == 0


def test_what_was_changed_in_a_backup_is_not_restored(cli: Cli) -> None:
    directory = made(cli)
    emptied(cli)
    for name in ("queue.db", "bodies.jsonl", "manifest.json"):
        path = directory / name
        before = path.read_bytes()
        path.write_bytes(before[:100] + b"?" + before[101:] if before else b"{}\n")
        result = cli.run("store", "restore", str(directory))
        assert result.exit_code == 1, name
        assert not (cli.data_dir / "queue.db").exists()
        assert not (cli.data_dir / "restoring").exists()
        path.write_bytes(before)
    assert cli.run("store", "restore", str(directory)).exit_code == 0


def test_half_a_backup_is_not_restored(cli: Cli) -> None:
    directory = made(cli)
    emptied(cli)
    (directory / "manifest.json").unlink()
    result = cli.run("store", "restore", str(directory))
    assert (result.exit_code, "is no backup" in result.output) == (1, True)


def test_a_restore_without_the_key_says_which_one(cli: Cli) -> None:
    directory = made(cli, "--with-keys")
    emptied(cli)
    (cli.data_dir / "kek.key").unlink()
    result = cli.run("store", "restore", str(directory))
    assert result.exit_code == 1
    assert "put back the file" in result.output
    assert not (cli.data_dir / "kek.key").exists()  # never made for a store that exists
    (cli.data_dir / "kek.key").write_text("22" * 32)
    result = cli.run("store", "restore", str(directory))
    assert "a copy lies in" in result.output
    (copy,) = (directory / "keys").iterdir()
    shutil.copy(copy, cli.data_dir / "kek.key")
    assert cli.run("store", "restore", str(directory)).exit_code == 0


def test_the_backup_verb_tells_what_it_made_and_which_key_opens_it(cli: Cli) -> None:
    result = cli.run("store", "backup", str(cli.config.parent / "one"), "--rate", "500MB")
    assert "3 recipients waiting" in result.output
    assert "keep a copy of that apart" in result.output
    told = cli.json("store", "backup", str(cli.config.parent / "two"))
    assert told["manifest"]["counts"]["held"] == 2
    assert told["manifest"]["schema"] == rows(cli, "SELECT version_num FROM alembic_version")[0][0]
    result = cli.run("store", "backup", str(cli.config.parent / "two"))
    assert (result.exit_code, "there already" in result.output) == (1, True)
    assert cli.run("store", "backup", str(cli.config.parent / "x"), "--rate", "fast").exit_code == 2
    with backing_up(cli.data_dir / "run"):
        result = cli.run("store", "backup", str(cli.config.parent / "three"))
    assert "another backup" in result.output


def test_postgresql_has_tools_of_its_own(cli: Cli) -> None:
    settings = yaml.safe_load(cli.config.read_text())
    settings["store"] = {"url": "postgresql://gateway@127.0.0.1:9/gateway"}
    cli.config.write_text(yaml.safe_dump(settings))
    for words in (["backup", str(cli.config.parent / "x")], ["restore", str(cli.config.parent)]):
        result = cli.run("store", *words)
        assert (result.exit_code, "pg_dump" in result.output) == (1, True)


# -- the key ----------------------------------------------------------------------------------------------------------


def with_keys(cli: Cli, *keys: str) -> None:
    settings = yaml.safe_load(cli.config.read_text())
    settings["store"] = {"keys": [f"file:{name}" for name in keys]}
    cli.config.write_text(yaml.safe_dump(settings))


def test_after_a_rotation_the_old_key_opens_nothing_and_may_go(cli: Cli) -> None:
    (cli.data_dir / "new.key").write_text("33" * 32)
    old = rows(cli, "SELECT DISTINCT kek FROM ring_keys")
    with_keys(cli, "new.key", "kek.key")
    assert cli.json("queue", "list")["recipients"]  # a new first key changes nothing by itself
    assert rows(cli, "SELECT DISTINCT kek FROM ring_keys") == old
    done = cli.json("store", "rotate-key", "--operator", "Ada")
    assert done["from"] == [old[0][0]]
    assert done["removable"] == ["file:kek.key"]
    assert rows(cli, "SELECT DISTINCT kek FROM ring_keys") == [(done["to"],)]
    (event,) = events(cli, "key_rotated")
    assert event["operator"].startswith("Ada")
    (cli.data_dir / "kek.key").unlink()
    with_keys(cli, "new.key")
    assert cli.run("queue", "release", "--state", "held", "--yes").exit_code == 0
    again = cli.run("store", "rotate-key")
    assert "already" in again.output
    assert len(events(cli, "key_rotated")) == 1


def test_a_rotation_says_what_the_old_key_is_still_good_for(cli: Cli) -> None:
    directory = made(cli)
    (cli.data_dir / "new.key").write_text("33" * 32)
    with_keys(cli, "new.key", "kek.key")
    result = cli.run("store", "rotate-key")
    assert "file:kek.key opens nothing in the store any more" in result.output
    assert "backups from before" in result.output
    newer = made(cli, name="newer")
    shutil.copy(cli.data_dir / "new.key", cli.config.parent)
    emptied(cli)
    (cli.data_dir / "new.key").write_text("33" * 32)
    with_keys(cli, "new.key")
    result = cli.run("store", "restore", str(directory))
    assert (result.exit_code, "which store.keys does not give" in result.output) == (1, True)
    assert cli.run("store", "restore", str(newer)).exit_code == 0


def test_a_rotation_without_the_new_key_changes_nothing(cli: Cli) -> None:
    with_keys(cli, "new.key", "kek.key")
    result = cli.run("store", "rotate-key")
    assert result.exit_code == 1
    assert not (cli.data_dir / "new.key").exists()


# -- tables -----------------------------------------------------------------------------------------------------------


def at_version(cli: Cli, revision: str) -> None:
    """A store of that version, as the gateway of then made it."""
    cli.data_dir.mkdir(exist_ok=True)
    engine = open_engine("sqlite", cli.data_dir, writes=True)
    upgrade(engine, revision)
    engine.dispose()


def test_migrate_asks_for_a_backup_and_is_content_with_one(fresh: Cli) -> None:
    at_version(fresh, "0001")
    result = fresh.run("store", "migrate")
    assert result.exit_code == 0
    assert "none is known" in result.output
    assert "gateway store backup DIR" in result.output
    assert "already" in fresh.run("store", "migrate").output


def test_migrate_refuses_a_newer_store_and_a_running_gateway(cli: Cli) -> None:
    with closing(sqlite3.connect(cli.data_dir / "queue.db", isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for words in (["store", "migrate"], ["store", "backup", str(cli.config.parent / "x")]):
        result = cli.run(*words)
        assert result.exit_code == 1
        assert "which is newer than this gateway" in result.output
    with closing(sqlite3.connect(cli.data_dir / "queue.db", isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0002'")
    running = Incarnation.begin(cli.data_dir / "run")
    result = cli.run("store", "migrate")
    running.release()
    assert (result.exit_code, "stop it first" in result.output) == (1, True)


def test_the_events_of_a_backup_name_who_made_it(cli: Cli) -> None:
    directory = made(cli, "--operator", "Ada")
    (event,) = events(cli, "backup_made")
    assert event["by"].startswith("Ada")
    assert event["directory"] == str(directory)
    assert json.loads((directory / "manifest.json").read_text())["manifest"]["id"] == event["backup"]


@pytest.mark.parametrize("verb", ["backup", "restore", "rotate-key", "migrate"])
def test_each_verb_explains_itself(cli: Cli, verb: str) -> None:
    result = cli.run("store", verb, "--help")
    assert (result.exit_code, "Usage:" in result.output) == (0, True)
