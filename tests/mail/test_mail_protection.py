"""A join only ever tightens: in whatever order policies come, none of what one of them asked is lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.edits import NO_EDITS, Change, Edits, Footer
from gateway.mail.protection import Assurance, Decision, Disposition, Method, PassedOver, Requirement, RuleMatch

EDITS = st.builds(
    Edits,
    strip_tags=st.frozensets(st.sampled_from(["secure", "geheim"])),
    remove_headers=st.frozensets(st.sampled_from(["x-mailer", "user-agent"])),
    add_headers=st.lists(st.tuples(st.sampled_from(["X-A", "X-B"]), st.sampled_from(["1", "ü"])), max_size=2).map(
        tuple
    ),
    replace_subject=st.none() | st.sampled_from(["", "Secure message"]),
    prepend_subject=st.lists(st.sampled_from(["[External]", "[Safe]"]), max_size=2).map(tuple),
    footers=st.lists(st.builds(Footer, st.just("sent safely"), st.sampled_from(["", "<p>x</p>"])), max_size=2).map(
        tuple
    ),
)
REQUIREMENT = st.builds(
    Requirement,
    methods=st.frozensets(st.sampled_from(Method)),
    tls=st.sampled_from(Assurance),
    disposition=st.sampled_from(Disposition),
    reason=st.text(max_size=10),
    hold_rules=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    hold_expires=st.none() | st.floats(min_value=0, max_value=1e9),
    rules=st.lists(st.builds(RuleMatch, st.text(max_size=5), st.text(max_size=5)), max_size=3).map(tuple),
    digest=st.text(max_size=8),
    prefer=st.permutations(list(Method)).flatmap(
        lambda order: st.integers(0, len(order)).map(lambda length: tuple(order[:length]))
    ),
    fallback_after=st.floats(min_value=0, max_value=1e6),
    transforms=EDITS,
)


def effect(requirement: Requirement) -> tuple[object, ...]:
    return (requirement.methods, requirement.tls, requirement.disposition, frozenset(requirement.hold_rules))


@given(REQUIREMENT, REQUIREMENT)
def test_a_join_is_never_weaker_than_either(older: Requirement, newer: Requirement) -> None:
    joined = older.join(newer)
    assert joined.methods == older.methods & newer.methods
    assert joined.tls == max(older.tls, newer.tls)
    assert joined.disposition >= max(older.disposition, newer.disposition)
    assert {*older.hold_rules, *newer.hold_rules} == {*joined.hold_rules}
    assert {match.name for match in joined.rules} == {match.name for match in (*older.rules, *newer.rules)}
    assert (joined.digest, joined.prefer, joined.fallback_after) == (newer.digest, newer.prefer, newer.fallback_after)
    assert joined.transforms == newer.transforms
    if not joined.methods:
        assert joined.disposition >= Disposition.HOLD


@given(REQUIREMENT, REQUIREMENT, REQUIREMENT)
def test_the_order_of_joins_changes_nothing_of_their_effect(a: Requirement, b: Requirement, c: Requirement) -> None:
    assert effect(a.join(b).join(c)) == effect(a.join(b.join(c)))
    assert effect(a.join(b)) == effect(b.join(a))
    joined = a.join(b)
    assert effect(joined.join(joined)) == effect(joined)
    assert effect(joined.join(b)) == effect(joined)


def test_a_contradiction_waits_for_a_person() -> None:
    tls, pgp = Requirement(methods=frozenset({Method.TLS})), Requirement(methods=frozenset({Method.PGP}))
    joined = tls.join(pgp)
    assert (joined.methods, joined.disposition, joined.reason) == (frozenset(), Disposition.HOLD, "contradiction")


def test_a_reject_outlives_a_newer_hold() -> None:
    reject = Requirement(disposition=Disposition.REJECT, reason="no")
    hold = Requirement(disposition=Disposition.HOLD, reason="look", hold_rules=("r",), hold_expires=5.0)
    joined = reject.join(hold)
    assert (joined.disposition, joined.reason) == (Disposition.REJECT, "no")


@given(REQUIREMENT)
def test_a_requirement_survives_being_kept(requirement: Requirement) -> None:
    assert Requirement.from_json(json.loads(json.dumps(requirement.as_json()))) == requirement


def test_a_requirement_that_was_kept_before_there_were_transforms_has_none() -> None:
    data = Requirement().as_json()
    assert "transforms" not in data
    assert Requirement.from_json(data).transforms is NO_EDITS


def test_a_decision_tells_what_is_planned_until_it_is_known_what_was_done() -> None:
    requirement = Requirement(transforms=Edits(strip_tags=frozenset({"secure"}), footers=(Footer("sent safely"),)))
    planned = Decision(requirement, Method.TLS).as_json("a@b.example")["actions"]
    assert [(action["action"], action["done"]) for action in planned] == [("strip_tag", None), ("footer", None)]
    done = Decision(requirement, Method.TLS, changes=(Change("strip_tag", "secure", done=True),))
    assert done.as_json("a@b.example")["actions"] == [{"action": "strip_tag", "detail": "secure", "done": True}]
    assert Decision(requirement, Method.TLS, changes=()).as_json("a@b.example")["actions"] == []
    assert requirement.as_evidence()["transforms"] == requirement.transforms.as_json()


@given(REQUIREMENT)
def test_the_ranking_holds_each_allowed_method_once(requirement: Requirement) -> None:
    ranking = requirement.ranking()
    assert len(ranking) == len(set(ranking))
    assert set(ranking) == requirement.methods
    preferred = [method for method in requirement.prefer if method in requirement.methods]
    assert list(ranking[: len(preferred)]) == preferred


@pytest.mark.parametrize("level", list(Assurance))
def test_levels_are_written_and_read_by_name(level: Assurance) -> None:
    assert Assurance.parse(str(level)) is level
    with pytest.raises(ValueError, match="unknown assurance"):
        Assurance.parse("strong")


def test_dispositions_are_read_by_name_only() -> None:
    assert Disposition.parse("hold") is Disposition.HOLD
    with pytest.raises(ValueError, match="unknown disposition"):
        Disposition.parse("1")


def test_a_decision_has_the_shape_of_explain() -> None:
    requirement = Requirement(methods=frozenset({Method.TLS}), tls=Assurance.VERIFIED, rules=(RuleMatch("r", "e"),))
    shape = Decision(requirement, Method.TLS, (PassedOver(Method.PGP, "no key", definite=True),)).as_json("a@b.example")
    assert {
        "recipient": "a@b.example",
        "disposition": "deliver",
        "method": "tls",
        "requirement": {"methods": ["tls"], "tls": "verified"},
        "rules": [{"name": "r", "effect": "e"}],
        "passed_over": [{"method": "pgp", "reason": "no key", "definite": True}],
        "evidence": None,
        "actions": [],
    }.items() <= shape.items()
    assert Decision(requirement, None).as_json("a@b.example")["method"] is None
