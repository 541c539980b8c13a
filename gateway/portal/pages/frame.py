"""What every page says: which organisation this is, and who is signed in. Names of cookies; the page of nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from gateway.portal.letters import Face, face_of
from gateway.portal.mailbox import Entry, Mailbox
from gateway.portal.pages.shown import masked
from gateway.portal.sessions import Session
from gateway.web import Visit

__all__ = ["ASKED", "CAME", "SESSION", "Reader", "dress", "gone", "reader_of", "wanted_entry"]

#: Cookies: the session; the link whose page was used last, to lead back to; the reference of the code asked for last.
SESSION: Final = "session"
CAME: Final = "came"
ASKED: Final = "asked"

_LONGEST_ID: Final = 64
_MOST_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Reader:
    """Who is signed in: what the gate admits. ``minutes`` are left without a click."""

    session: Session
    minutes: int

    @property
    def shown(self) -> str:
        """The address, masked: pages are read over shoulders."""
        return masked(self.session.address)


def reader_of(visit: Visit) -> Reader:
    """Who asks, on a route that needs a session."""
    assert isinstance(visit.admitted, Reader), "the gate admits readers"
    return visit.admitted


def dress(visit: Visit, mailbox: Mailbox, face: Face | None = None, *, here: str = "") -> None:
    """Let the pages of this visit show the organisation - where no message says which, the only one that there is."""
    visit.shared["face"] = face or _only_face(mailbox)
    visit.shared["here"] = here
    if isinstance(visit.admitted, Reader):
        visit.shared["reader"] = visit.admitted


def _only_face(mailbox: Mailbox) -> Face | None:
    known = mailbox.settings().portal.organisations
    return face_of(mailbox.settings(), next(iter(known))) if len(known) == 1 else None


def gone(visit: Visit, mailbox: Mailbox) -> Response:
    """The one answer where there is nothing: unknown, somebody else's, expired, recalled."""
    dress(visit, mailbox)
    return visit.page("gone.html", status=404)


async def wanted_entry(visit: Visit, mailbox: Mailbox) -> Entry | None:
    """The deposit that the path names, where it is this reader's; its organisation is on the page then."""
    message, _, number = visit.parameter("id").rpartition(".")
    if len(message) > _LONGEST_ID or len(number) > _MOST_DIGITS or not (number.isascii() and number.isdigit()):
        return None
    entry = await mailbox.entry(reader_of(visit).session, message, int(number))
    if entry is not None:
        dress(visit, mailbox, entry.face)
    return entry
