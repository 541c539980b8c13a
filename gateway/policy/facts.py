"""What policy is told about one message on its way to one recipient."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from gateway.mail.address import Address
from gateway.mail.protection import Method

__all__ = ["MessageFacts", "normal_text"]


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What is known about one message and one recipient. ``None`` as subject: not known (yet, or unreadable).

    ``sender`` ``None`` is the null sender. ``tags`` come from ``X-Gateway-Tag`` and act, for ``require`` only, as if
    the subject carried them. ``protect`` comes from ``X-Gateway-Protect`` and narrows like a matching ``require``:
    ``None`` where there is no such header; an empty set where it names nothing that we know, and then nothing is left.
    ``approvals`` names rules whose hold was released for this content.
    """

    sender: Address | None
    recipient: Address
    subject: str | None = None
    tags: frozenset[str] = field(default=frozenset())
    protect: frozenset[Method] | None = None
    approvals: frozenset[str] = field(default=frozenset())


def normal_text(text: str) -> str:
    """Text as conditions compare it: NFKC, without format characters, white space runs as one blank.

    Whatever is not valid Unicode becomes ``?``. So a zero-width space or full-width brackets hide nothing.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
        text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return " ".join(text.split())
