"""Configuration and policies together: all or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.policy import Policy
from gateway.policy.bundle import load_all

BASE = "hostname: gw.clinic.example\npostmaster: ops@clinic.example\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "policies").mkdir()
    return tmp_path


def write(home: Path, policies: str, **files: str) -> Path:
    path = home / "config/gateway.yaml"
    path.write_text(f"{BASE}policies: {policies}\n")
    for name, text in files.items():
        (home / "policies" / f"{name}.yaml").write_text(text)
    return path


HOLD = "version: 1\nrules: [{name: %s, when: {recipient: '*'}, hold: true}]\n"


def test_files_by_pattern_each_once(home: Path) -> None:
    path = write(home, "['../policies/*.yaml', '../policies/a.yaml']", a=HOLD % "a", b=HOLD % "b")
    loaded = load_all(path)
    assert [rule.name for rule in loaded.policy.rules] == ["a", "b"]
    assert loaded.files == (path, home / "policies/a.yaml", home / "policies/b.yaml")


def test_without_policies_the_default_holds(home: Path) -> None:
    path = home / "config/gateway.yaml"
    path.write_text(BASE)
    assert load_all(path).policy == Policy.default()


@pytest.mark.parametrize("pattern", ["'../policies/*.yml'", "../policies/gone.yaml", "/nowhere/*.yaml", '"a\\0b"'])
def test_a_pattern_without_a_file_is_a_fault(home: Path, pattern: str) -> None:
    """The rules that someone wrote would be missing."""
    path = write(home, f"['../policies/*.yaml', {pattern}]", a=HOLD % "a")
    with pytest.raises(ConfigError) as caught:
        load_all(path)
    (fault,) = caught.value.faults
    assert (fault.line, fault.column) == (3, 34)
    assert "no file matches" in fault.message


def test_faults_of_every_file_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(home, "['../policies/*.yaml']\nworkers: 0", a="version: 2", b=HOLD % "'?'", c="a: [")
    monkeypatch.chdir(home)
    with pytest.raises(ConfigError) as caught:
        load_all(path.relative_to(home))
    assert [(fault.file, fault.line, fault.column) for fault in caught.value.faults] == [
        ("config/gateway.yaml", 4, 10),
        ("policies/a.yaml", 1, 10),
        ("policies/b.yaml", 2, 16),
        ("policies/c.yaml", 1, 5),
    ]


def test_a_policy_that_is_a_directory_or_dangles(home: Path) -> None:
    path = write(home, "['../policies/*']")
    (home / "policies/dir.yaml").mkdir()
    (home / "policies/link.yaml").symlink_to("nowhere")
    with pytest.raises(ConfigError) as caught:
        load_all(path)
    assert [fault.message for fault in caught.value.faults] == [
        "this is a directory, not a file",
        "cannot read the file: No such file or directory",
    ]


def test_brackets_in_the_name_of_the_directory_are_no_pattern(tmp_path: Path) -> None:
    home = tmp_path / "a[b]*"
    (home / "config").mkdir(parents=True)
    (home / "policies").mkdir()
    path = write(home, "'../policies/*.yaml'", a=HOLD % "a")
    assert [rule.name for rule in load_all(path).policy.rules] == ["a"]


def test_a_link_to_the_directory_of_the_configuration(home: Path, tmp_path: Path) -> None:
    """`..` is the parent of where the configuration really stands, as for every program."""
    write(home, "'../policies/*.yaml'", a=HOLD % "a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/etc").symlink_to(home / "config")
    loaded = load_all(tmp_path / "elsewhere/etc/gateway.yaml")
    assert [rule.name for rule in loaded.policy.rules] == ["a"]


def test_the_digest_changes_with_any_byte(home: Path) -> None:
    path = write(home, "'../policies/*.yaml'", a=HOLD % "a")
    first = load_all(path)
    assert load_all(path).digest == first.digest
    (home / "policies/a.yaml").write_text(HOLD % "a" + "# later\n")
    second = load_all(path)
    assert second.digest != first.digest
    assert second.policy.digest == first.policy.digest


def test_minimal_says_what_holds_without_it(home: Path) -> None:
    path = write(home, "['../policies/*.yaml']", a=(ROOT / "policies/minimal.yaml").read_text())
    assert load_all(path).policy == Policy.default()


def test_the_quickstart_is_right() -> None:
    loaded = load_all(ROOT / "config/quickstart.yaml")
    # Nobody is to get mail about alarms of a trial: that is worth a note, and nothing else is.
    assert [notice.message.partition(":")[0] for notice in loaded.notices] == ["notify.alerts names nobody"]
    assert loaded.policy == Policy.default()
    (listener,) = loaded.settings.listeners
    assert (listener.host, listener.port) == ("127.0.0.1", 2525)
