"""Every fault in a policy file, at its place; ``@@`` marks where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.source import parse_document
from gateway.policy.parse import parse_policy
from gateway.policy.when import _LATER
from tests.policy.conftest import Parse


def rule(inside: str) -> str:
    return f"version: 1\nrules:\n  - {inside}\n"


def when(condition: str) -> str:
    return rule(f"{{name: r, when: {condition}, hold: true}}")


ALWAYS = "rules: [{{name: a, when: {{recipient: '*'}}, require: {}}}]"

FAULTS = {
    "no version": ("@@rules: []", "expected `version: 1`"),
    "other version": ("version: @@2", "expected version 1, found 2"),
    "version as truth": ("version: @@true", "expected version 1, found true"),
    "unknown section": ("version: 1\n@@rule: []", "unknown section 'rule', did you mean 'rules'?"),
    "not a mapping": ("@@- a", "expected a mapping, found a list"),
    "rules not a list": ("version: 1\nrules: @@{a: b}", "expected a list of rules, found a mapping"),
    "rule not a mapping": (rule("@@text"), "expected a mapping, found 'text'"),
    "no name": (rule("@@{when: {recipient: '*'}, hold: true}"), "no `name`"),
    "bad name": (rule("{name: @@'a/b', when: {recipient: '*'}, hold: true}"), "expected a name"),
    "reserved name": (rule("{name: @@x-gateway-protect, when: {recipient: '*'}, hold: true}"), "meaning of its own"),
    "name twice": (
        rule("{name: a, when: {recipient: '*'}, hold: true}\n  - {name: @@a, when: {recipient: '*'}, hold: true}"),
        "given to two rules; first in p0.yaml, line 3",
    ),
    "no when": (rule("@@{name: a, hold: true}"), "has no `when`"),
    "empty when": (when("@@{}"), "expected a condition"),
    "no outcome": (rule("@@{name: a, when: {recipient: '*'}}"), "has no outcome"),
    "mistyped outcome": (
        rule("{name: a, when: {recipient: '*'}, hold: true, @@requires: {}}"),
        "unknown key of a rule 'requires', did you mean 'require'?",
    ),
    "action": (
        rule("{name: a, when: {recipient: '*'}, hold: true, @@do: []}"),
        "'do' is not available in this version",
    ),
    "action alone": (rule("{name: a, when: {recipient: '*'}, @@do: []}"), "'do' is not available in this version"),
    **{
        f"condition {name}": (when(f"{{@@{name}: x}}"), f"condition '{name}' is not available in this version")
        for name in sorted(_LATER)
    },
    "tag_typo": (when("{subject: {@@tag_typo: secure}}"), "'tag_typo' is not available in this version"),
    "mistyped condition": (when("{@@recipent: x}"), "unknown condition 'recipent', did you mean 'recipient'?"),
    "mistyped in not": (when("{not: {@@sendr: x}}"), "unknown condition 'sendr', did you mean 'sender'?"),
    "mistyped in all": (when("{all: [{sender: a.b}, {@@subjct: x}]}"), "did you mean 'subject'?"),
    "empty any": (when("{any: @@[]}"), "at least one entry"),
    "all not a list": (when("{all: @@{sender: a.b}}"), "expected a list of conditions"),
    "subject as text": (when("{subject: @@secure}"), "expected a mapping, found 'secure'"),
    "empty subject": (when("{subject: @@{}}"), "expected contains, matches or tag"),
    "bad address": (when("{sender: @@'a b@c.example'}"), "the local part is malformed"),
    "bad domain": (when("{recipient_domain: [a.example, @@'-b.example']}"), "invalid label"),
    "address as domain": (when("{recipient_domain: @@'a@b.example'}"), "expected a domain"),
    "star inside": (when("{recipient: @@'a.*.example'}"), "expected a domain"),
    "no addresses": (when("{recipient: @@[]}"), "at least one entry"),
    "number as address": (when("{recipient: [@@5]}"), "put it in quotes"),
    "bad pattern": (when("{subject: {matches: @@'(a'}}"), "missing )"),
    "backreference": (when(r"{subject: {matches: @@'(a)\1'}}"), "not valid (RE2 syntax)"),
    "huge pattern": (when("{subject: {matches: @@'((a{1,100}){1,100}){1,100}'}}"), "not valid (RE2 syntax)"),
    "bracketed tag": (when("{subject: {tag: @@'[secure]'}}"), "without brackets"),
    "invisible text": (when('{subject: {contains: @@"\\u200b"}}'), "nothing that can be seen"),
    "plain required": (
        rule("{name: a, when: {recipient: '*'}, require: {methods: [tls, @@plain]}}"),
        "plain cannot be required",
    ),
    "no method": (rule("{name: a, when: {recipient: '*'}, require: {methods: @@[]}}"), "at least one entry"),
    "unknown method": (
        rule("{name: a, when: {recipient: '*'}, require: {methods: [@@smine]}}"),
        "unknown method 'smine', did you mean 'smime'?",
    ),
    "method twice": (rule("{name: a, when: {recipient: '*'}, require: {methods: [tls, @@tls]}}"), "given twice"),
    "empty require": (rule("{name: a, when: {recipient: '*'}, require: @@{}}"), "expected methods, tls, or both"),
    "bad assurance": (
        rule("{name: a, when: {recipient: '*'}, require: {tls: @@strong}}"),
        "expected one of none, encrypted, verified, authenticated, found 'strong'",
    ),
    "assurance of allow": (
        rule("{name: a, when: {recipient: '*'}, allow: {methods: [tls], @@tls: none}}"),
        "unknown key of allow",
    ),
    "empty allow": (rule("{name: a, when: {recipient: '*'}, allow: @@{}}"), "expected methods"),
    "hold false": (rule("{name: a, when: {recipient: '*'}, hold: @@false}"), "expected true, what it waits for"),
    "hold key": (rule("{name: a, when: {recipient: '*'}, hold: {@@fro: x}}"), "did you mean 'for'?"),
    "hold expiry": (rule("{name: a, when: {recipient: '*'}, hold: {expires: @@24}}"), "expected a duration"),
    "hold expires at once": (rule("{name: a, when: {recipient: '*'}, hold: {expires: @@0s}}"), "above zero"),
    "reject without text": (
        rule("{name: a, when: {recipient: '*'}, reject: @@true}"),
        "the text that the sender is told",
    ),
    "reject over two lines": (rule('{name: a, when: {recipient: "*"}, reject: @@"a\\r\\n250 ok"}'), "one line"),
    "reject not ASCII": (rule("{name: a, when: {recipient: '*'}, reject: @@'Anhänge'}"), "ASCII"),
    "unknown is not ignore": (
        rule("{name: a, when: {recipient: '*'}, hold: true, unknown: @@open}"),
        "expected ignore",
    ),
    "protection key": ("version: 1\nprotection: {@@method: tls}", "did you mean 'methods'?"),
    "no default method": ("version: 1\nprotection: {methods: @@[]}", "at least one entry"),
    "default without assurance": ("version: 1\nprotection: {tls: @@none}", "protects nothing"),
    "plain before tls": (
        "version: 1\nprotection: {prefer: [portal, @@plain, tls]}",
        "plain must not be preferred to tls",
    ),
    "plain without tls": ("version: 1\nprotection: {prefer: [@@plain]}", "plain must not be preferred to tls"),
    "fallback": ("version: 1\nprotection: {fallback_after: @@15}", "expected a duration"),
    "groups": ("version: 1\ngroups: @@[]", "expected a mapping"),
    "tests": ("version: 1\ntests: @@{}", "expected a list"),
    "no method can ever be left": (
        "version: 1\nprotection: {methods: [tls]}\n" + ALWAYS.format("@@{methods: [portal]}"),
        "leaves no method at all: the defaults and every `allow` give tls",
    ),
    "only plain is left": (
        "version: 1\nprotection: {methods: [plain]}\n" + ALWAYS.format("@@{tls: encrypted}"),
        "leaves no method at all",
    ),
    "duplicate key": (rule("{name: a, when: {recipient: '*'}, hold: true, @@hold: true}"), "given twice"),
    "broken YAML": ("version: 1\nrules: [@@", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_refused(parse: Parse, text: str, words: str) -> None:
    before, _, after = text.partition("@@")
    place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
    faults = parse(before + after).faults
    assert [(fault.file, fault.line, fault.column) for fault in faults] == [("p0.yaml", *place)], faults
    assert words in faults[0].message


def test_protection_stands_in_one_file_only(parse: Parse) -> None:
    text = "version: 1\nprotection: {tls: verified}\n"
    (fault,) = parse(text, text).faults
    assert (fault.file, fault.line, fault.column) == ("p1.yaml", 2, 1)
    assert "already in p0.yaml, line 2" in fault.message


def test_rules_of_two_files_cannot_share_a_name(parse: Parse) -> None:
    text = rule("{name: a, when: {recipient: '*'}, hold: true}")
    (fault,) = parse(text, text).faults
    assert (fault.file, fault.line, fault.column) == ("p1.yaml", 3, 12)


def test_an_allow_elsewhere_resolves_a_contradiction(parse: Parse) -> None:
    narrow = "version: 1\nprotection: {methods: [tls]}\n" + rule(
        "{name: a, when: {recipient: '*'}, require: {methods: [portal]}}"
    ).removeprefix("version: 1\n")
    opening = rule("{name: b, when: {recipient: x.example}, allow: {methods: [portal]}}")
    assert parse(narrow, opening).faults == ()


def test_all_faults_of_all_files(parse: Parse) -> None:
    one = "version: 1\nprotection: {tls: strong, prefer: [plain]}\nrules:\n- {name: 5, when: {x: y}, hold: false}\n"
    faults = parse(one, "rules: 7", "version: [").faults
    assert [(fault.file, fault.line) for fault in faults] == [
        ("p0.yaml", 2),
        ("p0.yaml", 2),
        ("p0.yaml", 4),
        ("p0.yaml", 4),
        ("p0.yaml", 4),
        ("p1.yaml", 1),
        ("p1.yaml", 1),
        ("p2.yaml", 1),
    ]


def test_notes_name_what_opens_and_what_has_no_effect(parse: Parse) -> None:
    parsed = parse(
        "version: 1\ngroups: {a: [b.example]}\ntests: []\nexceptions: []\n"
        "protection: {methods: [tls, plain]}\nrules:\n"
        "- {name: news, when: {sender: a.example}, allow: {methods: [plain]}}\n"
        "- {name: lax, when: {subject: {contains: x}}, hold: true, unknown: ignore}\n"
    )
    assert parsed.faults == ()
    notes = {note.line: note.message for note in parsed.notices}
    assert "'groups' has no effect yet" in notes[2]
    assert "'tests' has no effect yet" in notes[3]
    assert "'exceptions' has no effect yet" in notes[4]
    assert "allow plain" in notes[5]
    assert notes[7] == "the rule 'news' allows plain"
    assert "'lax' does not apply where its condition cannot be known" in notes[8]
    assert str(parsed.notices[0]).startswith("p0.yaml:2:1: note: ")


WORDS = [
    "version",
    "rules",
    "protection",
    "name",
    "when",
    "hold",
    "require",
    "allow",
    "reject",
    "methods",
    "tls",
    "all",
]
WORDS += ["not", "subject", "tag", "matches", "sender", "recipient", "prefer", "plain", "unknown", "expires", "x", "1"]
trees = st.recursive(
    st.one_of(st.sampled_from(WORDS), st.sampled_from(["true", "~", "5d", "'*'", "'['"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: "[" + ", ".join(parts) + "]"),
        st.lists(st.tuples(st.sampled_from(WORDS), inner), max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=12,
)


@given(trees, trees)
def test_no_shape_of_a_file_can_do_more_than_make_faults(rules: str, protection: str) -> None:
    text = f"version: 1\nrules: {rules}\nprotection: {protection}\n"
    parsed = parse_policy([parse_document(text.encode(), "p")])
    assert all(1 <= fault.line <= 4 for fault in parsed.faults)
