"""``gateway auth hash``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import gateway
from gateway.config.users import UserTable


def run(*arguments: str, password: str = "paper jam\n") -> Result:
    return CliRunner(env={"GATEWAY_DEBUG": ""}).invoke(gateway, ["auth", "hash", *arguments], input=password)


@pytest.mark.parametrize("user", ["printer", "a: b", "#1", "true", 'q"uote', "caf\u00e9"])
def test_its_line_is_what_the_file_wants(tmp_path: Path, user: str) -> None:
    result = run(user)
    assert result.exit_code == 0
    assert "paper jam" not in result.output
    path = tmp_path / "users.yaml"
    path.write_text(result.stdout, encoding="utf-8")
    table = UserTable.read(path)
    assert not table.faults
    assert set(table.hashes) == {user}
    made = json.loads(run(user, "--json").stdout)
    assert made["user"] == user
    assert made["hash"].startswith("$argon2id$")


@pytest.mark.parametrize(("user", "password"), [(" x", "p\n"), ("x", "\n"), ("x", "a\tb\n"), ("x", "y" * 256)])
def test_what_cannot_be_used_is_wrong_usage(user: str, password: str) -> None:
    assert run(user, password=password).exit_code == 2
