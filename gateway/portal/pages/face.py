"""The portal as a face: its routes, each with who may come in, and the gate that judges it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from starlette.responses import Response

from gateway.config.networks import Network
from gateway.errors import StoreError
from gateway.portal.mailbox import Mailbox
from gateway.portal.pages import colours
from gateway.portal.pages.contents import Contents
from gateway.portal.pages.gate import ReaderGate
from gateway.portal.pages.inbox import Inbox
from gateway.portal.pages.landing import Landing
from gateway.portal.pages.reading import Reading
from gateway.portal.pages.replying import Replying
from gateway.portal.pages.signing import Signing
from gateway.web import Face, PublicUrl, Refused, Route, Visit
from gateway.web.routes import Handler

__all__ = ["PACKAGE", "portal_face", "portal_routes"]

#: Where templates and style sheets are.
PACKAGE: Final = "gateway.portal"
#: Seconds after which a store that is away or full is worth another look.
_LATER: Final = 60


def portal_routes(mailbox: Mailbox) -> list[Route]:
    """All pages over a mailbox."""
    contents = Contents(mailbox)
    routes = [
        *Landing(mailbox).routes(),
        *Signing(mailbox).routes(),
        *Inbox(mailbox, contents).routes(),
        *Reading(mailbox, contents).routes(),
        *Replying(mailbox, contents).routes(),
        *colours.routes(),
    ]
    return [replace(route, handler=_or_later(route.handler)) for route in routes]


def _or_later(handler: Handler) -> Handler:
    """The handler, whose reader hears "later" and not "wrong" where the store takes or gives nothing at the moment."""

    async def guarded(visit: Visit) -> Response:
        try:
            return await handler(visit)
        except StoreError as error:
            raise Refused(503, str(error), wait=_LATER) from error

    return guarded


def portal_face(mailbox: Mailbox, url: PublicUrl, form_key: bytes, trusted: Sequence[Network] = ()) -> Face:
    """The portal at this address; ``form_key`` and ``trusted`` as for :class:`gateway.web.Face`."""
    return Face(
        name="portal",
        url=url,
        routes=portal_routes(mailbox),
        form_key=form_key,
        packages=(PACKAGE,),
        gate=ReaderGate(mailbox),
        trusted=trusted,
    )
