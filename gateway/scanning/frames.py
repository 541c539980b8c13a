"""How a worker and its scanning process talk: frames of a four-octet length and that many octets.

To the child: what to look for (pickled; the worker is trusted), the octets of the message in any number of frames, an
empty frame. From the child: one frame of JSON. The child reads what strangers wrote, so nothing that it says is
executed; its answer is bounded, and read field by field.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.mail.content import Attachment, FileType
from gateway.policy.content import ContentFacts

__all__ = ["LONGEST_ANSWER", "LONGEST_FRAME", "facts_from_json", "facts_to_json", "framed"]

LONGEST_FRAME = 1 << 20
LONGEST_ANSWER = 4 << 20
#: Reasons and attachments that are told; a message with more has its list cut, and is unknown beyond.
_MOST = 2000


def framed(data: bytes) -> bytes:
    """The frame that carries these octets."""
    return len(data).to_bytes(4, "big") + data


def facts_to_json(facts: ContentFacts) -> bytes:
    """The answer as text; attachments beyond a number that no sender means are not listed, and so not known."""
    attachments = facts.attachments
    if attachments is not None and len(attachments) > _MOST:
        attachments = None
    return orjson.dumps(
        {
            "contains": sorted(facts.contains),
            "matches": sorted(facts.matches),
            "counts": dict(facts.counts),
            "unread": [reason[:300] for reason in facts.unread[:_MOST]],
            "attachments": None if attachments is None else [_attachment_to_json(entry) for entry in attachments],
            "protected": None if facts.protected is None else sorted(facts.protected),
        }
    )


def _attachment_to_json(entry: Attachment) -> dict[str, Any]:
    return {
        "name": entry.name[:1000].encode("utf-8", "replace").decode(),
        "type": str(entry.type),
        "media_type": entry.media_type[:200].encode("utf-8", "replace").decode(),
        "size": entry.size,
        "encrypted": entry.encrypted,
        "inspected": entry.inspected,
        "where": entry.where[:1000].encode("utf-8", "replace").decode(),
    }


def facts_from_json(text: bytes) -> ContentFacts:
    """The inverse of :func:`facts_to_json`; raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
    data = orjson.loads(text)
    attachments = data["attachments"]
    return ContentFacts(
        contains=frozenset(map(str, data["contains"])),
        matches=frozenset(map(str, data["matches"])),
        counts={str(name): int(count) for name, count in data["counts"].items()},
        unread=tuple(map(str, data["unread"])),
        attachments=None if attachments is None else tuple(_attachment_from_json(entry) for entry in attachments),
        protected=None if data["protected"] is None else frozenset(map(str, data["protected"])),
    )


def _attachment_from_json(entry: dict[str, Any]) -> Attachment:
    encrypted = entry["encrypted"]
    return Attachment(
        name=str(entry["name"]),
        type=FileType(entry["type"]),
        media_type=str(entry["media_type"]),
        size=int(entry["size"]),
        encrypted=None if encrypted is None else bool(encrypted),
        inspected=bool(entry["inspected"]),
        where=str(entry["where"]),
    )
