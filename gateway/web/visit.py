"""One request as handlers see it: who asks, what was sent, and the pages that can be answered with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway.web.client import Client
from gateway.web.cookies import Cookies
from gateway.web.csrf import FIELD, FormTokens, new_browser
from gateway.web.errors import Refused
from gateway.web.forms import Field, Fields, FormLimits, Part, Upload, parts
from gateway.web.pages import Language, Pages
from gateway.web.routes import Access, Route

__all__ = ["Gate", "House", "Visit"]

#: The cookie that names a browser: to it form tokens are bound, and what a face wants to bind to it.
BROWSER = "browser"


class House(Protocol):
    """What a visit asks of its face."""

    tokens: FormTokens
    pages: Pages

    def path_of(self, name: str, values: Mapping[str, str]) -> str:
        """The path of a route."""

    def asset(self, name: str) -> str:
        """The address of a static file."""


class Gate(Protocol):
    """Judges sessions; the face's own."""

    async def admit(self, visit: Visit, access: Access) -> object:
        """Who this is, for :attr:`Visit.admitted`; or a ``Response`` in place of the handler's.

        May raise :class:`Refused`, best with 404: who has no business there learns nothing.
        """


@dataclass(slots=True)
class Visit:
    """One request, on the way to one answer.

    ``reference`` stands in the log, and on an error page. ``admitted`` is what the gate said of a session.
    """

    request: Request
    route: Route
    client: Client
    reference: str
    cookies: Cookies
    language: Language
    house: House
    admitted: object = None
    #: What every page of this visit gets besides its own values, such as a branding.
    shared: dict[str, Any] = field(default_factory=dict)

    # -- who, and where -----------------------------------------------------------------------------------------------

    @property
    def browser(self) -> str | None:
        """The name that we gave this browser; ``None`` before it has shown one."""
        return self.cookies.get(BROWSER)

    def name_browser(self) -> str:
        """The same, after giving one where there is none."""
        return self.browser or self.rename_browser()

    def rename_browser(self) -> str:
        """A new name, as at sign-in; forms of before are void."""
        name = new_browser()
        self.cookies.set(BROWSER, name)
        return name

    def parameter(self, name: str) -> str:
        """A part of the path, by its name in the route."""
        return str(self.request.path_params[name])

    @property
    def is_head(self) -> bool:
        """Whether only the headers are wanted: a handler need not fetch what will not be sent."""
        return self.request.method == "HEAD"

    # -- what was sent ------------------------------------------------------------------------------------------------

    async def fields(self, limits: FormLimits | None = None) -> Fields:
        """The fields of the form, without files. Raises :class:`Refused` (400, 403, 413)."""
        found: list[Field] = []
        async for part in self.parts(limits):
            if isinstance(part, Upload):
                raise Refused(400, "a file where none is taken")
            found.append(part)
        return Fields(found)

    async def parts(self, limits: FormLimits | None = None) -> AsyncIterator[Part]:
        """The form as it arrives. Its first field is the token: nothing is given out before that holds.

        Raises :class:`Refused` (400, 403, 413).
        """
        proven = False
        content_type = self.request.headers.get("content-type", "")
        async for part in parts(content_type, _body(self.request), limits or FormLimits()):
            if not proven:
                token = part.value if isinstance(part, Field) and part.name == FIELD else ""
                if not self.house.tokens.holds(self.browser, token):
                    raise Refused(403, "the form's token is not of this browser")
                proven = True
                continue
            yield part
        if not proven:
            raise Refused(403, "the form has no token")

    # -- the answer ---------------------------------------------------------------------------------------------------

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page. Templates also see ``url(route, ...)``, ``static(file)``, ``form_token()``, ``language``, ``_``."""
        text = self.house.pages.render(
            template,
            self.language,
            url=self.url,
            static=self.house.asset,
            form_token=self._form_token,
            **self.shared,
            **values,
        )
        return HTMLResponse(text, status_code=status)

    def redirect(self, name: str, **values: str) -> Response:
        """To another page of this face, by GET (303)."""
        return RedirectResponse(self.url(name, **values), status_code=303)

    def url(self, name: str, /, **values: str) -> str:
        """The path of a route; no host, so that nothing that a request says can get into a link."""
        return self.house.path_of(name, values)

    def translate(self, text: str) -> str:
        """A text of ours in the reader's language."""
        return self.house.pages.translate(text, self.language)

    def _form_token(self) -> Markup:
        """The hidden field that every form begins with."""
        token = self.house.tokens.make(self.name_browser())
        return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, token)


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece
