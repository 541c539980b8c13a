"""The file of users: what it may hold, and where it is said to be wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from argon2.low_level import Type, verify_secret

from gateway.config.users import UserTable, make_hash, normal_password
from tests.config.conftest import BASE, MARK, Check

HASH = make_hash("correct horse")
CONNECTOR = """
listeners: [{address: '127.0.0.1:25', tls: none}]
connectors: [{name: c, senders: [a.example], accept: {%s}}]
"""


def table(folder: Path, text: str) -> UserTable:
    path = folder / "users.yaml"
    path.write_text(text, encoding="utf-8")
    return UserTable.read(path)


def test_a_hash_is_right_for_its_password_only_in_any_composition() -> None:
    assert make_hash("x") != make_hash("x")
    made = make_hash("caf\N{LATIN SMALL LETTER E WITH ACUTE}\N{NO-BREAK SPACE}x").encode()
    assert verify_secret(made, normal_password("cafe\N{COMBINING ACUTE ACCENT} x"), Type.ID)


def test_a_table_is_read(tmp_path: Path) -> None:
    found = table(
        tmp_path, f'printer: "{HASH}"\n"name with: colon": "{HASH}"\n"cafe\N{COMBINING ACUTE ACCENT}": "{HASH}"\n'
    )
    assert not found.faults
    assert set(found.hashes) == {"printer", "name with: colon", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"}
    assert HASH not in repr(found)
    dear = HASH.replace("t=2", "t=3")
    assert table(tmp_path, f'a: "{HASH}"\nb: "{dear}"\n').costliest == dear


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@@", "expected lines such as"),
        ("@@- a\n", "expected lines such as"),
        ("a: @@secret\n", "expected an Argon2id hash"),
        ("a: @@12345\n", "expected an Argon2id hash"),
        ("a: @@{b: c}\n", "expected an Argon2id hash"),
        (f'a: @@"{HASH.replace("argon2id", "argon2i")}"\n', "expected an Argon2id hash"),
        (f'a: @@"{HASH.replace("m=19456", "m=4000000")}"\n', "too costly"),
        (f'a: @@"{HASH.replace("t=2", "t=1000")}"\n', "too costly"),
        (f'a: @@"{HASH.replace("m=19456", "m=1024")}"\n', "too weak"),
        (f'@@" a": "{HASH}"\n', "a user's name"),
        (f'@@"a\\0b": "{HASH}"\n', "a user's name"),
        (f'@@{"a" * 256}: "{HASH}"\n', "a user's name"),
        (f'a: "{HASH}"\n@@a: "{HASH}"\n', "given twice"),
        (f'caf\u00e9: "{HASH}"\n@@"cafe\u0301": "{HASH}"\n', "given twice"),
        ("a: @@[\n", "not valid YAML"),
    ],
)
def test_what_is_wrong_has_its_place_and_no_secret(tmp_path: Path, text: str, message: str) -> None:
    before, _, after = text.partition(MARK)
    found = table(tmp_path, before + after)
    assert len(found.faults) == 1
    (fault,) = found.faults
    assert message in fault.message
    assert fault.file.endswith("users.yaml")
    if "YAML" not in message:
        assert (fault.line, fault.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert not re.search("secret|12345", fault.message)


def test_a_fault_in_the_file_is_a_fault_of_the_configuration_once(tmp_path: Path, check: Check) -> None:
    (tmp_path / "users.yaml").write_text("a: b\n")
    text = BASE + "listeners: [{address: '127.0.0.1:25', tls: none}]\nconnectors:\n"
    for name in "xy":
        text += f"  - {{name: {name}, senders: [a.example], accept: {{networks: [10.0.0.0/8], auth: users.yaml}}}}\n"
    faults = [str(fault) for fault in check(text, whole=True).reading.faults]
    assert len([fault for fault in faults if "users.yaml:1:4: expected an Argon2id hash" in fault]) == 1
    missing = check(text.replace("users.yaml", "none.yaml"), whole=True).reading.faults
    assert any("none.yaml:1:1: cannot read the file" in str(fault) for fault in missing)


def test_a_log_in_needs_a_listener_with_tls(tmp_path: Path, check: Check) -> None:
    (tmp_path / "users.yaml").write_text(f'a: "{HASH}"\n')
    assert "no listener of this connector has TLS" in check(CONNECTOR % "auth: @@users.yaml").only_fault


def test_a_log_in_is_a_door_but_no_lock_of_a_cloud(tmp_path: Path, check: Check) -> None:
    (tmp_path / "users.yaml").write_text(f'a: "{HASH}"\n')

    def messages(factors: str) -> str:
        return " ".join(fault.message for fault in check(CONNECTOR % factors).reading.faults)

    assert "open relay" not in messages("auth: users.yaml")
    assert "open relay" not in messages("networks: ['0.0.0.0/0'], auth: users.yaml")
    assert "EchoSpoofing" in messages("networks: [google], auth: users.yaml")
