"""The header block as a reader sees it: From, To, Cc, Date, Subject.

What stands in the message, and nothing of the envelope: there may be recipients that this one must not learn of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gateway.mail.content.mime import read_entity
from gateway.mail.content.words import decode_words, header_text
from gateway.mail.reply import clean_text
from gateway.portal.reading.names import field_text

__all__ = ["Heading", "People", "Person", "heading_of", "people_of"]

#: More are counted, not shown.
_MAX_PEOPLE = 100
_MAX_FIELD = 65_536
_DATE = re.compile(rb"\ndate[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.IGNORECASE)
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*+)"?|<([^<>]*+)>?|([,;:()])|([^",;:()<]++)', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Person:
    """A mailbox in a field: the name beside the address ("" without one), and the address. Show both: names lie."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class People:
    """Those in a field; ``more`` is how many are not in ``shown``."""

    shown: tuple[Person, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True)
class Heading:
    """``date`` is in UTC, None where the message has none that can be read; ``subject`` "" where there is none."""

    sender: People
    to: People
    cc: People
    date: datetime | None
    subject: str


def heading_of(header: bytes) -> Heading:
    """Read from the header block. Never raises."""
    entity = read_entity(header, 0, len(header))
    dates = _DATE.findall(b"\n" + header)
    return Heading(
        people_of(entity.fields.get("from", ())),
        people_of(entity.fields.get("to", ())),
        people_of(entity.fields.get("cc", ())),
        _moment(dates[0]) if dates else None,
        field_text(entity.first("subject")[:_MAX_FIELD]),
    )


def _moment(value: bytes) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value.decode("latin-1").strip()[:100])
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def people_of(values: list[bytes] | tuple[()]) -> People:
    """The mailboxes of these fields (RFC 5322 section 3.4), read leniently; groups are flattened."""
    shown: list[Person] = []
    more = 0
    for value in values:
        for person in _mailboxes(header_text(value[:_MAX_FIELD]).texts[0]):
            if len(shown) < _MAX_PEOPLE:
                shown.append(person)
            else:
                more += 1
    return People(tuple(shown), more)


def _mailboxes(text: str) -> Iterator[Person]:
    words: list[str] = []
    address, comments, group = "", 0, ""
    for match in _TOKEN.finditer(text):
        quoted, bracketed, mark, plain = match.groups()
        if mark == "(":
            comments += 1
        elif mark == ")":
            comments = max(0, comments - 1)
        elif comments:
            continue
        elif mark in (",", ";"):
            yield from _person(words, address)
            if mark == ";" and group and not words and not address:
                yield Person(group, "")
            words, address = [], ""
            group = "" if mark == ";" else group
        elif mark == ":":
            group, words = _name(words), []
        elif bracketed is not None:
            address = address or bracketed.rpartition(":")[2]  # an obsolete route stands before the colon
        elif quoted is not None:
            words.append(_QUOTED_PAIR.sub(r"\1", quoted))
        elif plain is not None and not plain.isspace():
            words.append(plain.strip())
    yield from _person(words, address)


def _name(words: list[str]) -> str:
    return clean_text(decode_words(" ".join(words)).texts[0], 200)


def _person(words: list[str], address: str) -> Iterator[Person]:
    address = clean_text("".join(address.split()), 254)
    if address:
        yield Person(_name(words), address)
    elif words:
        joined = "".join(words) if any("@" in word for word in words) else ""
        yield Person("", clean_text(joined, 254)) if joined else Person(_name(words), "")
