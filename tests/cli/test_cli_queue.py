"""``gateway queue``: what is shown, what is asked, what is done."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import Cli, run_cli

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.\d+")


def test_list_has_what_waits_in_the_shape_of_the_contract(cli: Cli) -> None:
    told = cli.json("queue", "list")
    assert set(told) == {"recipients"}
    rows = {row["recipient"]: row for row in told["recipients"]}
    assert set(rows) == {"later@good.example", "held1@good.example", "held2@good.example"}
    later = rows["later@good.example"]
    assert {"id", "message", "recipient", "state", "attempts", "next_attempt", "last_error"} <= set(later)
    assert ID.fullmatch(later["id"])
    assert later["message"] == cli.ids["second"]
    assert (later["state"], later["attempts"]) == ("deferred", 1)
    assert "not now" in later["last_error"]
    assert later["next_attempt"] > later["received"]
    held = rows["held1@good.example"]
    assert (held["state"], held["next_attempt"], held["hold_reason"]) == ("held", None, "review")


def test_list_for_people(cli: Cli) -> None:
    result = cli.run("queue", "list")
    assert (result.exit_code, result.stderr) == (0, "")
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["id", "recipient", "state", "age", "tries", "next", "why"]
    (held,) = [line for line in lines if "held1@good.example" in line]
    assert "review (bounces in 23h)" in held
    (later,) = [line for line in lines if "later@good.example" in line]
    assert " in " in later
    assert "not now" in later
    assert result.stdout.splitlines()[-1].startswith("3 recipients; ")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--state", "held"], {"held1@good.example", "held2@good.example"}),
        (["--state", "delivered"], {"pat@good.example", "dr@clinic.example"}),
        (["--state", "bounced", "--state", "deferred"], {"joe@bare.example", "later@good.example"}),
        (["--to", "HELD1@good.example"], {"held1@good.example"}),
        (["--domain", "Good.Example", "--state", "held"], {"held1@good.example", "held2@good.example"}),
        (["--from", "nobody@clinic.example"], set()),
        (["--from", "dr@clinic.example"], {"later@good.example", "held1@good.example", "held2@good.example"}),
    ],
)
def test_list_with_filters(cli: Cli, filters: list[str], expected: set[str]) -> None:
    assert {row["recipient"] for row in cli.json("queue", "list", *filters)["recipients"]} == expected


def test_list_where_nothing_fits(cli: Cli) -> None:
    assert cli.run("queue", "list", "--to", "x@y.example").stdout == "Nothing fits.\n"


def test_show_is_the_trace_of_the_message_of_a_recipient_id(cli: Cli) -> None:
    message = cli.ids["first"]
    assert cli.json("queue", "show", f"{message}.2") == cli.json("trace", message)


def test_one_recipient_is_released_without_a_question(cli: Cli) -> None:
    result = cli.run("queue", "release", cli.ids["for review 1"], "--reason", "seen")
    assert (result.exit_code, result.stdout) == (0, "release: 1 of 1 recipients\n")
    assert cli.states()["held1@good.example"] == "queued"
    assert cli.states()["held2@good.example"] == "held"
    text = cli.run("trace", cli.ids["for review 1"]).stdout
    assert "queued       released; approves review-large; by " in text
    assert "seen" in text


def test_several_are_counted_and_asked_about(cli: Cli) -> None:
    result = cli.run("queue", "release", "--state", "held", answer="n\n")
    assert result.exit_code == 1
    assert "release 2 recipients (held1@good.example, held2@good.example)? [y/N]" in result.stderr
    assert "gateway: aborted" in result.stderr
    assert result.stdout == ""
    assert cli.states()["held1@good.example"] == "held"
    result = cli.run("queue", "release", "--state", "held", answer="y\n")
    assert (result.exit_code, result.stdout) == (0, "release: 2 of 2 recipients\n")
    assert cli.states()["held2@good.example"] == "queued"


def test_the_question_does_not_get_into_the_json(cli: Cli) -> None:
    result = cli.run("queue", "cancel", "--state", "held", "--json", answer="y\n")
    assert result.exit_code == 0
    assert result.stdout.startswith("{")


def test_yes_does_not_ask(cli: Cli) -> None:
    told = cli.json("queue", "hold", "--state", "deferred", "--state", "held", "--reason", "storm", "--yes", status=1)
    by_state = {entry["recipient"]: entry for entry in told["recipients"]}
    assert by_state["later@good.example"]["state"] == "held"
    assert "cannot hold" in by_state["held1@good.example"]["error"]


def test_hold_keeps_the_reason_and_bounces_after_its_time(cli: Cli) -> None:
    assert cli.run("queue", "hold", cli.ids["second"], "--reason", "wrong file", "--expires", "2h").exit_code == 0
    (row,) = cli.json("queue", "list", cli.ids["second"])["recipients"]
    assert (row["state"], row["hold_reason"]) == ("held", "wrong file")
    assert "wrong file (bounces in 119m)" in cli.run("queue", "list", cli.ids["second"]).stdout


def test_retry_makes_it_due(cli: Cli) -> None:
    before = cli.json("queue", "list", "--state", "deferred")["recipients"][0]["next_attempt"]
    assert cli.run("queue", "retry", "--to", "later@good.example").exit_code == 0
    assert cli.json("queue", "list", "--state", "deferred")["recipients"] == []
    (row,) = cli.json("queue", "list", "--to", "later@good.example")["recipients"]
    assert (row["state"], row["next_attempt"] < before) == ("queued", True)
    assert "to be tried at once; by " in cli.run("trace", cli.ids["second"]).stdout


def test_cancel_ends_it_and_tells_the_sender(cli: Cli) -> None:
    result = cli.run("queue", "cancel", cli.ids["second"], "--reason", "sent to the wrong patient")
    assert (result.exit_code, result.stdout) == (0, "cancel: 1 of 1 recipients\n")
    (message,) = cli.json("trace", cli.ids["second"])["messages"]
    assert message["recipients"][0]["state"] == "cancelled"
    (notice,) = message["notices"]
    (told,) = cli.json("trace", notice)["messages"]
    assert (told["sender"], told["recipients"][0]["recipient"]) == ("<>", "dr@clinic.example")


def test_what_has_ended_cannot_be_changed(cli: Cli) -> None:
    result = cli.run("queue", "cancel", f"{cli.ids['first']}.1")
    assert result.exit_code == 1
    assert "a recipient that is delivered cannot cancel" in result.stderr
    assert result.stdout == "cancel: 0 of 1 recipients\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["queue", "retry"], "say which: IDs, --to, --domain, --from, --state or --held-for"),
        (["queue", "list", "nonsense"], "'nonsense' is no message id"),
        (["queue", "list", "0192f0c1-2345-7abc-8def-0123456789ab.x"], "is no message id"),
        (["queue", "show", "nonsense"], "'nonsense' is no message id"),
        (["queue", "hold", "--state", "queued"], "Missing option '--reason'"),
        (["queue", "hold", "--state", "queued", "--reason", "x", "--expires", "soon"], "soon"),
        (["queue", "list", "--state", "waiting"], "'waiting' is not one of"),
        (["queue", "list", "--nonsense"], "No such option"),
    ],
)
def test_wrong_usage_is_status_two_and_one_line(cli: Cli, arguments: list[str], words: str) -> None:
    result = cli.run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.startswith("gateway: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["queue"], "Missing command"),
        (["store"], "Missing command"),
        (["queue", "explode"], "No such command 'explode'"),
    ],
)
def test_a_group_without_its_verb(arguments: list[str], words: str) -> None:
    result = run_cli(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_such_recipient_is_status_one(cli: Cli) -> None:
    result = cli.run("queue", "retry", "--to", "x@y.example")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "gateway: no such recipient\n")


@pytest.mark.parametrize(
    "verb", [["queue", "list"], ["queue", "release", "--state", "held"], ["trace", "--since", "1h"]]
)
def test_without_a_store_nothing_is_made(fresh: Cli, verb: list[str]) -> None:
    result = fresh.run(*verb)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"gateway: there is no store under {fresh.data_dir} yet: the first `gateway run` makes it\n"
    )
    assert not fresh.data_dir.exists()
