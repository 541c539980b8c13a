"""An answer to the sender: text and files, sealed as they arrive. It is kept durably before the page says so."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.responses import Response

from gateway.errors import StoreError
from gateway.portal.mailbox import Entry, Mailbox
from gateway.portal.pages.contents import CannotShow, Contents
from gateway.portal.pages.frame import dress, gone, reader_of, wanted_entry
from gateway.portal.pages.shown import size
from gateway.portal.reading.heading import heading_of
from gateway.portal.replies import MAX_TEXT, Attachment, ReplyWriter
from gateway.web import Access, Field, FormLimits, Refused, Route, Upload, Visit

__all__ = ["Replying"]

_log = structlog.get_logger()

#: Files of a reply; octets of all together.
_MOST_FILES: Final = 20
_MOST_OCTETS: Final = 25_000_000
#: More than that is not even read to its end, so that the page could say why.
_BODY: Final = 40_000_000
#: Fields before and beside the files: the form's token, the text, a file field that was left empty.
_LIMITS: Final = FormLimits(parts=_MOST_FILES + 20, field_bytes=4 * MAX_TEXT + 1000, upload_bytes=_BODY)
_HEADER_LINE: Final = re.compile(rb"\n(message-id|references)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.IGNORECASE)


class _NotTaken(Exception):
    """The reply is not as it should be; the text says why, to its author."""

    def __init__(self, problem: str, status: int = 422) -> None:
        super().__init__(problem)
        self.status = status


class _TooLarge(Exception):
    """The files are too large together."""


@dataclass(slots=True)
class _Draft:
    """What has come of a reply so far."""

    writer: ReplyWriter
    text: str = ""
    begun: bool = False
    files: int = 0
    octets: int = 0


@dataclass(frozen=True, slots=True)
class Replying:
    """Pages of an answer."""

    mailbox: Mailbox
    contents: Contents

    def routes(self) -> list[Route]:
        """``/read/{id}/reply``."""
        path, session = "/read/{id}/reply", Access.session()
        return [
            Route(path=path, name="reply", handler=self.form, access=session),
            Route(path=path, name="send_reply", handler=self.send, access=session, method="POST", body=_BODY),
            Route(path="/read/{id}/replied", name="replied", handler=self.replied, access=session),
        ]

    async def form(self, visit: Visit) -> Response:
        """Text and files to be entered."""
        entry = await self._answerable(visit)
        if entry is None:
            return gone(visit, self.mailbox)
        return await self._page(visit, entry)

    async def send(self, visit: Visit) -> Response:
        """Send it: durable before the browser hears so. What was typed is shown again where it is not taken."""
        entry = await self._answerable(visit)
        if entry is None:
            return gone(visit, self.mailbox)
        session = reader_of(visit).session
        if not await self.mailbox.may_reply(session):
            problem = visit.translate("You have sent many replies. Please wait an hour.")
            return await self._page(visit, entry, problem, status=429)
        text = ""
        try:
            draft = _Draft(await self._begin(entry))
            try:
                await self._receive(visit, draft)
                await self.mailbox.send_reply(session, entry, draft.writer)
            except BaseException:
                text = draft.text
                await draft.writer.abort()
                raise
        except _NotTaken as refused:
            return await self._page(visit, entry, str(refused), text, status=refused.status)
        except (StoreError, CannotShow) as error:
            _log.error("portal_reply_failed", message=entry.deposit.message, error=str(error))
            problem = visit.translate("It could not be sent: we cannot keep it safely now. Please try again later.")
            return await self._page(visit, entry, problem, text, status=503)
        return visit.redirect("replied", id=entry.deposit.id)

    async def replied(self, visit: Visit) -> Response:
        """It is on its way."""
        entry = await self._answerable(visit)
        if entry is None:
            return gone(visit, self.mailbox)
        return visit.page("replied.html", id=entry.deposit.id, sender=entry.deposit.sender)

    async def _answerable(self, visit: Visit) -> Entry | None:
        """The entry, where its reader has opened it and there is somebody to answer to."""
        entry = await wanted_entry(visit, self.mailbox)
        if entry is None or not entry.open or entry.deposit.opened is None or entry.deposit.sender is None:
            return None
        return entry

    async def _begin(self, entry: Entry) -> ReplyWriter:
        _, index = await self.contents.indexed(entry)
        found = {name.lower(): value for name, value in reversed(_HEADER_LINE.findall(b"\n" + index.header))}
        message_id, references = (
            " ".join(found.get(name, b"").decode("ascii", "replace").split()) for name in (b"message-id", b"references")
        )
        return self.mailbox.begin_reply(entry, heading_of(index.header).subject, message_id, references)

    async def _receive(self, visit: Visit, draft: _Draft) -> None:
        """Write what arrives. The text stands before the files in the form, as in the mail."""
        too_much = ""
        async for part in visit.parts(_LIMITS):
            if isinstance(part, Field):
                if part.name == "text" and not draft.begun:
                    draft.text, draft.begun = part.value, True
                    if len(draft.text) > MAX_TEXT:
                        too_much = visit.translate("The text is too long. Please send it as a file.")
                    else:
                        await draft.writer.begin(draft.text)
            elif part.filename and not too_much:
                too_much = await self._attach(visit, draft, part)
        if too_much:
            raise _NotTaken(too_much, 413)
        if not draft.text.strip() and not draft.files:
            raise _NotTaken(visit.translate("There is nothing to send yet. Please write a text, or choose a file."))

    async def _attach(self, visit: Visit, draft: _Draft, upload: Upload) -> str:
        """Why this file is too much; "" where it is not. What is too much is read to its end, and thrown away."""
        if not draft.begun:
            raise Refused(400, "a reply without a text field")
        draft.files += 1
        if draft.files > _MOST_FILES:
            return visit.translate("These are too many files. Please choose fewer, or pack them into one.")
        left = _MOST_OCTETS - draft.octets
        try:
            draft.octets += await draft.writer.attach(
                Attachment(upload.filename, upload.content_type, _at_most(upload, left))
            )
        except _TooLarge:
            return visit.translate("These files are too large together. Please choose fewer, and choose them again.")
        return ""

    async def _page(
        self, visit: Visit, entry: Entry, problem: str = "", text: str = "", *, status: int = 200
    ) -> Response:
        dress(visit, self.mailbox, entry.face)
        try:
            _, index = await self.contents.indexed(entry)
            subject = heading_of(index.header).subject
        except (StoreError, CannotShow):
            subject = ""
        return visit.page(
            "reply.html",
            status=status,
            problem=problem,
            id=entry.deposit.id,
            sender=entry.deposit.sender,
            subject=subject if subject.lower().startswith("re:") else f"Re: {subject}".strip(),
            text=text[:MAX_TEXT],
            most_text=MAX_TEXT,
            most_files=_MOST_FILES,
            most_size=size(_MOST_OCTETS, visit.language),
        )


async def _at_most(upload: Upload, most: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in upload.pieces:
        size += len(piece)
        if size > most:
            raise _TooLarge
        yield piece
