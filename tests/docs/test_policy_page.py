"""The page about the policy language: every example loads and does what it says, every word stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from gateway.mail.content import FileType
from gateway.mail.envelope import Kind
from gateway.policy.detect import BUILT_IN, HEALTH, IDENTIFIERS
from gateway.policy.examine import TEXT_LIMIT
from gateway.policy.parse import ParsedPolicy, parse_policy
from gateway.policy.schema import policy_schema
from gateway.protect.rehearsal import rehearse
from gateway.scanning.child import MESSAGE_LIMIT
from gateway.scanning.scanners import AT_ONCE_LIMIT, BUDGET
from tests.policy.policy_texts import PAGE, document, examples, section, table, whole

EXAMPLES = examples()
CONDITIONS = table("## Conditions")
ACTIONS = table("## Actions")
NOW = 1_800_000_000.0
SCOPE = "version: 1\ngroups: {partners: [lab.example]}\n"


def read(text: str) -> ParsedPolicy:
    return parse_policy([document(text)])


@pytest.mark.parametrize("place", EXAMPLES)
def test_an_example_loads(place: str) -> None:
    assert [str(fault) for fault in read(EXAMPLES[place]).faults] == []


@pytest.mark.parametrize("place", EXAMPLES)
def test_the_tests_of_an_example_pass(place: str) -> None:
    parsed = read(EXAMPLES[place])
    assert [text for case in parsed.cases for text in rehearse(parsed.policy, case, NOW).differences] == []


def test_most_recipes_have_tests() -> None:
    recipes = re.findall(r"```yaml\n(.*?)```", section("## I want ..."), flags=re.DOTALL)
    assert sum("tests:" in recipe for recipe in recipes) >= 7


def test_faults_are_told_as_shown() -> None:
    text = section("## Faults")
    faulty = re.search(r"```yaml faulty\n(.*?)```", text, flags=re.DOTALL)
    told = re.search(r"```text\n(.*?)```", text, flags=re.DOTALL)
    assert faulty is not None
    assert told is not None
    faults = read(whole(faulty[1])).faults
    assert [f"policy.yaml:{each.line}:{each.column}: {each.message}" for each in faults] == told[1].splitlines()


# -- every word is there ----------------------------------------------------------------------------------------------


def words_of(schema: dict[str, Any]) -> Iterator[str]:
    """The names of conditions as the table has them: ``size``, ``subject: tag``."""
    for key, value in schema["properties"].items():
        parts = value.get("properties", {})
        if key in {"subject", "header", "attachment", "content"}:
            yield from (f"{key}: {part}" for part in parts if (key, part) != ("header", "name"))
        if key not in {"subject", "attachment", "content"}:
            yield key


def test_every_condition_is_on_the_page() -> None:
    assert set(CONDITIONS) == set(words_of(policy_schema()["$defs"]["condition"]))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_example_of_a_condition_loads_and_uses_it(condition: str) -> None:
    example = CONDITIONS[condition]
    parsed = read(f"{SCOPE}rules:\n  - name: r\n    when: {example}\n    hold: true\n")
    assert [str(fault) for fault in parsed.faults] == []
    key, _, part = condition.partition(": ")
    inside = yaml.safe_load(example)[key]
    assert not part or part in inside


def test_every_action_is_on_the_page() -> None:
    rule = policy_schema()["properties"]["rules"]["items"]["properties"]
    assert set(ACTIONS) == set(rule["do"]["items"]["properties"])


@pytest.mark.parametrize("action", ACTIONS)
def test_the_example_of_an_action_loads_and_uses_it(action: str) -> None:
    parsed = read(f"{SCOPE}rules:\n  - name: r\n    when: {{recipient: '*'}}\n    do: [{ACTIONS[action]}]\n")
    assert [str(fault) for fault in parsed.faults] == []
    assert any(word.startswith(action) for word in parsed.policy.rules[0].actions.words())


def test_the_actions_stand_in_the_order_in_which_they_are_done() -> None:
    parsed = read(
        f"{SCOPE}rules:\n  - name: r\n    when: {{recipient: '*'}}\n    do: [{', '.join(ACTIONS.values())}]\n"
    )
    done = [word.partition(" ")[0] for word in parsed.policy.rules[0].actions.words()]
    assert list(dict.fromkeys(done)) == list(ACTIONS)


def test_every_kind_of_mail_is_on_the_page() -> None:
    assert set(table("## Kinds of mail")) == {str(kind) for kind in Kind}


def test_every_type_of_attachment_is_on_the_page() -> None:
    (row,) = [line for line in section("## Conditions").splitlines() if line.startswith("| `attachment: type`")]
    listed = row.split("|")[2].partition("not its name")[2]
    assert set(re.findall(r"`(\w+)`", listed)) == {str(kind) for kind in FileType}


def test_every_built_in_detector_is_on_the_page() -> None:
    text = section("### detectors")
    listed, _, phi = text.partition("They know")[0].partition("`phi`: ")
    listed += phi.partition("\n")[2]
    assert set(re.findall(r"`(\w+)`", listed)) == set(BUILT_IN) - {"phi"}
    halves = phi.partition("\n")[0].partition(" together with ")
    assert [set(re.findall(r"`(\w+)`", half)) for half in (halves[0], halves[2])] == [set(IDENTIFIERS), set(HEALTH)]


def test_the_limits_are_those_of_the_code() -> None:
    text = section("## What is read of a message")
    for limit in (
        f"| {AT_ONCE_LIMIT >> 10} KiB of message |",
        f"| {MESSAGE_LIMIT >> 20} MiB of message |",
        f"| {TEXT_LIMIT // 1_000_000} million characters of text |",
        f"| {BUDGET:.0f} s for one message |",
    ):
        assert limit in text


def test_every_section_of_a_file_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in policy_schema()["properties"]:
        assert f"`{name}`" in page or f"\n### {name}\n" in page or f"\n{name}:" in page, name
