"""The strictest wins, in any order: properties over generated policies and messages."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.mail.protection import Assurance, Disposition, Method, Requirement
from gateway.policy import Hold, MessageFacts, Policy, Protection, Require, Rule, evaluate, evaluate_envelope
from gateway.policy.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Not,
    RecipientDomainIs,
    RecipientIs,
    SenderIs,
    SubjectContains,
    SubjectMatches,
    SubjectTag,
)
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
rules = st.builds(
    Rule,
    name=st.sampled_from([f"rule-{index}" for index in range(8)]),
    when=conditions,
    require=st.one_of(st.none(), requires),
    allow=st.one_of(st.none(), st.frozensets(st.sampled_from(Method), min_size=1)),
    hold=st.one_of(st.none(), holds),
    reject=st.one_of(st.none(), st.just("no")),
    ignore_unknown=st.booleans(),
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
messages = st.builds(
    MessageFacts,
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


@given(protections, rule_lists, messages, subjects)
def test_what_is_unknown_never_opens(
    protection: Protection, made: list[Rule], facts: MessageFacts, subject: str | None
) -> None:
    """Not knowing the subject asks for no less than any subject would - a refusal aside, which turns into a hold."""
    policy = Policy(protection, tuple(replace(rule, ignore_unknown=False) for rule in made))
    unknown = evaluate(policy, replace(facts, subject=None, approvals=frozenset()))
    known = evaluate(policy, replace(facts, subject=subject, approvals=frozenset()))
    assert unknown.methods <= known.methods
    assert unknown.tls >= known.tls
    assert unknown.disposition >= min(known.disposition, Disposition.HOLD)


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
        (match.name for match in got.rules), key=lambda name: (name == "X-Gateway-Protect", name)
    )
    assert Requirement.from_json(got.as_json()) == got


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
