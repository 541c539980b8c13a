"""The headers of every answer, pages and errors alike. What a response sets itself stands."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.datastructures import MutableHeaders

__all__ = ["PAGE_POLICY", "plain_headers", "secure"]

#: Nothing but our own style sheet, our own pictures and those in the page, our own forms and frames; in nobody's frame.
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
#: What a page may not ask the browser for.
_PERMISSIONS = (
    "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), "
    "midi=(), payment=(), usb=(), browsing-topics=()"
)
#: Seconds: a year, as browsers' preload lists ask for. Sub-domains are not ours to speak for.
_HSTS = "max-age=31536000"


def secure(headers: MutableHeaders, policy: str, *, https: bool) -> None:
    """Add what is missing. ``https``: the face is reached by https, so browsers may insist on it."""
    for name, value in _wanted(policy, https=https):
        headers.setdefault(name, value)


def plain_headers(*, https: bool) -> list[tuple[bytes, bytes]]:
    """The same for an answer that is written without a response object."""
    return [(name.lower().encode(), value.encode()) for name, value in _wanted(PAGE_POLICY, https=https)]


def _wanted(policy: str, *, https: bool) -> Iterator[tuple[str, str]]:
    yield "Content-Security-Policy", policy
    yield "Cache-Control", "no-store"
    yield "Referrer-Policy", "no-referrer"
    yield "X-Content-Type-Options", "nosniff"
    yield "Cross-Origin-Opener-Policy", "same-origin"
    yield "Cross-Origin-Resource-Policy", "same-origin"
    yield "Permissions-Policy", _PERMISSIONS
    yield "X-Robots-Tag", "noindex, nofollow"
    # For browsers that do not know frame-ancestors; the others heed that and ignore this.
    yield "X-Frame-Options", "DENY" if "frame-ancestors 'none'" in policy else "SAMEORIGIN"
    if https:
        yield "Strict-Transport-Security", _HSTS
