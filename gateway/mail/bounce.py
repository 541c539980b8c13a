"""Reading what came back: reports of RFC 3464, and the formats of systems that know none.

All of it is a stranger's text. What is taken from it is only whether a delivery has failed for good, and a cleaned line
for people to read; whose delivery it was says the address that it came back to.

1. ``multipart/report`` with ``message/delivery-status``: ``Action`` and ``Status`` (RFC 3464 sections 2.3.3 and 2.3.4)
2. otherwise, from the null sender and not an automatic reply: an enhanced or basic status code in the text (as qmail,
   Exim and others write), or words that such systems use
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.mail.headers import Field, HeaderError, fields, split_message
from gateway.mail.reply import clean_text

__all__ = ["LIMIT", "Bounce", "read_bounce"]

#: As much of a bounce is looked at. Octets.
LIMIT = 256 * 1024

_STATUS_TYPE = re.compile(rb"^content-type:[ \t]*message/(?:global-)?delivery-status", re.IGNORECASE | re.MULTILINE)
_FIELD = re.compile(
    rb"^(action|status|diagnostic-code):[ \t]*([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE
)
_ENHANCED = re.compile(rb"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_BASIC = re.compile(rb"(?<![\d.])(5\d\d)[ -]")
_FAILED = re.compile(
    rb"(permanent(?:ly)? (?:error|fail)|could not be delivered|undeliverable|delivery (?:has )?failed|no such user|"
    rb"user unknown|mailbox (?:not found|unavailable)|returned mail|address rejected)",
    re.IGNORECASE,
)
_DELAYED = re.compile(
    rb"(delayed|will (?:be retried|keep trying)|not been delivered yet|no action is required)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Bounce:
    """``final``: the delivery failed for good. ``status`` is an enhanced code or "", ``reason`` one cleaned line."""

    final: bool
    status: str
    reason: str


def read_bounce(data: bytes) -> Bounce | None:
    """What a message to the address of a notice says of its delivery; None where it says nothing, such as a reply.

    ``data`` is its beginning, up to :data:`LIMIT`. Never raises.
    """
    data = data[:LIMIT]
    block, body = split_message(data)
    try:
        header = list(fields(block))
    except HeaderError:
        return None
    kind = _value(header, "content-type").lower()
    if kind.startswith("multipart/report"):
        found = _STATUS_TYPE.search(body)
        if found is not None:
            return _from_report(body[found.end() :])
        return None  # of another kind: read receipts, abuse reports
    if _value(header, "auto-submitted").lower().startswith("auto-replied") or _value(header, "x-autoreply"):
        return None
    return _from_text(body)


def _from_report(part: bytes) -> Bounce | None:
    named = {match[1].lower(): _line(match[2]) for match in reversed(list(_FIELD.finditer(part)))}
    action, status = named.get(b"action", "").lower(), named.get(b"status", "")
    enhanced = _ENHANCED.search(status.encode("ascii", "replace"))
    code = "" if enhanced is None else enhanced[1].decode("ascii")
    if not action and not code:
        return None
    final = action.startswith("failed") or (not action and code.startswith("5"))
    reason = named.get(b"diagnostic-code", "") or f"{action or 'failed'} {status}".strip()
    return Bounce(final, code, clean_text(reason, 300))


def _from_text(body: bytes) -> Bounce | None:
    text = body[: LIMIT // 4]
    enhanced, basic = _ENHANCED.search(text), _BASIC.search(text)
    failed, delayed = _FAILED.search(text), _DELAYED.search(text)
    code = "" if enhanced is None else enhanced[1].decode("ascii")
    final = code.startswith("5") or (basic is not None and not code.startswith("4"))
    if not final and failed is not None and delayed is None and not code.startswith("4"):
        final = True
    if not (final or delayed or code):
        return None
    found = enhanced or basic or failed or delayed
    assert found is not None
    return Bounce(final, code, _around(text, found.start()))


def _around(text: bytes, place: int) -> str:
    """The line that it stands in."""
    begin = text.rfind(b"\n", 0, place) + 1
    end = text.find(b"\n", place)
    return _line(text[begin : end if end >= 0 else len(text)])


def _line(value: bytes) -> str:
    return clean_text(re.sub(rb"\s+", b" ", value).decode("utf-8", "replace"), 300)


def _value(header: list[Field], name: str) -> str:
    """The first field of a name, in one line; "" where there is none."""
    for field in header:
        if field.name.lower() == name:
            return _line(field.value)
    return ""
