"""The facts of a whole message that nobody has received: for policy tests and previews. Never raises."""

from __future__ import annotations

from gateway.mail.address import Address
from gateway.mail.author import AuthorError, author
from gateway.mail.envelope import Kind
from gateway.mail.headers import Field, HeaderError, fields, split_message, subject_of
from gateway.mail.kind import kind_of
from gateway.mail.protection import Method
from gateway.policy.examine import examine
from gateway.policy.facts import HeaderView, MessageFacts
from gateway.policy.rules import Policy

__all__ = ["facts_of"]


def facts_of(
    policy: Policy,
    message: bytes,
    *,
    sender: Address | None,
    recipients: tuple[Address, ...],
    connector: str | None = None,
    declared: frozenset[Kind] = frozenset(),
    tags: frozenset[str] = frozenset(),
    protect: frozenset[Method] | None = None,
    time: float,
) -> MessageFacts:
    """What policy would know of this message, for its first recipient; ``replace(facts, recipient=...)`` for others.

    ``declared``: kinds that only the connector can vouch for. ``tags`` and ``protect`` are what control fields asked
    for, which ``message`` does not hold any more.
    """
    block, rest = split_message(message)
    try:
        found: tuple[Field, ...] = tuple(fields(block))
    except HeaderError:
        found = ()
    return MessageFacts(
        sender=sender,
        recipient=recipients[0],
        tags=tags,
        protect=protect,
        subject=subject_of(found),
        author=_author(found),
        connector=connector,
        kind=kind_of(found, sender, declared, rest),
        header=HeaderView(block),
        size=len(message),
        recipients=len(recipients),
        time=time,
        content=examine(message, policy.examiner) if policy.questions else None,
    )


def _author(found: tuple[Field, ...]) -> Address | None:
    try:
        return author(found)
    except AuthorError:
        return None
