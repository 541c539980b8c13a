"""Which signatures over a message still hold after a change to it: DKIM (RFC 6376), ARC (RFC 8617), and their like.

A signature that a change has broken is worse than none: it looks like forgery (RFC 6376 section 5.3). One that did not
cover what was changed stays. Nothing is verified here; what it says that it covers is what counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.mail.headers import Field

__all__ = ["SIGNATURES", "without_broken"]

#: Fields that sign header fields named in ``h=`` and the body. DomainKeys is RFC 4870, the third is Google's own.
SIGNATURES = frozenset({"dkim-signature", "domainkey-signature", "x-google-dkim-signature"})
_ARC = frozenset({"arc-seal", "arc-message-signature", "arc-authentication-results"})
_TAG = re.compile(rb"(?:\A|;)\s*([a-z]+)\s*=([^;]*)", re.IGNORECASE)


def without_broken(before: Sequence[Field], after: Sequence[Field], *, body_changed: bool) -> list[Field]:
    """The fields ``after`` a change less the signatures that it broke; ``before`` are those that were signed.

    An ARC chain holds as its newest message signature does, and goes as a whole: what is left of one is a broken one.
    """
    kept = list(after)
    while True:
        # One signature may cover another one: what was taken out may break more.
        left = [field for field in kept if not _is_broken(field, before, kept, body_changed=body_changed)]
        if _is_chain_broken(before, left, body_changed=body_changed):
            left = [field for field in left if field.name not in _ARC]
        if len(left) == len(kept):
            return left
        kept = left


def _is_broken(signature: Field, before: Sequence[Field], after: Sequence[Field], *, body_changed: bool) -> bool:
    if signature.name not in SIGNATURES:
        return False
    return body_changed or _covered(signature, before) != _covered(signature, after)


def _is_chain_broken(before: Sequence[Field], after: Sequence[Field], *, body_changed: bool) -> bool:
    chain = [field for field in after if field.name in _ARC]
    if not chain:
        return False
    if body_changed or [field.raw for field in chain] != [field.raw for field in before if field.name in _ARC]:
        return True
    newest = max((field for field in chain if field.name == "arc-message-signature"), key=_instance, default=None)
    return newest is None or _covered(newest, before) != _covered(newest, after)


def _instance(field: Field) -> int:
    digits = _tags(field).get(b"i", b"").strip()
    return int(digits) if digits.isdigit() and len(digits) < 4 else 0


def _covered(signature: Field, found: Sequence[Field]) -> list[bytes]:
    """The fields that ``h=`` names, the last of each name first (RFC 6376 section 5.4.2); without it all."""
    names = _tags(signature).get(b"h")
    if names is None:
        return [field.raw for field in found if field.name not in SIGNATURES | _ARC]
    left: dict[str, list[bytes]] = {}
    for field in found:
        left.setdefault(field.name, []).append(field.raw)
    covered = []
    for part in names.split(b":"):
        stack = left.get(b"".join(part.split()).decode("ascii", "replace").lower())
        covered.append(stack.pop() if stack else b"")
    return covered


def _tags(field: Field) -> dict[bytes, bytes]:
    return {match[1].lower(): match[2] for match in _TAG.finditer(field.value)}
