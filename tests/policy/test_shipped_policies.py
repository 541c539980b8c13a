"""The policies that are shipped do what they say: each has tests, and each rule is tried both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.policy.bundle import Loaded, load_all
from gateway.protect.rehearsal import rehearse
from tests.policy.policy_texts import SHIPPED

NOW = 1_800_000_000.0


@pytest.fixture
def loaded(file: Path, tmp_path: Path) -> Loaded:
    config = tmp_path / "gateway.yaml"
    config.write_text(f"hostname: gw.clinic.example\npostmaster: ops@clinic.example\npolicies: ['{file}']\n")
    return load_all(config)


def test_there_is_a_policy_for_beginners_and_two_for_healthcare() -> None:
    assert {file.stem for file in SHIPPED} == {"healthcare", "healthcare-strict", "minimal"}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_test_of_a_shipped_policy_passes(loaded: Loaded, file: Path) -> None:
    assert loaded.cases
    assert not [
        f"{case.place}: {case.name}: {text}"
        for case in loaded.cases
        for text in rehearse(loaded.policy, case, NOW).differences
    ]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_rule_is_tried_where_it_matches_and_where_it_does_not(loaded: Loaded, file: Path) -> None:
    names = {rule.name for rule in loaded.policy.rules}
    matching = {name for case in loaded.cases for name in case.expected.rules}
    silent = {name for case in loaded.cases for name in case.expected.no_rules}
    assert names - matching == set()
    assert names - silent == set()


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_nothing_is_to_be_noted_but_where_doubt_is_passed_over(loaded: Loaded, file: Path) -> None:
    notes = [notice.message for notice in loaded.notices if notice.file == str(file)]
    notes = [note for note in notes if "not read in this version" not in note]
    assert notes == [
        f"the rule {rule.name!r} does not apply where its condition cannot be known"
        for rule in loaded.policy.rules
        if rule.ignore_unknown
    ]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_nothing_leaves_in_the_clear(loaded: Loaded, file: Path) -> None:
    policy = loaded.policy
    assert "plain" not in policy.protection.methods.union(*(rule.allow or () for rule in policy.rules))
    assert not policy.exceptions
