"""The frame of the command line, and ``gateway check``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gateway.cli import CliContext, common_options, gateway
from gateway.errors import StoreBusy

ROOT = Path(__file__).parents[2]
BASE = "hostname: gw.clinic.example\npostmaster: ops@clinic.example\n"


def run(*arguments: str, **environment: str) -> Result:
    environment.setdefault("GATEWAY_DEBUG", "")
    return CliRunner(env=environment).invoke(gateway, list(arguments))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "gateway.yaml"


def test_a_right_configuration(config: Path) -> None:
    config.write_text(BASE)
    result = run("check", "--config", str(config))
    assert result.exit_code == 0
    assert result.stderr == ""
    assert f"{config}:1:1: note: there is no listener" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(f"ok: {config}, 0 policy files, policy ")


def test_every_fault_is_a_line_on_standard_error(config: Path) -> None:
    config.write_text(BASE + "hostnam: x\nworkers: 0\n")
    result = run("check", "--config", str(config))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"{config}:3:1: unknown key 'hostnam', did you mean 'hostname'?",
        f"{config}:4:10: expected auto or a whole number from 1 to 256, found 0",
    ]


def test_for_programs(config: Path) -> None:
    config.write_text(BASE + "api: {}\n")
    result = run("check", "--json", "--config", str(config))
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert (told["ok"], told["faults"]) == (True, [])
    assert {"file": str(config), "line": 3, "column": 1, "message": "the section 'api' has no effect yet"} in told[
        "notes"
    ]
    config.write_text(BASE + "x: 1\n")
    result = run("check", "--json", "--config", str(config))
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ok"], told["notes"]) == (1, False, [])
    assert (told["faults"][0]["line"], told["faults"][0]["column"]) == (3, 1)


def test_the_configuration_may_come_from_the_environment(config: Path) -> None:
    config.write_text(BASE)
    assert run("check", GATEWAY_CONFIG=str(config)).exit_code == 0
    assert "/etc/gateway/gateway.yaml:1:1:" in run("check", GATEWAY_CONFIG="").stderr or Path("/etc/gateway").exists()


def test_allow_and_observe_are_told(config: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "version: 1\nrules: [{name: news, when: {sender: a.example}, allow: {methods: [plain]}}]\n"
    )
    config.write_text(
        BASE + "policies: p.yaml\nconnectors:\n"
        "  - {name: c, stage: observe, senders: [a.example], accept: {networks: [10.0.0.0/8]}}\n"
    )
    result = run("check", "--config", str(config))
    assert result.exit_code == 0
    assert "p.yaml:2:49: note: the rule 'news' allows plain" in result.stdout
    assert "gateway.yaml:5:22: note: the connector 'c' is in stage observe" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chek"], "No such command 'chek'"),
        (["check", "--confg", "x"], "No such option"),
        (["check", "extra"], "unexpected extra argument"),
        (["check", "--config"], "requires an argument"),
        ([], "Missing command"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StoreBusy("the database is locked"), "gateway: the database is locked"),
        (OSError(98, "Address already in use"), "gateway: Address already in use"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "gateway: /x: No such file or directory"),
        (KeyError("k\nl"), "gateway: internal error: KeyError: 'k\\nl' (GATEWAY_DEBUG=1 shows where)"),
        (click.ClickException("not\nthat"), "gateway: not that"),
        (click.Abort(), "gateway: aborted"),
    ],
)
def test_what_goes_wrong_in_a_verb_is_one_line(error: Exception, line: str) -> None:
    @click.command
    @common_options
    def fails(_context: CliContext) -> None:
        raise error

    class Failing(type(gateway)):  # type: ignore[misc]  # the frame's own group, with a verb of this test
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
            return fails

    result = CliRunner(env={"GATEWAY_DEBUG": ""}).invoke(Failing("gateway"), ["fails"])
    assert result.exit_code == 1
    assert result.stderr == line + "\n"


def test_help_imports_no_verb_and_lists_those_that_exist() -> None:
    script = (
        "import sys, runpy\n"
        "sys.argv = ['gateway', '--help']\n"
        "from gateway.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "loaded = {name for name in sys.modules if name.startswith('gateway.') or name in {'sqlalchemy', 'pydantic'}}\n"
        "print('LOADED', sorted(loaded), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "check" in done.stdout
    assert "LOADED ['gateway.cli', 'gateway.errors']" in done.stderr


def test_a_reader_that_leaves_early_is_no_error(config: Path) -> None:
    config.write_text(BASE)
    command = f"{sys.executable} -c 'from gateway.cli import main; main()' check --config {config} | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr == ""


def test_optimised_python_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", "from gateway.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "PYTHONOPTIMIZE"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "python -O" in done.stderr
