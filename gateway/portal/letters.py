"""What the portal mails to recipients: notices, reminders, sign-in codes. And to senders: access phrases.

A notice carries neither content nor subject: who sent it, one link to the organisation's own host, a code that can be
typed instead, and how to check. No picture, no attachment, nothing that is fetched. All in text and HTML.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from babel.dates import format_date
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from gateway.catalogues import SOURCE, catalogue_for
from gateway.config.model import Settings
from gateway.config.organisations import Organisation, organisation_of
from gateway.mail.address import Address
from gateway.mail.edits.encoded_words import encode_words, fold_field
from gateway.mail.edits.transfer import to_quoted_printable
from gateway.mail.letter import Block, facts, words
from gateway.mail.reply import clean_text
from gateway.portal.names import Names

__all__ = ["Face", "Mail", "about_phrase", "build_code", "build_notice", "face_of", "shown_typed"]

_TEMPLATES = Path(__file__).parent / "templates"
_COLOUR = "#1f4e79"
_WIDTH = 72


def translate(text: str) -> str:
    """Marks a text for the catalogues; it is said in the language of the mail."""
    return text


_NOTICE = translate("You have a secure message from %(organisation)s")
_REMINDER = translate("Reminder: a secure message from %(organisation)s")
_CODE = translate("Your code for %(organisation)s")


@dataclass(frozen=True, slots=True)
class Face:
    """The organisation as a recipient sees it. ``sender`` is the From of its mail, ``host`` the portal's, shown."""

    name: str
    sender: Address
    contact: str
    language: str
    colour: str
    url: str

    @property
    def host(self) -> str:
        """The portal's host as people type it."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True, slots=True)
class Mail:
    """One message of ours: header and body, CRLF line ends, ASCII."""

    subject: str
    data: bytes
    text: str = field(repr=False, default="")
    html: str = field(repr=False, default="")


def face_of(settings: Settings, domain: str) -> Face:
    """What recipients of mail from this domain see. ``portal.url`` is set."""
    known: Organisation = organisation_of(settings.portal.organisations, domain)
    local = settings.local
    own = settings.postmaster if local.domain is None else Address.parse(f"{local.notices}@{local.domain}")
    return Face(
        name=known.name or domain,
        sender=known.sender or own,
        contact=known.contact or "",
        language=known.language,
        colour=known.colour or _COLOUR,
        url=(settings.portal.url or "").rstrip("/"),
    )


def shown_typed(typed: str) -> str:
    """A typed code as people read it: in two groups."""
    return f"{typed[:4]}-{typed[4:]}"


def build_notice(  # noqa: PLR0917  what a notice says
    face: Face, names: Names, message: str, n: int, to: Address, sender: str, expires: float, mail: Stamp,
    *, reminder: bool = False,
) -> Mail:  # fmt: skip
    """The mail that tells of a deposit; ``expires`` in epoch seconds, ``reminder`` where it is not the first."""
    subject = _say(face, _REMINDER if reminder else _NOTICE, organisation=face.name)
    values = {
        "title": subject,
        "sender": clean_text(sender, 320),
        "link": f"{face.url}/m/{names.token(message, n)}",
        "typed": shown_typed(names.typed(message, n)),
        "until": _day(expires, face.language),
        "reminder": reminder,
    }
    return _mail(face, "notice", subject, to, values, mail)


def build_code(face: Face, to: Address, code: str, reference: str, minutes: int, mail: Stamp) -> Mail:
    """The mail with a sign-in code. The code stands in the body alone: subjects are shown on locked screens."""
    subject = _say(face, _CODE, organisation=face.name)
    values = {"title": subject, "code": code, "reference": reference, "minutes": minutes}
    return _mail(face, "code", subject, to, values, mail)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Id, host and time (epoch seconds) of a mail."""

    id: str
    hostname: str
    now: float


def _mail(face: Face, template: str, subject: str, to: Address, values: dict[str, object], stamp: Stamp) -> Mail:
    environment = _environment(face.language)
    common = {
        "organisation": clean_text(face.name, 80),
        "contact": clean_text(face.contact, 120),
        "colour": face.colour,
        "host": face.host,
        "url": face.url,
        "language": face.language,
        **values,
    }
    text = _wrapped(environment.get_template(f"mail/{template}.txt").render(common))
    html = environment.get_template(f"mail/{template}.html").render(common)
    return Mail(subject, _message(face, subject, to, text, html, stamp), text, html)


@cache
def _environment(language: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_translations(catalogue_for(language, "gateway.portal")[1], newstyle=True)  # type: ignore[attr-defined]
    return environment


def _say(face: Face, text: str, **values: str) -> str:
    """A text of ours in the organisation's language, as far as there is a catalogue of it."""
    _, translations = catalogue_for(face.language, "gateway.portal")
    return str(translations.gettext(text)) % values


def _wrapped(text: str) -> str:
    """Paragraphs in lines of 72; what is indented - a link, a code - stays whole, and stands alone."""
    blocks = [block for block in re.split(r"\n{2,}", text.strip("\n")) if block.strip()]
    lines = [
        block if block.startswith(" ") else textwrap.fill(block, _WIDTH, break_long_words=False, break_on_hyphens=False)
        for block in blocks
    ]
    return "\n\n".join(lines) + "\n"


def _message(face: Face, subject: str, to: Address, text: str, html: str, stamp: Stamp) -> bytes:
    boundary = f"=_{stamp.id}"
    name = clean_text(face.name, 80).replace("\\", "").replace('"', "")
    shown = f'"{name}"' if name.isascii() else encode_words(name, used=len("From: "))
    header = [
        f"From: {shown} <{face.sender}>",
        f"To: <{to}>",
        fold_field("Subject", clean_text(subject, 200)).decode("ascii").removesuffix("\r\n"),
        f"Date: {format_datetime(datetime.fromtimestamp(int(stamp.now), UTC))}",
        f"Message-ID: <{stamp.id}@{stamp.hostname}>",
        "Auto-Submitted: auto-generated",
        "X-Auto-Response-Suppress: All",
        f"Content-Language: {face.language}",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"',
    ]
    parts = "".join(
        f"--{boundary}\r\nContent-Type: text/{kind}; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: quoted-printable\r\n\r\n{_encoded(body)}\r\n"
        for kind, body in (("plain", text), ("html", html))
    )
    return ("\r\n".join(header) + f"\r\n\r\n{parts}--{boundary}--\r\n").encode()


def _encoded(body: str) -> str:
    return to_quoted_printable(body.replace("\r\n", "\n").replace("\n", "\r\n").encode()).decode("ascii")


def _day(seconds: float, language: str = SOURCE) -> str:
    """A day as people write it, UTC; the last one on which all of it can be read."""
    tag, _ = catalogue_for(language, "gateway.portal")
    pattern = "d MMMM y" if tag == SOURCE else "long"
    return str(format_date(datetime.fromtimestamp(seconds, UTC), pattern, locale=tag.replace("-", "_")))


def about_phrase(recipient: str, phrase: str, expires: float, reason: str) -> tuple[str, tuple[Block, ...]]:
    """The letter to a sender whose recipient cannot be sent a code safely enough. The phrase stands on a line alone."""
    return (
        "An access phrase for a message that you sent",
        (
            words(
                "A message that you sent lies in the secure portal. To read it the recipient needs these words, beside "
                "a code that is mailed to them. Please tell them by phone, or in person - not by mail:"
            ),
            (f"  {phrase}",),
            facts({"Recipient": recipient, "Until": _day(expires)}),
            words(f"Why: {reason} A code alone is worth no more than the way that it travels."),
        ),
    )
