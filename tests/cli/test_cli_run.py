"""``gateway run`` where it cannot run, ``store migrate``, and which configuration is meant."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.store.migrate import expected_version
from gateway.testing import free_port
from tests.cli.conftest import Cli, run_cli

ROOT = Path(__file__).parents[2]
ENTRY = [sys.executable, "-c", "from gateway.cli import main; main()"]


def gateway(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program as a process of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
    return subprocess.run(
        [*ENTRY, *arguments],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# -- run --------------------------------------------------------------------------------------------------------------


def test_a_faulty_configuration_is_a_line_per_fault_and_no_traceback(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("hostnam: x\nworkers: 0\nlisteners: [{address: nonsense}]\n")
    done = gateway("run", "--config", str(config))
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith(f"{config}:") for line in lines)
    assert f"{config}:1:1: unknown key 'hostnam', did you mean 'hostname'?" in lines


def test_no_configuration_at_all(tmp_path: Path) -> None:
    done = gateway("run", "--config", str(tmp_path / "missing.yaml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{tmp_path}/missing.yaml:1:1: cannot read the file: No such file or directory\n"


def test_the_key_is_gone(cli: Cli) -> None:
    (cli.data_dir / "kek.key").unlink()
    done = gateway("run", "--config", str(cli.config))
    assert done.returncode == 1
    assert "is not there but the store holds data" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (cli.data_dir / "kek.key").exists()


def test_an_address_that_is_taken(fresh: Cli) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = fresh.config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}")
        fresh.config.write_text(text)
        done = gateway("run", "--config", str(fresh.config))
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_assertions_stay_on(fresh: Cli) -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", "from gateway.cli import main; main()", "run", "--config", str(fresh.config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "python -O" in done.stderr


def test_it_says_ready_once_and_stops_in_order(fresh: Cli, tmp_path: Path) -> None:
    text = fresh.config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{free_port()}")
    fresh.config.write_text(text)
    process = subprocess.Popen(
        [*ENTRY, "run", "--config", str(fresh.config)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        events = []
        for line in process.stderr:
            events.append(json.loads(line))
            if events[-1]["event"] == "ready":
                process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    names = [event["event"] for event in events]
    assert names.count("ready") == 1
    assert names[-1] == "stopped"
    (ready,) = [event for event in events if event["event"] == "ready"]
    assert ready["listeners"]
    (created,) = [event for event in events if event["event"] == "key_created"]
    assert "BACK THIS FILE UP" in created["remedy"]


# -- store migrate ----------------------------------------------------------------------------------------------------


def test_migrate_says_that_there_is_nothing_to_do(cli: Cli) -> None:
    assert cli.json("store", "migrate") == {"before": expected_version(), "after": expected_version()}
    assert cli.run("store", "migrate").stdout == f"The store is at version {expected_version()} already.\n"
    assert cli.json("queue", "list")["recipients"]


def test_migrate_leaves_a_store_of_the_future_alone(cli: Cli) -> None:
    connection = sqlite3.connect(cli.data_dir / "queue.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    result = cli.run("store", "migrate")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("gateway: ")
    assert "9999" in result.stderr
    assert result.stderr.count("\n") == 1


# -- which configuration ----------------------------------------------------------------------------------------------


def test_the_configuration_by_environment(cli: Cli) -> None:
    result = run_cli("queue", "list", "--json", GATEWAY_CONFIG=str(cli.config))
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["recipients"]) == 3


def test_the_option_wins_over_the_environment(cli: Cli) -> None:
    assert cli.run("queue", "list", GATEWAY_CONFIG="/nonexistent/gateway.yaml").exit_code == 0


@pytest.mark.parametrize("arguments", [["--nonsense"], ["explode"], []])
def test_wrong_usage(arguments: list[str]) -> None:
    result = run_cli(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("gateway: ")
    assert result.stderr.count("\n") == 1


def test_help_names_every_verb() -> None:
    text = run_cli("--help").stdout
    for verb in ("run", "check", "queue", "trace", "store", "doctor", "networks"):
        assert f"\n  {verb} " in text
