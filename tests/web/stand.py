"""A face for tests, served by the real server on a real socket."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from gateway.config.networks import Network
from gateway.web import (
    Access,
    Face,
    FormLimits,
    PublicUrl,
    Refused,
    Route,
    ServerLimits,
    Upload,
    Visit,
    WebServer,
    app_of,
)

__all__ = ["LOOPBACK", "Counts", "Doorkeeper", "Stand", "face", "stand"]

LOOPBACK: Sequence[Network] = (ipaddress.ip_network("127.0.0.0/8"),)
KEY = b"k" * 32


@dataclass(slots=True)
class Counts:
    """What was counted."""

    visits: list[tuple[str, str, int]] = field(default_factory=list)

    def visited(self, face: str, route: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.visits.append((face, route, status))


@dataclass(slots=True)
class Doorkeeper:
    """Lets in who shows the cookie ``level`` with the level asked for."""

    async def admit(self, visit: Visit, access: Access) -> object:
        shown = visit.cookies.get("level")
        if shown is None:
            return visit.redirect("front")
        if access.level and shown != access.level:
            raise Refused(404, "a lower level")
        return shown


async def front(visit: Visit) -> Response:
    return visit.page("front.html")


async def show_form(visit: Visit) -> Response:
    return PlainTextResponse(visit._form_token())


async def take_form(visit: Visit) -> Response:
    fields = await visit.fields()
    return PlainTextResponse(repr(dict(fields)))


async def take_files(visit: Visit) -> Response:
    found: list[str] = []
    async for part in visit.parts(FormLimits(parts=4, field_bytes=1000, upload_bytes=100_000)):
        if isinstance(part, Upload):
            size = 0
            async for piece in part.pieces:
                size += len(piece)
            found.append(f"{part.filename}:{size}")
        else:
            found.append(f"{part.name}={part.value}")
    return PlainTextResponse(" ".join(found))


async def who(visit: Visit) -> Response:
    return PlainTextResponse(f"{visit.client.address} {visit.client.secure} {visit.client.network}")


async def inside(visit: Visit) -> Response:
    return PlainTextResponse(str(visit.admitted))


async def broken(_visit: Visit) -> Response:
    raise RuntimeError("the secret of the house")


async def half(_visit: Visit) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one half"
        raise RuntimeError("no more")

    return StreamingResponse(pieces())


async def large(_visit: Visit) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 65536

    return StreamingResponse(pieces())


async def slow(_visit: Visit) -> Response:
    await asyncio.sleep(0.6)  # the work of the handler itself
    return PlainTextResponse("done")


async def wait(_visit: Visit) -> Response:
    raise Refused(429, "limit", wait=30)


def route(path: str, handler: Any, **more: Any) -> Route:
    given = {"name": handler.__name__, "access": Access.PUBLIC, **more}
    return Route(path=path, handler=handler, **given)


ROUTES = (
    route("/", front),
    route("/form", show_form),
    route("/form", take_form, method="POST"),
    route("/files", take_files, method="POST", body=300_000),
    route("/who", who),
    route("/known", inside, name="known", access=Access.BROWSER),
    route("/inside", inside, name="inside", access=Access.session()),
    route("/deep/{token}", inside, name="deep", access=Access.session("high")),
    route("/broken", broken),
    route("/half", half),
    route("/large", large),
    route("/slow", slow),
    route("/wait", wait),
    route("/framed", front, name="framed", policy="default-src 'none'; frame-ancestors 'self'; sandbox"),
)


def face(
    url: str = "http://127.0.0.1", routes: Sequence[Route] = ROUTES, trusted: Sequence[Network] = (), **more: Any
) -> Face:
    return Face(
        name="test",
        url=PublicUrl(url),
        routes=routes,
        form_key=KEY,
        gate=Doorkeeper(),
        trusted=trusted,
        **more,
    )


@dataclass(slots=True)
class Stand:
    """A server that runs, and a browser without cookies yet."""

    server: WebServer
    port: int
    counts: Counts
    client: httpx.AsyncClient

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, data: bytes) -> bytes:
        """All that is answered to these bytes, until the end of the connection."""
        reader, writer = await self.raw()
        try:
            writer.write(data)
            await writer.drain()
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()


@asynccontextmanager
async def stand(
    made: Face | None = None, limits: ServerLimits | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Stand]:
    """Serve a face."""
    counts = Counts()
    made = made or face()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = WebServer(
        app_of(made, counts),
        tls=lambda: tls,
        trusted=lambda: made.trusted,
        https=made.url.https,
        limits=limits,
    )
    await server.start([listening])
    port = listening.getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            yield Stand(server, port, counts, client)
    finally:
        await server.stop()
