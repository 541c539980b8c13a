"""Our own style sheets, scripts and pictures: read once, under addresses that change with their content.

So a browser may keep them for ever, and an upgrade is seen at once.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Sequence
from hashlib import sha256
from importlib.resources import files

from starlette.responses import Response

from gateway.web.errors import Refused
from gateway.web.routes import Access, Route
from gateway.web.visit import Visit

__all__ = ["PATH", "Assets"]

PATH = "/static/{digest}/{name}"
_FOREVER = "public, max-age=31536000, immutable"


class Assets:
    """The files in the folder ``assets`` of some packages, by name; the later package wins."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._files = {name: data for package in packages for name, data in _read(package)}
        self._digests = {name: sha256(data).hexdigest()[:16] for name, data in self._files.items()}

    def url(self, name: str) -> str:
        """The address of a file. Raises ``KeyError`` where there is none: a fault in a template."""
        return f"/static/{self._digests[name]}/{name}"

    @property
    def route(self) -> Route:
        """What serves them."""
        return Route(path=PATH, name="static", handler=self._serve, access=Access.PUBLIC)

    async def _serve(self, visit: Visit) -> Response:
        name, digest = visit.parameter("name"), visit.parameter("digest")
        if self._digests.get(name) != digest:
            raise Refused(404, "no such file")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(self._files[name], media_type=kind, headers={"Cache-Control": _FOREVER})


def _read(package: str) -> Iterator[tuple[str, bytes]]:
    folder = files(package) / "assets"
    if folder.is_dir():
        for each in folder.iterdir():
            if each.is_file():
                yield each.name, each.read_bytes()
