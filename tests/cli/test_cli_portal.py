"""``gateway portal``: what lies there, for people and programs; what operators do; what recipients are mailed."""

from __future__ import annotations

import asyncio
import email
import email.policy
import shutil
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Cli
from tests.scenario.portal_world import PORTAL, portal_settings
from tests.scenario.world import SENDER, TO, Scene, World

KIM = "kim@good.example"


@pytest.fixture(scope="module")
def portal_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A short run that left a message in the portal for two recipients; its directory and the message's id."""
    directory = tmp_path_factory.mktemp("portal")

    async def run() -> str:
        async with World(Scene(protection=PORTAL, settings=portal_settings()), directory) as world:
            message = await world.send([TO, KIM])
            for address in (TO, KIM):
                await world.wait_state(message, "deposited", to=address)
            return message

    return directory, asyncio.run(run())


@pytest.fixture
def lying(portal_run: tuple[Path, str], tmp_path: Path) -> Cli:
    """The command line over a copy of that run."""
    directory, message = portal_run
    place = tmp_path / "copy"
    shutil.copytree(directory, place)
    config = place / "gateway.yaml"
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["data_dir"] = str(place / "data")
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return Cli(config, {"message": message})


def states(lying: Cli) -> dict[str, str]:
    return {entry["recipient"]: entry["state"] for entry in lying.json("portal", "list", "--gone")["deposits"]}


def test_list_and_show_say_who_knows_and_who_has_read(lying: Cli) -> None:
    told = lying.json("portal", "list")["deposits"]
    assert [(entry["recipient"], entry["state"], entry["opened"]) for entry in told] == [
        (TO, "deposited", None),
        (KIM, "deposited", None),
    ]
    assert told[0]["notice_assurance"] == "verified"
    page = lying.run("portal", "list").stdout
    assert TO in page
    assert f"{lying.ids['message']}.1" in page
    shown = lying.run("portal", "show", f"{lying.ids['message']}.2").stdout
    assert "a code by mail, where that goes by TLS that is encrypted or better" in shown
    assert "read       never" in shown
    assert KIM in shown
    assert TO not in shown


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--to", KIM.upper()], {KIM}),
        (["--from", SENDER], {TO, KIM}),
        (["--from", TO], set()),
        (["--unread"], {TO, KIM}),
    ],
)
def test_list_with_filters(lying: Cli, filters: list[str], expected: set[str]) -> None:
    assert {entry["recipient"] for entry in lying.json("portal", "list", *filters)["deposits"]} == expected


def test_a_recall_asks_says_what_was_seen_and_can_be_taken_back(lying: Cli) -> None:
    message = lying.ids["message"]
    asked = lying.run("portal", "recall", message, answer="n\n")
    assert asked.exit_code == 1
    assert "recall: 2 recipients. Go on?" in asked.stdout
    assert set(states(lying).values()) == {"deposited"}
    done = lying.run("portal", "recall", message, "--reason", "wrong file", "--yes")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("recalled: nobody had read it") == 2
    assert "`gateway portal restore` works for 5 minutes" in done.stdout
    assert states(lying) == {TO: "recalled", KIM: "recalled"}
    again = lying.run("portal", "recall", message, "--yes")
    assert again.exit_code == 1
    assert "is recalled already" in again.stderr
    back = lying.run("portal", "restore", f"{message}.1", "--yes")
    assert back.exit_code == 0
    assert states(lying) == {TO: "deposited", KIM: "recalled"}
    trace = lying.json("trace", message)["messages"][0]["recipients"][0]["events"]
    recalled = next(event for event in trace if event["kind"] == "recalled")
    assert (recalled["data"]["reason"], recalled["data"]["read"]) == ("wrong file", False)
    assert "ops" in recalled["data"]["operator"]


def test_the_trace_tells_it_in_words_and_what_lies_there_is_not_cancelled(lying: Cli) -> None:
    message = lying.ids["message"]
    lying.run("portal", "recall", f"{message}.1", "--reason", "wrong file", "--yes")
    told = " ".join(lying.run("trace", message).stdout.split())
    assert "noticing it lies in the portal; the notice is on its way" in told
    assert "deposited the notice was accepted, by TLS that was verified" in told
    assert "recalled nobody had read it; by ops; wrong file" in told
    assert "event=" not in told
    lying.run("portal", "restore", f"{message}.1", "--yes")
    assert "deposited the recall was taken back; by ops" in " ".join(lying.run("trace", message).stdout.split())
    done = lying.run("queue", "cancel", f"{message}.2", "--yes")
    assert done.exit_code == 1
    assert f"take it back with `gateway portal recall {message}.2`" in done.stderr


def test_extend_moves_the_end(lying: Cli) -> None:
    before = lying.json("portal", "list")["deposits"][0]["expires"]
    assert lying.run("portal", "extend", f"{lying.ids['message']}.1", "--by", "90d", "--yes").exit_code == 0
    after = lying.json("portal", "list")["deposits"][0]["expires"]
    assert after - before == pytest.approx(60 * 86400, abs=600)


def test_the_notice_can_be_sent_again(lying: Cli) -> None:
    done = lying.run("portal", "resend-notice", f"{lying.ids['message']}.2", "--yes")
    assert done.stdout == f"{lying.ids['message']}.2: the notice goes to {KIM} again\n"
    waiting = [row for row in lying.json("queue", "list")["recipients"] if row["recipient"] == KIM]
    assert [row["state"] for row in waiting] == ["queued"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["show", "0192f0c1-2345-7abc-8def-0123456789ab"], 1, "never lay in the portal"),
        (["show", "nonsense"], 2, "is no message id"),
        (["recall", "0192f0c1-2345-7abc-8def-0123456789ab", "--yes"], 1, "none of these lies in the portal"),
        (["list", "--to", "nobody"], 2, "nobody"),
        (["extend", "x", "--by", "soon", "--yes"], 2, "soon"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(lying: Cli, arguments: list[str], status: int, said: str) -> None:
    done = lying.run("portal", *arguments)
    assert done.exit_code == status
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_the_mails_can_be_looked_at_beforehand(lying: Cli, tmp_path: Path) -> None:
    told = lying.json("portal", "preview", "--from", SENDER, "--to", TO)
    assert set(told) == {"notice", "reminder", "code"}
    assert "Example Clinic" in told["notice"]["subject"]
    assert "secure.clinic.example" in told["notice"]["text"]
    out = tmp_path / "out"
    lying.run("portal", "preview", "--out", str(out))
    assert sorted(path.name for path in out.iterdir()) == [
        f"{name}.{kind}" for name in ("code", "notice", "reminder") for kind in ("eml", "html", "txt")
    ]
    mail = email.message_from_bytes((out / "notice.eml").read_bytes(), policy=email.policy.SMTP)
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    html = (out / "notice.html").read_text(encoding="utf-8")
    assert html.count("http") == html.count("https://secure.clinic.example")
    assert "<img" not in html


def test_without_a_portal_there_is_nothing_to_preview(cli: Cli) -> None:
    done = cli.run("portal", "preview")
    assert done.exit_code == 1
    assert "portal.url is not set" in done.stderr
