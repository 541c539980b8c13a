"""A message: its page, its text in a frame of its own, its files, itself as a file.

That it is read is written down before any of it is shown; text and files are given out only after that. A browser that
asks on suspicion (HEAD, a prefetch) opens nothing. The text is a document of its own under ``sandbox``: see
``gateway.portal.reading``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from starlette.responses import HTMLResponse, Response, StreamingResponse

from gateway.errors import StoreError
from gateway.portal.mailbox import Entry, Mailbox
from gateway.portal.pages.contents import CannotShow, Contents
from gateway.portal.pages.frame import dress, gone, reader_of, wanted_entry
from gateway.portal.pages.shown import day, moment, size
from gateway.portal.reading import (
    HEADERS,
    Answer,
    File,
    View,
    attachment_answer,
    files_of,
    message_answer,
    part_octets,
)
from gateway.portal.reading.document import CSP
from gateway.portal.reading.heading import heading_of
from gateway.web import Access, Refused, Route, Visit

__all__ = ["Reading"]

_log = structlog.get_logger()

_MOST_DIGITS: Final = 6
_FILE_POLICY: Final = "sandbox; default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Reading:
    """Pages of one message."""

    mailbox: Mailbox
    contents: Contents

    def routes(self) -> list[Route]:
        """``/read/{id}`` and what is below it."""
        session = Access.session()
        path, policy = "/read/{id}", _FILE_POLICY
        return [
            Route(path=path, name="read", handler=self.page, access=session),
            Route(path=f"{path}/body", name="body", handler=self.body, access=session, policy=CSP),
            Route(path=f"{path}/part/{{part}}", name="part", handler=self.part, access=session, policy=policy),
            Route(path=f"{path}/message", name="download", handler=self.download, access=session, policy=policy),
        ]

    async def page(self, visit: Visit) -> Response:
        """Header block, files, and a frame for the text."""
        entry = await wanted_entry(visit, self.mailbox)
        if entry is None:
            return gone(visit, self.mailbox)
        if not entry.open:
            return visit.redirect("phrase", id=entry.deposit.id)
        if visit.is_head:
            return HTMLResponse()
        if is_prefetch(visit):
            raise Refused(503, "a prefetch opens nothing")
        try:
            if not await self.mailbox.open(reader_of(visit).session, entry, visit.client.network):
                return gone(visit, self.mailbox)
            view = await self.contents.view(entry)
        except (StoreError, CannotShow) as error:
            raise _unreadable(entry, error) from error
        may_reply = entry.deposit.sender is not None
        dress(visit, self.mailbox, entry.face)
        return visit.page("read.html", id=entry.deposit.id, may_reply=may_reply, **_values(visit, entry, view))

    async def body(self, visit: Visit) -> Response:
        """The text, under its own policy."""
        entry = await self._opened(visit)
        if entry is None:
            return gone(visit, self.mailbox)
        try:
            view = await self.contents.view(entry)
        except (StoreError, CannotShow) as error:
            raise _unreadable(entry, error) from error
        return Response(view.document.content, headers=HEADERS)

    async def part(self, visit: Visit) -> Response:
        """A file of the message."""
        entry = await self._opened(visit)
        number = visit.parameter("part")
        if entry is None or len(number) > _MOST_DIGITS or not (number.isascii() and number.isdigit()):
            return gone(visit, self.mailbox)
        try:
            content, index = await self.contents.indexed(entry)
        except (StoreError, CannotShow) as error:
            raise _unreadable(entry, error) from error
        part = index.part(int(number))
        if part is None:
            return gone(visit, self.mailbox)
        asked, condition = _range(visit)
        answer = attachment_answer(
            part,
            files_of(index)[part.number].name,
            tag=f"{entry.deposit.message}-{entry.edits.key}-{part.number}",
            range_header=asked,
            if_range=condition,
        )
        facts: dict[str, object] = {"part": part.number}
        return await self._give(visit, entry, answer, part_octets(part, content.read, answer.start, answer.end), facts)

    async def download(self, visit: Visit) -> Response:
        """The message as a file: octet for octet as it was accepted, but for what policy changes."""
        entry = await self._opened(visit)
        if entry is None:
            return gone(visit, self.mailbox)
        try:
            content, index = await self.contents.indexed(entry)
        except (StoreError, CannotShow) as error:
            raise _unreadable(entry, error) from error
        asked, condition = _range(visit)
        answer = message_answer(
            content.size,
            heading_of(index.header).subject,
            tag=f"{entry.deposit.message}-{entry.edits.key}",
            range_header=asked,
            if_range=condition,
        )
        return await self._give(visit, entry, answer, content.read(answer.start, answer.end), {})

    async def _opened(self, visit: Visit) -> Entry | None:
        """The entry, where its page was opened before: nothing is shown that was not written down."""
        entry = await wanted_entry(visit, self.mailbox)
        return entry if entry is not None and entry.open and entry.deposit.opened is not None else None

    async def _give(
        self, visit: Visit, entry: Entry, answer: Answer, octets: AsyncIterator[bytes], facts: dict[str, object]
    ) -> Response:
        if visit.is_head or answer.start >= answer.end:
            return Response(status_code=answer.status, headers=answer.headers)
        if answer.start == 0:  # the rest of a download that broke off is the same one
            await self.mailbox.note(entry, "downloaded", {"network": visit.client.network, **facts})
            self.mailbox.observer.happened("downloaded")
        return StreamingResponse(octets, answer.status, answer.headers)


def is_prefetch(visit: Visit) -> bool:
    """Whether a browser asks on suspicion that its user may (Fetch, ``Sec-Purpose``; older: ``Purpose``)."""
    headers = visit.request.headers
    return any("prefetch" in headers.get(name, "").lower() for name in ("sec-purpose", "purpose", "x-moz"))


def _range(visit: Visit) -> tuple[str | None, str | None]:
    return visit.request.headers.get("range"), visit.request.headers.get("if-range")


def _unreadable(entry: Entry, error: Exception) -> Refused:
    _log.error("portal_unreadable", message=entry.deposit.message, error=str(error))
    return Refused(503, f"cannot be read: {error}")


def _values(visit: Visit, entry: Entry, view: View) -> dict[str, Any]:
    """What the page says, in the reader's language."""
    translate, heading = visit.translate, view.heading
    return {
        "subject": heading.subject,
        "people": [
            (translate("From"), heading.sender),
            (translate("To"), heading.to),
            (translate("Cc"), heading.cc),
        ],
        "date": "" if heading.date is None else moment(heading.date, visit.language),
        "until": day(entry.deposit.expires, visit.language),
        "files": [_file(visit, each) for each in view.files],
        "is_empty": view.is_empty,
        "notes": list(_notes(visit, view)),
    }


def _file(visit: Visit, file: File) -> dict[str, object]:
    return {
        "number": str(file.number),
        "name": file.name,
        "size": size(file.size, visit.language),
        "appointment": _appointment(file),
    }


def _appointment(file: File) -> str:
    found = file.appointment
    if found is None:
        return ""
    times = " – ".join(time for time in (found.start, found.end) if time)
    return ", ".join(text for text in (found.summary, times, found.location) if text)


def _notes(visit: Visit, view: View) -> list[str]:
    """What is not as its sender made it."""
    translate = visit.translate
    found = []
    if view.remote_pictures:
        found.append(translate("Pictures from the Internet are not shown: they would tell others that you read this."))
    if view.missing_pictures:
        found.append(translate("Some pictures of the message are too large, or of a kind that is not shown."))
    if view.is_simplified:
        found.append(translate("The layout of this message is too complicated to be shown; this is its text."))
    if view.too_large:
        found.append(translate("The text is too long to be shown as a whole; it is among the attachments."))
    if view.is_cut:
        found.append(translate("This message has more parts than are shown. Save the message to see all of them."))
    return found
