"""``gateway dkim``, and what ``gateway doctor`` makes of published keys."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import dns.rdata
import pytest
from click.testing import Result

from gateway.config.load import load_settings
from gateway.mail.dkim.keys import SigningKey
from tests.cli.conftest import Cli, run_cli
from tests.cli.test_cli_doctor import ask, change, world

BASE = "hostname: gw.clinic.example\npostmaster: ops@clinic.example\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(BASE)
    return path


def make(config: Path, *more: str, domain: str = "clinic.example", selector: str = "s1") -> Result:
    return run_cli("dkim", "generate", "--domain", domain, "--selector", selector, "--config", str(config), *more)


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
@pytest.mark.parametrize("selector", ["s1", "2026", "no", "2026-01.gw"])
def test_what_it_prints_is_what_the_gateway_needs(config: Path, kind: str, selector: str) -> None:
    result = make(config, "--type", kind, selector=selector)
    assert result.exit_code == 0, result.output
    path = config.parent / "dkim" / f"clinic.example.{selector}.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    key = SigningKey.from_pem(path.read_bytes())
    assert key.algorithm.startswith(kind)
    assert "PRIVATE" not in result.output
    assert f"\n{key.record}\n" in result.stdout
    config.write_text(BASE + result.stdout[result.stdout.index("  dkim:\n") :].replace("\n  ", "\n")[2:])
    (named,) = load_settings(config).dkim["clinic.example"]
    assert (named.selector, named.key) == (selector, key)
    shown = run_cli("dkim", "show", "--config", str(config))
    assert key.record in shown.stdout


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_the_zone_file_form_is_the_record(config: Path, kind: str) -> None:
    result = make(config, "--type", kind, "--json")
    told = json.loads(result.stdout)
    assert all(len(part) <= 255 for part in told["strings"])
    assert "".join(told["strings"]) == told["record"]
    assert (told["record_name"], told["key"]) == ("s1._domainkey.clinic.example", "file:dkim/clinic.example.s1.pem")
    plain = make(config, "--type", kind, selector="s2").stdout
    zone = plain[plain.index("s2._domainkey.clinic.example. 3600") : plain.index(" )") + 2]
    record = dns.rdata.from_text(
        "IN", "TXT", zone.partition("TXT")[2].replace("(", "").replace(")", "").replace("\n", " ")
    )
    text = b"".join(record.strings).decode()  # type: ignore[attr-defined]  # of the class that TXT stands for
    assert text.startswith(f"v=DKIM1; k={kind}; p=")
    assert text in plain


def test_a_file_that_is_there_is_never_touched(config: Path) -> None:
    out = config.parent / "mine.pem"
    out.write_text("mine")
    result = make(config, "--out", str(out))
    assert result.exit_code == 1
    assert "File exists" in result.stderr
    assert out.read_text() == "mine"
    (config.parent / "link.pem").symlink_to(config.parent / "gone.pem")
    assert make(config, "--out", str(config.parent / "link.pem")).exit_code == 1
    assert not (config.parent / "gone.pem").exists()


def test_a_key_beside_the_configuration_is_named_from_there_another_in_full(config: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    own = tmp_path / "own"
    own.mkdir()
    (own / "gateway.yaml").write_text(BASE)
    result = make(own / "gateway.yaml", "--out", str(elsewhere / "k.pem"), "--json")
    assert json.loads(result.stdout)["key"] == f"file:{elsewhere / 'k.pem'}"


@pytest.mark.parametrize(("domain", "selector"), [("a..example", "s1"), ("[192.0.2.1]", "s1"), ("a.example", "a b")])
def test_what_is_no_name_is_wrong_usage(config: Path, domain: str, selector: str) -> None:
    assert make(config, domain=domain, selector=selector).exit_code == 2


def test_where_no_key_is_named_there_is_nothing_to_show(config: Path) -> None:
    assert run_cli("dkim", "show", "--config", str(config)).exit_code == 1
    assert json.loads(run_cli("dkim", "show", "--json", "--config", str(config)).stdout) == {"keys": []}


# -- doctor -----------------------------------------------------------------------------------------------------------

NAME = "dkim s1._domainkey.clinic.example"
KEY = SigningKey.generate("ed25519")


def diagnosed(cli: Cli, *records: str, silent: bool = False) -> dict[str, str]:
    (cli.config.parent / "s1.pem").write_bytes(KEY.pem)
    zone = "gw.clinic.example. A 8.8.4.4\n4.4.8.8.in-addr.arpa. PTR gw.clinic.example.\n"
    zone += "".join(f's1._domainkey.clinic.example. TXT "{record}"\n' for record in records)
    flags = [("s1._domainkey.clinic.example.", "servfail")] if silent else []
    with world(zone, *flags) as resolver:  # type: ignore[arg-type]  # a literal in a list is a str to mypy
        change(
            cli,
            dns={"resolvers": [resolver]},
            dkim={"clinic.example": [{"selector": "s1", "key": "file:s1.pem"}]},
        )
        return ask(cli)[NAME]


def test_the_published_key_is_ours(cli: Cli) -> None:
    found = diagnosed(cli, KEY.record)
    assert (found["status"], found["detail"]) == ("ok", "publishes the Ed25519 key that we sign with")


@pytest.mark.parametrize(
    ("records", "status", "words"),
    [
        ((), "bad", "no such TXT record"),
        ((SigningKey.generate("ed25519").record,), "bad", "another key is published"),
        ((KEY.record, "v=spf1 -all"), "bad", "2 TXT records"),
        (("v=DKIM1; k=ed25519; p=",), "bad", "revoked"),
        (("v=DKIM1; k=rsa; p=AAAA",), "bad", "does not fit our Ed25519 key: the key is of another kind"),
        (("v=spf1 -all",), "bad", "another version"),
        ((KEY.record.replace("; k=", "; t=y; k="),), "warning", "t=y"),
    ],
)
def test_what_is_published_and_does_not_fit(cli: Cli, records: tuple[str, ...], status: str, words: str) -> None:
    escaped = tuple(record.replace(";", "\\;") for record in records)
    found = diagnosed(cli, *escaped)
    assert found["status"] == status
    assert words in found["detail"]


def test_dns_that_does_not_answer_proves_nothing(cli: Cli) -> None:
    assert diagnosed(cli, KEY.record, silent=True)["status"] == "warning"


# -- explain and check ------------------------------------------------------------------------------------------------

LETTER = b"From: Dr <dr@clinic.example>\nTo: pat@good.example\nSubject: [secure] Results\n%b\nall is well\n"
OWN = b"DKIM-Signature: v=1; a=rsa-sha256; d=clinic.example; s=own; h=from:subject; bh=AAAA; b=AAAA\n"
TAGGED = "version: 1\nrules: [{name: tagged, when: {recipient: changed@good.example}, do: [{strip_tag: secure}]}]\n"


def explained(cli: Cli, letter: bytes, *to: str) -> list[str | None]:
    (cli.config.parent / "s1.pem").write_bytes(KEY.pem)
    (cli.config.parent / "policy.yaml").write_text(TAGGED)
    (cli.config.parent / "letter.eml").write_bytes(letter)
    change(
        cli,
        dkim={"clinic.example": [{"selector": "s1", "key": "file:s1.pem"}]},
        connectors=[{"name": "app", "accept": {"networks": ["127.0.0.0/8"]}, "senders": ["clinic.example"]}],
    )
    told = cli.json(
        "explain",
        "--from",
        "dr@clinic.example",
        *(part for address in to for part in ("--to", address)),
        "--no-probe",
        str(cli.config.parent / "letter.eml"),
    )
    return [each["dkim"] for each in told["recipients"]]


def test_explain_says_beforehand_what_is_signed(fresh: Cli) -> None:
    signed, stays = "signed for clinic.example with s1", "not signed: its own signature of clinic.example (own) stays"
    to = ("pat@good.example", "changed@good.example")
    assert explained(fresh, LETTER % b"", *to) == [signed, signed]
    assert explained(fresh, LETTER % OWN, *to) == [stays, signed]
    assert explained(fresh, (LETTER % b"").replace(b"clinic", b"other"), *to) == [None, None]
    page = fresh.run(
        "explain", "--no-probe", "--from", "dr@clinic.example", "--to", to[0], str(fresh.config.parent / "letter.eml")
    )
    assert "dkim" not in page.stdout
    explained(fresh, LETTER % b"", *to)
    page = fresh.run(
        "explain", "--no-probe", "--from", "dr@clinic.example", "--to", to[0], str(fresh.config.parent / "letter.eml")
    )
    assert signed in page.stdout
