"""``gateway policy`` and what ``gateway check`` says of policies: tests as a table, JSON, JUnit; the schema."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from gateway.cli import gateway

BASE = "hostname: gw.clinic.example\npostmaster: ops@clinic.example\npolicies: policy.yaml\n"
POLICY = """\
version: 1
rules:
  - name: results
    when: {subject: {contains: results}}
    require: {tls: verified}
  - name: programs
    when: {attachment: {type: executable}}
    unknown: ignore
    reject: No programs
  - name: newsletter
    when: {sender: news@clinic.example}
    allow: {methods: [plain]}
exceptions:
  - to: payer.example
    rules: [results]
    tls: encrypted
    owner: ops@clinic.example
    reason: ticket 4711
    until: 2031-12-31
tests:
  - name: results ask for more
    message: {to: pat@isp.example, subject: Your results}
    expect: {method: tls, tls: verified, rules: [results]}
  - name: the payer is excepted
    message: {to: [a@payer.example, b@payer.example, c@isp.example], subject: Your results, time: 2031-12-01T12:00}
    expect: {disposition: deliver}
"""
FAILING = """\
  - name: other mail asks for "more" & <more>
    message: {to: pat@isp.example, subject: Hello}
    expect: {tls: verified, rules: [results]}
"""


class Clinic:
    """A configuration with a policy."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "gateway.yaml"
        self.policy = directory / "policy.yaml"
        self.config.write_text(BASE)
        self.policy.write_text(POLICY)

    def run(self, *arguments: str) -> Result:
        environment = {"GATEWAY_DEBUG": "", "GATEWAY_CONFIG": str(self.config)}
        return CliRunner(env=environment).invoke(gateway, list(arguments))


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


def lines(text: str) -> list[list[str]]:
    """The cells of each line."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


# -- policy test ------------------------------------------------------------------------------------------------------


def test_the_table_shows_what_becomes_of_each_message(clinic: Clinic) -> None:
    result = clinic.run("policy", "test")
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines(result.stdout) == [
        ["test", "recipient", "outcome", "rules"],
        ["ok", "results ask for more", "pat@isp.example", "tls (verified)", "results"],
        ["ok", "the payer is excepted", "a@payer.example and 1 more", "tls (encrypted)", "results"],
        ["c@isp.example", "tls (verified)", "results"],
        ["2 tests, none failed"],
    ]


def test_a_failing_test_is_told_with_its_place_and_the_status_is_1(clinic: Clinic) -> None:
    clinic.policy.write_text(POLICY + FAILING)
    result = clinic.run("policy", "test")
    assert result.exit_code == 1
    told = result.stdout.splitlines()
    assert told[-4].startswith('FAILED  other mail asks for "more" & <more>')
    place = f'{clinic.policy}:27:5: other mail asks for "more" & <more>'
    assert told[-3:] == [
        f"{place}: expected tls verified, got encrypted",
        f"{place}: the rule 'results' did not match",
        "3 tests, 1 failed",
    ]


def test_a_policy_without_tests_is_said_to_have_none(clinic: Clinic) -> None:
    clinic.policy.write_text("version: 1\n")
    result = clinic.run("policy", "test")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stdout.startswith("no tests")


def test_a_policy_that_does_not_load_is_not_tested(clinic: Clinic) -> None:
    clinic.policy.write_text("version: 1\nrule: []\n")
    result = clinic.run("policy", "test")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{clinic.policy}:2:1: unknown section 'rule', did you mean 'rules'?\n"


@pytest.mark.parametrize("more", ["", FAILING])
def test_for_programs(clinic: Clinic, more: str) -> None:
    clinic.policy.write_text(POLICY + more)
    result = clinic.run("policy", "test", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == (1 if more else 0)
    assert told["ok"] is not bool(more)
    first, second = told["tests"][:2]
    assert (first["name"], first["file"], first["line"], first["passed"]) == (
        "results ask for more",
        str(clinic.policy),
        21,
        True,
    )
    assert [each["recipient"] for each in second["recipients"]] == [
        "a@payer.example",
        "b@payer.example",
        "c@isp.example",
    ]
    assert {each["method"] for each in second["recipients"]} == {"tls"}
    if more:
        assert told["tests"][2]["differences"] == [
            "expected tls verified, got encrypted",
            "the rule 'results' did not match",
        ]


@pytest.mark.parametrize("more", ["", FAILING])
def test_for_build_servers(clinic: Clinic, tmp_path: Path, more: str) -> None:
    clinic.policy.write_text(POLICY + more)
    file = tmp_path / "results.xml"
    assert clinic.run("policy", "test", "--junit", str(file)).exit_code == (1 if more else 0)
    suite = ET.parse(file).getroot()
    assert suite.tag == "testsuite"
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == (
        ("3", "1", "0") if more else ("2", "0", "0")
    )
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases][:2] == ["results ask for more", "the payer is excepted"]
    assert {case.get("classname") for case in cases} == {str(clinic.policy)}
    assert [len(case) for case in cases[:2]] == [0, 0]
    if more:
        assert cases[2].get("name") == 'other mail asks for "more" & <more>'
        failure = cases[2].find("failure")
        assert failure is not None
        assert failure.get("message") == "expected tls verified, got encrypted"
        assert f"{clinic.policy}:27" in (failure.text or "")


def test_a_junit_file_that_cannot_be_written_is_one_line(clinic: Clinic, tmp_path: Path) -> None:
    result = clinic.run("policy", "test", "--junit", str(tmp_path / "nowhere" / "results.xml"))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "No such file or directory" in result.stderr


# -- policy schema ----------------------------------------------------------------------------------------------------


def test_the_schema_is_printed_without_a_configuration(clinic: Clinic) -> None:
    clinic.config.unlink()
    result = clinic.run("policy", "schema")
    assert (result.exit_code, result.stderr) == (0, "")
    schema = json.loads(result.stdout)
    Draft202012Validator.check_schema(schema)
    assert "rules" in schema["properties"]


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_lists_what_weakens_and_passes(clinic: Clinic) -> None:
    result = clinic.run("check")
    assert (result.exit_code, result.stderr) == (0, "")
    place = f"{clinic.policy}:"
    notes = [line.removeprefix(place) for line in result.stdout.splitlines() if line.startswith(place)]
    assert notes == [
        "8:5: note: the rule 'programs' does not apply where its condition cannot be known",
        "12:5: note: the rule 'newsletter' allows plain",
        "15:5: note: exception from results: tls encrypted; ops@clinic.example: ticket 4711; ends 2031-12-31",
    ]
    assert result.stdout.splitlines()[-1].endswith(", 2 policy tests passed")


def test_check_fails_where_a_policy_test_does(clinic: Clinic) -> None:
    clinic.policy.write_text(POLICY + FAILING)
    result = clinic.run("check")
    assert result.exit_code == 1
    place = f"{clinic.policy}:27:5: policy test 'other mail asks for \"more\" & <more>'"
    assert result.stderr.splitlines() == [
        f"{place}: expected tls verified, got encrypted",
        f"{place}: the rule 'results' did not match",
    ]
    told = json.loads(clinic.run("check", "--json").stdout)
    assert (told["ok"], told["tests"]) == (False, 3)
    assert [(fault["line"], fault["column"]) for fault in told["faults"]] == [(27, 5), (27, 5)]
    assert "the rule 'newsletter' allows plain" in {note["message"] for note in told["notes"]}
