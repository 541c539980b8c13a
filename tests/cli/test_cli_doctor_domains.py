"""What ``gateway doctor`` makes of SPF, DMARC and MX of our own domains."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.cli.doctor_domains import mail_domains
from gateway.config.load import load_settings
from gateway.testing import Flag, free_port
from tests.cli.conftest import Cli, run_cli
from tests.cli.test_cli_doctor import ask, change, world

ADDRESS = "8.8.4.4"
BASE = f"""
gw.clinic.example. A {ADDRESS}
gw.clinic.example. TXT "v=spf1 a -all"
clinic.example. MX 10 mx.mailbox.example.
mx.mailbox.example. A 127.0.0.3
"""
SPF = f'clinic.example. TXT "v=spf1 ip4:{ADDRESS} -all"\n'
DMARC = '_dmarc.clinic.example. TXT "v=DMARC1; p={}; rua=mailto:d@clinic.example"\n'
NINE_LOOKUPS = f"""
clinic.example. TXT "v=spf1 {" ".join(["include:n.example"] * 9)} ip4:{ADDRESS} -all"
n.example. TXT "v=spf1 -all"
"""

Findings = dict[str, dict[str, str]]


def configured(cli: Cli, resolver: str, *, connector: dict[str, Any] | None = None, **sections: Any) -> None:
    connectors = yaml.safe_load(cli.config.read_text())["connectors"]
    connectors[0] = {**connectors[0], "senders": ["clinic.example"], **(connector or {})}
    delivery = {"port": free_port("127.0.0.3"), "allow_networks": ["127.0.0.0/8"]}  # where nobody listens
    change(cli, dns={"resolvers": [resolver]}, delivery=delivery, connectors=connectors, **sections)


def findings(cli: Cli, zone: str, *flags: tuple[str, Flag], known: bool = True, **sections: Any) -> Findings:
    with world(BASE + zone, *flags) as resolver:
        configured(cli, resolver, **sections)
        return ask(cli, *(("--address", ADDRESS) if known else ()))


# -- SPF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "status", "words"),
    [
        (SPF, "ok", "8.8.4.4 passes by ip4:8.8.4.4"),
        ("", "warning", "has no SPF record"),
        ('clinic.example. TXT "v=spf1 ip4:192.0.2.99 -all"', "bad", "8.8.4.4: fail by -all"),
        ('clinic.example. TXT "v=spf1 ip4:192.0.2.99 ~all"', "warning", "8.8.4.4: softfail by ~all"),
        ('clinic.example. TXT "v=spf1 ip4:192.0.2.99"', "warning", "8.8.4.4: neutral"),
        ('clinic.example. TXT "v=spf1 +all"', "warning", "lets everybody in the world send"),
        ('clinic.example. TXT "v=spf1 ipv4:8.8.4.4 -all"', "bad", "'ipv4:8.8.4.4' is no mechanism"),
        (SPF + SPF.replace("-all", "~all"), "bad", "has 2 SPF records"),
        (NINE_LOOKUPS, "note", "with 9 of 10 look-ups"),
    ],
)
def test_whether_spf_lets_our_address_send(cli: Cli, zone: str, status: str, words: str) -> None:
    found = findings(cli, zone)["spf clinic.example"]
    assert (found["status"], words in found["detail"]) == (status, True), found


def test_what_spf_must_say_is_in_the_remedy(cli: Cli) -> None:
    assert '"v=spf1 ip4:8.8.4.4 -all"' in findings(cli, "")["spf clinic.example"]["remedy"]
    found = findings(cli, 'clinic.example. TXT "v=spf1 -all"')["spf clinic.example"]
    assert found["remedy"] == "add ip4:8.8.4.4 to the SPF record of clinic.example"


def test_what_dns_does_not_say_is_not_guessed(cli: Cli) -> None:
    found = findings(cli, SPF, ("clinic.example.", "servfail"))
    assert found["spf clinic.example"]["detail"].startswith("could not tell")
    assert found["mx clinic.example"]["detail"].startswith("could not tell")
    include = 'clinic.example. TXT "v=spf1 include:spf.mailbox.example -all"'
    found = findings(cli, include, ("spf.mailbox.example.", "servfail"))
    assert found["spf clinic.example"]["detail"].startswith("could not tell")
    found = findings(cli, SPF, ("_dmarc.clinic.example.", "servfail"))
    assert found["dmarc clinic.example"]["detail"].startswith("could not tell")


def test_an_address_that_is_only_assumed_makes_nothing_bad(cli: Cli) -> None:
    zone = 'clinic.example. TXT "v=spf1 ip4:192.0.2.99 -all"'
    found = findings(cli, zone, known=False)["spf clinic.example"]
    assert found["status"] == "warning"
    assert "--address" in found["remedy"]
    assert findings(cli, SPF, known=False)["spf clinic.example"]["status"] == "ok"


def test_what_a_smart_host_sends_from_cannot_be_seen(cli: Cli) -> None:
    with world(BASE + SPF) as resolver:
        configured(cli, resolver)
        change(cli, delivery={"routes": {"*": "127.0.0.2:26"}})
        found = ask(cli)
    assert found["spf clinic.example"]["status"] == "note"
    assert "spf gw.clinic.example" not in found
    assert not any(name.startswith("mx ") for name in found)


def test_our_own_name_is_what_bounces_are_judged_by(cli: Cli) -> None:
    assert findings(cli, SPF)["spf gw.clinic.example"]["status"] == "ok"
    with world(BASE.replace('gw.clinic.example. TXT "v=spf1 a -all"', "") + SPF) as resolver:
        configured(cli, resolver)
        found = ask(cli, "--address", ADDRESS)["spf gw.clinic.example"]
    assert (found["status"], "v=spf1 a -all" in found["remedy"]) == ("note", True)


def test_a_domain_that_is_not_there_is_said_once(cli: Cli) -> None:
    found = findings(cli, SPF, connector={"senders": ["clinic.example", "typo.example"]})
    assert found["spf typo.example"]["detail"].startswith("there is no such domain")
    assert "dmarc typo.example" not in found
    assert found["mx typo.example"]["status"] == "bad"


# -- DMARC ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "status", "words"),
    [
        (SPF, "warning", "has no DMARC record"),
        (SPF + DMARC.format("none"), "note", "p=none: mail in its name that is forged"),
        (SPF + '_dmarc.clinic.example. TXT "v=DMARC1; p=rejekt"', "warning", "is no DMARC record that counts"),
        (SPF + DMARC.format("none") + DMARC.format("reject"), "warning", "has 2 DMARC records"),
        (SPF + DMARC.format("reject"), "note", "passes by SPF alone"),
        (DMARC.format("reject"), "warning", "does not pass SPF, and we do not sign it"),
    ],
)
def test_what_dmarc_asks_and_whether_our_mail_can_pass(cli: Cli, zone: str, status: str, words: str) -> None:
    found = findings(cli, zone)["dmarc clinic.example"]
    assert (found["status"], words in found["detail"]) == (status, True), found


def test_a_parents_record_holds(cli: Cli) -> None:
    zone = DMARC.format("reject") + f'mail.clinic.example. TXT "v=spf1 ip4:{ADDRESS} -all"\n'
    found = findings(cli, zone, connector={"senders": ["mail.clinic.example"]})["dmarc mail.clinic.example"]
    assert found["detail"].startswith("p=reject (by clinic.example);")


def test_a_signed_domain_passes(cli: Cli) -> None:
    key = cli.config.parent / "s1.pem"
    arguments = ("--domain", "clinic.example", "--selector", "s1", "--type", "ed25519", "--out", str(key))
    assert run_cli("dkim", "generate", *arguments, "--config", str(cli.config)).exit_code == 0
    dkim = {"clinic.example": [{"selector": "s1", "key": f"file:{key}"}]}
    found = findings(cli, SPF + DMARC.format("reject"), dkim=dkim)["dmarc clinic.example"]
    assert (found["status"], found["detail"]) == ("ok", "p=reject; mail from here is signed and passes SPF")


def test_letters_of_our_own_need_a_name_that_is_aligned(cli: Cli) -> None:
    other = "gw.carrier.example."
    zone = SPF + DMARC.format("reject") + f'{other} A {ADDRESS}\n{other} TXT "v=spf1 a -all"\n'
    name = "dmarc postmaster@clinic.example"
    assert name not in findings(cli, zone)
    found = findings(cli, zone, hostname="gw.carrier.example")[name]
    assert (found["status"], "not aligned with clinic.example" in found["detail"]) == ("warning", True)
    strict = zone.replace("p=reject", "p=reject; aspf=s")
    assert findings(cli, strict)[name]["status"] == "warning"
    lenient = zone.replace(DMARC.format("reject"), DMARC.format("none"))
    assert name not in findings(cli, lenient, hostname="gw.carrier.example")


# -- MX ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "status", "words"),
    [
        ("", "", "ok", "bounces and letters go to mx.mailbox.example"),
        ("MX 10 mx.mailbox.example.", "MX 0 .", "bad", "takes no mail"),
        ("mx.mailbox.example. A 127.0.0.3", "", "bad", "no address for mx.mailbox.example"),
        ("A 127.0.0.3", "A 10.0.0.1", "bad", "leads to 10.0.0.1 (private)"),
        ("MX 10 mx.mailbox.example.", "MX 10 gw.clinic.example.", "bad", "leads to this gateway"),
        ("A 127.0.0.3", f"A {ADDRESS}", "bad", "mx.mailbox.example is this gateway"),
    ],
)
def test_where_bounces_go_without_a_return_route(cli: Cli, old: str, new: str, status: str, words: str) -> None:
    with world((BASE + SPF).replace(old, new) if old else BASE + SPF) as resolver:
        configured(cli, resolver)
        found = ask(cli, "--address", ADDRESS)["mx clinic.example"]
    assert (found["status"], words in found["detail"]) == (status, True), found


def test_with_a_return_route_the_mx_does_not_matter(cli: Cli) -> None:
    found = findings(cli, SPF, connector={"return_route": {"host": "127.0.0.2", "port": 9}})
    assert "mx clinic.example" not in found


def test_letters_to_operators_that_are_lost_are_a_warning(cli: Cli) -> None:
    found = findings(cli, SPF, notify={"alerts": ["ops@elsewhere.example"]})["mx elsewhere.example"]
    assert (found["status"], "letters to whoever looks after" in found["detail"]) == ("warning", True)


@pytest.mark.parametrize(
    ("zone", "status", "words"),
    [
        ("secure.clinic.example. MX 10 gw.clinic.example.", "ok", "leads to gw.clinic.example"),
        (f"secure.clinic.example. MX 10 m.example.\nm.example. A {ADDRESS}", "ok", "which is this machine"),
        ("secure.clinic.example. MX 10 mx.mailbox.example.", "ok", "the mailbox provider of clinic.example"),
        ("secure.clinic.example. MX 10 m.example.\nm.example. A 127.0.0.4", "warning", "neither this gateway nor"),
        ("", "bad", "takes no mail"),
        ("secure.clinic.example. MX 0 .", "bad", "takes no mail"),
    ],
)
def test_whether_answers_reach_us(cli: Cli, zone: str, status: str, words: str) -> None:
    found = findings(cli, SPF + zone, local={"domain": "secure.clinic.example"})["mx secure.clinic.example"]
    assert (found["status"], words in found["detail"]) == (status, True), found


def test_the_domains_that_are_ours(cli: Cli) -> None:
    configured(cli, "127.0.0.1:9", connector={"senders": ["*.b.example", "a.example", "b.example"]})
    change(cli, local={"domain": "secure.clinic.example"})
    found = mail_domains(load_settings(cli.config))
    assert found == ("b.example", "a.example", "clinic.example", "secure.clinic.example")
