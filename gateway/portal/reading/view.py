"""What a reader gets to see of a message: ``gather`` reads the few parts that it takes, ``compose`` makes the view.

Memory: two bodies' worth of text and the pictures in them, whatever the size of the message. ``gather`` waits for the
store and belongs on the event loop; ``compose`` calculates, up to some seconds for a letter made to cost them: give it
to a thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass

from gateway.mail.content.charsets import read_text
from gateway.mail.content.html_text import html_text
from gateway.mail.content.mime import read_entity
from gateway.portal.reading.appointment import APPOINTMENT_LIMIT, Appointment, appointment_of
from gateway.portal.reading.document import Document, document
from gateway.portal.reading.heading import Heading, heading_of
from gateway.portal.reading.html import TooMuch, safe_html
from gateway.portal.reading.names import field_text, file_name, message_name, unique_names
from gateway.portal.reading.parts import MessageIndex, Part, Read
from gateway.portal.reading.pictures import PICTURE_LIMIT, PICTURES_LIMIT, Pictures, picture_type, references
from gateway.portal.reading.plain import plain_html
from gateway.portal.reading.plan import Plan, plan_of
from gateway.portal.reading.structure import Indexer
from gateway.portal.reading.transfer import decoded

__all__ = ["File", "Gathered", "View", "compose", "files_of", "gather", "index_message"]

_CALENDARS = frozenset({"text/calendar", "application/ics"})
_MESSAGES = frozenset({"message/rfc822", "message/global", "message/news"})
_MAX_APPOINTMENTS = 5
_META_CHARSET = re.compile(
    rb"<meta[^>]{0,300}charset\s{0,10}=\s{0,10}[\"']?\s{0,10}([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class File:
    """A part that is offered: ``number`` names it (:meth:`MessageIndex.part`), ``name`` is safe, ``size`` decoded."""

    number: int
    name: str
    media_type: str
    size: int
    appointment: Appointment | None = None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What has been read of a message: octets by the number of the part."""

    index: MessageIndex
    plan: Plan
    bodies: dict[int, bytes]
    pictures: dict[str, bytes]
    calendars: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class View:
    """A message to look at, and what is to be said beside it - outside of the frame, where no letter can write.

    ``remote_pictures``: pictures from the Internet that are not shown. ``missing_pictures``: pictures of the message
    itself that are not. ``is_simplified``: there was more markup than is shown, so only the text is. ``too_large``: a
    text is too long to be shown and is offered as a file. ``is_cut``: there are more parts than are told apart; all is
    in the download of the message. ``is_empty``: there is no text to show.
    """

    heading: Heading
    document: Document
    files: tuple[File, ...]
    remote_pictures: int = 0
    missing_pictures: int = 0
    is_simplified: bool = False
    too_large: bool = False
    is_cut: bool = False
    is_empty: bool = False


async def index_message(read: Read, size: int) -> MessageIndex:
    """One pass over a message of ``size`` octets. Keep what it gives: it is small, and each download asks for it."""
    indexer = Indexer()
    async with aclosing(read(0, size)) as pieces:
        async for piece in pieces:
            indexer.feed(piece)
    return indexer.finish()


async def gather(index: MessageIndex, read: Read) -> Gathered:
    """The texts that are shown, the pictures that they refer to, and small invitations."""
    plan = plan_of(index)
    bodies = {part.number: await _octets(part, read) for part in plan.bodies}
    wanted: set[str] = set()
    for part in plan.bodies:
        if part.media_type == "text/html":
            wanted |= references(_text(part, bodies[part.number]))
    pictures: dict[str, bytes] = {}
    left = PICTURES_LIMIT
    for part in index.parts:
        name = part.content_id
        if (
            name in wanted
            and name not in pictures
            and picture_type(part.head)
            and part.size <= min(PICTURE_LIMIT, left)
        ):
            pictures[name] = await _octets(part, read)
            left -= part.size
    invitations = [part for part in plan.files if part.media_type in _CALENDARS and part.size <= APPOINTMENT_LIMIT]
    calendars = {part.number: await _octets(part, read) for part in invitations[:_MAX_APPOINTMENTS]}
    return Gathered(index, plan, bodies, pictures, calendars)


async def _octets(part: Part, read: Read) -> bytes:
    return b"".join([piece async for piece in decoded(part, read, 0, part.size)])


def compose(gathered: Gathered, *, language: str = "en") -> View:
    """The view. Pure; never raises."""
    index, plan = gathered.index, gathered.plan
    pictures = Pictures(gathered.pictures)
    sections: list[str] = []
    simplified = False
    for part in plan.bodies:
        text = _text(part, gathered.bodies[part.number])
        if part.media_type == "text/html":
            try:
                section = safe_html(text, pictures)
            except TooMuch:
                simplified = True
                section = plain_html(html_text(text).texts[0])
        else:
            section = plain_html(text, flowed=part.flowed, delete_space=part.delete_space)
        if section.strip():
            sections.append(section)
    heading = heading_of(index.header)
    is_plain = simplified or all(part.media_type != "text/html" for part in plan.bodies)
    offered = {part.number for part in plan.files if part.is_attachment or part.content_id not in pictures.used}
    return View(
        heading,
        document(sections, is_plain=is_plain, title=heading.subject, language=language),
        tuple(file for file in _described(index, gathered.calendars) if file.number in offered),
        remote_pictures=pictures.remote,
        missing_pictures=pictures.missing,
        is_simplified=simplified,
        too_large=plan.too_large,
        is_cut=index.is_cut,
        is_empty=not sections,
    )


def files_of(index: MessageIndex) -> dict[int, File]:
    """Every part by its number, with the name that :func:`compose` gives it."""
    return {file.number: file for file in _described(index, {})}


def _described(index: MessageIndex, calendars: dict[int, bytes]) -> Iterator[File]:
    names = unique_names([_name(part) for part in index.parts])
    for part, name in zip(index.parts, names, strict=True):
        calendar = calendars.get(part.number)
        appointment = None if calendar is None else appointment_of(calendar, part.charset)
        yield File(part.number, name, part.media_type, part.size, appointment)


def _name(part: Part) -> str:
    raw = part.name
    if part.media_type in _MESSAGES:
        subject = read_entity(part.head, 0, len(part.head)).first("subject")
        raw = raw or message_name(field_text(subject, 100))
    return file_name(raw, part.media_type, part.number)


def _text(part: Part, octets: bytes) -> str:
    """The likeliest reading; HTML may name its own charset where the header does not."""
    charset = part.charset
    if not charset and part.media_type == "text/html" and not octets.isascii():
        match = _META_CHARSET.search(octets, 0, 4096)
        charset = "" if match is None else match[1].decode("ascii")
    return read_text(octets, charset).texts[0]
