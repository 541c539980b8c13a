"""Policy tests: what they can say, and that they fail where they must."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.protect.rehearsal import rehearse
from tests.policy.conftest import Parse

NOW = 1_800_000_000.0

POLICY = r"""
version: 1
detectors:
  mrn: {pattern: '\bMRN[-: ]?\d{6,10}\b', near: {words: [patient, chart], within: 60}}
protection: {methods: [tls, smime, pgp, pdf, portal], tls: encrypted}
rules:
  - name: phi
    when: {content: {detects: [us_ssn, mrn, icd10], at_least: 2}}
    require: {methods: [tls, smime, pgp, pdf, portal], tls: verified}
  - {name: journal-only, when: {kind: journal}, do: [{add_header: {X-Journal: "yes"}}]}
tests:
  - name: results
    message: {from: dr@clinic.example, to: [pat@isp.example], subject: Results, body: "SSN 536-22-8726, E11.9"}
    recipient: {tls: none}
    expect: {method: portal, rules: [phi]}
"""


def test_mail_for_somebody_without_tls_keys_and_password_goes_to_the_portal(parse: Parse) -> None:
    parsed = parse(POLICY)
    assert parsed.faults == ()
    (case,) = parsed.cases
    assert rehearse(parsed.policy, case, NOW).differences == ()


@pytest.mark.parametrize(
    ("recipient", "method"),
    [
        ("tls: verified", "tls"),
        ("tls: encrypted", "portal"),
        ("tls: none, pdf: true", "pdf"),
        ("tls: none, pgp: true", "pgp"),
    ],
)
def test_what_the_recipient_can_take_decides(parse: Parse, recipient: str, method: str) -> None:
    parsed = parse(POLICY.replace("tls: none", recipient).replace("method: portal", f"method: {method}"))
    assert rehearse(parsed.policy, parsed.cases[0], NOW).passed


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ("method: tls", "expected tls, got portal"),
        ("disposition: hold", "expected hold, got deliver"),
        ("tls: encrypted", "expected tls encrypted, got verified"),
        ("methods: [tls]", "expected the methods tls, got tls smime pgp pdf portal"),
        ("rules: [journal-only]", "the rule 'journal-only' did not match"),
        ("no_rules: [phi]", "the rule 'phi' matched"),
        ("actions: [footer]", "expected the actions footer, got none"),
    ],
)
def test_a_test_that_expects_something_else_fails_and_says_what_it_got(parse: Parse, expect: str, words: str) -> None:
    parsed = parse(POLICY.replace("method: portal, rules: [phi]", expect))
    assert rehearse(parsed.policy, parsed.cases[0], NOW).differences == (words,)


def test_a_connector_vouches_for_kinds_in_tests_too(parse: Parse) -> None:
    parsed = parse(POLICY)
    message = parsed.cases[0].message.replace(b"Subject:", b"X-MS-Journal-Report:\r\nSubject:", 1)
    case = replace(parsed.cases[0], message=message, connector="archive")
    for kinds, name in (({"archive": ("journal",)}, True), ({"archive": ()}, False), ({}, False)):
        (_, decision) = rehearse(parsed.policy, case, NOW, kinds).decisions[0]
        assert ("journal-only" in [match.name for match in decision.requirement.rules]) is name
