"""``gateway queue redecide``: stricter for the asking, weaker only with a reason; who acts is written down."""

from __future__ import annotations

import pytest

from tests.cli.conftest import POLICY, Cli


def policy(cli: Cli, text: str) -> None:
    (cli.config.parent / "policy.yaml").write_text(text)


def test_what_a_new_rule_holds_is_held_and_what_changes_is_shown(cli: Cli) -> None:
    policy(cli, POLICY + "  - {name: wait, when: {recipient: later@good.example}, hold: {for: a look, expires: 2h}}\n")
    result = cli.run("queue", "redecide", "--state", "deferred")
    assert result.exit_code == 0, result.output
    changed, summary = result.stdout.splitlines()
    assert changed.startswith(f"{cli.ids['second']}.1  later@good.example  held: ")
    assert "disposition deliver -> hold; reason none -> a look" in changed
    assert summary == "redecide: 1 of 1 recipients"
    (row,) = cli.json("queue", "list", cli.ids["second"])["recipients"]
    assert (row["state"], row["hold_reason"]) == ("held", "a look")
    told = cli.json("trace", cli.ids["second"])["messages"][0]["notices"]
    assert len(told) == 1
    text = cli.run("trace", cli.ids["second"]).stdout
    assert "never weaker than before: disposition deliver -> hold" in text


def test_weaker_needs_a_word_for_it_and_a_reason(cli: Cli) -> None:
    policy(cli, "version: 1\nprotection: {methods: [plain, tls]}\n")
    told = cli.json("queue", "redecide", cli.ids["second"])
    assert told["recipients"][0]["after"]["tls"] == "verified"
    assert "plain" not in told["recipients"][0]["after"]["methods"]
    result = cli.run("queue", "redecide", cli.ids["second"], "--allow-weaker")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--allow-weaker needs --reason" in result.stderr
    arguments = ("queue", "redecide", cli.ids["second"], "--allow-weaker", "--reason", "ticket 4711")
    (entry,) = cli.json(*arguments, "--operator", "Ann")["recipients"]
    assert (entry["before"]["tls"], entry["after"]["tls"]) == ("verified", "encrypted")
    assert "plain" in entry["after"]["methods"]
    (event,) = [
        event["data"]
        for event in cli.json("trace", cli.ids["second"])["messages"][0]["recipients"][0]["events"]
        if event["kind"] == "redecided" and event["data"]["allow_weaker"]
    ]
    assert (event["operator"], event["reason"]) == ("Ann, by ops", "ticket 4711")
    assert event["before"]["tls"] == "verified"


def test_several_are_counted_and_asked_about(cli: Cli) -> None:
    result = cli.run("queue", "redecide", "--state", "held", "--state", "deferred", answer="n\n")
    assert result.exit_code == 1
    assert "redecide 3 recipients (" in result.stderr
    result = cli.run("queue", "redecide", "--state", "held", "--state", "deferred", "--yes")
    assert (result.exit_code, result.stdout) == (0, "redecide: 3 of 3 recipients\n")


def test_held_mail_goes_once_its_rule_is_gone_and_weaker_is_allowed(cli: Cli) -> None:
    policy(cli, "version: 1\n")
    assert cli.run("queue", "redecide", "--state", "held", "--yes").exit_code == 0
    assert cli.states()["held1@good.example"] == "held"
    result = cli.run("queue", "redecide", "--state", "held", "--yes", "--allow-weaker", "--reason", "no such rule")
    assert result.exit_code == 0
    assert {cli.states()[f"held{n}@good.example"] for n in (1, 2)} == {"queued"}


def test_what_cannot_be_decided_is_named(cli: Cli) -> None:
    result = cli.run("queue", "redecide", f"{cli.ids['first']}.1")
    assert result.exit_code == 1
    assert "is delivered: there is nothing left to decide" in result.stderr


@pytest.mark.parametrize("verb", ["release", "cancel", "hold", "retry"])
def test_who_acts_may_be_said_beside_the_user(cli: Cli, verb: str) -> None:
    message = cli.ids["for review 1"] if verb in {"release", "cancel"} else cli.ids["second"]
    reason = () if verb == "retry" else ("--reason", "seen")
    assert cli.run("queue", verb, message, *reason, "--operator", "Ann\x1b[31m", SUDO_USER="eve").exit_code == 0
    events = cli.json("trace", message)["messages"][0]["recipients"][0]["events"]
    assert events[-1]["data"]["operator"] == "Ann [31m, by eve (as ops)"
