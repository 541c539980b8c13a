"""Links out of a message: which are kept, and what the reader is told about where they lead."""

from __future__ import annotations

import re
from html import escape
from urllib.parse import urlsplit

from gateway.mail.address import AddressError, normal_domain
from gateway.mail.reply import clean_text

__all__ = ["SCHEMES", "link_text", "linked", "safe_link"]

#: What a link may begin with.
SCHEMES = frozenset({"http", "https", "mailto", "tel"})
_MAX_LENGTH = 4000
_SHOWN = 300
#: Browsers leave these out of an address before they look at it (URL standard, basic parser).
_IGNORED = re.compile(r"[\t\n\r]")
_EDGES = "".join(map(chr, range(0x21)))
_WEB = re.compile(r"https?://[^/]", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:mailto|tel):[^\s\x00-\x20]", re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x20\x7f\"'<>`{}|^]")

_IN_TEXT = re.compile(
    r"(?<![\w@/.-])(?:(https?://|www\.)[^\s<>\"\x00-\x1f]{1,2000}|mailto:[^\s<>\"]{3,300}"
    r"|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8})",
    re.IGNORECASE,
)
_MAX_LINKS = 2000
_PAIRS = {")": "(", "]": "[", "}": "{"}


def safe_link(address: str) -> str | None:
    """The address as it may stand in ``href``: absolute, of a scheme that opens no program by itself; None else."""
    cleaned = _IGNORED.sub("", address).strip(_EDGES)
    if len(cleaned) > _MAX_LENGTH:
        return None
    if _ADDRESS.match(cleaned):
        return _UNSAFE.sub(_percent, cleaned)
    cleaned = cleaned.replace("\\", "/")  # browsers read it so
    if not _WEB.match(cleaned):
        return None
    try:
        host = urlsplit(cleaned).hostname
    except ValueError:
        return None
    return _UNSAFE.sub(_percent, cleaned) if host else None


def _percent(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"


def link_text(address: str) -> str:
    """For the ``title`` of a link: where it leads, the host in the letters that it is looked up with."""
    shown = address
    if _WEB.match(address):
        parts = urlsplit(address)
        host = parts.hostname or ""
        try:
            host = normal_domain(host)
        except AddressError:
            host = host.encode("ascii", "backslashreplace").decode("ascii")
        rest = address.split("://", 1)[1]
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        port = re.search(r":\d{1,5}\Z", authority)
        shown = f"{parts.scheme}://{host}{port[0] if port else ''}{rest[len(authority) :]}"
    return clean_text(shown, _SHOWN)


def linked(text: str, left: int = _MAX_LINKS) -> tuple[str, int]:
    """Plain text as HTML, addresses in it made links, at most ``left``; and how many more there may be."""
    pieces: list[str] = []
    done = 0
    for match in _IN_TEXT.finditer(text):
        if left <= 0:
            break
        found = _trimmed(match[0])
        address = found
        if match[1] is None and not found.lower().startswith("mailto:"):
            address = f"mailto:{found}"
        elif match[1] is not None and match[1].lower() == "www.":
            address = f"https://{found}"
        href = safe_link(address)
        if href is None:
            continue
        left -= 1
        pieces += (
            escape(text[done : match.start()]),
            f'<a href="{escape(href)}" title="{escape(link_text(href))}" target="_blank" rel="noopener noreferrer">',
            escape(found),
            "</a>",
        )
        done = match.start() + len(found)
    pieces.append(escape(text[done:]))
    return "".join(pieces), left


def _trimmed(found: str) -> str:
    """Less what ends the sentence around it, and not the address."""
    while found and (found[-1] in ".,;:!?'*_" or (found[-1] in _PAIRS and _PAIRS[found[-1]] not in found)):
        found = found[:-1]
    return found
