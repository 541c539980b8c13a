"""The verbs on a store in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.storage import DatabaseUrl
from gateway.store.database import open_engine
from gateway.store.migrate import expected_version, upgrade
from gateway.testing import FakeClock, PostgresServer
from tests.cli.conftest import Cli, write_config
from tests.queue.queue_world import World


@pytest.fixture
def there(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Cli]:
    """A configuration over an empty database."""
    config = write_config(tmp_path, "127.0.0.1:9", 2525, 2526)
    name = postgres_server.create_database()
    change(config, url=postgres_server.url(name))
    yield Cli(config, {})
    postgres_server.drop_database(name)


def change(config: Path, **store: Any) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["store"] = {**settings.get("store", {}), **store}
    config.write_text(yaml.safe_dump(settings))


def url_of(cli: Cli) -> str:
    return str(yaml.safe_load(cli.config.read_text())["store"]["url"])


async def filled(cli: Cli) -> str:
    """The id of a message that waits."""
    (cli.config.parent / "store.url").write_text(url_of(cli))
    world = World(cli.data_dir, clock=FakeClock())
    world.open()
    message = await world.accept("pat@payer.example")
    await world.close()
    return message


def findings(cli: Cli) -> dict[str, dict[str, str]]:
    result = cli.run("doctor", "--json")
    assert result.exit_code in (0, 1), result.output
    assert result.stdout, result.output
    return {check["name"]: check for check in yaml.safe_load(result.stdout)["checks"]}


def test_migrate_makes_the_tables_and_says_where_they_stand(there: Cli) -> None:
    assert there.json("store", "migrate") == {"before": None, "after": expected_version()}
    assert there.run("store", "migrate").stdout == f"The store is at version {expected_version()} already.\n"


def test_migrate_brings_an_older_store_up(there: Cli, tmp_path: Path) -> None:
    engine = open_engine(url_of(there), tmp_path, writes=True)
    upgrade(engine, "0001")
    engine.dispose()
    assert there.json("store", "migrate") == {"before": "0001", "after": expected_version()}


def test_queue_and_trace_read_and_write_it(there: Cli) -> None:
    message = asyncio.run(filled(there))
    (row,) = there.json("queue", "list")["recipients"]
    assert (row["message"], row["state"]) == (message, "queued")
    there.run("queue", "hold", message, "--reason", "look", "--yes")
    (row,) = there.json("queue", "list", "--state", "held")["recipients"]
    assert (row["state"], row["hold_reason"]) == ("held", "look")
    (found,) = there.json("trace", message)["messages"]
    assert [event["kind"] for event in found["recipients"][0]["events"]] == ["decided", "held"]


def test_the_doctor_looks_at_server_tables_and_keys(there: Cli) -> None:
    before = findings(there)
    assert before["postgresql"]["status"] == "ok"
    assert "no tables yet" in before["store"]["detail"]
    assert "not known" in before["postgresql_space"]["detail"]
    asyncio.run(filled(there))
    after = findings(there)
    assert {after[name]["status"] for name in ("postgresql", "store", "keys")} == {"ok"}
    assert f"at version {expected_version()}" in after["store"]["detail"]
    (there.data_dir / "kek.key").unlink()
    assert findings(there)["keys"]["status"] == "bad"


def test_the_doctor_tells_a_server_that_does_not_answer(there: Cli) -> None:
    change(there.config, url="postgresql://gw:hush-hush@127.0.0.1:9/mail")
    told = findings(there)["store"]
    assert told["status"] == "bad"
    assert "PostgreSQL" in told["detail"]
    assert "hush" not in str(told)
    assert str(DatabaseUrl.parse("postgresql://gw:hush-hush@127.0.0.1:9/mail")) in told["remedy"]


def test_a_verb_says_in_one_line_that_the_server_is_away(there: Cli) -> None:
    change(there.config, url="postgresql://gw:hush-hush@127.0.0.1:9/mail")
    result = there.run("queue", "list")
    assert result.exit_code == 1
    assert result.stderr.startswith("gateway: PostgreSQL: ")
    assert len(result.stderr.splitlines()) == 1
    assert "hush" not in result.output
