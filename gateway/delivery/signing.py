"""DKIM, the last transform of all: signed are the very octets that this connection is to carry (RFC 6376 section 5).

The signatures stand below our trace fields and above the message, which keeps every octet.

Signed is mail

1. whose From is one mailbox (``mail/author``) of a domain that ``dkim`` has keys for - that domain, none above or below
2. that was let in by a connector which is not in stage ``observe``, and whose ``senders`` name that domain: what came
   by ``foreign_from: forward`` is a stranger's, and a stranger gets no signature of ours. Both are asked of the
   configuration of now, too. Mail of our own needs no connector
3. that carries no signature of that domain any more (``mail/dkim/standing``): what policy did not touch keeps its own,
   and what a change has broken is gone by now

What is not signed leaves as it is: a signature protects the sender's name, not the message's secrets. But where signing
itself breaks down, the message stays here: a domain may tell everyone to refuse what is not signed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from gateway.clock import Clock
from gateway.config.inbound import Stage
from gateway.config.model import Settings
from gateway.config.names import matches_sender
from gateway.config.rooms import DkimKey
from gateway.delivery.transaction import Transaction
from gateway.errors import GatewayError, StoreError
from gateway.mail.author import AuthorError, author
from gateway.mail.dkim.canonical import BodyHasher, Canonicalization
from gateway.mail.dkim.signing import signature_field
from gateway.mail.dkim.standing import standing_signature
from gateway.mail.edits import Change, Edits
from gateway.mail.edits.patches import patched
from gateway.mail.edits.rendering import render
from gateway.mail.headers import Field, HeaderError, fields, split_message
from gateway.queue.records import Claim

__all__ = ["ACTION", "CannotSign", "Signer", "Signing", "Unsigned", "decide", "foretell"]

_log = structlog.get_logger()

#: What a signature is called among the changes to a message.
ACTION = "dkim"

#: What is hashed at a time: half a millisecond. Octets.
_PIECE = 64 * 1024
#: What takes longer altogether is hashed in a thread.
_AT_ONCE = 512 * 1024


class CannotSign(GatewayError):
    """Signing broke down, by a fault of ours: the message does not leave without a signature that it should have."""


@dataclass(frozen=True, slots=True)
class Signing:
    """The message is to be signed for this domain, once with each of these keys. ``fields``: all of its header."""

    domain: str
    keys: tuple[DkimKey, ...]
    fields: Sequence[Field]

    @property
    def note(self) -> Change:
        """What trace says of it."""
        return Change(ACTION, f"signed for {self.domain} with {', '.join(k.selector for k in self.keys)}", done=True)


@dataclass(frozen=True, slots=True)
class Unsigned:
    """There is a key, and it is not used, for this reason."""

    reason: str

    @property
    def note(self) -> Change:
        """What trace says of it."""
        return Change(ACTION, f"not signed: {self.reason}", done=False)


def decide(
    settings: Settings, connector: str | None, found: Sequence[Field], now: float, *, observed: bool = False
) -> Signing | Unsigned | None:
    """Whether a message with these fields is signed; None where there is no key for its author's domain.

    ``connector`` let it in, under stage ``observe`` where it was ``observed``; None for mail of our own.
    """
    try:
        sender = author(found)
    except AuthorError:
        return None
    keys = settings.dkim.get(sender.domain, ())
    if not keys:
        return None
    if connector is not None:
        known = next((each for each in settings.connectors if each.name == connector), None)
        if known is None:
            return Unsigned(f"there is no connector {connector!r} any more to say who may send for {sender.domain}")
        if observed or known.stage is Stage.OBSERVE:
            return Unsigned(f"the connector {connector!r} observes: nothing proved that this is from {sender.domain}")
        if not matches_sender(known.senders, sender):
            return Unsigned(f"the connector {connector!r} may not send for {sender.domain}")
    standing = standing_signature(found, sender.domain, now)
    if standing is not None:
        return Unsigned(f"its own signature of {sender.domain} ({standing}) stays")
    return Signing(sender.domain, keys, found)


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs what one process sends. Settings are asked for at each use."""

    settings: Callable[[], Settings]
    clock: Clock

    async def finish(self, claim: Claim, transaction: Transaction) -> Transaction:
        """The transaction with the signatures that it is to have, if any, and a note of them, or of why not.

        Reads the body once. Raises :class:`CannotSign`, and :class:`StoreError` where the body cannot be read.
        """
        try:
            return await self._finish(claim, transaction)
        except StoreError:
            raise
        except Exception as error:
            _log.exception("signing_failed", message=transaction.message_id)
            raise CannotSign("a fault of our own; the log has it under this message id") from error

    async def _finish(self, claim: Claim, transaction: Transaction) -> Transaction:
        now = self.clock.time()

        connector = None if claim.system else claim.message.envelope.connector

        def judge(block: bytes) -> Signing | Unsigned | None:
            try:
                return decide(self.settings(), connector, tuple(fields(block)), now, observed=claim.observed)
            except HeaderError:
                return None

        content = _Content(judge)
        plain = transaction.plain
        if plain is None:
            await _stream(transaction, content)
        elif len(plain) <= _AT_ONCE:
            content.whole(plain)
        else:
            await asyncio.to_thread(content.whole, plain)
        verdict = content.verdict
        if isinstance(verdict, Signing):
            try:
                return _signed(transaction, verdict, content.digest(), now)
            except ValueError as error:
                verdict = Unsigned(str(error))
        if verdict is None:
            return transaction
        return replace(transaction, notes=(verdict.note,))


def foretell(settings: Settings, connector: str | None, message: bytes, edits: Edits, now: float) -> Change | None:
    """What a delivery of this message with these edits would note, for a preview; None where there is no key."""
    try:
        changed = patched(message, render(message, edits).patches) if edits else message
        verdict = decide(settings, connector, tuple(fields(split_message(changed)[0])), now)
    except HeaderError:
        return None
    return None if verdict is None else verdict.note


def _signed(transaction: Transaction, signing: Signing, body_hash: bytes, now: float) -> Transaction:
    """Raises :class:`ValueError` for a header that nobody should sign."""
    made = [
        signature_field(signing.fields, body_hash, key=each.key, domain=signing.domain, selector=each.selector, now=now)
        for each in signing.keys
    ]
    return replace(transaction, prefix=transaction.prefix + b"".join(made), notes=(signing.note,))


class _Content:
    """A message on its way through: its header block goes to ``judge``, its body into the hash if it is to be signed.

    ``verdict`` is what ``judge`` said; ``judged`` that it was asked.
    """

    def __init__(self, judge: Callable[[bytes], Signing | Unsigned | None]) -> None:
        self._judge = judge
        self._head = bytearray()
        self._hasher = BodyHasher(Canonicalization.RELAXED)
        self.verdict: Signing | Unsigned | None = None
        self.judged = False

    @property
    def needs_more(self) -> bool:
        """Whether the rest of the message matters."""
        return not self.judged or isinstance(self.verdict, Signing)

    def whole(self, message: bytes) -> None:
        """All of it at once."""
        self._split(message)

    def feed(self, piece: bytes) -> None:
        """The next octets."""
        if self.judged:
            self._hash(piece)
            return
        seen = max(len(self._head) - 3, 0)
        self._head += piece
        if self._head.startswith(b"\r\n") or self._head.find(b"\r\n\r\n", seen) >= 0:
            self._split(bytes(self._head))
            self._head.clear()

    def digest(self) -> bytes:
        """The hash of the body, once all of it was fed."""
        return self._hasher.digest()

    def end(self) -> None:
        """There is no more; a message that never had an empty line is a header block alone."""
        if not self.judged:
            self._split(bytes(self._head))

    def _split(self, message: bytes) -> None:
        block, rest = split_message(message)
        self.judged = True
        self.verdict = self._judge(block)
        if self.needs_more:
            self._hash(rest[2:])

    def _hash(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            self._hasher.update(data[start : start + _PIECE])


async def _stream(transaction: Transaction, content: _Content) -> None:
    async for piece in transaction.body():
        content.feed(piece)
        if not content.needs_more:
            return
    content.end()
