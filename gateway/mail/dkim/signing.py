"""Making a DKIM-Signature field (RFC 6376 section 5): which header fields are signed, and how it is written.

Always relaxed/relaxed, because relays touch white space; the whole body, never ``l=``; ``t=``, but no ``x=``: mail may
wait for days at a next hop, and a signature that ends before does harm. One field for each key (RFC 8463 section 3).

Three groups of header fields, by what an attacker who replays the message could make of one that is added:

* what is signed and *closed*, there or not: what a reader's program shows as author and subject, where answers go, and
  how it reads the body. A second From, or a Content-Type where there was none, would change the message under a
  signature that still verifies (section 8.15, M3AAWG "DKIM deployment").
* closed only where it is there. Some host after us may rightly add a Date, a Message-ID or a Sender that is missing.
* signed as often as it is there, and not closed: what lists and people who send a message on put on top of it, so that
  what was signed before keeps its place from below.

Trace fields (Received, Return-Path, Authentication-Results, ours) and signatures of others are not signed: they change,
or are gone, on the way (section 5.4.1).
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence

from gateway.mail.dkim.canonical import Canonicalization, header_input
from gateway.mail.dkim.keys import SigningKey
from gateway.mail.headers import Field

__all__ = ["CLOSED", "CLOSED_WHERE_PRESENT", "MAX_OF_A_NAME", "signature_field", "signed_names"]

CLOSED = (
    "from",
    "to",
    "cc",
    "subject",
    "reply-to",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
)
CLOSED_WHERE_PRESENT = (
    "date",
    "message-id",
    "sender",
    "in-reply-to",
    "references",
    "content-disposition",
    "content-id",
    "content-description",
    "autocrypt",
)
# RFC 8058 section 4 needs the List-Unsubscribe fields signed.
_OPEN = (
    "list-id",
    "list-help",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-subscribe",
    "list-post",
    "list-owner",
    "list-archive",
    "resent-date",
    "resent-from",
    "resent-sender",
    "resent-to",
    "resent-cc",
    "resent-message-id",
)
#: A message with more of one of these fields is no mail that anybody would want our name under.
MAX_OF_A_NAME = 50

_LINE = 76


def signed_names(found: Sequence[Field]) -> tuple[str, ...]:
    """What goes into ``h=`` for a message with these fields.

    Raises :class:`ValueError` where there are more than :data:`MAX_OF_A_NAME` of one.
    """
    present = Counter(field.name for field in found)
    names: list[str] = []
    for group, more in ((CLOSED, 1), (CLOSED_WHERE_PRESENT, 1), (_OPEN, 0)):
        for name in group:
            count = present[name]
            if count > MAX_OF_A_NAME:
                raise ValueError(f"there are more than {MAX_OF_A_NAME} fields {name}")
            if count or group is CLOSED:
                names += [name] * (count + more)
    return tuple(names)


def signature_field(
    found: Sequence[Field], body_hash: bytes, *, key: SigningKey, domain: str, selector: str, now: float
) -> bytes:
    """The field with its CRLF, to go on top of a message with these fields. ``now``: seconds since the epoch.

    ``body_hash`` is that of the relaxed body. Raises :class:`ValueError` as :func:`signed_names` does.
    """
    names = signed_names(found)
    start = (
        f"DKIM-Signature: v=1; a={key.algorithm}; c=relaxed/relaxed;\r\n"
        f"\td={domain}; s={selector}; t={int(now)};\r\n"
        f"\th={_folded(names)};\r\n"
        f"\tbh={b64encode(body_hash).decode('ascii')};\r\n"
        "\tb="
    ).encode("ascii")
    value = b64encode(key.sign(header_input(names, found, start, Canonicalization.RELAXED)))
    lines = [value[at : at + _LINE - 4] for at in range(0, len(value), _LINE - 4)]
    return start + b"\r\n\t ".join(lines) + b"\r\n"


def _folded(names: Sequence[str]) -> str:
    lines, line = [], ""
    for name in names:
        if line and len(line) + 1 + len(name) > _LINE - 4:
            lines.append(line + ":")
            line = name
        else:
            line = f"{line}:{name}" if line else name
    return "\r\n\t ".join([*lines, line])
