"""Who may hand us mail: the whole product of factors, senders, networks and stages against a second opinion.

The oracle below was written from the text of the design ("Connector semantics"), not from the code: it works on what
was *put into* a message (``right``, ``wrong``, ``missing``, ...), the code on the bytes that come out.
"""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.config.model import Connector
from gateway.config.names import matches_sender
from gateway.ingress.connectors import (
    Arrival,
    MessageFacts,
    Refused,
    Verdict,
    candidates,
    check_sender,
    judge,
)
from gateway.ingress.markers import Markers, parse_block
from gateway.ingress.networks import load_networks
from gateway.mail.address import Address
from gateway.mail.author import AuthorError, author

TENANT = "6f0e2b1c-1111-2222-3333-444455556666"
SECRET = "s3cret value"
CLOUD, OUTSIDE = "40.92.1.1", "203.0.113.9"
NETWORKS, _ = load_networks(None)

MARKS = ("right", "wrong", "missing", "twice", "folded", "spelled", "right and wrong")
SENDERS = {"inside": "ann@clinic.example", "outside": "eve@evil.example", "null": None}
AUTHORS = {"inside": "ann@clinic.example", "outside": "eve@evil.example"}
STAGES = ("observe", "soft", "enforce")


def connector(stage: str = "enforce", **changes: Any) -> Connector:
    accept = {
        "networks": ["microsoft365"],
        "tenant": {"id": TENANT, "domains": ["clinic.example"]},
        "header": {"name": "X-Clinic-Relay", "values": ["old secret", SECRET]},
    }
    base: dict[str, Any] = {"name": "m365", "stage": stage, "accept": accept, "senders": ["clinic.example"]}
    return Connector.model_validate({**base, **changes})


def marker(name: str, value: str, how: str, wrong: str) -> str:
    """A header field as ``how`` says; nothing where it is missing."""
    spelled = name.swapcase()
    head, _, tail = value.partition(" ")
    return {
        "right": f"{name}: {value}\r\n",
        "wrong": f"{name}: {wrong}\r\n",
        "missing": "",
        "twice": f"{name}: {value}\r\n{name}: {value}\r\n",
        "folded": f"{name}:\r\n {head}\r\n {tail}\r\n" if tail else f"{name}:\r\n\t{value}\r\n",
        "spelled": f"{spelled} \t:  {value}  \r\n",
        "right and wrong": f"{name}: {value}\r\n{spelled}: {wrong}\r\n",
    }[how]


def message(tenant: str, organisation: str, header: str, who: str) -> bytes:
    return (
        "Received: from x\r\n"
        + marker("X-MS-Exchange-CrossTenant-Id", TENANT.upper(), tenant, "00000000-1111-2222-3333-444455556666")
        + marker("X-OriginatorOrg", "Clinic.Example", organisation, "evil.example")
        + marker("X-Clinic-Relay", SECRET, header, "guess")
        + f"From: Someone <{who}>\r\nSubject: x\r\n"
    ).encode()


def decide(connectors: list[Connector], address: str, sender: str | None, block: bytes) -> Verdict | Refused:
    """What a session does with these functions, in one go."""
    arrival = Arrival(ipaddress.ip_address(address), frozenset({"mx"}))
    envelope = None if sender is None else Address.parse(sender)
    left, refused = check_sender(connectors, candidates(connectors, arrival, NETWORKS), envelope)
    if refused is not None:
        return refused
    found = parse_block(block)
    verdict = judge(left, MessageFacts(found, envelope, author(found)))
    return verdict if verdict.connector is not None else verdict.refused or Refused(())


# -- the second opinion --------------------------------------------------------------------------------------------

HOLDS = {"right", "folded", "spelled"}


@dataclass(frozen=True)
class Case:
    tenant: str
    organisation: str
    header: str
    sender: str
    author: str
    network: str
    stage: str
    system_mail: str = "tenant"
    foreign: str = "refuse"


def oracle(case: Case) -> str:
    """``250``, ``250 with violations``, ``451`` or ``550``."""
    no = "550" if case.stage == "enforce" else "451"
    if case.network == OUTSIDE:
        return no
    tenant = case.tenant in HOLDS and case.organisation in HOLDS
    secret = case.header in HOLDS
    header_is_needed = not (
        case.sender == "null" and case.system_mail == "tenant" and tenant and case.header == "missing"
    )
    factors = tenant and (secret or not header_is_needed)
    envelope_fits = case.sender == "inside" or (case.sender == "null" and case.system_mail == "tenant")
    author_fits = case.author == "inside" or (case.foreign == "forward" and case.sender == "inside")
    if factors and envelope_fits and author_fits:
        return "250"
    if case.stage == "observe" and (tenant or secret):
        return "250 with violations"
    return no


def outcome(result: Verdict | Refused) -> str:
    if isinstance(result, Verdict):
        return "250 with violations" if result.violations else "250"
    assert result.alert == result.temporary
    return "451" if result.temporary else "550"


def run(case: Case) -> Verdict | Refused:
    rules = {"system_mail": case.system_mail, "foreign_from": case.foreign}
    block = message(case.tenant, case.organisation, case.header, AUTHORS[case.author])
    return decide([connector(case.stage, **rules)], case.network, SENDERS[case.sender], block)


def test_the_whole_product() -> None:
    counted = 0
    connectors = {
        (stage, system, foreign): connector(stage, system_mail=system, foreign_from=foreign)
        for stage, system, foreign in itertools.product(STAGES, ("tenant", "refuse"), ("refuse", "forward"))
    }
    blocks = {
        (t, o, h, a): message(t, o, h, AUTHORS[a]) for t, o, h, a in itertools.product(MARKS, MARKS, MARKS, AUTHORS)
    }
    for (t, o, h, a), block in blocks.items():
        found = parse_block(block)
        who = author(found)
        for (stage, system, foreign), each in connectors.items():
            for sender, address in SENDERS.items():
                case = Case(t, o, h, sender, a, CLOUD, stage, system, foreign)
                envelope = None if address is None else Address.parse(address)
                arrival = Arrival(ipaddress.ip_address(CLOUD), frozenset())
                left, refused = check_sender([each], candidates([each], arrival, NETWORKS), envelope)
                result: Verdict | Refused
                if refused is not None:
                    result = refused
                else:
                    verdict = judge(left, MessageFacts(found, envelope, who))
                    result = verdict if verdict.connector is not None else verdict.refused or Refused(())
                assert outcome(result) == oracle(case), case
                counted += 1
    assert counted == 7 * 7 * 7 * 2 * 3 * 12


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("sender", list(SENDERS))
@pytest.mark.parametrize("who", list(AUTHORS))
def test_from_a_network_that_no_connector_names_nothing_is_taken(stage: str, sender: str, who: str) -> None:
    for tenant, organisation, header in itertools.product(("right", "missing"), repeat=3):
        case = Case(tenant, organisation, header, sender, who, OUTSIDE, stage)
        assert outcome(run(case)) == oracle(case) != "250"


@pytest.mark.parametrize(("given", "part"), [({"id": TENANT}, "id"), ("clinic.example", "domains")])
def test_only_the_configured_part_of_a_tenant_is_asked_for(given: Any, part: str) -> None:
    each = connector(accept={"networks": ["microsoft365"], "tenant": given})
    for tenant, organisation in itertools.product(MARKS, MARKS):
        block = message(tenant, organisation, "missing", "ann@clinic.example")
        asked = tenant if part == "id" else organisation
        result = decide([each], CLOUD, "ann@clinic.example", block)
        assert outcome(result) == ("250" if asked in HOLDS else "550"), (tenant, organisation)


def test_both_secrets_are_good_while_one_is_exchanged_for_the_other() -> None:
    each = connector(accept={"networks": ["10.0.0.0/8"], "header": {"name": "X-S", "values": ["one", "two"]}})
    for value, expected in (("one", "250"), ("two", "250"), ("three", "550"), ("", "550"), ("one, two", "550")):
        block = f"X-S: {value}\r\nFrom: ann@clinic.example\r\n".encode()
        assert outcome(decide([each], "10.1.2.3", "ann@clinic.example", block)) == expected


# -- more than one connector ---------------------------------------------------------------------------------------


def app(name: str, secret: str, domain: str, stage: str = "enforce") -> Connector:
    accept = {"networks": ["10.0.0.0/8"], "header": {"name": "X-S", "value": secret}}
    return connector(stage, name=name, accept=accept, senders=[domain])


def test_accepted_means_that_all_factors_of_one_connector_hold() -> None:
    """Never a factor of one and a sender of another."""
    both = [app("a", "alpha", "a.example"), app("b", "beta", "b.example")]
    for secret, sender, who in itertools.product(
        ("alpha", "beta", "gamma"), ("x@a.example", "x@b.example"), ("x@a.example", "x@b.example")
    ):
        result = decide(both, "10.0.0.1", sender, f"X-S: {secret}\r\nFrom: {who}\r\n".encode())
        expected = {
            ("alpha", "x@a.example", "x@a.example"): "a",
            ("beta", "x@b.example", "x@b.example"): "b",
        }.get((secret, sender, who))
        taken_by = result.connector.name if isinstance(result, Verdict) and result.connector else None
        assert taken_by == expected


def test_file_order_decides_where_two_fit_and_force_comes_before_observation() -> None:
    block = b"X-S: alpha\r\nFrom: x@a.example\r\n"
    first, second = app("first", "alpha", "a.example"), app("second", "alpha", "a.example")
    result = decide([first, second], "10.0.0.1", "x@a.example", block)
    assert isinstance(result, Verdict)
    assert result.connector is first
    observing = app("observing", "other", "z.example", stage="observe")
    result = decide([observing, first], "10.0.0.1", "x@a.example", block)
    assert isinstance(result, Verdict)
    assert result.connector is first, "an observing connector must not turn mail that fits another one into plain"
    assert not result.violations


def test_one_soft_connector_makes_the_answer_temporary() -> None:
    hard, soft = app("hard", "alpha", "a.example"), app("soft", "beta", "a.example", stage="soft")
    for order in ([hard, soft], [soft, hard]):
        result = decide(order, "10.0.0.1", "x@a.example", b"From: x@a.example\r\n")
        assert outcome(result) == "451"


# -- what observation never forgives -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        ({"networks": ["10.0.0.0/8"], "header": {"name": "X-S", "value": "v"}}, True),
        ({"header": {"name": "X-S", "value": "v"}}, False),
        ({"networks": ["microsoft365"], "header": {"name": "X-S", "value": "v"}}, False),
        ({}, False),
        ({"networks": ["10.0.0.0/8"], "client_certificate": "c.clinic.example"}, True),
        ({"client_certificate": "c.clinic.example"}, False),
        ({"networks": ["microsoft365"], "client_certificate": "c.clinic.example"}, False),
    ],
)
def test_observation_is_no_open_door(accept: dict[str, Any], taken: bool) -> None:  # noqa: FBT001 - a column
    each = connector("observe", accept=accept)
    address = CLOUD if "microsoft365" in accept.get("networks", ()) else "10.0.0.1"
    result = decide([each], address, "ann@clinic.example", b"From: ann@clinic.example\r\n")
    assert isinstance(result, Verdict) == taken


def test_a_certificate_that_the_cloud_shares_locks_nothing() -> None:
    accept = {"networks": ["microsoft365"], "client_certificate": "mail.protection.outlook.com"}
    arrival = Arrival(ipaddress.ip_address(CLOUD), frozenset(), frozenset({"mail.protection.outlook.com"}))
    for stage in STAGES:
        each = connector(stage, accept=accept)
        found = candidates([each], arrival, NETWORKS)
        block = parse_block(b"From: ann@clinic.example\r\n")
        facts = MessageFacts(block, Address.parse("ann@clinic.example"), author(block))
        assert judge(found, facts).connector is None


# -- dkim ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "valid", "expected"),
    [
        ("ann@clinic.example", {"clinic.example"}, "250"),
        ("ann@clinic.example", set(), "550"),
        ("ann@clinic.example", {"evil.example"}, "550"),
        ("ann@other.clinic.example", {"other.clinic.example"}, "550"),
        ("eve@evil.example", {"evil.example"}, "550"),
    ],
)
def test_dkim_counts_for_the_author_and_the_configured_domain_only(who: str, valid: set[str], expected: str) -> None:
    each = connector(
        accept={"networks": ["google"], "dkim": ["clinic.example"]}, senders=["clinic.example", "*.clinic.example"]
    )
    block = parse_block(f"From: {who}\r\n".encode())
    arrival = Arrival(ipaddress.ip_address("209.85.128.1"), frozenset())
    facts = MessageFacts(block, Address.parse("ann@clinic.example"), author(block), frozenset(valid))
    verdict = judge(candidates([each], arrival, NETWORKS), facts)
    assert (verdict.connector is not None) == (expected == "250")
    assert verdict.used_dkim == (expected == "250")


def test_googles_forwarding_ranges_are_open_to_forwards_only() -> None:
    arrival = Arrival(ipaddress.ip_address("142.250.220.7"), frozenset())
    for foreign, found in (("refuse", 0), ("forward", 1)):
        each = connector(accept={"networks": ["google"], "dkim": ["clinic.example"]}, foreign_from=foreign)
        assert len(candidates([each], arrival, NETWORKS)) == found


# -- listeners, senders, markers -----------------------------------------------------------------------------------


def test_a_connector_can_be_bound_to_listeners() -> None:
    each = connector(accept={"networks": ["10.0.0.0/8"], "listeners": ["inside"]})
    for name, found in (("inside", 1), ("outside", 0)):
        arrival = Arrival(ipaddress.ip_address("10.0.0.1"), frozenset({name, "10.0.0.9:25"}))
        assert len(candidates([each], arrival, NETWORKS)) == found


@pytest.mark.parametrize(
    ("pattern", "domain", "fits"),
    [
        ("clinic.example", "clinic.example", True),
        ("clinic.example", "sub.clinic.example", False),
        ("clinic.example", "evilclinic.example", False),
        ("*.clinic.example", "sub.clinic.example", True),
        ("*.clinic.example", "a.b.clinic.example", True),
        ("*.clinic.example", "clinic.example", False),
        ("*.clinic.example", "evilclinic.example", False),
        ("*", "anything.example", True),
    ],
)
def test_sender_patterns(pattern: str, domain: str, fits: bool) -> None:  # noqa: FBT001 - a column
    assert matches_sender([pattern], Address("x", domain)) == fits


def test_markers_of_all_connectors_are_taken_out_in_every_spelling() -> None:
    markers = Markers.of([connector(), app("other", "v", "a.example")])
    for how in MARKS:
        block = message(how, how, how, "ann@clinic.example") + marker("X-S", "v", how, "w").encode()
        left = b"".join(field.raw for field in markers.strip(parse_block(block)))
        assert left == b"Received: from x\r\nFrom: Someone <ann@clinic.example>\r\nSubject: x\r\n"
    plain = Markers.of([app("other", "v", "a.example")])
    kept = b"X-OriginatorOrg: clinic.example\r\n"
    assert b"".join(field.raw for field in plain.strip(parse_block(kept))) == kept, (
        "a marker that nobody uses is part of the message"
    )


# -- From ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("From: ann@clinic.example", "ann@clinic.example"),
        ("FROM : ann@clinic.example", "ann@clinic.example"),
        ("From: <ann@clinic.example>", "ann@clinic.example"),
        ("From: Ann B. Clinic <ann@clinic.example>", "ann@clinic.example"),
        ('From: "Clinic, Ann" <ann@clinic.example>', "ann@clinic.example"),
        ('From: "ann@clinic.example" <bob@b.example>', "bob@b.example"),
        ("From:\r\n =?utf-8?q?J=C3=BCrgen?=\r\n <ann@clinic.example>", "ann@clinic.example"),
        ("From: Jürgen Müller <ann@clinic.example>", "ann@clinic.example"),
        ('From: "a b"@clinic.example', '"a b"@clinic.example'),
    ],
)
def test_one_author(field: str, expected: str) -> None:
    assert str(author(parse_block(f"{field}\r\n".encode()))) == expected


@pytest.mark.parametrize(
    "field",
    [
        "Subject: x",
        "From:",
        "From: <>",
        "From: Ann",
        "From: ann@clinic.example\r\nFrom: ann@clinic.example",
        "From: ann@clinic.example\r\nfrom : eve@evil.example",
        "From: ann@clinic.example, eve@evil.example",
        "From: Ann <ann@clinic.example>, Eve <eve@evil.example>",
        "From: staff: ann@clinic.example;",
        "From: undisclosed:;",
        "From: <@evil.example:ann@clinic.example>",
        "From: <ann@clinic.example> <eve@evil.example>",
        "From: <ann@clinic.example>eve@evil.example",
        "From: ann@clinic.example <eve@evil.example>",
        "From: ann@clinic.example (comment)",
        "From: (ann@clinic.example) eve@evil.example",
        "From: Ann <ann@clinic.example",
        "From: ann@clinic.example>",
        'From: "Ann <ann@clinic.example>',
        "From: =?utf-8?q?ann=40clinic.example?=",
        "From: ann@clinic.example@evil.example",
        "From: ann@clinic.example\\eve@evil.example",
        "From: ann @clinic.example",
        "From: ann@clinic.example;eve@evil.example",
        "From: Ann\x01 <ann@clinic.example>",
        "From: " + "x" * 3000 + " <ann@clinic.example>",
        "From: " + "x" * 1900,
        "From: " + "x " * 900,
        "From: " + '"' * 1900,
        "From: " + "=?utf-8?q?x?=" * 140 + "\t" * 50,
        "From: " + "x@" * 900,
    ],
)
def test_no_author_that_everyone_reads_alike(field: str) -> None:
    with pytest.raises(AuthorError):
        author(parse_block(f"{field}\r\n".encode()))


def test_a_from_in_latin_1_has_no_author() -> None:
    with pytest.raises(AuthorError, match="UTF-8"):
        author(parse_block(b"From: J\xfcrgen <ann@clinic.example>\r\n"))
