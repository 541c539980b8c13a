"""The portal's pages in a real browser, on a phone-sized screen: with and without JavaScript, by keyboard, for axe.

``PORTAL_PICTURES=docs/portal`` writes the pictures of the documentation anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, async_playwright

from tests.scenario.conftest import Build
from tests.scenario.pages_world import Site, opened_site
from tests.scenario.portal_world import mails
from tests.scenario.world import HOME

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.peer,
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

PHONE = {"width": 390, "height": 844}
PICTURES = os.environ.get("PORTAL_PICTURES", "")
SHOWN = frozenset({"front", "landing", "code", "message", "inbox", "reply"})
REPORT = (
    b"From: =?utf-8?q?Dr._Mar=C3=ADa_Example?= <dr@clinic.example>\r\nTo: Pat Example <pat@good.example>\r\n"
    b"Subject: Your results, and the next appointment\r\nMessage-ID: <m7@clinic.example>\r\n"
    b"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n'
    b"<h2>Good news</h2><p>Dear Pat,</p><p>your blood values are <b>all within their limits</b>. The whole report is"
    b" attached.</p><p>Please come by in four weeks; the practice is open from Monday to Thursday.</p>"
    b'<p>Kind regards<br>Dr. Mar\xc3\xada Example</p><img src="https://tracker.example/p.gif" width="1" height="1">\r\n'
    b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
    b'Content-Disposition: attachment; filename="Report January.pdf"\r\n\r\n'
    + b"JVBERi0xLjcK" * 2000
    + b"\r\n--b--\r\n"
)


@asynccontextmanager
async def phone(
    site: Site, *, javascript: bool = True, scheme: Literal["light", "dark"] = "light", zoom: int = 1
) -> AsyncIterator[Page]:
    """A page of a browser of its own; each request that leaves for elsewhere fails the test."""
    async with async_playwright() as running:
        browser = await running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(
            viewport={"width": PHONE["width"] // zoom, "height": PHONE["height"] // zoom},
            device_scale_factor=2 * zoom,
            color_scheme=scheme,
            java_script_enabled=javascript,
            locale="en-GB",
        )
        page = await context.new_page()
        strange: list[str] = []
        page.on("request", lambda request: _note(strange, site, request.url))
        try:
            yield page
        finally:
            await context.close()
            await browser.close()
        assert not strange, strange


def _note(strange: list[str], site: Site, url: str) -> None:
    if not url.startswith((site.origin, "data:", "about:")):
        strange.append(url)


async def judge(page: Page, where: str) -> None:
    """Axe finds nothing; nothing is wider than the screen; what can be pressed is large enough for a thumb."""
    found = await Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
    assert not found.response["violations"], (where, found.generate_report())
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{where} is {wide} pixels too wide"
    small = await page.evaluate(
        """[...document.querySelectorAll('button, a.button, input:not([type=hidden]), nav a')]
           .filter(each => each.getBoundingClientRect().height < 44).map(each => each.outerHTML)"""
    )
    assert not small, (where, small)


async def picture(page: Page, name: str, scheme: str) -> None:
    if PICTURES and name in SHOWN:
        await page.screenshot(path=Path(PICTURES) / f"{name}-{scheme}.png")


async def code(site: Site, page: Page) -> str:
    """The code for the page that is shown."""
    return await site.code(_Shown(await page.content()))  # type: ignore[arg-type]  # all that it looks at is the text


class _Shown:
    def __init__(self, text: str) -> None:
        self.text = text


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_goes_the_whole_way(build: Build, scheme: Literal["light", "dark"]) -> None:
    async with opened_site(build) as site, phone(site, scheme=scheme) as page:
        link = await site.deposited(raw=REPORT)

        async def looked_at(name: str) -> None:
            await judge(page, name)
            await picture(page, name, scheme)

        await page.goto(site.origin)
        await looked_at("front")
        await page.goto(site.origin + link)
        await looked_at("landing")
        await page.click("text=Send me the code")
        await looked_at("code")
        await page.fill("#code", "000 000")
        await page.click("main button:has-text('Continue')")
        await looked_at("wrong-code")
        digits = await code(site, page)
        await page.fill("#code", f"{digits[:3]} {digits[3:]}")
        await page.click("main button:has-text('Continue')")
        await page.wait_for_selector("iframe.body")
        frame = page.frames[1]
        await frame.wait_for_selector("text=Good news")
        await looked_at("message")
        async with page.expect_download() as downloading:
            await page.click("text=Report January.pdf")
        download = await downloading.value
        assert download.suggested_filename == "Report January.pdf"
        await site.deposited()
        await page.click("text=Messages")
        await looked_at("inbox")
        await page.click("text=Your results")
        await page.click("a:has-text('Reply')")
        await page.fill("#text", "Thank you! I will come by in four weeks.")
        await page.set_input_files("#files", {"name": "diary.txt", "mimeType": "text/plain", "buffer": b"day one"})
        await looked_at("reply")
        await page.click("text=Send the reply")
        await looked_at("replied")
        await mails(site.world, HOME, about="in four weeks")
        await page.click("text=Sign out")
        await looked_at("signed-out")
        await page.goto(site.origin + "/m/" + "a" * 26)
        await looked_at("gone")
        await page.goto(site.origin + "/sign-in")
        await looked_at("sign-in")


async def test_the_keyboard_alone_is_enough_and_so_is_no_javascript(build: Build) -> None:
    async with opened_site(build) as site, phone(site, javascript=False) as page:
        link = await site.deposited()
        keys = page.keyboard
        await page.goto(site.origin + link)

        async def press(text: str, then: str) -> None:
            for _ in range(30):
                await keys.press("Tab")
                focused = page.locator(":focus")
                if text in (await focused.inner_text() if await focused.count() else ""):
                    await keys.press("Enter")
                    await page.wait_for_selector(then)
                    return
            raise AssertionError(f"{text} cannot be reached by Tab")

        await press("Send me the code", "#code")
        await keys.type(await code(site, page))  # the field has the focus
        await keys.press("Enter")
        await page.wait_for_selector("iframe.body")
        await press("Reply", "#text")
        for _ in range(10):
            await keys.press("Tab")
            if await page.locator("#text:focus").count():
                break
        await keys.type("typed by hand")
        await press("Send the reply", "text=Your reply is on its way")
        await mails(site.world, HOME, about="typed by hand")


async def test_twice_as_large_everything_still_fits(build: Build) -> None:
    async with opened_site(build) as site, phone(site, zoom=2) as page:
        link = await site.deposited(raw=REPORT)
        await page.goto(site.origin + link)
        await judge(page, "landing")
        await page.click("text=Send me the code")
        await judge(page, "code")
        await page.fill("#code", await code(site, page))
        await page.click("main button:has-text('Continue')")
        await page.wait_for_selector("iframe.body")
        await judge(page, "message")
