"""A face: routes with a frame around them that no handler can leave out.

For each request, in this order:

1. who asks (``client``); a browser that came without TLS where the face has https hears nothing else
2. limits on headers and on the announced body
3. the route; HEAD counts as GET
4. where a POST comes from (``csrf``)
5. whether who asks may come in (``routes.Access``): a browser that we know, or whom the gate admits
6. the handler; what it reads of the body is counted
7. headers (``headers``), cookies, one line in the log, metrics - whatever came of it
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.routing import Route as Place
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.config.networks import Network
from gateway.web.client import Client, client_of
from gateway.web.cookies import Cookies
from gateway.web.csrf import FormTokens, cross_origin
from gateway.web.errors import WORDS, Refused
from gateway.web.headers import PAGE_POLICY, secure
from gateway.web.pages import Pages
from gateway.web.routes import Listed, Route, listed, require_sound
from gateway.web.static import Assets
from gateway.web.visit import Gate, Visit

__all__ = ["Face", "PublicUrl", "WebMetrics", "app_of"]

_log = structlog.get_logger()

#: Most header fields of a request; browsers behind proxies send some thirty.
MOST_HEADERS = 80
#: Most bytes of its head. The server bounds what it waits for; this, what came at once.
MOST_HEAD = 16 * 1024
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """Where browsers find a face, such as ``https://secure.clinic.example``; nothing a request says changes it."""

    origin: str

    @property
    def https(self) -> bool:
        """Whether by https."""
        return urlsplit(self.origin).scheme == "https"


class WebMetrics(Protocol):
    """What is counted of each request."""

    def visited(self, face: str, route: str, status: int, seconds: float) -> None:
        """One answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """What browsers see at one address.

    ``packages``: Python packages with folders ``templates``, ``assets`` and ``locale``, which come on top of our own.
    ``form_key``: 32 bytes for form tokens, the same after a restart. ``gate``: who judges sessions.
    ``trusted``: proxies whose word about the client is believed.
    """

    name: str
    url: PublicUrl
    routes: Sequence[Route]
    form_key: bytes
    packages: Sequence[str] = ()
    gate: Gate | None = None
    trusted: Sequence[Network] = ()

    def listed(self) -> list[Listed]:
        """All routes with who may come in, those of the frame included."""
        return listed([*self.routes, Assets(["gateway.web"]).route])


def app_of(face: Face, metrics: WebMetrics) -> ASGIApp:
    """The face as an application. Raises ``ValueError`` where its routes are not sound."""
    return _Frame(face, metrics)


@dataclass(slots=True)
class _Answering:
    """One request on its way, for the lines at its end."""

    reference: str
    method: str
    started: float = field(default_factory=time.monotonic)
    route: str = "none"
    policy: str = PAGE_POLICY
    status: int = 0
    reason: str = ""
    client: Client = field(default_factory=lambda: Client(None, secure=False))
    cookies: Cookies | None = None


class _Frame:
    """See the module. It is also the ``House`` of its visits."""

    def __init__(self, face: Face, metrics: WebMetrics) -> None:
        packages = ["gateway.web", *face.packages]
        self._face = face
        self._metrics = metrics
        self._assets = Assets(packages)
        self.pages = Pages(packages)
        self.tokens = FormTokens(face.form_key)
        routes = [*face.routes, self._assets.route]
        require_sound(routes, has_gate=face.gate is not None)
        self._paths = {each.name: each.path for each in routes}
        at: dict[str, dict[str, Route]] = {}
        for each in routes:
            at.setdefault(each.path, {})[each.method] = each
        places: list[BaseRoute] = [Place(path, _Found(methods)) for path, methods in at.items()]
        self._router = Router(places, redirect_slashes=False, default=_Found({}))

    # -- the house of visits ------------------------------------------------------------------------------------------

    def path_of(self, name: str, values: Mapping[str, str]) -> str:
        """See ``House``. Raises ``KeyError`` where there is no such route, or a value is missing."""
        return _PARAMETER.sub(lambda match: quote(values[match.group(1)], safe=""), self._paths[name])

    def asset(self, name: str) -> str:
        """See ``House``."""
        return self._assets.url(name)

    # -- one request --------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI)."""
        assert scope["type"] == "http", "the server speaks nothing else"
        request = Request(scope, receive)
        way = _Answering(secrets.token_hex(4), request.method)

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                way.status = message["status"]
                headers = MutableHeaders(scope=message)
                secure(headers, way.policy, https=self._face.url.https)
                if way.cookies is not None:
                    way.cookies.write(headers)
            await send(message)

        try:
            response = await self._answer(request, way)
            await response(scope, receive, sealed)
        except ClientDisconnect:
            way.reason = "the client went away"
        except Exception as error:
            if not way.status:
                _log.exception("web_failed", face=self._face.name, route=way.route, reference=way.reference)
                await self._error(request, way, Refused(500, type(error).__name__))(scope, receive, sealed)
                return
            # Half of an answer is out: nothing can be said any more, but the connection is cut, so that half is
            # not taken for the whole.
            way.reason = type(error).__name__
            _log.exception("web_failed", face=self._face.name, route=way.route, reference=way.reference)
            raise
        finally:
            self._note(way)

    async def _answer(self, request: Request, way: _Answering) -> Response:
        try:
            way.client = self._client(request)
            _require_bounded(request)
            route = await self._route(request)
            way.route, way.policy = route.name, route.policy
            visit = self._visit(request, route, way)
            way.cookies = visit.cookies
            return await self._enter(visit)
        except Refused as refused:
            return self._error(request, way, refused)

    async def _enter(self, visit: Visit) -> Response:
        face, route = self._face, visit.route
        if face.url.https and not visit.client.secure:
            raise Refused(400, "not by https: no TLS here, and no trusted proxy that says so (X-Forwarded-Proto)")
        if route.method == "POST":
            headers = visit.request.headers
            foreign = cross_origin(headers.get("sec-fetch-site"), headers.get("origin"), face.url.origin)
            if foreign:
                raise Refused(403, foreign)
        if route.access.kind != "public" and visit.browser is None:
            raise Refused(403, "a browser that shows no cookie of ours")
        if route.access.kind == "session":
            assert face.gate is not None, "routes were looked at before"
            visit.admitted = await face.gate.admit(visit, route.access)
            if isinstance(visit.admitted, Response):
                return visit.admitted
        return await route.handler(visit)

    def _client(self, request: Request) -> Client:
        headers = request.headers
        told = {name: headers.getlist(name) for name in ("x-forwarded-for", "x-forwarded-proto")}
        peer = None if request.client is None else request.client.host
        return client_of(peer, told, tls=request.scope["scheme"] == "https", trusted=self._face.trusted)

    async def _route(self, request: Request) -> Route:
        """Which route is meant. Starlette finds the path and its parameters; the method is ours to look at."""
        found: dict[str, Route] = {}
        scope = request.scope
        scope["gateway.found"] = found
        await self._router(scope, request.receive, _never)
        if not found:
            raise Refused(404, "no such path")
        route = found.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            raise _MethodRefused(sorted({*found, *(["HEAD"] if "GET" in found else [])}))
        _require_body(request, route.most_bytes)
        return route

    def _visit(self, request: Request, route: Route, way: _Answering) -> Visit:
        bounded = Request(request.scope, _counted(request.receive, route.most_bytes))
        return Visit(
            bounded,
            route,
            way.client,
            way.reference,
            Cookies(request.cookies, https=self._face.url.https),
            self.pages.language(request.headers.get("accept-language", "")),
            self,
        )

    # -- the end ------------------------------------------------------------------------------------------------------

    def _error(self, request: Request, way: _Answering, refused: Refused) -> Response:
        way.reason = refused.reason
        way.policy = PAGE_POLICY  # an error page needs no more than any page
        words = WORDS[refused.status]
        language = self.pages.language(request.headers.get("accept-language", ""))
        text = self.pages.render(
            "error.html",
            language,
            url=lambda name, **values: self.path_of(name, values),
            static=self.asset,
            title=self.pages.translate(words.title, language),
            text=self.pages.translate(words.text, language),
            reference=way.reference,
        )
        headers = {}
        if isinstance(refused, _MethodRefused):
            headers["Allow"] = ", ".join(refused.allowed)
        if refused.wait is not None:
            headers["Retry-After"] = str(refused.wait)
        return Response(text, refused.status, headers, "text/html; charset=utf-8")

    def _note(self, way: _Answering) -> None:
        """One line, and the metrics. Never a path, a query, a body: they hold tokens."""
        seconds = time.monotonic() - way.started
        self._metrics.visited(self._face.name, way.route, way.status, seconds)
        facts = {
            "face": self._face.name,
            "route": way.route,
            "method": way.method if way.method in _KNOWN_METHODS else "other",
            "status": way.status,
            "ms": round(seconds * 1000, 1),
            "network": way.client.network,
            "reference": way.reference,
        }
        if way.reason:
            facts["reason"] = way.reason
        _log.info("web_request", **facts)


_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class _MethodRefused(Refused):
    """Another method is wanted."""

    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__(405, "another method is wanted")
        self.allowed = allowed


class _Found:
    """Stands at the end of Starlette's routing: says what is there, and answers nothing."""

    def __init__(self, methods: Mapping[str, Route]) -> None:
        self._methods = methods

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["gateway.found"].update(self._methods)


async def _never(_message: Message) -> None:
    raise AssertionError("routing answers nothing itself")


def _require_bounded(request: Request) -> None:
    fields = request.headers.raw
    if len(fields) > MOST_HEADERS:
        raise Refused(431, "too many header fields")
    scope = request.scope
    size = (
        len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) + 4 for name, value in fields)
    )
    if size > MOST_HEAD:
        raise Refused(431, "the head is too large")


def _require_body(request: Request, most: int) -> None:
    """Refuse what announces itself as too large before any of it is read."""
    announced = Headers(scope=request.scope).get("content-length")
    if announced is not None and int(announced) > most:
        raise Refused(413, "the body is too large")


def _counted(receive: Receive, most: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > most:
            raise Refused(413, "the body is too large")
        return message

    return counted
