"""Who is signed in. A session that is over leads back to the page that it began with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from gateway.errors import StoreError
from gateway.portal.mailbox import Mailbox
from gateway.portal.pages.frame import CAME, SESSION, Reader, dress
from gateway.portal.sessions import IDLE
from gateway.web import Access, Refused, Visit

__all__ = ["IDLE_MINUTES", "ReaderGate"]

IDLE_MINUTES: Final = int(IDLE // 60)


@dataclass(frozen=True, slots=True)
class ReaderGate:
    """Lets in who has a session. What it may read is looked at with each message: levels differ by message."""

    mailbox: Mailbox

    async def admit(self, visit: Visit, _access: Access) -> Reader | Response:
        """The reader, or a page that says how to become one: the same for every address."""
        cookie = visit.cookies.get(SESSION)
        try:
            session = await self.mailbox.session(cookie)
        except StoreError as error:
            raise Refused(503, str(error)) from error
        if session is not None:
            return Reader(session, max(round(session.left(self.mailbox.clock.time()) / 60), 1))
        dress(visit, self.mailbox)
        return visit.page(
            "over.html", status=403, was=cookie is not None, token=visit.cookies.get(CAME), minutes=IDLE_MINUTES
        )
