"""What policy knows of a message that waits, to decide anew: read out of the sealed body, once for all recipients."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from gateway.errors import StoreCorrupt
from gateway.mail.address import Address
from gateway.mail.author import AuthorError, author
from gateway.mail.envelope import Message
from gateway.mail.headers import Field, HeaderError, fields, split_message, subject_of
from gateway.policy import ContentFacts, HeaderView, MessageFacts, Policy
from gateway.scanning import Scanners

__all__ = ["facts_now"]

Body = Callable[[], AsyncIterator[bytes]]


async def facts_now(
    message: Message, policy: Policy, body: Body, scanners: Scanners, *, now: float, header_limit: int
) -> MessageFacts:
    """The facts of this message for its first recipient; ``body`` opens the accepted bytes.

    What cannot be read is unknown. Tags and ``X-Gateway-Protect`` were taken out when the message came: what they asked
    for stands in the requirement of then, which the new one joins. Raises :class:`StoreError` and ``ScanBusy``.
    """
    envelope = message.envelope
    try:
        block = await _header(body, header_limit)
        found: tuple[Field, ...] | None = tuple(fields(block))
    except (HeaderError, StoreCorrupt):
        block, found = b"", None
    return MessageFacts(
        sender=envelope.sender,
        recipient=envelope.recipients[0].address,
        subject=None if found is None else subject_of(found),
        author=None if found is None else _author(found),
        connector=envelope.connector,
        kind=message.kind,
        header=None if found is None else HeaderView(block),
        size=message.size,
        recipients=envelope.total or None,
        time=now,
        content=await _content(body, policy, scanners) if policy.questions else None,
    )


async def _content(body: Body, policy: Policy, scanners: Scanners) -> ContentFacts:
    try:
        async with aclosing(_given(body())) as pieces:
            return await scanners.examine(policy.examiner, pieces)
    except StoreCorrupt:
        return ContentFacts.unknown("the stored body is damaged")


async def _given(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        yield piece


async def _header(body: Body, limit: int) -> bytes:
    data = b""
    async for piece in body():
        data += piece
        block, rest = split_message(data)
        if rest or len(data) > limit:
            return block
    return split_message(data)[0]


def _author(found: tuple[Field, ...]) -> Address | None:
    try:
        return author(found)
    except AuthorError:
        return None
