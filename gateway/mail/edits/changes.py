"""What policy wants changed in a message, as a value: header fields, subject, footers. ``rendering`` carries it out.

The kinds of change have one fixed order, whatever order rules are written in: ``strip_tag``, ``remove_header``,
``add_header``, ``replace_subject``, ``prepend_subject``, ``footer``. So what is removed and added is replaced, a tag is
gone before anything is put in front of the subject, and no rule undoes what another one put there.

Nothing that could not stand in a header field can be in here: values with line ends or other control characters, and
fields that hold a message together or are ours to write, are refused when an :class:`Edits` is made.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from gateway.jsontext import to_json

__all__ = ["NO_EDITS", "ONCE", "Change", "EditError", "Edits", "Footer", "combined"]

#: RFC 5322 section 3.6.8; the length leaves room for a value on the same line.
_NAME = re.compile(r"[!-9;-~]{1,70}\Z")
#: Control characters but tab, and what cannot be written as UTF-8.
_FORBIDDEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
#: The same for a footer, which has lines.
_FORBIDDEN_IN_LINES = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_VALUE = 2000
_LONGEST_FOOTER = 50_000
_LONGEST_TOKEN = 900

# What is refused here may become less from version to version, never more: stored mail keeps its edits, and has to be
# readable.
#: What tells a reader's program how to read the message, and what a message must have (RFC 5322 section 3.6).
_STRUCTURE = frozenset({"content-type", "content-transfer-encoding", "mime-version"})
_NEEDED = frozenset({"from", "date"})
#: Written by the sender's program, once; or by relays, as a record of what happened.
_NOT_TO_ADD = frozenset(
    {
        *_STRUCTURE,
        *_NEEDED,
        "sender",
        "to",
        "cc",
        "bcc",
        "subject",
        "message-id",
        "received",
        "return-path",
        "dkim-signature",
        "domainkey-signature",
    }
)
_NOT_TO_ADD_PREFIXES = ("arc-", "resent-", "content-", "x-gateway-")
_NOT_TO_REMOVE_PREFIXES = ("x-gateway-",)
#: Fields that may stand once only: an added one takes the place of those that are there. Addresses and ids, so ASCII.
ONCE = frozenset({"reply-to", "in-reply-to", "references"})


class EditError(ValueError):
    """A change that could not be carried out on every message; the text says why, in words for a policy's author."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change, in words: ``action`` is its kind, ``detail`` what it is about.

    ``done``: True where it was carried out, False where it was left out (``detail`` then says why), None where it is
    only planned.
    """

    action: str
    detail: str
    done: bool | None = None

    def carried_out(self) -> Change:
        """The same, done."""
        return Change(self.action, self.detail, done=True)

    def as_json(self) -> dict[str, Any]:
        """``{"action", "detail", "done"}``."""
        return {"action": self.action, "detail": self.detail, "done": self.done}


@dataclass(frozen=True, slots=True)
class Footer:
    """Text for the end of a message's body; lines end with LF or CRLF. ``html``: made from the text unless given.

    Raises :class:`EditError`.
    """

    text: str
    html: str = ""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise EditError("a footer needs a text: not every reader shows HTML")
        for value in (self.text, self.html):
            if len(value) > _LONGEST_FOOTER:
                raise EditError(f"a footer may have {_LONGEST_FOOTER} characters")
            if _FORBIDDEN_IN_LINES.search(value):
                raise EditError("a footer must not hold control characters")

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of the text, less empty ones at both ends."""
        return tuple(re.split(r"\r\n?|\n", self.text.strip("\r\n")))

    @property
    def markup(self) -> str:
        """The HTML; lines end with CRLF."""
        if self.html:
            return "\r\n".join(re.split(r"\r\n?|\n", self.html.strip("\r\n")))
        return "<div>" + "<br>\r\n".join(html.escape(line, quote=False) for line in self.lines) + "</div>"

    def as_json(self) -> dict[str, str]:
        """``{"text", "html"}``."""
        return {"text": self.text, "html": self.html}


@dataclass(frozen=True, slots=True)
class Edits:
    """All changes to a message for a recipient; false where there is none. Raises :class:`EditError`.

    ``strip_tags`` are taken out of the subject in the forms that a condition ``subject: {tag: ...}`` finds.
    ``remove_headers`` are names in lower case. ``add_headers`` are names and values, in order; a field that is there
    with this value already is not added again. ``replace_subject`` None leaves the subject; "" empties it.
    ``prepend_subject`` stand in this order before it, where it does not begin so already.
    """

    strip_tags: frozenset[str] = frozenset()
    remove_headers: frozenset[str] = frozenset()
    add_headers: tuple[tuple[str, str], ...] = ()
    replace_subject: str | None = None
    prepend_subject: tuple[str, ...] = ()
    footers: tuple[Footer, ...] = ()
    _key: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for tag in self.strip_tags:
            _check(tag, "a tag", empty=False)
        for name in self.remove_headers:
            _check_removal(name)
        for name, value in self.add_headers:
            _check_addition(name, value)
        _check(self.replace_subject or "", "a subject")
        for text in self.prepend_subject:
            _check(text, "what stands before a subject", empty=False)
        if self:
            object.__setattr__(self, "_key", sha256(to_json(self.as_json()).encode()).hexdigest()[:24])

    def __bool__(self) -> bool:
        return bool(
            self.strip_tags
            or self.remove_headers
            or self.add_headers
            or self.replace_subject is not None
            or self.prepend_subject
            or self.footers
        )

    @property
    def key(self) -> str:
        """The same for equal changes, and for no others; "" where there is none."""
        return self._key

    @property
    def conceals(self) -> bool:
        """Whether something is taken out, so that the message must not leave as it is where this fails."""
        return bool(self.strip_tags or self.remove_headers or self.replace_subject is not None)

    def planned(self) -> tuple[Change, ...]:
        """Each change as a plan, in the order in which they are carried out."""
        return (
            *(Change("strip_tag", tag) for tag in sorted(self.strip_tags)),
            *(Change("remove_header", name) for name in sorted(self.remove_headers)),
            *(Change("add_header", name) for name, _ in self.add_headers),
            *((Change("replace_subject", ""),) if self.replace_subject is not None else ()),
            *(Change("prepend_subject", text) for text in self.prepend_subject),
            *(Change("footer", _beginning(footer)) for footer in self.footers),
        )

    def as_json(self) -> dict[str, Any]:
        """A plain form; what is not to be changed does not stand in it."""
        data: dict[str, Any] = {}
        if self.strip_tags:
            data["strip_tags"] = sorted(self.strip_tags)
        if self.remove_headers:
            data["remove_headers"] = sorted(self.remove_headers)
        if self.add_headers:
            data["add_headers"] = [list(pair) for pair in self.add_headers]
        if self.replace_subject is not None:
            data["replace_subject"] = self.replace_subject
        if self.prepend_subject:
            data["prepend_subject"] = list(self.prepend_subject)
        if self.footers:
            data["footers"] = [footer.as_json() for footer in self.footers]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> Edits:
        """The inverse of :meth:`as_json`; None is no change."""
        if not data:
            return NO_EDITS
        return cls(
            strip_tags=frozenset(data.get("strip_tags", ())),
            remove_headers=frozenset(data.get("remove_headers", ())),
            add_headers=tuple((name, value) for name, value in data.get("add_headers", ())),
            replace_subject=data.get("replace_subject"),
            prepend_subject=tuple(data.get("prepend_subject", ())),
            footers=tuple(Footer(each["text"], each["html"]) for each in data.get("footers", ())),
        )


def combined(parts: Iterable[Edits]) -> Edits:
    """All of these, in their order; where several replace the subject, the first does."""
    found = [part for part in parts if part]
    if len(found) <= 1:
        return found[0] if found else NO_EDITS
    return Edits(
        strip_tags=frozenset().union(*(part.strip_tags for part in found)),
        remove_headers=frozenset().union(*(part.remove_headers for part in found)),
        add_headers=tuple(dict.fromkeys(pair for part in found for pair in part.add_headers)),
        replace_subject=next((part.replace_subject for part in found if part.replace_subject is not None), None),
        prepend_subject=tuple(dict.fromkeys(text for part in found for text in part.prepend_subject)),
        footers=tuple(dict.fromkeys(footer for part in found for footer in part.footers)),
    )


def _beginning(footer: Footer) -> str:
    """Enough of a footer to know which one it is."""
    line = footer.lines[0]
    return line if len(line) <= 60 else f"{line[:57]}..."


def _check(text: str, what: str, *, empty: bool = True) -> None:
    if not empty and not text.strip():
        raise EditError(f"{what} must not be empty")
    if len(text) > _LONGEST_VALUE:
        raise EditError(f"{what} may have {_LONGEST_VALUE} characters")
    if _FORBIDDEN.search(text):
        raise EditError(f"{what} must not hold line ends or other control characters")


def _check_removal(name: str) -> None:
    if not _NAME.match(name) or name != name.lower():
        raise EditError(f"{name!r} is not the name of a header field in lower case")
    if name in _STRUCTURE | _NEEDED or name.startswith(_NOT_TO_REMOVE_PREFIXES):
        raise EditError(f"the field {name} cannot be removed: a message is none without it, or it is the gateway's own")


def _check_addition(name: str, value: str) -> None:
    if not _NAME.match(name):
        raise EditError(f"{name!r} is not the name of a header field")
    lower = name.lower()
    if lower in _NOT_TO_ADD or lower.startswith(_NOT_TO_ADD_PREFIXES):
        raise EditError(f"the field {name} cannot be added: it is for the sender's program or a relay to write")
    _check(value, f"the value of {name}")
    if lower in ONCE and (not value.isascii() or any(len(token) > _LONGEST_TOKEN for token in value.split())):
        raise EditError(
            f"the value of {name} must be ASCII in words that fit a line: it holds addresses or message ids"
        )


NO_EDITS = Edits()
"""Nothing is to be changed."""
