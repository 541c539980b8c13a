"""The loop mark: one header field a transaction, saying - to us only - which recipients it was for.

``X-Gateway-Loop: MESSAGE-ID HMAC HMAC ...``: an 80-bit HMAC of message id and recipient, in base32, for each
recipient, sorted so that the order tells nothing. Only the holder of the key can make one or read one, so nobody can
use it to find out about other recipients. A mark never skips policy; all it can do is end a loop.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from collections.abc import Iterable, Sequence
from functools import lru_cache

from gateway.mail.address import Address
from gateway.mail.headers import Field

__all__ = ["MAX_PASSES", "count_passes", "make_mark"]

#: A recipient that has passed this often is looping (interfaces: Headers).
MAX_PASSES = 3

_NAME = "x-gateway-loop"
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_PER_LINE = 4  # 4 x 17 characters: lines stay below the 78 that RFC 5322 section 2.1.1 recommends
#: Marks looked at, the newest first: a loop ends at three, so more only cost time.
_MAX_MARKS = 32


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> hmac.HMAC:
    """Setting up an HMAC costs ten times what it costs to use a copy."""
    return hmac.new(key, digestmod="sha256")


def _digest(key: bytes, message_id: str, recipient: str) -> str:
    keyed = _keyed(key).copy()
    keyed.update(f"{message_id} {recipient}".encode())
    return b32encode(keyed.digest()[:10]).decode("ascii")


def make_mark(key: bytes, message_id: str, recipients: Iterable[Address]) -> bytes:
    """The header field, folded, with its final CRLF, for the recipients of one transaction."""
    digests = sorted({_digest(key, message_id, recipient.key) for recipient in recipients})
    lines = [f"X-Gateway-Loop: {message_id}"]
    lines += [" " + " ".join(digests[start : start + _PER_LINE]) for start in range(0, len(digests), _PER_LINE)]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def count_passes(key: bytes, fields: Iterable[Field], recipients: Sequence[Address]) -> dict[str, int]:
    """For each ``Address.key``, how many different transactions of ours have carried this message to it.

    ``fields`` are those of the message, newest first as they stand in it. Copies of one mark count once.
    """
    marks: dict[str, frozenset[str]] = {}
    for field in fields:
        if field.name != _NAME:
            continue
        message_id, *digests = field.text.split()[:2001] or [""]
        if _ID.match(message_id) and message_id not in marks:
            marks[message_id] = frozenset(digests)
            if len(marks) == _MAX_MARKS:
                break
    return {
        recipient.key: sum(_digest(key, message_id, recipient.key) in digests for message_id, digests in marks.items())
        for recipient in recipients
    }
