"""What the rules of a file mean for a message."""

from __future__ import annotations

import pytest

from gateway.mail.address import Address
from gateway.mail.protection import Assurance, Disposition, Method
from gateway.policy import Policy, evaluate, evaluate_envelope
from gateway.policy.facts import normal_text
from tests.policy.conftest import Facts, Read

NEWSLETTER = "rules: [{name: newsletter, when: {sender: news@clinic.example}, allow: {methods: [plain]}}]"
TAGGED = "rules: [{name: tagged, when: {subject: {tag: secure}}, require: {methods: [portal, smime], tls: verified}}]"


def matches(policy: Read, when: str, message: object) -> bool:
    made = policy(f"rules: [{{name: r, when: {when}, hold: true}}]")
    return evaluate(made, message).disposition is Disposition.HOLD  # type: ignore[arg-type]  # facts, from the fixture


def test_without_files_everything_is_protected(facts: Facts) -> None:
    got = evaluate(Policy.default(), facts())
    assert Method.PLAIN not in got.methods
    assert (got.tls, got.disposition) == (Assurance.ENCRYPTED, Disposition.DELIVER)
    assert got.ranking()[0] is Method.TLS
    assert got.fallback_after == 900


@pytest.mark.parametrize(
    ("pattern", "address", "expected"),
    [
        ("pat@isp.example", "pat@isp.example", True),
        ("pat@isp.example", "PAT@ISP.EXAMPLE", True),
        ("pat@isp.example", "pat2@isp.example", False),
        ("isp.example", "anyone@isp.example", True),
        ("isp.example", "anyone@sub.isp.example", False),
        ("isp.example", "anyone@notisp.example", False),
        ("'*.isp.example'", "anyone@sub.isp.example", True),
        ("'*.isp.example'", "anyone@a.b.isp.example", True),
        ("'*.isp.example'", "anyone@isp.example", False),
        ("'*.isp.example'", "anyone@evilisp.example", False),
        ("'*@isp.example'", "anyone@isp.example", True),
        ("'pat@*.isp.example'", "pat@sub.isp.example", True),
        ("'*'", "anyone@anywhere.example", True),
        ("[a.example, pat@isp.example]", "pat@isp.example", True),
        ("bücher.example", "x@xn--bcher-kva.example", True),
        ("'\"odd name\"@isp.example'", '"odd name"@isp.example', True),
        ("'[192.0.2.1]'", "x@[192.0.2.1]", True),
    ],
)
def test_address_patterns(policy: Read, facts: Facts, pattern: str, address: str, expected: bool) -> None:  # noqa: FBT001 - a table
    assert matches(policy, f"{{recipient: {pattern}}}", facts(address)) is expected
    assert matches(policy, f"{{sender: {pattern}}}", facts(sender=address)) is expected


def test_the_null_sender_has_its_own_pattern(policy: Read, facts: Facts) -> None:
    assert matches(policy, "{sender: '<>'}", facts(sender=None))
    assert matches(policy, "{sender: '*'}", facts(sender=None))
    assert not matches(policy, "{sender: '*@clinic.example'}", facts(sender=None))
    assert not matches(policy, "{sender: '<>'}", facts())


@pytest.mark.parametrize(
    ("subject", "carried"),
    [
        ("[secure] results", True),
        ("Re: [SECURE] results", True),
        ("(Secure) results", True),
        ("secure: results", True),
        ("Fwd: SECURE : results", True),
        ("[ secure ] results", True),
        ("［ｓｅｃｕｒｅ］ results", True),
        ("[se\u200bcure] results", True),
        ("[se\u00adcure]", True),
        ("results\r\n [secure]", True),
        ("secure results", False),
        ("insecure: results", False),
        ("[secured]", False),
        ("[secure-ish]", False),
        ("non-secure: x", False),
        ("", False),
    ],
)
def test_tags(policy: Read, facts: Facts, subject: str, carried: bool) -> None:  # noqa: FBT001 - a table
    assert matches(policy, "{subject: {tag: secure}}", facts(subject=subject)) is carried


@pytest.mark.parametrize(
    ("when", "subject", "expected"),
    [
        ("{subject: {contains: lab result}}", "Your LAB  Result", True),
        ("{subject: {contains: STRASSE}}", "Straße", True),
        ("{subject: {contains: ﬁn}}", "fin", True),
        ("{subject: {contains: [x, y]}}", "only y", True),
        ("{subject: {matches: '[0-9]{3}-[0-9]{2}'}}", "no 123-45 here", True),
        ("{subject: {matches: '^no'}}", "No", False),
        ("{subject: {matches: '(?i)^no'}}", "No", True),
        ("{subject: {matches: '[0-9]{3}'}}", "１２３", True),
        ("{subject: {contains: a, matches: b}}", "ab", True),
        ("{subject: {contains: a, matches: b}}", "a", False),
        ("{all: [{subject: {contains: a}}, {not: {subject: {contains: b}}}]}", "a", True),
        ("{all: [{subject: {contains: a}}, {not: {subject: {contains: b}}}]}", "ab", False),
        ("{any: [{recipient: x@y.example}, {subject: {contains: a}}]}", "a", True),
        ("{recipient: isp.example, subject: {contains: a}}", "a", True),
        ("{recipient: other.example, subject: {contains: a}}", "a", False),
    ],
)
def test_conditions(policy: Read, facts: Facts, when: str, subject: str, expected: bool) -> None:  # noqa: FBT001 - a table
    assert matches(policy, when, facts(subject=subject)) is expected


def test_a_hostile_subject_costs_linear_time(policy: Read, facts: Facts) -> None:
    assert not matches(policy, "{subject: {matches: '(a+)+$'}}", facts(subject="a" * 50_000 + "b"))


def test_allow_adds_and_the_default_assurance_does_not_take_it_away(policy: Read, facts: Facts) -> None:
    made = policy(NEWSLETTER)
    got = evaluate(made, facts(sender="news@clinic.example"))
    assert Method.PLAIN in got.methods
    assert got.ranking()[:2] == (Method.TLS, Method.PLAIN)
    assert got.join(got).methods == got.methods
    assert Method.PLAIN not in evaluate(made, facts()).methods


def test_require_cuts_what_another_rule_allows(policy: Read, facts: Facts) -> None:
    got = evaluate(policy(NEWSLETTER, TAGGED), facts(sender="news@clinic.example", subject="[secure] x"))
    assert got.methods == {Method.PORTAL, Method.SMIME}
    assert got.tls is Assurance.VERIFIED
    assert [match.as_json() for match in got.rules] == [
        {"name": "newsletter", "effect": "allow plain"},
        {"name": "tagged", "effect": "require smime portal, tls verified"},
    ]


def test_disjoint_requires_are_held_as_a_contradiction(policy: Read, facts: Facts) -> None:
    made = policy(
        "rules:\n- {name: a, when: {recipient: '*'}, require: {methods: portal}}\n"
        "- {name: b, when: {recipient: '*'}, require: {methods: pgp}}\n"
    )
    got = evaluate(made, facts(approvals=frozenset({"a", "b"})))
    assert (got.methods, got.disposition, got.reason) == (frozenset(), Disposition.HOLD, "contradiction")


def test_reject_beats_hold_and_names_its_rule(policy: Read, facts: Facts) -> None:
    made = policy(
        "rules:\n- {name: a, when: {recipient: isp.example}, hold: {for: review, expires: 24h}}\n"
        "- {name: b, when: {recipient: isp.example}, reject: 'Not to there'}\n"
    )
    got = evaluate(made, facts())
    assert (got.disposition, got.reason) == (Disposition.REJECT, "Not to there (rule b)")
    assert evaluate(made, facts("x@other.example")).disposition is Disposition.DELIVER


def test_holds_join_and_approvals_lift_one_each(policy: Read, facts: Facts) -> None:
    made = policy(
        "rules:\n- {name: a, when: {recipient: '*'}, hold: {for: review, expires: 24h}}\n"
        "- {name: b, when: {recipient: '*'}, hold: {for: approval, expires: 2h}}\n"
        "- {name: c, when: {recipient: '*'}, hold: true}\n"
    )
    got = evaluate(made, facts())
    assert (got.reason, got.hold_rules, got.hold_expires) == ("approval; c; review", ("a", "b", "c"), 7200)
    got = evaluate(made, facts(approvals=frozenset({"b", "c"})))
    assert (got.reason, got.hold_rules, got.hold_expires) == ("review", ("a",), 86400)
    got = evaluate(made, facts(approvals=frozenset({"a", "b", "c"})))
    assert (got.disposition, got.hold_expires) == (Disposition.DELIVER, None)


UNKNOWN = """rules:
- {name: holds, when: {subject: {contains: a}}, hold: true%s}
- {name: opens, when: {subject: {contains: a}}, allow: {methods: plain}%s}
- {name: refuses, when: {subject: {contains: a}}, reject: no%s}
- {name: wants, when: {subject: {contains: a}}, require: {tls: verified}%s}
"""


def test_a_subject_that_cannot_be_known(policy: Read, facts: Facts) -> None:
    got = evaluate(policy(UNKNOWN % ("", "", "", "")), facts(subject=None))
    assert got.disposition is Disposition.HOLD
    assert got.hold_rules == ("holds", "refuses")
    assert got.reason == "holds; unknown: refuses"
    assert Method.PLAIN not in got.methods
    assert got.tls is Assurance.VERIFIED
    assert [match.name for match in got.rules] == ["holds", "refuses", "wants"]


def test_unknown_may_be_ignored(policy: Read, facts: Facts) -> None:
    got = evaluate(policy(UNKNOWN % ((", unknown: ignore",) * 4)), facts(subject=None))
    assert (got.disposition, got.tls, got.rules) == (Disposition.DELIVER, Assurance.ENCRYPTED, ())


def test_a_tag_by_header_narrows_and_does_nothing_else(policy: Read, facts: Facts) -> None:
    made = policy(
        """rules:
- {name: wants, when: {subject: {tag: secure}}, require: {tls: verified}}
- {name: holds, when: {subject: {tag: secure}}, hold: true}
- {name: opens, when: {subject: {tag: secure}}, allow: {methods: plain}}
- {name: unless, when: {not: {subject: {tag: secure}}}, require: {methods: [tls, portal]}}
"""
    )
    got = evaluate(made, facts(tags=frozenset({"SECURE"})))
    assert got.tls is Assurance.VERIFIED
    assert got.methods == {Method.TLS, Method.PORTAL}
    assert got.disposition is Disposition.DELIVER


@pytest.mark.parametrize(
    ("protect", "methods"),
    [
        ({Method.PORTAL}, {Method.PORTAL}),
        ({Method.PORTAL, Method.PLAIN}, {Method.PORTAL}),
        ({Method.PLAIN}, None),
        (None, None),
        (set(), set()),
    ],
)
def test_protect_by_header(
    policy: Read, facts: Facts, protect: set[Method] | None, methods: set[Method] | None
) -> None:
    made = policy("protection: {methods: [tls, plain, portal]}")
    got = evaluate(made, facts(protect=None if protect is None else frozenset(protect)))
    assert got.methods == ({Method.TLS, Method.PLAIN, Method.PORTAL} if methods is None else methods)
    assert [match.name for match in got.rules] == ([] if methods is None else ["X-Gateway-Protect"])


def test_protection_sets_the_defaults(policy: Read, facts: Facts) -> None:
    made = policy("protection: {methods: [portal, tls], tls: verified, prefer: [portal, tls], fallback_after: 1h}")
    got = evaluate(made, facts())
    assert got.methods == {Method.TLS, Method.PORTAL}
    assert got.ranking() == (Method.PORTAL, Method.TLS)
    assert (got.tls, got.fallback_after) == (Assurance.VERIFIED, 3600)


def test_rcpt_is_refused_early_only_when_it_is_certain(policy: Read) -> None:
    made = policy(
        """rules:
- {name: never-there, when: {recipient_domain: blocked.example}, reject: "Not to there"}
- {name: not-with-that, when: {recipient: partner.example, subject: {contains: x}}, reject: "Not that"}
- {name: not-without, when: {not: {subject: {tag: ok}}, recipient: partner.example}, reject: "Tag it"}
- {name: holds, when: {recipient: held.example}, hold: true}
"""
    )
    sender = Address.parse("dr@clinic.example")
    refused = evaluate_envelope(made, sender, Address.parse("x@blocked.example"))
    assert refused == "Not to there (rule never-there)"
    assert evaluate_envelope(made, None, Address.parse("x@blocked.example")) == refused
    for recipient in ("x@partner.example", "x@held.example", "x@other.example"):
        assert evaluate_envelope(made, sender, Address.parse(recipient)) is None


def test_the_digest_does_not_see_how_it_is_written(policy: Read) -> None:
    one = policy(
        "protection: {methods: [tls, portal]}\nrules:\n"
        "- {name: a, when: {recipient: [B.example, a.example]}, hold: true}\n"
        "- {name: b, when: {subject: {tag: [X, y]}}, require: {methods: [portal, tls]}}\n"
    )
    other = policy(
        "rules:\n- name: b\n  require: {methods: [tls, portal]}\n  when: {subject: {tag: [Y, x]}}\n",
        "# in another file\nprotection: {methods: [portal, tls], tls: encrypted}\n"
        "rules:\n- {name: a, when: {recipient: ['*@a.example', b.example]}, hold: a}\n",
    )
    assert one.digest == other.digest
    assert one == other or one.rules != other.rules
    assert policy("rules: []").digest == Policy.default().digest


@pytest.mark.parametrize(
    "disguised",
    [
        "536\u201122\u20118726",
        "536\u221222\u034f-8726",
        "5\ufe0f36-22-8726",
        "536\uff0d22\uff0d8726",
        "536\u00ad-22-8\u200b726",
    ],
)
def test_nothing_invisible_and_no_other_dash_makes_another_number(disguised: str) -> None:
    assert normal_text(disguised) == "536-22-8726"
