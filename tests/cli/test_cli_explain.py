"""``gateway explain``: what would become of a message, by the eyes of policy and of a delivery; nothing is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from gateway.testing import CA, Behaviour, DnsServer, SmtpPeer, free_port, reply, self_signed
from tests.cli.conftest import run_cli, write_config

ZONE = """
good.example.      MX 10 mx1.good.example.
mx1.good.example.  A 127.0.3.1
weak.example.      MX 10 mx.weak.example.
mx.weak.example.   A 127.0.3.2
bare.example.      MX 10 mx.bare.example.
mx.bare.example.   A 127.0.3.3
busy.example.      MX 10 mx.busy.example.
mx.busy.example.   A 127.0.3.4
"""
POLICY: dict[str, Any] = {
    "version": 1,
    "rules": [
        {"name": "phi", "when": {"content": {"detects": "us_ssn"}}, "require": {"tls": "verified"}},
        {"name": "tagged", "when": {"subject": {"tag": "secure"}}, "do": [{"strip_tag": "secure"}]},
        {"name": "held", "when": {"recipient": "held@good.example"}, "hold": {"for": "the review board"}},
        {"name": "no", "when": {"recipient": "no@good.example"}, "reject": "Not to this one"},
        {"name": "news", "when": {"sender": "news@clinic.example"}, "allow": {"methods": ["plain"]}},
    ],
}
LETTER = (
    b"From: Dr <dr@clinic.example>\nTo: pat@good.example\nSubject: [secure] Results\n"
    b"X-Gateway-Protect: tls, portal\n\nSSN 536-22-8726, all is well.\n"
)


@dataclass
class World:
    """A configuration with a policy beside four hosts: good, self-signed, without TLS, busy."""

    config: Path
    peers: list[SmtpPeer]

    async def run(self, *arguments: str) -> Result:
        return await asyncio.to_thread(run_cli, "explain", *arguments, "--config", str(self.config))

    async def json(self, *arguments: str, status: int = 0) -> Any:
        result = await self.run(*arguments, "--json")
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)

    async def one(self, to: str, *arguments: str, status: int = 0) -> Any:
        told = await self.json("--from", "dr@clinic.example", "--to", to, *arguments, status=status)
        (found,) = told["recipients"]
        return found

    def nothing_sent(self) -> bool:
        verbs = {verb for peer in self.peers for session in peer.sessions for verb in session.verbs}
        return verbs <= {"EHLO", "STARTTLS", "QUIT"} and not any(peer.messages for peer in self.peers)


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    ca = CA()
    port = free_port(*(f"127.0.3.{n}" for n in range(1, 5)))
    busy = Behaviour(greeting=reply(421, "4.3.2 busy"))
    async with (
        DnsServer(ZONE) as dns,
        SmtpPeer("127.0.3.1", port, certificate=ca.issue("mx1.good.example")) as good,
        SmtpPeer("127.0.3.2", port, certificate=self_signed("mx.weak.example")) as weak,
        SmtpPeer("127.0.3.3", port) as bare,
        SmtpPeer("127.0.3.4", port, behaviour=busy) as away,
    ):
        config = write_config(directory, dns.resolver, port, 0)
        settings = yaml.safe_load(config.read_text())
        settings["tls"] = {"trust": str(ca.write_root(directory / "roots.pem"))}
        settings["policies"] = ["policy.yaml"]
        (directory / "policy.yaml").write_text(yaml.safe_dump(POLICY))
        config.write_text(yaml.safe_dump(settings))
        (directory / "letter.eml").write_bytes(LETTER)
        yield World(config, [good, weak, bare, away])


async def test_the_shape_that_programs_rely_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        told = await w.json("--from", "dr@clinic.example", "--to", "pat@good.example", str(tmp_path / "letter.eml"))
        assert w.nothing_sent()
    (found,) = told["recipients"]
    assert len(told["policy"]) == 64
    assert found["recipient"] == "pat@good.example"
    assert (found["disposition"], found["method"], found["outcome"]) == ("deliver", "tls", "deliver")
    assert found["requirement"] == {"methods": ["tls", "portal"], "tls": "verified"}
    assert [rule["name"] for rule in found["rules"]] == ["phi", "tagged", "X-Gateway-Protect"]
    assert found["rules"][0]["effect"] == "require tls verified"
    assert found["passed_over"] == []
    assert (found["evidence"]["host"], found["evidence"]["address"]) == ("mx1.good.example", "127.0.3.1")
    assert found["evidence"]["tls"]["assurance"] == "verified"
    assert found["actions"] == [{"action": "strip_tag", "detail": "secure", "done": None}]
    assert told["message"]["from"] == "dr@clinic.example"
    assert "Results" not in json.dumps(told)


async def test_what_its_host_lacks_is_told_with_what_they_would_have_to_do(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        found = await w.one("pat@weak.example", str(tmp_path / "letter.eml"), status=1)
    assert (found["method"], found["outcome"]) == (None, "bounce")
    passed = {entry["method"]: entry for entry in found["passed_over"]}
    assert passed["tls"]["definite"] is True
    assert "chain: self-signed" in passed["tls"]["reason"]
    assert passed["portal"]["reason"] == "no portal is set up (portal.url)"
    (remedy,) = found["remedies"]
    assert (remedy["method"], remedy["host"], remedy["level"]) == ("tls", "mx.weak.example", "verified")
    assert "a CA that everybody trusts" in remedy["remedy"]


@pytest.mark.parametrize(
    ("to", "outcome", "method", "words"),
    [
        ("held@good.example", "hold", "tls", "the review board"),
        ("no@good.example", "reject", "tls", "Not to this one (rule no)"),
        ("pat@bare.example", "bounce", None, ""),
        ("pat@busy.example", "wait", "tls", ""),
    ],
)
async def test_every_other_outcome(tmp_path: Path, to: str, outcome: str, method: str | None, words: str) -> None:
    async with world(tmp_path) as w:
        found = await w.one(to, "--subject", "Hello", status=1)
        assert w.nothing_sent()
    assert (found["outcome"], found["method"], found["reason"]) == (outcome, method, words)
    if outcome == "wait":
        assert "421" in found["obstacle"]


async def test_an_allow_makes_the_difference_for_whom_it_is_meant(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        told = await w.json("--from", "news@clinic.example", "--to", "pat@bare.example", "--subject", "News")
    (found,) = told["recipients"]
    assert (found["method"], found["outcome"]) == ("plain", "deliver")
    assert found["evidence"]["tls"] is None


async def test_without_a_probe_nobody_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        found = await w.one("pat@good.example", "--no-probe")
        assert (found["outcome"], found["method"], found["evidence"]) == ("unknown", "tls", None)
        assert not any(peer.sessions for peer in w.peers)


async def test_the_text_is_shown_as_it_is_judged_with_what_was_found_masked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        arguments = ("--from", "dr@clinic.example", "--to", "pat@good.example", "--no-probe", "--text")
        told = await w.json(*arguments, str(tmp_path / "letter.eml"))
        page = (await w.run(*arguments, str(tmp_path / "letter.eml"))).stdout
    for shown in (json.dumps(told["text"], ensure_ascii=False), page):
        assert "SSN •••-••-••••, all is well." in shown
        assert "536" not in shown
    (body,) = [text for text in told["text"] if text["where"] == "body"]
    assert body["finds"] == [{"name": "us_ssn", "start": 4, "end": 15}]
    assert "found: us_ssn" in page


async def test_the_page_says_it_all_in_a_hundred_columns(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sent = ("--from", "dr@clinic.example", "--to", "pat@good.example", "--to", "pat@weak.example")
        result = await w.run(*sent, str(tmp_path / "letter.eml"))
    assert result.exit_code == 1
    page = result.stdout
    assert "pat@good.example  would be sent now by tls\n" in page
    assert "pat@weak.example  would bounce\n" in page
    assert "rule          phi: require tls verified\n" in page
    assert "goes to       mx1.good.example [127.0.3.1]" in page
    assert "they could    mx.weak.example: " in page
    assert max(len(line) for line in page.splitlines()) <= 100


@pytest.mark.parametrize(
    ("to", "attained", "phrase", "words"),
    [
        ("pat@weak.example", "encrypted", True, "travels by TLS that is only encrypted, and verified is needed"),
        ("pat@bare.example", "none", True, "travels in clear, and verified is needed"),
    ],
)
async def test_the_portal_is_told_beforehand_with_what_opens_it(
    tmp_path: Path, to: str, attained: str, *, phrase: bool, words: str
) -> None:
    letter = str(tmp_path / "letter.eml")
    async with world(tmp_path) as w:
        settings = yaml.safe_load(w.config.read_text())
        settings["portal"] = {"url": "https://secure.clinic.example", "trusted_proxies": ["127.0.0.1/32"]}
        w.config.write_text(yaml.safe_dump(settings))
        found = await w.one(to, letter)
        page = (await w.run("--from", "dr@clinic.example", "--to", to, letter)).stdout
        assert w.nothing_sent()
    assert (found["method"], found["outcome"]) == ("portal", "deliver")
    assert found["portal"] == {"needs": "verified", "attained": attained, "phrase": phrase}
    assert words in " ".join(page.split())
    assert "four words to tell them by phone" in " ".join(page.split())


FAULTS = [
    (["--to", "pat@good.example"], 2, "Missing option '--from'"),
    (["--from", "dr@clinic.example", "--to", "nobody"], 2, "'nobody'"),
    (["--from", "dr@clinic.example", "--to", "a@b.example", "--connector", "x"], 2, "there is no connector 'x'"),
    (["--from", "dr@clinic.example", "--to", "a@b.example", "nowhere.eml"], 1, "nowhere.eml: No such file"),
]


@pytest.mark.parametrize(("arguments", "status", "words"), FAULTS, ids=[words for _, _, words in FAULTS])
def test_what_is_asked_wrongly_is_told_in_one_line(
    tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    config = write_config(tmp_path, "127.0.0.1:9", 25, 0)
    result = run_cli("explain", *arguments, "--config", str(config))
    assert result.exit_code == status
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_message_that_would_be_refused_at_the_door_says_so(tmp_path: Path) -> None:
    config = write_config(tmp_path, "127.0.0.1:9", 25, 0)
    file = tmp_path / "bad.eml"
    file.write_bytes(b"From: a@b.example\nX-Gateway-Protect: tls\nX-Gateway-Protect: portal\n\nx\n")
    sent = ("--from", "dr@clinic.example", "--to", "a@b.example", str(file))
    result = run_cli("explain", *sent, "--config", str(config))
    assert result.exit_code == 1
    assert "would be refused: 550 5.6.0 X-Gateway-Protect is given twice" in result.stderr
