"""Every fault in a policy file, at its place; ``@@`` marks where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.source import parse_document
from gateway.policy.parse import parse_policy
from tests.policy.conftest import Parse


def rule(inside: str) -> str:
    return f"version: 1\nrules:\n  - {inside}\n"


def when(condition: str) -> str:
    return rule(f"{{name: r, when: {condition}, hold: true}}")


def do(actions: str) -> str:
    return rule(f"{{name: r, when: {{recipient: '*'}}, do: {actions}}}")


def exception(inside: str) -> str:
    return (
        "version: 1\nrules:\n  - {name: r, when: {recipient: '*'}, require: {tls: verified}}\n"
        "  - {name: h, when: {recipient: '*'}, hold: true}\nexceptions:\n  - " + inside
    )


def exempt(**given: str) -> str:
    """An exception that is right but for what is given."""
    values = {
        "to": "payer.example",
        "rules": "[r]",
        "tls": "encrypted",
        "owner": "ops@clinic.example",
        "reason": "ticket 4711",
        "until": "2026-12-31",
    } | given
    return exception("{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}")


def case(inside: str) -> str:
    return f"version: 1\ntests:\n  - {inside}"


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
    "no action": (do("@@[]"), "at least one entry"),
    "action as text": (do("[@@strip]"), "expected a mapping"),
    "unknown action": (do("[{@@strip_tags: x}]"), "unknown action 'strip_tags', did you mean 'strip_tag'?"),
    "action of a later version": (do("[{@@sign: x}]"), "action 'sign' is not available in this version"),
    "header as text": (do("[{add_header: @@x}]"), "expected a mapping of names and values"),
    "header that is the sender's": (do("[{add_header: {From: @@a@b.example}}]"), "From cannot be added"),
    "header over two lines": (do('[{add_header: {X-A: @@"a\\r\\nBcc: x"}}]'), "line ends"),
    "header twice": (do("[{add_header: {X-A: a}}, {add_header: {x-a: @@b}}]"), "added twice"),
    "header that holds a message together": (do("[{remove_header: @@Content-Type}]"), "cannot be removed"),
    "subject twice": (do("[{replace_subject: a}, {replace_subject: @@b}]"), "given twice"),
    "footer without text": (do("[{footer: @@{html: x}}]"), "needs a text"),
    "copy to nobody": (do("[{copy_to: @@x}]"), "expected an address"),
    "notify a pattern": (do("[{notify: @@'*@b.example'}]"), "expected an address"),
    "group that is none": (when("{group: @@partnrs}"), "unknown group 'partnrs'"),
    "group as a pattern": (when("{sender: [a.example, @@'group:x']}"), "unknown group 'x'"),
    "kind": (when("{kind: @@receit}"), "unknown kind of mail 'receit', did you mean 'receipt'?"),
    "size without bound": (when("{size: @@{}}"), "expected over, under, or both"),
    "size as a number": (when("{size: {over: @@5}}"), "expected a size"),
    "size that is none": (when("{size: @@{over: 5MB, under: 5MB}}"), "no number is above"),
    "count as text": (when("{recipient_count: {over: @@many}}"), "expected a whole number"),
    "count below zero": (when("{recipient_count: {over: @@-1}}"), "at least 0"),
    "hours": (when("{time: {between: @@'8-17'}}"), "expected hours"),
    "no hours at all": (when("{time: {between: @@'08:00-08:00'}}"), "no time at all"),
    "day": (when("{time: {days: [mon, @@Tue]}}"), "unknown day 'Tue'"),
    "zone": (when("{time: {between: '08:00-17:00', zone: @@Berlin}}"), "unknown time zone 'Berlin'"),
    "zone alone": (when("{time: @@{zone: Europe/Berlin}}"), "expected between, days"),
    "header without name": (when("{header: @@{contains: x}}"), "no `name`"),
    "header name": (when("{header: {name: @@'a b'}}"), "name of a header field"),
    "header that is not there and contains": (when("{header: @@{name: a, exists: false, contains: x}}"), "neither"),
    "encrypted": (when("{encrypted_already: @@tls}"), "unknown way of protection 'tls'"),
    "attachment type": (when("{attachment: {type: @@exe}}"), "unknown type of file 'exe'"),
    "attachment of nothing": (when("{attachment: @@{}}"), "expected type, name"),
    "fewer attachments": (when("{attachment: {count: @@{under: 3}}}"), "only `over` is possible"),
    "detector": (when("{content: {detects: [us_ssn, @@us_snn]}}"), "unknown detector 'us_snn', did you mean 'us_ssn'?"),
    "at least of nothing": (when("{content: {contains: x, @@at_least: 2}}"), "counts what `detects` finds"),
    "at least none": (when("{content: {detects: us_ssn, at_least: @@0}}"), "at least 1"),
    "content of nothing": (when("{content: @@{}}"), "expected contains, matches, detects"),
    "content pattern": (when("{content: {matches: @@'(a'}}"), "missing )"),
    "group name": ("version: 1\ngroups: {@@a b: [x.example]}", "expected a name"),
    "group member": ("version: 1\ngroups: {a: [@@'x..example']}", "expected a domain"),
    "group in a group": ("version: 1\ngroups: {a: [@@'group:b']}", "does not hold other groups"),
    "group of LDAP": ("version: 1\ngroups: {a: [@@'ldap:x']}", "not available in this version"),
    "group file": ("version: 1\ngroups: {a: @@'file:nowhere.txt'}", "nowhere.txt cannot be read"),
    "detector built in": ("version: 1\ndetectors: {@@us_ssn: {pattern: x}}", "is built in"),
    "detector without pattern": ("version: 1\ndetectors: {a: @@{at_least: 2}}", "no `pattern`"),
    "detector near nothing": ("version: 1\ndetectors: {a: {pattern: x, near: @@{within: 5}}}", "needs words"),
    "detector key": ("version: 1\ndetectors: {a: {@@patern: x}}", "did you mean 'pattern'?"),
    "exception without end": (
        exception("@@{to: a.example, rules: r, tls: encrypted, owner: a, reason: b}"),
        "has no `until`",
    ),
    "exception for nobody": (
        exception("@@{rules: r, tls: encrypted, owner: a, reason: b, until: 2026-12-31}"),
        "says for whom by none",
    ),
    "exception below encrypted": (exempt(tls="@@none"), "never goes below `encrypted`"),
    "exception with plain": (exempt(methods="@@[tls, plain]"), "never allows plain"),
    "exception from no rule": (exempt(rules="@@[s]"), "unknown rule 's'"),
    "exception from a hold": (exempt(rules="@@[h]"), "has no `require`"),
    "exception until some day": (exempt(until="@@soon"), "expected the last day"),
    "test without message": (case("@@{name: a, expect: {method: tls}}"), "has no `message`"),
    "test of no rule": (case("{name: a, message: {}, expect: {rules: [@@x]}}"), "unknown rule 'x'"),
    "test of an action": (case("{name: a, message: {}, expect: {actions: [@@strip]}}"), "unknown action 'strip'"),
    "test with two methods": (case("{name: a, message: {}, expect: {method: @@[tls, pgp]}}"), "expected one method"),
    "test to nobody": (case("{name: a, message: {to: [@@x]}, expect: {method: tls}}"), "expected an address"),
    "test at some time": (case("{name: a, message: {time: @@noon}, expect: {method: tls}}"), "expected a time"),
    "test with a file": (case("{name: a, message: {eml: @@no.eml}, expect: {method: tls}}"), "no.eml cannot be read"),
    "mistyped condition": (when("{@@recipent: x}"), "unknown condition 'recipent', did you mean 'recipient'?"),
    "mistyped in not": (when("{not: {@@sendr: x}}"), "unknown condition 'sendr', did you mean 'sender'?"),
    "mistyped in all": (when("{all: [{sender: a.b}, {@@subjct: x}]}"), "did you mean 'subject'?"),
    "empty any": (when("{any: @@[]}"), "at least one entry"),
    "all not a list": (when("{all: @@{sender: a.b}}"), "expected a list of conditions"),
    "subject as text": (
        when("{subject: @@secure}"),
        "expected a mapping with contains, matches, tag, tag_typo, found 'secure'",
    ),
    "empty subject": (when("{subject: @@{}}"), "expected contains, matches, tag or tag_typo"),
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
    "hold for a time": (
        rule("{name: a, when: {recipient: '*'}, hold: @@24h}"),
        "found a time; write {expires: 24h}",
    ),
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


CLASHES = {
    "subjects": ("{replace_subject: a}", "{replace_subject: b}", "replace_subject"),
    "values": ("{add_header: {X-A: a}}", "{add_header: {x-a: b}}", "add_header x-a"),
    "there and not there": ("{add_header: {X-A: a}}", "{remove_header: X-A}", "remove_header and add_header X-A"),
}


@pytest.mark.parametrize(("one", "other", "words"), CLASHES.values(), ids=CLASHES.keys())
def test_rules_that_set_one_value_differently_are_refused_unless_they_exclude_each_other(
    parse: Parse, one: str, other: str, words: str
) -> None:
    def both(first: str, second: str) -> str:
        return rule(f"{{name: a, when: {first}, do: [{one}]}}\n  - {{name: b, when: {second}, do: [{other}]}}")

    (fault,) = parse(both("{recipient: '*'}", "{sender: x.example}")).faults
    assert (fault.line, fault.column) == (4, 46)
    assert fault.message.startswith(f"{words}: the rules 'a' (line 3) and 'b'")
    for first, second in (
        ("{recipient_domain: a.example}", "{recipient_domain: [b.example, c.example]}"),
        ("{connector: a, subject: {tag: x}}", "{connector: b}"),
        ("{kind: list}", "{all: [{kind: calendar}, {recipient: '*'}]}"),
        ("{subject: {tag: x}}", "{not: {subject: {tag: x}}}"),
    ):
        assert parse(both(first, second)).faults == (), (first, second)
    assert parse(both("{recipient_domain: a.example}", "{recipient_domain: '*.example'}")).faults
    assert parse(both("{any: [{kind: list}, {kind: dsn}]}", "{kind: list}")).faults


def test_every_exception_is_told_with_owner_reason_and_end_and_whether_it_is_over() -> None:
    document = parse_document(exempt(methods="[portal]").encode(), "p.yaml")
    told = "exception from r: tls encrypted, methods portal; ops@clinic.example: ticket 4711; ends 2026-12-31"
    for now, more in ((1_700_000_000.0, ""), (1_900_000_000.0, ": it is over, and without effect"), (None, "")):
        parsed = parse_policy([document], now)
        assert parsed.faults == ()
        assert [notice.message for notice in parsed.notices] == [told + more]


def test_a_group_file_tells_the_line_that_is_wrong(parse: Parse, tmp_path: Path) -> None:
    (tmp_path / "partners.txt").write_text("# ours\n*@lab.example\n\npayer.example  # since May\nnot an address\n")
    document = parse_document(b"version: 1\ngroups: {a: 'file:partners.txt'}", str(tmp_path / "p.yaml"))
    (fault,) = parse_policy([document]).faults
    assert (fault.line, fault.column) == (2, 13)
    assert "partners.txt, line 5: " in fault.message


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
        "version: 1\ninvariants: []\n\n\n"
        "protection: {methods: [tls, plain]}\nrules:\n"
        "- {name: news, when: {sender: a.example}, allow: {methods: [plain]}}\n"
        "- {name: lax, when: {subject: {contains: x}}, hold: true, unknown: ignore}\n"
    )
    assert parsed.faults == ()
    notes = {note.line: note.message for note in parsed.notices}
    assert "'invariants' has no effect yet" in notes[2]
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


def test_that_documents_are_not_read_is_told_once_where_content_is_asked_about(parse: Parse) -> None:
    asking = "rules:\n" + "".join(
        f"- {{name: {name}, when: {{not: {{content: {{contains: x}}}}}}, hold: true}}\n" for name in "ab"
    )
    (note,) = parse(f"version: 1\n{asking}").notices
    assert (note.line, note.column) == (3, 13)
    assert "not read in this version" in note.message
    assert parse(when("{attachment: {type: executable}}")).notices == ()
