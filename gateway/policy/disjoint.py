"""Whether no message can match two conditions: a cheap proof that is never wrong, and often silent.

Both sides are read as "all of these"; they exclude each other where they ask different things of what a message has
only one of: connector, kind, recipient, recipient's domain, sender; or where one asks for the opposite of the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.policy.about_envelope import ConnectorIs, KindIs, RecipientDomainIs, RecipientIs, SenderIs
from gateway.policy.conditions import AllOf, Condition, Not

__all__ = ["are_disjoint"]


def are_disjoint(one: Condition, other: Condition) -> bool:
    """True: proved that they never hold together. False: they may."""
    left, right = list(_asked(one)), list(_asked(other))
    return any(_exclude(a, b) for a in left for b in right)


def _asked(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, AllOf):
        for part in condition.parts:
            yield from _asked(part)
    else:
        yield condition


def _exclude(one: Condition, other: Condition) -> bool:
    if isinstance(one, Not) and _same(one.part, other):
        return True
    if isinstance(other, Not) and _same(other.part, one):
        return True
    match one, other:
        case ConnectorIs(), ConnectorIs():
            return one.names.isdisjoint(other.names)
        case KindIs(), KindIs():
            return one.kinds.isdisjoint(other.kinds)
        case RecipientIs(), RecipientIs():
            return _apart([pattern.text for pattern in one.patterns], [pattern.text for pattern in other.patterns])
        case SenderIs(), SenderIs():
            return _apart([pattern.text for pattern in one.patterns], [pattern.text for pattern in other.patterns])
        case RecipientDomainIs(), RecipientDomainIs():
            return _apart([pattern.text for pattern in one.patterns], [pattern.text for pattern in other.patterns])
    return False


def _apart(one: list[str], other: list[str]) -> bool:
    """Plain values only: a pattern with ``*`` may mean anything."""
    return not any("*" in text for text in (*one, *other)) and set(one).isdisjoint(other)


def _same(one: Condition, other: Condition) -> bool:
    def text(condition: Condition) -> Any:
        return json.dumps(condition.canonical(), sort_keys=True)

    return bool(text(one) == text(other))
