"""A message as a document of its own, and the headers without which it must not be served.

It is shown in a frame with ``sandbox``, and says the same itself, so that it is harmless where somebody opens it alone:

``sandbox`` without ``allow-scripts`` and ``allow-same-origin``
    nothing runs, and the document has an origin of its own: no cookie, no storage, no frame around it can be reached.
    ``allow-popups`` so that a link opens, in a new window (``target=_blank``) and on a click only, there being no
    scripts; ``allow-popups-to-escape-sandbox`` because a page opened so is an ordinary page: without it the reader
    would meet other people's sites broken. ``rel=noopener noreferrer`` keeps them apart from us.
``default-src 'none'``
    nothing is fetched: no picture, font, style, frame, connection. ``img-src data:`` is for pictures of the message.
``style-src``
    our own style element by its digest, and style attributes, which mail cannot do without; what is in them has been
    written anew (``styles``), and can fetch nothing by the line above.
``form-action 'none'``, ``base-uri 'none'``, ``frame-ancestors 'self'``
    what ``default-src`` does not cover.

No link in it is looked up before it is clicked (``X-DNS-Prefetch-Control``), none is told where it was clicked.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from html import escape
from typing import Final

__all__ = ["CSP", "HEADERS", "Document", "document"]

_STYLE: Final = (
    ":root{color-scheme:light;-webkit-text-size-adjust:100%;text-size-adjust:100%}"
    "body{margin:0;background:#fff;color:#1b1b1b;font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;"
    "overflow-wrap:break-word}"
    "main{padding:16px;overflow-x:auto}"
    "img{max-width:100%;height:auto}"
    "img:not([src]){border:1px dashed #767676;color:#595959;font-size:14px;padding:0 4px}"
    "a{color:#0b57d0}"
    "blockquote{margin:8px 0;padding-inline-start:12px;border-inline-start:3px solid #c4c7c5}"
    ".text{white-space:pre-wrap}"
    ".text+.text{margin-top:8px}"
    "hr.part{border:0;border-top:1px solid #c4c7c5;margin:24px 0}"
    ".plain{color-scheme:light dark}"
    "@media (prefers-color-scheme:dark){"
    "body.plain{background:#16181c;color:#e3e3e3}"
    ".plain a{color:#a8c7fa}"
    ".plain blockquote{border-color:#5f6368}"
    "}"
)
_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")

#: The policy of the document: see above. ``style-src`` is what browsers go by that do not know the two after it.
CSP: Final = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; "
    f"style-src 'unsafe-inline'; style-src-elem 'sha256-{_DIGEST}'; style-src-attr 'unsafe-inline'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)

#: All headers that the document is served with; none may be left out.
HEADERS: Final[dict[str, str]] = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Document:
    """``content`` is a whole HTML document in UTF-8; serve it with :data:`HEADERS`, in a frame with ``sandbox``."""

    content: bytes


def document(sections: list[str], *, is_plain: bool, title: str, language: str) -> Document:
    """Put together from safe HTML. ``is_plain``: plain text only, which follows the reader's colour scheme.

    HTML stands on white whatever the scheme: mail takes white for granted, and black on black would be the rest.
    """
    body = '<hr class="part">'.join(sections)
    text = (
        f'<!doctype html>\n<html lang="{escape(language)}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f'<body class="{"plain" if is_plain else "html"}"><main dir="auto">{body}</main></body></html>\n'
    )
    return Document(text.encode("utf-8", "replace"))
