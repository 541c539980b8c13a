"""The guides for Microsoft 365 and Google Workspace: both sides of a setting agree, and the lock does what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.inbound import Connector, ForeignFrom, Stage
from gateway.config.load import load_settings
from gateway.ingress.connectors import Candidate, MessageFacts, Verdict, judge
from gateway.ingress.markers import parse_block
from gateway.mail.address import Address
from gateway.mail.author import author
from gateway.testing import CA

DOCS = Path(__file__).parents[2] / "docs"
MICROSOFT, GOOGLE = DOCS / "connect-microsoft-365.md", DOCS / "connect-google-workspace.md"
SECRET = "0123456789abcdef0123456789abcdef"
TENANT = "6f0e2b1c-1111-2222-3333-444455556666"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def first_example(page: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(blocks(page, "yaml")[0])
    return settings


def connectors(folder: Path, *examples: str) -> list[Connector]:
    """The connectors of these examples, in one configuration."""
    certificate, key = CA().issue("gw.clinic.example").write(folder, "tls")
    (folder / "relay.secret").write_text(f"{SECRET}\n")
    settings: dict[str, Any] = {"connectors": []}
    for example in examples:
        text = f"connectors:\n{example}" if example.startswith("  - ") else example
        loaded = yaml.safe_load(text)
        settings = {**loaded, **settings, "connectors": [*settings["connectors"], *loaded["connectors"]]}
    settings["tls"] = {"certificate": str(certificate), "key": str(key)}
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(settings))
    return list(load_settings(path).connectors)


@dataclass(frozen=True)
class Mail:
    """A message as the cloud hands it over; the defaults are what fits both guides."""

    sender: str = "dr@clinic.example"
    author: str = "dr@clinic.example"
    secret: tuple[str, ...] = (SECRET,)
    tenant: str = TENANT
    organisation: str = "clinic.example"
    signed: str = ""

    def facts(self) -> MessageFacts:
        lines = [f"From: {self.author}", *(f"X-Clinic-Relay: {value}" for value in self.secret)]
        lines += [f"X-MS-Exchange-CrossTenant-Id: {self.tenant}", f"X-OriginatorOrg: {self.organisation}"]
        fields = parse_block("".join(f"{line}\r\n" for line in lines).encode())
        sender = Address.parse(self.sender) if self.sender else None
        return MessageFacts(fields, sender, author(fields), frozenset({self.signed} - {""}))


def judged(mail: Mail, found: list[Connector], stage: Stage) -> Verdict:
    return judge([Candidate(each.model_copy(update={"stage": stage})) for each in found], mail.facts())


# -- both sides of a setting ------------------------------------------------------------------------------------------


def parameters(page: Path, name: str) -> set[str]:
    """Every value that this parameter has in the PowerShell of the page."""
    code = "\n".join(blocks(page, "powershell"))
    return {quoted or bare for quoted, bare in re.findall(rf'-{name} (?:"([^"]*)"|([^\s`;]+))', code)}


def test_exchange_and_the_gateway_are_given_the_same_names() -> None:
    settings = first_example(MICROSOFT)
    (connector,) = settings["connectors"]
    assert parameters(MICROSOFT, "SmartHosts") == {settings["hostname"]}
    assert parameters(MICROSOFT, "TlsDomain") == {settings["hostname"]}
    assert parameters(MICROSOFT, "TlsSenderCertificateName") == {settings["hostname"]}
    assert parameters(MICROSOFT, "SetHeaderName") == {connector["accept"]["header"]["name"]}
    assert parameters(MICROSOFT, "DomainName") <= set(connector["senders"])


def test_rules_and_connectors_are_called_by_the_names_that_they_were_given() -> None:
    code = "\n".join(blocks(MICROSOFT, "powershell"))
    made = set(re.findall(r'New-\w+ -Name "([^"]+)"', code))
    used = set(re.findall(r'(?:Set|Enable|Disable)-(?:TransportRule|OutboundConnector) "([^"]+)"', code))
    assert used | parameters(MICROSOFT, "RouteMessageOutboundConnector") <= made


@pytest.mark.parametrize("page", [MICROSOFT, GOOGLE], ids=lambda page: page.stem)
def test_a_guide_covers_seven_days_and_names_its_sources(page: Path) -> None:
    week = page.read_text(encoding="utf-8").partition("\n## The first week")[2]
    assert re.findall(r"^\| (\d) \|", week, flags=re.MULTILINE) == list("1234567")
    assert "\n## Sources\n" in week


@pytest.mark.parametrize("page", [MICROSOFT, GOOGLE], ids=lambda page: page.stem)
def test_a_guide_begins_with_an_observing_connector(page: Path) -> None:
    assert {each["stage"] for each in first_example(page)["connectors"]} == {"observe"}


# -- what the lock does -----------------------------------------------------------------------------------------------


@pytest.fixture
def exchange(tmp_path: Path) -> list[Connector]:
    return connectors(tmp_path, blocks(MICROSOFT, "yaml")[0])


@pytest.fixture
def google(tmp_path: Path) -> list[Connector]:
    return connectors(tmp_path, *blocks(GOOGLE, "yaml")[:2])


@pytest.mark.parametrize("stage", Stage)
def test_exchange_mail_of_the_tenant_with_the_secret_is_taken(exchange: list[Connector], stage: Stage) -> None:
    verdict = judged(Mail(), exchange, stage)
    assert verdict.connector is not None
    assert not verdict.violations


def test_exchange_the_validation_mail_passes_while_the_connector_observes(exchange: list[Connector]) -> None:
    address = "O365ConnectorValidation@clinicexample.onmicrosoft.com"
    mail = Mail(address, address, secret=(), organisation="clinicexample.onmicrosoft.com")
    assert judged(mail, exchange, Stage.OBSERVE).violations == ("header: missing",)
    soft, force = judged(mail, exchange, Stage.SOFT).refused, judged(mail, exchange, Stage.ENFORCE).refused
    assert soft is not None
    assert soft.temporary
    assert force is not None
    assert not force.temporary


def test_exchange_a_report_without_sender_needs_no_secret(exchange: list[Connector]) -> None:
    mail = Mail("", "postmaster@clinicexample.onmicrosoft.com", secret=())
    assert judged(mail, exchange, Stage.ENFORCE).connector is not None


def test_exchange_what_a_connector_without_rule_brings_is_refused(exchange: list[Connector]) -> None:
    refused = judged(Mail(secret=()), exchange, Stage.ENFORCE).refused
    assert refused is not None
    assert refused.why == ("header: missing",)
    assert not refused.temporary


@pytest.mark.parametrize("stage", Stage)
def test_exchange_another_tenant_is_refused_in_every_stage(exchange: list[Connector], stage: Stage) -> None:
    other = Mail(secret=(), tenant="00000000-1111-2222-3333-444455556666", organisation="evil.example")
    assert judged(other, exchange, stage).connector is None


@pytest.mark.parametrize("cloud", ["exchange", "google"])
def test_forwarded_mail_is_taken_only_where_the_connector_says_so(cloud: str, request: pytest.FixtureRequest) -> None:
    found: list[Connector] = request.getfixturevalue(cloud)
    mail = Mail("bounces+SRS=x=y@clinic.example", "someone@elsewhere.example")
    refused = judged(mail, found[:1], Stage.ENFORCE).refused
    assert refused is not None
    assert refused.why == ("From is outside senders",)
    forwarding = [each.model_copy(update={"foreign_from": ForeignFrom.FORWARD}) for each in found[:1]]
    assert judged(mail, forwarding, Stage.ENFORCE).connector is not None


def test_google_the_signature_takes_what_has_no_secret(google: list[Connector]) -> None:
    by_secret, by_signature = Mail(), Mail(secret=(), signed="clinic.example")
    taken = [judged(mail, google, Stage.ENFORCE).connector for mail in (by_secret, by_signature)]
    assert [each.name for each in taken if each is not None] == ["google", "google-signed"]
    assert judged(Mail(secret=()), google, Stage.ENFORCE).connector is None


def test_google_a_secret_that_two_rules_wrote_is_refused(google: list[Connector]) -> None:
    refused = judged(Mail(secret=(SECRET, SECRET)), google, Stage.ENFORCE).refused
    assert refused is not None
    assert refused.why[0] == "header: there more than once"


def test_google_mail_without_sender_needs_the_secret_too(google: list[Connector]) -> None:
    assert judged(Mail("", secret=()), google, Stage.ENFORCE).connector is None
    assert judged(Mail(""), google, Stage.ENFORCE).connector is not None


@pytest.mark.parametrize("cloud", ["exchange", "google"])
def test_without_any_lock_not_even_an_observing_connector_takes_it(cloud: str, request: pytest.FixtureRequest) -> None:
    found: list[Connector] = request.getfixturevalue(cloud)
    assert judged(Mail(secret=(), tenant="x", organisation="x"), found, Stage.OBSERVE).connector is None
