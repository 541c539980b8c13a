"""Choosing a method: never one that is not allowed, never one that cannot, always the best of what is left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.protection import DEFAULT_PREFERENCE, Capability, Method, Requirement
from gateway.protect.choose import BUILT, choose, unavailable

methods = st.frozensets(st.sampled_from(Method))
preferences = st.permutations(DEFAULT_PREFERENCE).map(tuple)


def capabilities(names: frozenset[Method], *, possible: bool) -> dict[Method, Capability]:
    return {name: Capability(name, possible=possible, reason="known") for name in names}


@given(methods, methods, methods, preferences)
def test_the_best_allowed_method_that_nothing_speaks_against(
    allowed: frozenset[Method], against: frozenset[Method], for_it: frozenset[Method], prefer: tuple[Method, ...]
) -> None:
    requirement = Requirement(methods=allowed, prefer=prefer)
    known = capabilities(for_it, possible=True) | capabilities(against, possible=False)
    decision = choose(requirement, known)
    left = [method for method in prefer if method in allowed - against]
    assert decision.method == (left[0] if left else None)
    better = prefer if decision.method is None else prefer[: prefer.index(decision.method)]
    assert [passed.method for passed in decision.passed_over] == [method for method in better if method in allowed]


@given(methods, preferences)
def test_what_is_not_built_is_never_chosen(allowed: frozenset[Method], prefer: tuple[Method, ...]) -> None:
    decision = choose(Requirement(methods=allowed, prefer=prefer), unavailable())
    assert decision.method is None or decision.method in BUILT & allowed


def test_nobody_shares_what_is_known_about_another() -> None:
    first, second = unavailable(), unavailable()
    first[Method.TLS] = Capability(Method.TLS, possible=False)
    assert Method.TLS not in second
