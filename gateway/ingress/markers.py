"""Fields that are taken out of a message at the door, and what the control fields among them said (no I/O).

Taken out, in every spelling: the secret headers of all connectors, the tenant markers where some connector has a
tenant, every ``X-Gateway-*`` except our own trace (``X-Gateway-Id``, ``X-Gateway-Loop``), ``Bcc`` and
``Resent-Bcc``. What stays, stays byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.config.model import Connector
from gateway.ingress.seams import ControlHeaders
from gateway.mail.headers import Field, HeaderError, fields

__all__ = ["ORIGINATOR_ORG", "TENANT_ID", "ControlError", "Markers", "control_headers", "parse_block"]

TENANT_ID = "x-ms-exchange-crosstenant-id"
ORIGINATOR_ORG = "x-originatororg"
PROTECT = "x-gateway-protect"
TAG = "x-gateway-tag"
IDEMPOTENCY_KEY = "x-gateway-idempotency-key"
_OURS = "x-gateway-"
_TRACE = frozenset({"x-gateway-id", "x-gateway-loop"})
_BLIND = frozenset({"bcc", "resent-bcc"})
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_KEY = re.compile(r"[\x21-\x7e]{1,200}\Z")
_MAX_TAGS = 20


class ControlError(ValueError):
    """A control field that cannot be read; ignoring it could mean less protection than its author wanted."""


@dataclass(frozen=True, slots=True)
class Markers:
    """Which fields to take out, for one configuration."""

    names: frozenset[str]

    @classmethod
    def of(cls, connectors: Iterable[Connector]) -> Markers:
        """The markers of *all* connectors: a message may carry the secret of one that it did not come by."""
        names = set(_BLIND)
        for connector in connectors:
            if connector.accept.header is not None:
                names.add(connector.accept.header.name.lower())
            if connector.accept.tenant is not None:
                names |= {TENANT_ID, ORIGINATOR_ORG}
        return cls(frozenset(names))

    def is_marker(self, name: str) -> bool:
        """Whether a field of this lower-case name is taken out."""
        return name in self.names or (name.startswith(_OURS) and name not in _TRACE)

    def strip(self, found: Sequence[Field]) -> tuple[Field, ...]:
        """The fields that remain."""
        return tuple([field for field in found if not self.is_marker(field.name)])


def parse_block(block: bytes) -> tuple[Field, ...]:
    """All fields of a header block; raises :class:`gateway.mail.headers.HeaderError`.

    A line of nothing but white space is refused too: some parsers end the header there, others go on.
    """
    found = tuple(fields(block))
    for field in found:
        if field.raw.count(b"\n") > 1 and any(not line.strip(b" \t") for line in field.raw.split(b"\r\n")[1:-1]):
            raise HeaderError(f"field {field.name} holds an empty continuation line")
    return found


def control_headers(found: Iterable[Field]) -> ControlHeaders:
    """What the control fields say. Raises :class:`ControlError`."""
    protect: list[str] = []
    tags: set[str] = set()
    keys: list[str] = []
    for field in found:
        if not field.name.startswith(_OURS):
            continue
        if field.name == PROTECT:
            if protect:
                # Two sets: their union would be wider than either, and "narrow, never widen" is the promise.
                raise ControlError("X-Gateway-Protect is given twice")
            protect = _words(field, "X-Gateway-Protect")
        elif field.name == TAG:
            tags.update(_words(field, "X-Gateway-Tag"))
        elif field.name == IDEMPOTENCY_KEY:
            keys.append(field.text)
    if len(keys) > 1 or not all(_KEY.match(key) for key in keys):
        raise ControlError("X-Gateway-Idempotency-Key must stand once, with up to 200 printable ASCII characters")
    if len(tags) > _MAX_TAGS:
        raise ControlError("X-Gateway-Tag names more than 20 tags")
    return ControlHeaders(tuple(word.lower() for word in protect), frozenset(tags), keys[0] if keys else "")


def _words(field: Field, name: str) -> list[str]:
    words = [word.strip() for word in field.text.split(",")]
    if not all(_WORD.match(word) for word in words):
        raise ControlError(f"{name} must hold names of letters, digits, dot, dash and underscore")
    return words
