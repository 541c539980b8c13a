"""Debian's Chromium, driven by playwright, and a server on loopback that writes down what it is asked for."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["Site", "chromium", "site"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[tuple[Browser, Site]]:
    """A browser without a window, and the Internet as it sees it: every host name leads to that site, on loopback.

    Skips loudly where there is no browser.
    """
    program = next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)
    if program is None:
        pytest.skip("no Chromium is installed: what a browser makes of a message was not looked at")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.skip("playwright is not installed: what a browser makes of a message was not looked at")
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    # A process for each sandboxed frame would be a hundred of them.
    options += ["--disable-features=IsolateSandboxedIframes", "--renderer-process-limit=2"]
    with site({}) as internet, sync_playwright() as play:
        options.append(f"--host-resolver-rules=MAP * {internet.url.removeprefix('http://')}, EXCLUDE 127.0.0.1")
        browser = play.chromium.launch(executable_path=program, args=options)
        try:
            yield browser, internet
        finally:
            browser.close()


class Site:
    """What it answers, by path; ``asked`` is every path that it was asked for, ``hosts`` every name it was asked by."""

    def __init__(self, pages: Mapping[str, tuple[Mapping[str, str], bytes]]) -> None:
        self.pages = dict(pages)
        self.asked: list[str] = []
        self.hosts: list[str] = []
        self.url = ""

    def answer(self, host: str, path: str) -> tuple[Mapping[str, str], bytes] | None:
        """Headers and body for a path."""
        self.hosts.append(host.partition(":")[0])
        self.asked.append(path)
        return self.pages.get(path)


@contextmanager
def site(pages: Mapping[str, tuple[Mapping[str, str], bytes]]) -> Iterator[Site]:
    """A web server on loopback for as long as the context lasts."""
    served = Site(pages)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = served.answer(self.headers.get("Host", ""), self.path)
            headers, body = found if found is not None else ({"Content-Type": "text/plain"}, b"nothing here")
            self.send_response(200 if found is not None else 404)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_HEAD = do_GET  # noqa: N815  the names that the library calls

        def log_message(self, *_: object) -> None:  # nobody reads it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
