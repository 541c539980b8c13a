"""The portal's pages over real HTTP, and a browser without JavaScript that follows links and sends forms."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx

from gateway.portal.mailbox import Mailbox
from gateway.portal.pages import portal_face
from gateway.testing import free_port, poll
from gateway.web import Face, PublicUrl, WebServer, app_of
from tests.scenario.conftest import Build
from tests.scenario.portal_world import PORTAL, mails, portal_settings, text_of
from tests.scenario.world import MX, World

__all__ = ["Browser", "Form", "Page", "Site", "opened_site", "pages_settings"]

FORM_KEY = b"k" * 32


@dataclass
class Form:
    """A form of a page: where it goes, and what stands in its fields."""

    action: str
    enctype: str
    values: dict[str, str] = field(default_factory=dict)


class _Reading(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.frames: list[dict[str, str]] = []
        self.styles: list[str] = []
        self.scripts = 0
        self._area = ""

    def handle_starttag(self, tag: str, found: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in found}
        match tag:
            case "form":
                assert values["method"] == "post"
                self.forms.append(Form(values["action"], values.get("enctype", "application/x-www-form-urlencoded")))
            case "input" if self.forms and "name" in values and values.get("type") != "file":
                self.forms[-1].values[values["name"]] = values.get("value", "")
            case "textarea":
                self._area = values["name"]
                self.forms[-1].values[self._area] = ""
            case "a":
                self.links.append(values["href"])
            case "iframe":
                self.frames.append(values)
            case "link" if values["rel"] == "stylesheet":
                self.styles.append(values["href"])
            case "script":
                self.scripts += 1

    def handle_data(self, data: str) -> None:
        if self._area:
            self.forms[-1].values[self._area] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = ""


@dataclass
class Page:
    """An answer, and what a person can do with it."""

    answer: httpx.Response
    forms: list[Form]
    links: list[str]
    frames: list[dict[str, str]]
    styles: list[str]
    scripts: int

    @property
    def status(self) -> int:
        return self.answer.status_code

    @property
    def path(self) -> str:
        return self.answer.url.path

    @property
    def text(self) -> str:
        return self.answer.text

    def form(self, action: str) -> Form:
        """The form that goes there (a part of its address)."""
        found = [form for form in self.forms if action in form.action]
        assert len(found) == 1, (action, self.path, self.text)
        return found[0]

    def frames_from(self) -> list[str]:
        """What its frames show."""
        return [frame["src"] for frame in self.frames]

    @classmethod
    def of(cls, answer: httpx.Response) -> Page:
        reading = _Reading()
        if answer.headers.get("content-type", "").startswith("text/html"):
            reading.feed(answer.text)
        return cls(answer, reading.forms, reading.links, reading.frames, reading.styles, reading.scripts)


class Browser:
    """Cookies of its own; follows redirects."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str, **headers: str) -> Page:
        return await self.request("GET", path, headers)

    async def request(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Page:
        return Page.of(await self.client.request(method, path, headers=headers, follow_redirects=True))

    async def submit(
        self,
        form: Form,
        files: list[tuple[str, bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        **values: str,
    ) -> Page:
        """Send a form as it stands, but for these values."""
        data = {**form.values, **values}
        sent: dict[str, Any] = {"headers": {"Sec-Fetch-Site": "same-origin", "Origin": "null", **(headers or {})}}
        if form.enctype == "multipart/form-data":
            parts: list[tuple[str, tuple[str | None, bytes | str, str | None]]] = [
                (name, (None, value, None)) for name, value in data.items()
            ]
            parts += [("files", (name, content, "application/octet-stream")) for name, content in files or [("", b"")]]
            sent["files"] = parts
        else:
            sent["data"] = data
        return Page.of(await self.client.post(form.action, follow_redirects=True, **sent))


@dataclass
class Visits:
    """What the pages counted."""

    statuses: list[tuple[str, int]] = field(default_factory=list)

    def visited(self, face: str, route: str, status: int, seconds: float) -> None:
        assert face == "portal"
        assert seconds >= 0
        self.statuses.append((route, status))


class Site:
    """A gateway with a portal whose pages are served."""

    def __init__(self, world: World, origin: str) -> None:
        self.world = world
        self.origin = origin
        self.visits = Visits()
        self._stack = AsyncExitStack()
        self.face = self._face()

    def _face(self) -> Face:
        gateway = self.world.gateway
        self.mailbox = Mailbox(gateway._store, gateway._settings, gateway.clock)
        return portal_face(self.mailbox, PublicUrl(self.origin), FORM_KEY)

    async def start(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", int(self.origin.rpartition(":")[2])))
        self._server = WebServer(app_of(self.face, self.visits), tls=lambda: None, trusted=lambda: (), https=False)
        await self._server.start([listening])

    async def stop(self) -> None:
        await self._server.stop()

    async def restart(self) -> None:
        """Gateway and pages, as after a crash that lost nothing."""
        await self.stop()
        await self.world.stop()
        await self.world.start()
        self.face = self._face()
        await self.start()

    async def browser(self) -> Browser:
        client = httpx.AsyncClient(base_url=self.origin, timeout=20, trust_env=False)
        await self._stack.enter_async_context(client)
        return Browser(client)

    async def close(self) -> None:
        await self._stack.aclose()
        await self.stop()

    # -- mail ---------------------------------------------------------------------------------------------------------

    async def deposited(self, to: str = "pat@good.example", host: str = MX, **mail: Any) -> str:
        """Send a message into the portal; the path of the link in its notice."""
        before = len([m for m in self.world.peers[host].messages if b"secure message" in m.raw])
        message = await self.world.send(to, **mail)
        await self.world.wait_state(message, "deposited", to=to)
        notice = (await mails(self.world, host, count=before + 1, about="secure message"))[-1]
        link = re.search(rf"{re.escape(self.origin)}(/m/\w+)", text_of(notice))
        assert link is not None
        return link[1]

    async def code(self, page: Page, host: str = MX) -> str:
        """The code that was mailed for a code page, found by its reference."""
        reference = re.search(r"<strong>([A-Z][0-9]-[A-Z][0-9])</strong>", page.text)
        assert reference is not None, page.text
        mail = (await mails(self.world, host, about=reference[1]))[-1]
        found = re.search(r"^  ([0-9]{6})$", text_of(mail), re.MULTILINE)
        assert found is not None
        await poll(self._judged, 10.0, what="the outcome of the code's mail is written")
        return found[1]

    async def _judged(self) -> bool:
        return await self.world.gateway._store.read(
            lambda connection: (
                connection.exec_driver_sql("SELECT count(*) FROM portal_codes WHERE assurance IS NULL").scalar_one()
                == 0
            )
        )

    async def sign_in(self, browser: Browser, link: str, host: str = MX) -> Page:
        """From the link to the page after the code."""
        landing = await browser.get(link)
        assert landing.status == 200, landing.text
        asked = await browser.submit(landing.form("/m/"))
        assert asked.path == "/code", asked.text
        return await browser.submit(asked.form("/code"), code=await self.code(asked, host))


def pages_settings(origin: str, **more: Any) -> dict[str, Any]:
    """A gateway with a portal at this address."""
    organisations = {"clinic.example": {"name": "Example Clinic", "contact": "+1 555 0100", "colour": "#1c6b52"}}
    return portal_settings(url=origin, organisations=organisations, **more)


@asynccontextmanager
async def opened_site(build: Build, **scene: Any) -> AsyncIterator[Site]:
    """A site that runs."""
    origin = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    settings = {**pages_settings(origin), **scene.pop("settings", {})}
    world = await build(**{"protection": PORTAL, "settings": settings, **scene})
    site = Site(world, origin)
    await site.start()
    try:
        yield site
    finally:
        await site.close()
