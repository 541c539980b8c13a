"""Pictures within the text: what may be shown as ``data:``, told by content and never by name (RFC 2392, RFC 2397).

Only formats that are nothing but pixels. SVG is a document with scripts and links of its own, and is never one of them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from gateway.mail.content.decoding import from_base64

__all__ = ["PICTURES_LIMIT", "PICTURE_LIMIT", "Pictures", "picture_type", "references"]

#: Octets of one picture, and of all in one message, each counted as often as it is shown.
PICTURE_LIMIT = 5_000_000
PICTURES_LIMIT = 10_000_000
_MOST = 500
_REFERENCE = re.compile(r"cid:([^\"'\s<>)]{1,750})", re.IGNORECASE)
_DATA = re.compile(r"data:image/[a-z.+-]{1,20};base64,", re.IGNORECASE)


def picture_type(head: bytes) -> str:
    """The media type of the picture that begins so; "" where it is none that is shown."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if head.startswith(b"RIFF") and head[8:12] == b"WEBP" else ""


def references(html: str) -> set[str]:
    """The Content-IDs that a text may refer to."""
    found: set[str] = set()
    for match in _REFERENCE.finditer(html):
        found.add(unquote(match[1], errors="replace"))
        if len(found) >= _MOST:
            break
    return found


class Pictures:
    """The pictures of one message by Content-ID, and the ``data:`` addresses that were handed out for them."""

    def __init__(self, octets: Mapping[str, bytes]) -> None:
        self._octets = octets
        self._left = PICTURES_LIMIT
        self._addresses: list[str] = []
        self._known: dict[str, str] = {}
        self._sizes: list[int] = []
        #: Content-IDs that were found and shown.
        self.used: set[str] = set()
        #: Pictures from elsewhere that are not shown.
        self.remote = 0
        #: Pictures of the message itself that are not: missing, too large, or no pictures.
        self.missing = 0

    def place(self, source: str) -> str:
        """For the ``src`` of a picture: ``cid:`` and a number of :meth:`address`, or "" where nothing is shown."""
        kind = source.lstrip()[:5].lower()
        if kind.startswith("cid:"):
            name = unquote(source.strip()[4:], errors="replace")
            return self._once(f"cid:{name}", self._octets.get(name, b""), name)
        if kind == "data:":
            match = _DATA.match(source.strip())
            octets = from_base64(source.strip()[match.end() :].encode("ascii", "replace")).data if match else b""
            return self._once(source, octets, "")
        self.remote += 1
        return ""

    def _once(self, key: str, octets: bytes, name: str) -> str:
        place = self._known.get(key)
        size = len(octets) if place is None else self._sizes[int(place[4:])]
        kind = picture_type(octets) if place is None else "known"
        if not kind or size > min(PICTURE_LIMIT, self._left):
            self.missing += 1
            return ""
        self._left -= size
        if name:
            self.used.add(name)
        if place is None:
            place = self._known[key] = f"cid:{len(self._addresses)}"
            self._sizes.append(size)
            self._addresses.append(f"data:{kind};base64,{base64.b64encode(octets).decode('ascii')}")
        return place

    def addresses(self) -> Mapping[str, str]:
        """The ``data:`` address for each place that was handed out."""
        return {f"cid:{number}": address for number, address in enumerate(self._addresses)}

    def wanted(self, names: Iterable[str]) -> set[str]:
        """Those of these Content-IDs that there is a picture for."""
        return {name for name in names if name in self._octets}
