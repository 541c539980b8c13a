"""The dkim factor of one message: hashing, key look-ups and the verdict, while the message arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from gateway.ingress.connectors import MessageFacts
from gateway.ingress.dkim import DkimError, Signature, key_name, signatures, verify
from gateway.ingress.seams import LookupFailed, LookupTxt
from gateway.ingress.terms import Services
from gateway.mail.dkim.canonical import BodyHasher, Canonicalization

__all__ = ["DkimCheck"]

#: All keys of a message together may take so long (seconds).
LOOKUP_TIMEOUT = 5.0


class DkimCheck:
    """Begun when the header block is read. ``satisfied_by`` is the digest of the signature that held.

    ``unknown``: no signature held, but a key could not be looked up, so that later one might.
    """

    def __init__(self, facts: MessageFacts, usable: Sequence[Signature], lookup: LookupTxt) -> None:
        self._facts = facts
        self._usable = usable
        self._hashers = {each: BodyHasher(each) for each in {one.body_canonicalization for one in usable}}
        self._keys: asyncio.Task[dict[str, Sequence[bytes] | None]] = asyncio.create_task(
            _look_up({key_name(each) for each in usable}, lookup)
        )
        self._keys.add_done_callback(_look_at)
        self.satisfied_by: bytes | None = None
        self.unknown = False

    @classmethod
    def begin(cls, facts: MessageFacts, domains: Iterable[str], services: Services) -> DkimCheck | None:
        """Start looking; None where no signature could satisfy the factor."""
        usable = signatures(facts.fields, facts.author, domains, services.clock.time())
        return cls(facts, usable, services.lookup_txt) if usable else None

    def body(self, piece: bytes) -> None:
        """The next bytes of the body, behind the empty line."""
        for hasher in self._hashers.values():
            hasher.update(piece)

    async def settle(self) -> frozenset[str]:
        """The domains whose signature holds: the author's, or none."""
        keys = await self._keys
        digests: dict[Canonicalization, bytes] = {each: hasher.digest() for each, hasher in self._hashers.items()}
        for signature in self._usable:
            records = keys[key_name(signature)]
            if records is None:
                self.unknown = True
                continue
            try:
                verify(signature, self._facts.fields, digests[signature.body_canonicalization], records)
            except DkimError:
                continue
            self.satisfied_by = signature.digest
            return frozenset({signature.domain})
        return frozenset()

    def cancel(self) -> None:
        """Stop looking for keys."""
        self._keys.cancel()


def _look_at(task: asyncio.Task[dict[str, Sequence[bytes] | None]]) -> None:
    """A message that is refused meanwhile never asks for its keys; their fate is nobody's surprise then."""
    if not task.cancelled():
        task.exception()


async def _look_up(names: Iterable[str], lookup: LookupTxt) -> dict[str, Sequence[bytes] | None]:
    """The records of each name; None where they cannot be had now."""

    async def one(name: str) -> tuple[str, Sequence[bytes] | None]:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                return name, await lookup(name)
        except (LookupFailed, TimeoutError):
            return name, None

    return dict(await asyncio.gather(*(one(name) for name in names)))
