"""Hostile letters in a real browser, each in its frame under its policy: they ask for nothing, and nothing runs.

The browser is asked to show what would be left if the first two lines of defence were gone, too: the letters as they
are written, with the policy of the document alone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from gateway.portal.reading import HEADERS
from gateway.portal.reading.document import document
from tests.portal.browser import Site, chromium, site
from tests.portal.hostile.letters import CHARSETS, LETTERS, OWNED
from tests.portal.reading_world import PNG, letter, lines, viewed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("browser"), pytest.mark.timeout(180)]

FRAME = "allow-popups allow-popups-to-escape-sandbox"
#: Chromium asks for it by itself, of the page around the frame.
ICON = "/favicon.ico"


@pytest.fixture(scope="module")
def around() -> Iterator[tuple[Browser, Site]]:
    with chromium() as found:
        yield found


@pytest.fixture
def browser(around: tuple[Browser, Site]) -> Browser:
    return around[0]


@pytest.fixture
def internet(around: tuple[Browser, Site]) -> Site:
    around[1].hosts.clear()
    return around[1]


def of_letters(internet: Site) -> list[str]:
    """Which hosts that letters name were asked for anything. Chromium asks its makers' by itself."""
    return [host for host in internet.hosts if host.endswith((".invalid", ".example"))]


def frame_page(sources: list[str], *, sandbox: bool = True) -> bytes:
    attribute = f'sandbox="{FRAME}"' if sandbox else ""
    frames = "".join(f'<iframe {attribute} src="{source}"></iframe>' for source in sources)
    return f"<!doctype html><title>portal</title>{frames}".encode()


def show(browser: Browser, pages: dict[str, bytes], *, sandbox: bool = True) -> tuple[list[str], list[str], Site]:
    """What was asked for beside the pages themselves, and what ran, when all were shown at once."""
    held: dict[str, tuple[dict[str, str], bytes]] = {path: (HEADERS, content) for path, content in pages.items()}
    held["/"] = ({"Content-Type": "text/html; charset=utf-8"}, frame_page(list(pages), sandbox=sandbox))
    ran: list[str] = []
    with site(held) as served:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: ran.extend([message.text] if OWNED in message.text else []))
        page.on("dialog", lambda _: ran.append("a dialog"))
        page.on("popup", lambda popup: ran.append(f"a window: {popup.url}"))
        page.goto(f"{served.url}/", wait_until="load")
        page.wait_for_load_state("networkidle")
        ran += [frame.url for frame in page.frames if frame.title() == OWNED]
        ran += [frame.url for frame in page.frames if frame.parent_frame not in (None, page.main_frame)]
        page.close()
        expected = {f"{served.url}{path}" for path in held}
        known = {*held, ICON}
        outside = [
            url for url in asked if url not in expected and not url.startswith("data:") and not url.endswith(ICON)
        ]
        return outside + [path for path in served.asked if path not in known], ran, served


def as_paths(letters: dict[str, bytes]) -> dict[str, bytes]:
    return {f"/{number}/{name}": content for number, (name, content) in enumerate(letters.items())}


GROUPS = sorted({name.partition("-")[0] for name in LETTERS})


@pytest.mark.parametrize("group", [*GROUPS, "charsets"])
def test_no_letter_asks_for_anything_or_runs(browser: Browser, internet: Site, group: str) -> None:
    if group == "charsets":
        messages = {name: letter(html, charset=charset) for name, (charset, html) in CHARSETS.items()}
    else:
        messages = {name: letter(html) for name, html in LETTERS.items() if name.startswith(f"{group}-")}
    pages = as_paths({name: viewed(message).document.content for name, message in messages.items()})
    for sandbox in (True, False):  # the document brings its own
        asked, ran, served = show(browser, pages, sandbox=sandbox)
        assert asked == []
        assert ran == []
        assert set(pages) <= set(served.asked)
    assert of_letters(internet) == []


@pytest.mark.parametrize("group", GROUPS)
def test_the_policy_alone_keeps_letters_as_they_are_written_from_it(
    browser: Browser, internet: Site, group: str
) -> None:
    """What a policy does not stop - links to be fetched ahead, a refresh to elsewhere - only the list does."""
    beyond = ("fetches-meta-refresh", "fetches-link-")
    raw = {name: html for name, html in LETTERS.items() if name.startswith(f"{group}-") and not name.startswith(beyond)}
    contents = {name: document([html], is_plain=False, title="x", language="en").content for name, html in raw.items()}
    pages = as_paths(contents)
    held: dict[str, tuple[dict[str, str], bytes]] = {path: (HEADERS, content) for path, content in pages.items()}
    held["/"] = ({"Content-Type": "text/html; charset=utf-8"}, frame_page(list(pages)))
    with site(held) as served:
        page = browser.new_page()
        page.goto(f"{served.url}/", wait_until="load")
        page.wait_for_load_state("networkidle")
        titles = {frame.title() for frame in page.frames if frame.parent_frame == page.main_frame}
        page.close()
    assert OWNED not in titles
    assert of_letters(internet) == []


def opened(browser: Browser, content: bytes, width: int = 390) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800})
    with site({"/": (HEADERS, content)}) as served:
        page.goto(f"{served.url}/", wait_until="load")
    return page


def test_pictures_of_the_letter_are_seen(browser: Browser) -> None:
    message = letter(
        f'<img alt="seen" src="data:image/png;base64,{base64.b64encode(PNG).decode()}">'
        '<img src="https://a.example/x" alt="no">'
    )
    page = opened(browser, viewed(message).document.content)
    assert page.locator("img[alt=seen]").evaluate("image => image.naturalWidth") == 1
    assert page.locator("img[alt=no]").evaluate("image => image.getAttribute('src')") is None
    page.close()


def test_on_a_phone_nothing_is_wider_than_the_screen_but_what_scrolls(browser: Browser) -> None:
    wide = "<table width=1200 cellpadding=4><tr>" + "<td bgcolor=silver>cell</td>" * 40 + "</tr></table>"
    page = opened(browser, viewed(letter(f"<p>text</p>{wide}<p>{'x' * 3000}</p>")).document.content)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).fontSize") == "16px"
    page.close()


def test_plain_text_follows_the_dark_scheme_and_html_stays_on_white(browser: Browser) -> None:
    for message, dark in ((lines("Content-Type: text/plain", "", "hello"), True), (letter("<p>hello"), False)):
        page = browser.new_page(color_scheme="dark")
        with site({"/": (HEADERS, viewed(message).document.content)}) as served:
            page.goto(f"{served.url}/", wait_until="load")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")
        page.close()


def test_a_link_opens_in_a_window_of_its_own_that_knows_nothing_of_us(browser: Browser) -> None:
    with site({"/target": ({"Content-Type": "text/html"}, b"<title>there</title>")}) as other:
        content = viewed(letter(f'<a href="{other.url}/target">go</a>')).document.content
        held = {"/": ({"Content-Type": "text/html"}, frame_page(["/m"])), "/m": (HEADERS, content)}
        with site(held) as served:
            page = browser.new_page()
            page.goto(f"{served.url}/", wait_until="load")
            with page.expect_popup() as waiting:
                page.frame_locator("iframe").locator("a").click()
            popup = waiting.value
            popup.wait_for_load_state("load")
            assert popup.title() == "there"
            assert popup.evaluate("[String(window.opener), document.referrer]") == ["null", ""]
            page.close()
