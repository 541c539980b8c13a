"""Cookies of one visit: what the browser sent, and what it is to keep.

Over https their names begin with ``__Host-``: the browser takes such a cookie from this very host alone, over TLS, for
all paths, so that no other host of the domain can plant one (RFC 6265bis section 4.1.3.2). Over http - on loopback, for
the demo - browsers refuse the prefix, and the plain name is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.cookies import SimpleCookie

from starlette.datastructures import MutableHeaders

__all__ = ["Cookies"]

#: What our values consist of: base64url. Others are not ours, whoever sent them.
_VALUE = re.compile(r"[A-Za-z0-9_-]{1,256}\Z")
_PREFIX = "__Host-"


class Cookies:
    """``sent`` are the browser's; ``https`` whether it reaches us so."""

    def __init__(self, sent: Mapping[str, str], *, https: bool) -> None:
        self._prefix = _PREFIX if https else ""
        self._https = https
        self._sent = sent
        self._changed: dict[str, tuple[str, int | None]] = {}

    def get(self, name: str) -> str | None:
        """The value under this name (without prefix), as this visit leaves it; ``None`` where there is none of ours."""
        if name in self._changed:
            return self._changed[name][0] or None
        value = self._sent.get(self._prefix + name, "")
        return value if _VALUE.match(value) else None

    def set(self, name: str, value: str, *, seconds: int | None = None) -> None:
        """Let the browser keep this, until it is closed or for so many seconds. ``value`` is base64url."""
        if not _VALUE.match(value):
            raise ValueError("a cookie's value is base64url, up to 256 characters")
        self._changed[name] = value, seconds

    def drop(self, name: str) -> None:
        """Let the browser forget it."""
        self._changed[name] = "", 0

    def write(self, headers: MutableHeaders) -> None:
        """Put what has changed into the headers of the answer."""
        for name, (value, seconds) in self._changed.items():
            cookie: SimpleCookie = SimpleCookie()
            full = self._prefix + name
            cookie[full] = value
            morsel = cookie[full]
            morsel["path"], morsel["httponly"], morsel["samesite"] = "/", True, "Lax"
            if self._https:
                morsel["secure"] = True
            if seconds is not None:
                morsel["max-age"] = seconds
            headers.append("Set-Cookie", morsel.OutputString())
