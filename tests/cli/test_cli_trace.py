"""``gateway trace``: the life of a message, for people and for programs."""

from __future__ import annotations

import json
import sqlite3

import pytest

from gateway.cli.trace import _Paper, _print_recipient
from gateway.cli.words import terminal, wrapped
from gateway.mail.edits import Change
from gateway.mail.protection import Decision, Method, Requirement
from tests.cli.conftest import Cli


def test_the_shape_of_the_contract(cli: Cli) -> None:
    told = cli.json("trace", cli.ids["first"])
    assert set(told) == {"messages"}
    (message,) = told["messages"]
    assert {"id", "received", "connector", "sender", "size", "kind", "recipients"} <= set(message)
    assert (message["id"], message["connector"], message["sender"], message["kind"]) == (
        cli.ids["first"],
        "app",
        "dr@clinic.example",
        "ordinary",
    )
    delivered, bounced = message["recipients"]
    assert {"recipient", "state", "method", "decision", "attempts", "events"} <= set(delivered)
    assert (delivered["recipient"], delivered["state"], delivered["method"]) == ("pat@good.example", "delivered", "tls")
    decision = delivered["decision"]
    assert {"recipient", "disposition", "method", "requirement", "rules", "passed_over", "evidence", "actions"} <= set(
        decision
    )
    assert decision["requirement"]["tls"] == "verified"
    assert decision["rules"] == [{"name": "checked", "effect": "require tls verified"}]
    (attempt,) = delivered["attempts"]
    assert {"time", "host", "address", "tls", "reply", "outcome"} <= set(attempt)
    assert {"version", "cipher", "assurance", "chain", "name", "spki_sha256"} <= set(attempt["tls"])
    assert (attempt["host"], attempt["tls"]["assurance"], attempt["tls"]["chain"]) == (
        "mx1.good.example",
        "verified",
        "ok",
    )
    assert {"code", "enhanced", "text"} <= set(attempt["reply"])
    assert attempt["reply"]["code"] == 250
    for event in delivered["events"]:
        assert {"time", "kind", "data"} <= set(event)
    assert [event["kind"] for event in delivered["events"]][-1] == "delivered"
    assert bounced["state"] == "bounced"
    passed_over = {each["method"]: each for each in bounced["decision"]["passed_over"]}
    assert passed_over["tls"] == {"method": "tls", "reason": "STARTTLS is not offered", "definite": True}
    assert set(passed_over) == {"tls", "smime", "pgp", "pdf", "portal"}


def test_for_people(cli: Cli) -> None:
    result = cli.run("trace", cli.ids["first"])
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert "  pat@good.example: delivered by tls" in lines
    assert "    allowed: tls, smime, pgp, pdf, portal; tls verified or better" in lines
    assert "    rule checked: require tls verified" in lines
    assert "    not tls: STARTTLS is not offered" in lines
    assert "    not smime, pgp, pdf: not available in this version" in lines
    assert any("attempt      1: mx1.good.example [127.0.0.2]: delivered" in line for line in lines)
    assert any(line.strip().startswith("reply 250") for line in lines)
    assert any("TLSv1.3" in line and "verified; chain: ok; name: ok" in line for line in lines)
    assert any("bounced      5.7.10 no protection that policy allows" in line for line in lines)
    assert any("told of by " in line for line in lines)


def test_every_event_line_says_something(cli: Cli) -> None:
    """Lines with nothing behind the event's name puzzled people."""
    text = cli.run("trace", "--since", "1h").stdout
    for line in text.splitlines():
        words = line.split()
        if len(words) > 2 and words[1].count(":") == 2:
            assert len(words) > 3 or words[2] in ("delivered", "bounced"), line


def test_long_lines_are_broken_between_words() -> None:
    long = "    not tls: " + "the certificate of this host is not one that we would believe " * 4
    assert all(len(line) <= 100 for line in wrapped(long, 100, indent=6).splitlines())


@pytest.mark.parametrize(
    ("filters", "subjects"),
    [
        (["--to", "pat@good.example"], ["first"]),
        (["--to", "PAT@GOOD.EXAMPLE"], ["first"]),
        (["--from", "dr@clinic.example"], ["first", "second", "for review 1", "for review 2"]),
        (["--from", "dr@clinic.example", "--to", "held2@good.example"], ["for review 2"]),
        (["--from", "dr@clinic.example", "--limit", "1"], ["for review 2"]),
    ],
)
def test_filters(cli: Cli, filters: list[str], subjects: list[str]) -> None:
    found = [message["id"] for message in cli.json("trace", *filters)["messages"]]
    assert found == [cli.ids[subject] for subject in subjects]


def test_since_counts_from_now(cli: Cli) -> None:
    assert len(cli.json("trace", "--since", "1h")["messages"]) == 6  # with the notices
    with sqlite3.connect(cli.data_dir / "queue.db") as connection:
        connection.execute("UPDATE messages SET received = received - 7200")
    connection.close()
    result = cli.run("trace", "--since", "1h")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "gateway: no message fits\n")


def test_what_is_left_out_is_said(cli: Cli) -> None:
    result = cli.run("trace", "--since", "1h", "--limit", "2")
    assert result.exit_code == 0
    assert result.stderr == "gateway: the newest 2 of 6 messages; --limit shows more\n"
    assert cli.ids["first"] not in result.stdout


def test_one_of_two_is_not_known(cli: Cli) -> None:
    other = "0192f0c1-2345-7abc-8def-0123456789ab"
    result = cli.run("trace", cli.ids["first"], other, "--json")
    assert result.exit_code == 1
    assert [message["id"] for message in json.loads(result.stdout)["messages"]] == [cli.ids["first"]]
    assert result.stderr == f"gateway: there is no message {other}\n"


def test_subject_and_body_are_nowhere(cli: Cli) -> None:
    text = cli.run("trace", "--since", "1h", "--json").stdout
    assert "secret words" not in text
    assert "for review" not in text


def test_what_a_terminal_would_obey_is_not_printed(cli: Cli) -> None:
    assert cli.run("queue", "hold", cli.ids["second"], "--reason", "\x1b[2J\x1b]0;owned\x07 oops").exit_code == 0
    for verb in (["trace", cli.ids["second"]], ["queue", "list", cli.ids["second"]]):
        text = cli.run(*verb).stdout
        assert "oops" in text
        assert "\x1b" not in text
        assert "\x07" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say which: message IDs, --to, --from or --since"),
        (["nonsense"], "'nonsense' is no message id"),
        (["--since", "yesterday"], "yesterday"),
        (["--to", "a@b.example", "0192f0c1-2345-7abc-8def-0123456789ab"], "not both"),
        (["--since", "1h", "--limit", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage_is_status_two(cli: Cli, arguments: list[str], words: str) -> None:
    result = cli.run("trace", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_was_changed_is_told_and_what_was_only_planned_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    done, left_out = Change("strip_tag", "secure", done=True), Change("footer", "left out: it is signed", done=False)
    decision = Decision(Requirement(), Method.TLS, changes=(done, left_out, Change("add_header", "X-A"))).as_json("")
    recipient = {"recipient": "pat@good.example", "state": "delivered", "method": "tls", "decision": decision}
    events = [{"time": 0.0, "kind": "delivered", "data": {}}]
    _print_recipient(_Paper(terminal()), {**recipient, "next_attempt": None, "hold_reason": "", "events": events})
    lines = capsys.readouterr().out.splitlines()
    assert "    changed: strip_tag secure" in lines
    assert "    not changed: footer left out: it is signed" in lines
    assert not any("add_header" in line for line in lines)
