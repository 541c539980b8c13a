"""Which kind of mail a message is, by its header fields - and for an invitation by the part that makes it one.

In this order, and the first that fits counts:

``journal``     the connector declares that it brings journal reports, and the field of one is there
``dsn``         the null sender, and a report on delivery (RFC 3464) or what old systems say instead
``receipt``     a disposition notification (RFC 8098)
``calendar``    text/calendar with a method (iMIP, RFC 6047), as the message or as a part of its body
``auto_reply``  an automatic answer (RFC 3834, and what vacation programs wrote before)
``list``        a post of a mailing list (RFC 2919, RFC 2369) or bulk mail

What a kind does by itself only takes methods away (architecture: "Kinds of mail"), so that nobody gains by giving a
message the shape of one. Three shapes are not taken as such:

* ``Auto-Submitted: auto-generated`` is also what applications write on mail that people wait for - a laboratory result,
  a reminder. It is an automatic answer only where it answers something: to the null sender's account, or with the id of
  a message that it refers to. Else failures would go untold.
* ``X-Auto-Response-Suppress`` asks others not to answer, and says nothing about the message itself.
* Where fields contradict each other (two content types) nothing is concluded from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from email.message import Message as MimeHeader

from gateway.mail.address import Address
from gateway.mail.envelope import Kind
from gateway.mail.headers import Field

__all__ = ["CalendarScan", "kind_of"]

#: How much of a body is searched for the part that makes it an invitation: it comes behind text and HTML.
_SEARCHED = 1_000_000
#: What is kept of a piece for the next one: longer than the header block of any part that a calendar program makes.
_KEPT = 2000

_COMMENT = re.compile(r"\([^()]*\)")
# These are looked for in octets that are in lower case.
_CALENDAR = b"text/calendar"
_CALENDAR_FIELD = re.compile(rb"\r\ncontent-type[ \t]*:(?:[ \t]|\r\n[ \t])*text/calendar\b")
_METHOD = re.compile(rb";(?:[ \t]|\r\n[ \t])*method[ \t]*=[ \t]*\"?[a-z]")
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
#: So many places that look like one are looked at in a piece: real mail has one or two.
_MOST_PLACES = 50

_JOURNAL = frozenset({"x-ms-journal-report", "x-ms-exchange-organization-journal-report"})
_OLD_DSN = frozenset({"x-failed-recipients", "x-ms-exchange-message-is-ndr"})
_VACATION = frozenset({"x-autoreply", "x-autorespond", "x-mail-autoreply", "x-autoreply-from"})
_LIST = frozenset({"list-id", "list-post"})
_REFERS = frozenset({"in-reply-to", "references"})
_READ = frozenset(
    {
        "content-type",
        "auto-submitted",
        "precedence",
        "content-class",
        *_JOURNAL,
        *_OLD_DSN,
        *_VACATION,
        *_LIST,
        *_REFERS,
    }
)


def kind_of(
    found: Iterable[Field], sender: Address | None, declared: frozenset[Kind] = frozenset(), body_start: bytes = b""
) -> Kind:
    """The kind of a message with these fields and this envelope sender.

    ``declared``: the kinds that its connector says it brings. ``body_start``: the beginning of its body, or what a
    :class:`CalendarScan` kept of it; it is looked at only where the header says that there could be an invitation.
    """
    fields: dict[str, list[str]] = {}
    for field in found:
        if field.name in _READ:
            fields.setdefault(field.name, []).append(field.text)
    if not fields:
        return Kind.ORDINARY
    present = fields.keys()
    types = fields.get("content-type", [])
    content = types[0] if len(types) == 1 else ""
    report = _parameter(content, "report-type") if _type_of(content) == "multipart/report" else ""
    if Kind.JOURNAL in declared and present & _JOURNAL:
        return Kind.JOURNAL
    if sender is None and (report == "delivery-status" or present & _OLD_DSN):
        return Kind.DSN
    if report == "disposition-notification":
        return Kind.RECEIPT
    if _is_calendar(content, fields, body_start):
        return Kind.CALENDAR
    if _is_auto_reply(fields, sender):
        return Kind.AUTO_REPLY
    if present & _LIST or _words(fields, "precedence") & {"bulk", "list"}:
        return Kind.LIST
    return Kind.ORDINARY


class CalendarScan:
    """Looks through a body, as it comes, for a calendar part; keeps some octets of it at most.

    ``wanted`` tells whether there is a reason to go on: the header speaks of parts, none was found yet, and the limit
    of what is searched is not reached.
    """

    __slots__ = ("_left", "_tail", "found", "wanted")

    def __init__(self, fields: Sequence[Field]) -> None:
        types = [field.text for field in fields if field.name == "content-type"]
        self.wanted = len(types) == 1 and types[0].lstrip()[:10].lower() == "multipart/"
        #: The header block of the calendar part, for :func:`kind_of`; empty until it was found.
        self.found = b""
        self._tail = b"\r\n"
        self._left = _SEARCHED

    def feed(self, piece: bytes) -> None:
        """The next octets of the body, the empty line before it included or not."""
        if not self.wanted:
            return
        data = self._tail + piece
        self.found = _calendar_part(data)
        self._left -= len(piece)
        self.wanted = not self.found and self._left > 0
        self._tail = data[-_KEPT:]


def _calendar_part(data: bytes) -> bytes:
    """The header block of a part that is text/calendar with a method, its delimiter before it; empty without one."""
    data = data.lower()
    place = 0
    for _ in range(_MOST_PLACES):
        place = data.find(_CALENDAR, place)
        if place < 0:
            break
        end = place + len(_CALENDAR)
        start = data.rfind(b"\r\n--", max(place - _KEPT, 0), place)
        if start >= 0 and data.find(b"\r\n\r\n", start, place) < 0:
            blank = data.find(b"\r\n\r\n", end, end + _KEPT)
            block = data[start : end + _KEPT if blank < 0 else blank]
            field = _CALENDAR_FIELD.search(block)
            if field is not None and _METHOD.search(_field_rest(block, field.end())):
                return block
        place = end
    return b""


def _field_rest(block: bytes, position: int) -> bytes:
    """From here to the end of the field, its continuation lines included."""
    end = _FIELD_END.search(block, position)
    return block[position:] if end is None else block[position : end.start()]


def _parameter(value: str, name: str) -> str:
    """A parameter of a content type, in lower case."""
    header = MimeHeader()
    header["Content-Type"] = value
    found = header.get_param(name, "")
    return found.lower() if isinstance(found, str) else ""


def _is_calendar(content: str, fields: dict[str, list[str]], body_start: bytes) -> bool:
    kind = _type_of(content)
    if kind == "text/calendar":
        return bool(_parameter(content, "method"))
    if kind.startswith("multipart/") and kind not in ("multipart/report", "multipart/encrypted"):
        return bool(body_start) and bool(_calendar_part(b"\r\n" + body_start))
    # An invitation in Outlook's own form: a TNEF part as the whole message.
    said = _words(fields, "content-class") & {"urn:content-classes:calendarmessage"}
    return kind == "application/ms-tnef" and bool(said)


def _type_of(content: str) -> str:
    return content.partition(";")[0].strip().lower()


def _is_auto_reply(fields: dict[str, list[str]], sender: Address | None) -> bool:
    submitted = {word.partition(";")[0].strip() for word in _words(fields, "auto-submitted")}
    if "auto-replied" in submitted:
        return True
    if "auto-generated" in submitted and (sender is None or fields.keys() & _REFERS):
        return True
    return bool(fields.keys() & _VACATION) or "auto_reply" in _words(fields, "precedence")


def _words(fields: dict[str, list[str]], name: str) -> set[str]:
    """Each value of these fields, less comments, in lower case."""
    return {_COMMENT.sub("", value).strip().lower() for value in fields.get(name, ())}
