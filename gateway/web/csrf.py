"""Whether a form was sent from our own page, by three signs. None needs JavaScript.

1. ``Sec-Fetch-Site`` (Fetch Metadata): which page the request comes from, in the browser's own words
2. ``Origin``, where the browser does not say that
3. a token in the form, bound by HMAC to a cookie of the browser: what decides where it says neither

Our pages ask for ``Referrer-Policy: no-referrer``, since their addresses hold tokens. Under that policy browsers send
``Origin: null`` with a form, even to ourselves (Fetch, section 3.2): ``null`` says nothing here, for or against.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256

__all__ = ["FIELD", "FormTokens", "cross_origin", "new_browser"]

#: The name of the hidden field.
FIELD = "csrf"


def cross_origin(site: str | None, origin: str | None, own: str) -> str:
    """Why a request that changes something is not from a page of ours; "" where nothing speaks against it.

    ``site`` and ``origin`` are the values of ``Sec-Fetch-Site`` and ``Origin``; ``own`` is our origin.
    """
    if site is not None and site not in {"same-origin", "none"}:
        return f"Sec-Fetch-Site is {site[:20]}"
    if origin is not None and origin not in {"null", own}:
        return f"Origin is not {own}"
    return ""


def new_browser() -> str:
    """A name for a browser: 128 random bits."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True, slots=True)
class FormTokens:
    """``key`` outlives the process: a page that was open while it was restarted can still be sent."""

    key: bytes

    def make(self, browser: str) -> str:
        """The token for forms in this browser."""
        return hmac.new(self.key, b"form\0" + browser.encode(), sha256).hexdigest()[:32]

    def holds(self, browser: str | None, token: str) -> bool:
        """Whether this token was made for this browser."""
        if browser is None:
            return False
        return hmac.compare_digest(self.make(browser).encode(), token.encode(errors="replace"))
