"""The way in: a link, or the code that stands below it in the notice. Nothing here reveals, consumes or locks anything.

Scanners follow links, run scripts and send forms. The page of a link says who has sent something, to whom - masked -
and until when; only a form of this page, sent by the browser that got it, mails a code, and that opens nothing yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response

from gateway.portal.deposits import Deposit
from gateway.portal.mailbox import Mailbox
from gateway.portal.pages.frame import SESSION, dress, gone
from gateway.portal.pages.shown import day, masked
from gateway.web import Access, Route, Visit

__all__ = ["Landing"]


@dataclass(frozen=True, slots=True)
class Landing:
    """Pages for everybody."""

    mailbox: Mailbox

    def routes(self) -> list[Route]:
        """``/``, ``/find`` and ``/m/{token}``."""
        return [
            Route(path="/", name="front", handler=self.front, access=Access.PUBLIC),
            Route(path="/find", name="find", handler=self.find, access=Access.PUBLIC, method="POST"),
            Route(path="/find", name="find_again", handler=self.front, access=Access.PUBLIC),
            Route(path="/m/{token}", name="landing", handler=self.landing, access=Access.PUBLIC),
        ]

    async def front(self, visit: Visit) -> Response:
        """A field for the typed code."""
        dress(visit, self.mailbox)
        return visit.page("front.html", problem="", typed="")

    async def find(self, visit: Visit) -> Response:
        """From a typed code to the page of its link; how often is limited by network, and says no other word."""
        typed = (await visit.fields()).get("typed", "")[:40]
        token = await self.mailbox.find_typed(typed, visit.client.network)
        if token is not None:
            return visit.redirect("landing", token=token)
        dress(visit, self.mailbox)
        problem = visit.translate(
            "There is nothing to read under this code. Please compare it with the mail; after many tries, wait a "
            "quarter of an hour."
        )
        return visit.page("front.html", status=404, problem=problem, typed=typed)

    async def landing(self, visit: Visit) -> Response:
        """What a link leads to."""
        token = visit.parameter("token")
        deposit = await self.mailbox.landing(token)
        if deposit is None:
            return gone(visit, self.mailbox)
        if not visit.is_head:
            self.mailbox.observer.happened("landed")
        dress(visit, self.mailbox, self.mailbox.face(deposit))
        return visit.page(
            "landing.html",
            token=token,
            sender=deposit.sender,
            recipient=masked(deposit.address),
            until=day(deposit.expires, visit.language),
            read=await self._read(visit, deposit),
        )

    async def _read(self, visit: Visit, deposit: Deposit) -> str | None:
        """Where its reader, who is signed in already, goes on."""
        session = await self.mailbox.peek(visit.cookies.get(SESSION))
        return visit.url("read", id=deposit.id) if session is not None and session.key == deposit.key else None
