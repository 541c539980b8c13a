"""A style sheet for each organisation's colour, under an address that names it: no style stands in a page.

So the policy of pages stays ``style-src 'self'``. The sheet says the colour alone; what is coloured by it is in
``portal.css``. In the dark, what is written in the colour is lightened until it can be read there.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.responses import Response

from gateway.config.organisations import luminance
from gateway.web import Access, Refused, Route, Visit

__all__ = ["routes", "sheet"]

_COLOUR = re.compile(r"[0-9a-f]{6}\Z")
#: The darker and the lighter ground of ``portal.css`` that text in the colour stands on in the dark.
_DARK_PAPER: Final = "#171c23"
#: WCAG 2.2, success criterion 1.4.3, and some room.
_CONTRAST: Final = 6.5
_STEPS: Final = 20
_FOREVER: Final = "public, max-age=31536000, immutable"


def routes() -> list[Route]:
    """The sheet of a colour; any colour's, so that nothing is told of whose it is."""
    return [Route(path="/colour/{colour}.css", name="colour", handler=_serve, access=Access.PUBLIC)]


async def _serve(visit: Visit) -> Response:
    colour = visit.parameter("colour")
    if not _COLOUR.match(colour):
        raise Refused(404, "not a colour")
    return Response(sheet(f"#{colour}"), media_type="text/css", headers={"Cache-Control": _FOREVER})


def sheet(colour: str) -> str:
    """The sheet; ``colour`` is ``#rrggbb`` and dark enough for white letters."""
    light = lightened(colour)
    return (
        f":root {{ --brand: {colour}; --accent: {colour}; }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ --accent: {light}; }} }}\n"
    )


def lightened(colour: str) -> str:
    """The colour, mixed with as much white as it takes to be read in the dark."""
    shares = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    for step in range(_STEPS + 1):
        mixed = "#" + "".join(f"{share + (255 - share) * step // _STEPS:02x}" for share in shares)
        if (luminance(mixed) + 0.05) / (luminance(_DARK_PAPER) + 0.05) >= _CONTRAST:
            return mixed
    return "#ffffff"
