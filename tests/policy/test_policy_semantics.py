"""The strictest wins, in any order: properties over generated policies and messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.mail.content import Attachment, FileType
from gateway.mail.edits import Edits
from gateway.mail.envelope import Kind
from gateway.mail.protection import Assurance, Disposition, Method, Requirement
from gateway.policy import (
    Actions,
    ContentFacts,
    Exempt,
    HeaderView,
    Hold,
    MessageFacts,
    Policy,
    Protection,
    Require,
    Rule,
    evaluate,
    evaluate_envelope,
)
from gateway.policy.about_content import (
    AttachmentIs,
    ContentContains,
    ContentDetects,
    ContentMatches,
    ContentUnreadable,
    EncryptedAlready,
)
from gateway.policy.about_envelope import (
    ConnectorIs,
    FromIs,
    KindIs,
    RecipientCount,
    RecipientDomainIs,
    RecipientIs,
    SenderIs,
    SizeIs,
    TimeIs,
)
from gateway.policy.about_header import (
    HeaderContains,
    HeaderExists,
    HeaderMatches,
    LabelIs,
    SubjectContains,
    SubjectMatches,
    SubjectTag,
    SubjectTagTypo,
)
from gateway.policy.conditions import AllOf, AnyOf, Condition, Not
from gateway.policy.patterns import AddressPattern, DomainPattern

DOMAINS = ("clinic.example", "lab.clinic.example", "isp.example")
LOCALS = ("a", "B", "news")
TAGS = ("secure", "phi")
PROTECTING = tuple(method for method in Method if method is not Method.PLAIN)

domains = st.sampled_from(DOMAINS)
addresses = st.builds(Address, st.sampled_from(LOCALS), domains)
domain_patterns = st.one_of(st.just("*"), domains, domains.map("*.{}".format)).map(DomainPattern.parse)
address_patterns = st.one_of(
    st.sampled_from(["*", "<>"]), addresses.map(str), domains, domains.map("*@{}".format), domains.map("*.{}".format)
).map(AddressPattern.parse)
leaves: st.SearchStrategy[Condition] = st.one_of(
    st.builds(SenderIs, st.lists(address_patterns, min_size=1, max_size=2).map(tuple)),
    st.builds(RecipientIs, st.lists(address_patterns, min_size=1, max_size=2).map(tuple)),
    st.builds(RecipientDomainIs, st.lists(domain_patterns, min_size=1, max_size=2).map(tuple)),
    st.builds(SubjectContains, st.sampled_from([("hello",), ("result", "x")])),
    st.builds(SubjectMatches, st.sampled_from([("[0-9]{3}",), ("(?i)hello$",)])),
    st.builds(SubjectTag, st.sampled_from(TAGS).map(lambda tag: (tag,))),
    st.builds(SubjectTagTypo, st.sampled_from(TAGS).map(lambda tag: (tag,))),
    st.builds(FromIs, st.lists(address_patterns, min_size=1, max_size=2).map(tuple)),
    st.builds(ConnectorIs, st.just(frozenset({"m365"}))),
    st.builds(KindIs, st.frozensets(st.sampled_from(Kind), min_size=1, max_size=2)),
    st.builds(SizeIs, st.sampled_from([1000, 5_000_000]), st.none()),
    st.builds(RecipientCount, st.none(), st.sampled_from([2, 10])),
    st.builds(TimeIs, st.frozensets(st.integers(0, 6)), st.just(480), st.just(1020), st.just("Europe/Berlin")),
    st.builds(HeaderExists, st.just("x-class")),
    st.builds(HeaderContains, st.just("x-class"), st.just(("phi",))),
    st.builds(HeaderMatches, st.just("x-class"), st.just(("^p",))),
    st.builds(LabelIs, st.just(frozenset({"secret"}))),
    st.builds(ContentContains, st.just(frozenset({"diagnosis"}))),
    st.builds(ContentMatches, st.just(frozenset({r"\bMRN\b"}))),
    st.builds(ContentDetects, st.frozensets(st.sampled_from(["us_ssn", "icd10"]), min_size=1), st.sampled_from([1, 2])),
    st.just(ContentUnreadable()),
    st.builds(EncryptedAlready, st.just(frozenset({"smime", "pgp"}))),
    st.builds(
        AttachmentIs,
        types=st.frozensets(st.sampled_from([FileType.EXECUTABLE, FileType.PDF])),
        encrypted=st.one_of(st.none(), st.booleans()),
        count=st.sampled_from([1, 2]),
    ),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=5,
)
requires = st.builds(
    Require,
    st.one_of(st.none(), st.frozensets(st.sampled_from(PROTECTING))),
    st.sampled_from(Assurance),
)
holds = st.builds(Hold, st.sampled_from(["review", "approval"]), st.one_of(st.none(), st.sampled_from([3600.0, 60.0])))
edits = st.one_of(
    st.just(Edits()),
    st.builds(Edits, strip_tags=st.frozensets(st.sampled_from(TAGS)), remove_headers=st.just(frozenset({"x-class"}))),
    st.builds(Edits, add_headers=st.just((("X-Checked", "yes"),)), prepend_subject=st.just(("[ext]",))),
)
rules = st.builds(
    Rule,
    name=st.sampled_from([f"rule-{index}" for index in range(8)]),
    when=conditions,
    require=st.one_of(st.none(), requires),
    allow=st.one_of(st.none(), st.frozensets(st.sampled_from(Method), min_size=1)),
    hold=st.one_of(st.none(), holds),
    reject=st.one_of(st.none(), st.just("no")),
    ignore_unknown=st.booleans(),
    actions=st.builds(Actions, edits, st.frozensets(st.just("archive@clinic.example"))),
)
NOW = 1_800_000_000.0
exempts = st.builds(
    Exempt,
    when=conditions,
    rules=st.frozensets(st.sampled_from([f"rule-{index}" for index in range(8)]), min_size=1),
    tls=st.sampled_from([Assurance.ENCRYPTED, Assurance.VERIFIED]),
    methods=st.frozensets(st.sampled_from(PROTECTING)),
    owner=st.just("ops@clinic.example"),
    reason=st.sampled_from(["one", "other"]),
    until=st.sampled_from([NOW - 1, NOW + 86400]),
    ends=st.just("2027-01-16"),
)
rule_lists = st.lists(rules, max_size=6, unique_by=lambda rule: rule.name)
protections = st.builds(
    Protection,
    methods=st.frozensets(st.sampled_from(Method), min_size=1),
    tls=st.sampled_from([Assurance.ENCRYPTED, Assurance.VERIFIED]),
)
subjects = st.one_of(
    st.none(), st.sampled_from(["Hello", "[SECURE] x", "phi: 123", "result", ""]), st.text(max_size=20)
)
attachments = st.builds(
    Attachment,
    name=st.sampled_from(["a.exe", "b.pdf"]),
    type=st.sampled_from([FileType.EXECUTABLE, FileType.PDF, FileType.ENCRYPTED, FileType.UNKNOWN]),
    media_type=st.just("application/octet-stream"),
    size=st.sampled_from([10, 9_000_000]),
    encrypted=st.one_of(st.none(), st.booleans()),
    inspected=st.just(False),  # noqa: FBT003  the field's value
    where=st.just("attachment"),
)
contents = st.builds(
    ContentFacts,
    contains=st.frozensets(st.just("diagnosis")),
    matches=st.frozensets(st.just(r"\bMRN\b")),
    counts=st.dictionaries(st.sampled_from(["us_ssn", "icd10"]), st.integers(0, 3)),
    unread=st.sampled_from([(), ("an attachment",)]),
    attachments=st.one_of(st.none(), st.lists(attachments, max_size=3).map(tuple)),
    protected=st.one_of(st.none(), st.frozensets(st.sampled_from(["smime", "pgp"]))),
)
headers = st.sampled_from(
    [b"", b"X-Class: phi\r\n", b"X-Class: =?x?q?a?=\r\n", b"no field\r\n", b"msip_labels: MSIP_Label_x\r\n"]
).map(HeaderView)
messages = st.builds(
    MessageFacts,
    author=st.one_of(st.none(), addresses),
    connector=st.sampled_from([None, "m365", "app"]),
    kind=st.sampled_from([None, *Kind]),
    header=st.one_of(st.none(), headers),
    size=st.sampled_from([None, 500, 9_000_000]),
    recipients=st.sampled_from([None, 1, 50]),
    time=st.sampled_from([None, NOW, NOW + 43200]),
    content=st.one_of(st.none(), contents),
    sender=st.one_of(st.none(), addresses),
    recipient=addresses,
    subject=subjects,
    tags=st.frozensets(st.sampled_from(TAGS)),
    protect=st.one_of(st.none(), st.frozensets(st.sampled_from(Method))),
    approvals=st.frozensets(st.sampled_from([f"rule-{index}" for index in range(8)])),
)


def no_weaker(stricter: Requirement, than: Requirement) -> bool:
    return (
        stricter.methods <= than.methods
        and stricter.tls >= than.tls
        and stricter.disposition >= than.disposition
        and set(stricter.hold_rules) >= set(than.hold_rules)
    )


@given(protections, rule_lists.flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))), messages)
def test_the_order_of_rules_means_nothing(
    protection: Protection, orders: tuple[list[Rule], list[Rule]], facts: MessageFacts
) -> None:
    one, other = (Policy(protection, tuple(order)) for order in orders)
    assert one.digest == other.digest
    assert evaluate(one, facts) == evaluate(other, facts)


@given(protections, rule_lists, conditions, requires, messages)
def test_adding_a_require_never_weakens(
    protection: Protection, others: list[Rule], when: Condition, require: Require, facts: MessageFacts
) -> None:
    before = evaluate(Policy(protection, tuple(others)), facts)
    after = evaluate(Policy(protection, (*others, Rule("added", when, require=require))), facts)
    assert no_weaker(after, before)


@given(protections, rule_lists, rules, messages)
def test_adding_any_rule_without_allow_never_weakens(
    protection: Protection, others: list[Rule], added: Rule, facts: MessageFacts
) -> None:
    before = evaluate(Policy(protection, tuple(others)), facts)
    added = replace(added, name="added", allow=None)
    assert no_weaker(evaluate(Policy(protection, (*others, added)), facts), before)


@given(protections, rule_lists, exempts, messages)
def test_an_exception_only_touches_the_rules_it_names(
    protection: Protection, made: list[Rule], exempt: Exempt, facts: MessageFacts
) -> None:
    """Without the rules that it names a message needs no less than with them and the exception."""
    policy = Policy(protection, tuple(made), (exempt,))
    got = evaluate(policy, facts)
    others = tuple(replace(rule, require=None) if rule.name in exempt.rules else rule for rule in made)
    floor = evaluate(Policy(protection, others), facts)
    assert got.tls >= floor.tls
    assert got.methods <= floor.methods
    assert got.disposition >= min(floor.disposition, Disposition.HOLD)
    assert got.hold_rules == floor.hold_rules
    assert got.transforms == floor.transforms
    asking = [rule for rule in made if rule.require is not None and rule.require.tls > Assurance.NONE]
    if any(match.name == rule.name and "require" in match.effect for rule in asking for match in got.rules):
        assert Method.PLAIN not in got.methods
        assert got.tls >= Assurance.ENCRYPTED


@given(protections, rule_lists, exempts, messages)
def test_an_exception_that_is_over_or_whose_time_is_not_known_does_nothing(
    protection: Protection, made: list[Rule], exempt: Exempt, facts: MessageFacts
) -> None:
    policy, without = Policy(protection, tuple(made), (exempt,)), Policy(protection, tuple(made))
    for time in (None, exempt.until, exempt.until + 1):
        got, stricter = (replace(evaluate(each, replace(facts, time=time)), digest="") for each in (policy, without))
        assert got == stricter


@given(protections, rule_lists, messages, st.sampled_from(Kind))
def test_the_treatment_of_a_kind_only_narrows(
    protection: Protection, made: list[Rule], facts: MessageFacts, kind: Kind
) -> None:
    """As far as no rule asks for the kind itself: who dresses mail up as a receipt gains nothing by it."""
    unasked = tuple(rule for rule in made if "kind" not in str(rule.canonical()))
    policy = Policy(protection, unasked)
    dressed, ordinary = (evaluate(policy, replace(facts, kind=each)) for each in (kind, Kind.ORDINARY))
    assert no_weaker(dressed, ordinary)


@given(protections, rule_lists, requires, messages)
def test_an_allow_never_lifts_a_require(
    protection: Protection, others: list[Rule], require: Require, facts: MessageFacts
) -> None:
    everything = RecipientIs((AddressPattern.parse("*"),))
    opening = Rule("opening", everything, allow=frozenset(Method))
    narrowing = Rule("narrowing", everything, require=require)
    got = evaluate(Policy(protection, (*others, opening, narrowing)), facts)
    assert got.methods <= (frozenset(Method) if require.methods is None else require.methods)
    assert got.tls >= require.tls
    if require.tls > Assurance.NONE:
        assert Method.PLAIN not in got.methods


def _without(facts: MessageFacts, name: str) -> MessageFacts:
    values: dict[str, Any] = {name: None}
    return replace(facts, **values)


UNKNOWABLE = ("subject", "author", "connector", "header", "size", "recipients", "content")


@given(protections, rule_lists, st.lists(exempts, max_size=2), messages, st.sampled_from(UNKNOWABLE))
def test_what_is_unknown_never_opens(
    protection: Protection, made: list[Rule], exceptions: list[Exempt], facts: MessageFacts, name: str
) -> None:
    """Not knowing a fact asks for no less than any value of it would - a refusal aside, which turns into a hold."""
    sure = tuple(replace(rule, ignore_unknown=False) for rule in made)
    policy = Policy(protection, sure, tuple(exceptions))
    facts = replace(facts, approvals=frozenset())
    unknown, known = evaluate(policy, _without(facts, name)), evaluate(policy, facts)
    assert unknown.methods <= known.methods
    assert unknown.tls >= known.tls
    assert unknown.disposition >= min(known.disposition, Disposition.HOLD)


@given(protections, rule_lists, messages, contents)
def test_content_that_was_not_read_to_its_end_asks_for_no_less_than_what_may_be_in_it(
    protection: Protection, made: list[Rule], facts: MessageFacts, content: ContentFacts
) -> None:
    sure = Policy(protection, tuple(_deaf(rule) for rule in made))
    facts = replace(facts, approvals=frozenset())
    whole = evaluate(sure, replace(facts, content=replace(content, unread=())))
    less = replace(content, contains=frozenset(), matches=frozenset(), counts={}, unread=("cut",))
    part = evaluate(sure, replace(facts, content=less))
    assert part.methods <= whole.methods
    assert part.tls >= whole.tls
    assert part.disposition >= min(whole.disposition, Disposition.HOLD)


def _deaf(rule: Rule) -> Rule:
    """The rule, if it does not ask whether something was unread: that is a fact of its own, and known."""
    asks = "content_unreadable" in str(rule.canonical())
    return (
        replace(rule, ignore_unknown=False, require=None, allow=None, hold=None, reject=None)
        if asks
        else replace(rule, ignore_unknown=False)
    )


@given(protections, rule_lists, messages)
def test_headers_only_narrow(protection: Protection, made: list[Rule], facts: MessageFacts) -> None:
    policy = Policy(protection, tuple(made))
    bare = replace(facts, tags=frozenset(), protect=None)
    assert no_weaker(evaluate(policy, facts), evaluate(policy, bare))
    only_tags = evaluate(policy, replace(facts, protect=None))
    assert only_tags.hold_rules == evaluate(policy, bare).hold_rules


@given(protections, rule_lists, messages)
def test_the_outcome_is_consistent(protection: Protection, made: list[Rule], facts: MessageFacts) -> None:
    policy = Policy(protection, tuple(made))
    got = evaluate(policy, facts)
    assert got.digest == policy.digest
    assert got.tls >= Assurance.ENCRYPTED
    assert got.methods or got.disposition > Disposition.DELIVER
    assert (got.disposition is Disposition.DELIVER) == (got.reason == "")
    assert not set(got.hold_rules) & facts.approvals
    assert [match.name for match in got.rules] == sorted(
        (match.name for match in got.rules), key=lambda name: (not name.startswith("rule-"), name)
    )
    assert Requirement.from_json(got.as_json()) == got
    assert not got.copy_to or any(rule.actions.copy_to for rule in made)


@given(protections, rule_lists, messages)
def test_an_early_refusal_is_always_the_final_one(
    protection: Protection, made: list[Rule], facts: MessageFacts
) -> None:
    policy = Policy(protection, tuple(made))
    text = evaluate_envelope(policy, facts.sender, facts.recipient)
    if text is not None:
        got = evaluate(policy, facts)
        assert got.disposition is Disposition.REJECT


@given(st.text(), st.text(min_size=1, max_size=5), messages)
def test_no_text_makes_evaluation_fail(subject: str, wanted: str, facts: MessageFacts) -> None:
    when = AnyOf((SubjectContains((wanted,)), SubjectMatches((r"\bx+\b",)), SubjectTag((wanted,))))
    policy = Policy(rules=(Rule("r", when, hold=Hold("review")),))
    for text in (subject, subject + "\ud800", "\x00" + subject):
        evaluate(policy, replace(facts, subject=text))


@given(rule_lists, rules)
def test_the_digest_follows_the_content(made: list[Rule], other: Rule) -> None:
    policy = Policy(rules=tuple(made))
    assert policy.digest == Policy(rules=tuple(reversed(made))).digest
    changed = Policy(rules=(*made, replace(other, name="another")))
    assert changed.digest != policy.digest
    assert Policy(Protection(fallback_after=1.0), tuple(made)).digest != policy.digest
