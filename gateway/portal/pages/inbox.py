"""What lies there for a reader, and the words that open what a code alone does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from gateway.portal.letters import Face
from gateway.portal.mailbox import Entry, Mailbox
from gateway.portal.pages.contents import Contents
from gateway.portal.pages.frame import dress, gone, reader_of, wanted_entry
from gateway.portal.pages.shown import day
from gateway.web import Access, Route, Visit

__all__ = ["Inbox"]

#: Entries on the page, the newest.
_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class _Line:
    """One entry as it is listed."""

    link: str
    organisation: str
    sender: str
    subject: str
    day: str
    until: str
    unread: bool
    locked: bool


@dataclass(frozen=True, slots=True)
class Inbox:
    """Pages of who is signed in."""

    mailbox: Mailbox
    contents: Contents

    def routes(self) -> list[Route]:
        """``/inbox`` and ``/phrase/{id}``."""
        session = Access.session()
        phrase = "/phrase/{id}"
        return [
            Route(path="/inbox", name="inbox", handler=self.inbox, access=session),
            Route(path=phrase, name="phrase", handler=self.phrase, access=session),
            Route(path=phrase, name="enter_phrase", handler=self.enter_phrase, access=session, method="POST"),
            Route(path=f"{phrase}/ask", name="ask_phrase", handler=self.ask_phrase, access=session, method="POST"),
        ]

    async def inbox(self, visit: Visit) -> Response:
        """All that can be read at this address."""
        entries = await self.mailbox.inbox(reader_of(visit).session)
        dress(visit, self.mailbox, _common_face(entries), here="inbox")
        lines = [await self._line(visit, entry) for entry in entries[:_MOST]]
        return visit.page("inbox.html", entries=lines, more=max(len(entries) - _MOST, 0))

    async def _line(self, visit: Visit, entry: Entry) -> _Line:
        deposit = entry.deposit
        return _Line(
            link=visit.url("read" if entry.open else "phrase", id=deposit.id),
            organisation=entry.face.name,
            sender=deposit.sender or "",
            # A subject is content: it is shown once the message was opened, and where this sign-in is enough.
            subject=await self.contents.subject(entry) if entry.open and deposit.opened is not None else "",
            day=day(deposit.received, visit.language),
            until=day(deposit.expires, visit.language),
            unread=deposit.opened is None,
            locked=not entry.open,
        )

    async def phrase(self, visit: Visit) -> Response:
        """A field for the words, or a button that has them made."""
        entry = await wanted_entry(visit, self.mailbox)
        if entry is None:
            return gone(visit, self.mailbox)
        if entry.open:
            return visit.redirect("read", id=entry.deposit.id)
        return _phrase_page(visit, entry)

    async def ask_phrase(self, visit: Visit) -> Response:
        """Have words made and sent to the sender."""
        await visit.fields()
        entry = await wanted_entry(visit, self.mailbox)
        if entry is None:
            return gone(visit, self.mailbox)
        await self.mailbox.ask_phrase(reader_of(visit).session, entry)
        return visit.redirect("phrase", id=entry.deposit.id)

    async def enter_phrase(self, visit: Visit) -> Response:
        """Open an entry by its words."""
        text = (await visit.fields()).get("phrase", "")
        entry = await wanted_entry(visit, self.mailbox)
        if entry is None:
            return gone(visit, self.mailbox)
        deposit = entry.deposit
        right = entry.open or await self.mailbox.enter_phrase(
            reader_of(visit).session, entry, text, visit.client.network
        )
        if right:
            return visit.redirect("read", id=deposit.id)
        if right is None:
            problem = visit.translate("Too many words were wrong. Please wait an hour.")
            return _phrase_page(visit, entry, problem, status=429)
        problem = visit.translate("Those are not the words. Please compare them with the sender, letter by letter.")
        return _phrase_page(visit, entry, problem, status=422)


def _phrase_page(visit: Visit, entry: Entry, problem: str = "", *, status: int = 200) -> Response:
    deposit = entry.deposit
    return visit.page(
        "phrase.html",
        status=status,
        problem=problem,
        id=deposit.id,
        sender=deposit.sender or entry.face.name,
        made=deposit.phrase is not None,
    )


def _common_face(entries: list[Entry]) -> Face | None:
    """The organisation that all of them come from; None where there are several."""
    faces = {entry.face.name: entry.face for entry in entries}
    return next(iter(faces.values())) if len(faces) == 1 else None
