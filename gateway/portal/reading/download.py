"""Files and whole messages as HTTP answers: headers that keep a browser from opening them here, and ranges.

Single ranges (RFC 9110 section 14); several at once, and what is not understood, are answered with the whole, as it
allows. A range is cut from the decoded octets: where they stand in the message is known (``transfer.encoded_range``).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from urllib.parse import quote

from gateway.portal.reading.names import message_name
from gateway.portal.reading.parts import Part, Read
from gateway.portal.reading.transfer import decoded

__all__ = ["Answer", "attachment_answer", "content_disposition", "message_answer", "part_octets"]

_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*\Z")
#: Types that nothing runs in when they are opened; all others are octets to the browser.
_KNOWN = frozenset(
    {"application/pdf", "application/zip", "application/msword", "application/rtf", "application/vnd.ms-excel"}
    | {"application/vnd.ms-powerpoint", "application/vnd.oasis.opendocument.text"}
    | {"application/vnd.oasis.opendocument.spreadsheet", "application/vnd.oasis.opendocument.presentation"}
    | {f"application/vnd.openxmlformats-officedocument.{kind}" for kind in ("wordprocessingml.document",)}
    | {f"application/vnd.openxmlformats-officedocument.{kind}" for kind in ("spreadsheetml.sheet",)}
    | {f"application/vnd.openxmlformats-officedocument.{kind}" for kind in ("presentationml.presentation",)}
    | {"audio/mpeg", "audio/mp4", "audio/ogg", "audio/wav", "audio/x-wav", "video/mp4", "video/quicktime", "video/webm"}
    | {"image/png", "image/jpeg", "image/gif", "image/webp", "image/tiff", "image/heic", "application/dicom"}
    | {"text/plain", "text/csv", "text/calendar", "text/vcard", "message/rfc822"}
)
_CHARSET = re.compile(r"[A-Za-z0-9_.:-]{1,40}")


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` 200, 206 or 416, all headers, and which octets of the file follow: ``start`` to ``end``."""

    status: int
    headers: dict[str, str]
    start: int
    end: int


def attachment_answer(
    part: Part, name: str, *, tag: str, range_header: str | None = None, if_range: str | None = None
) -> Answer:
    """For a download of this part under this (safe) name.

    ``tag`` is an entity tag without its quotes that never stands for other octets: the message's id and the part's
    number will do, a message never changes.
    """
    media_type = part.media_type if part.media_type in _KNOWN else "application/octet-stream"
    if media_type.startswith("text/") and _CHARSET.fullmatch(part.charset):
        media_type = f"{media_type}; charset={part.charset}"
    return _answer(part.size, media_type, name, tag, range_header, if_range)


def message_answer(
    size: int, subject: str, *, tag: str, range_header: str | None = None, if_range: str | None = None
) -> Answer:
    """For a download of the message itself, octet for octet as it was deposited."""
    return _answer(size, "message/rfc822", message_name(subject) or "message.eml", tag, range_header, if_range)


def _answer(size: int, media_type: str, name: str, tag: str, range_header: str | None, if_range: str | None) -> Answer:
    headers = {
        "Content-Type": media_type,
        "Content-Disposition": content_disposition(name),
        "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Accept-Ranges": "bytes",
        "ETag": f'"{tag}"',
    }
    wanted = None
    if range_header is not None and (if_range is None or if_range.strip() == headers["ETag"]):
        wanted = _range(range_header, size)
    if wanted is None:
        return Answer(200, headers | {"Content-Length": str(size)}, 0, size)
    start, end = wanted
    if start >= end:
        return Answer(416, headers | {"Content-Range": f"bytes */{size}", "Content-Length": "0"}, 0, 0)
    part = {"Content-Range": f"bytes {start}-{end - 1}/{size}", "Content-Length": str(end - start)}
    return Answer(206, headers | part, start, end)


def _range(header: str, size: int) -> tuple[int, int] | None:
    """Start and end; an empty range where none of it is there, None where the header asks for nothing that we give."""
    match = _RANGE.match(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        last = int(match[2])
        return (max(0, size - last), size) if last else (size, size)
    start = int(match[1])
    if match[2] and int(match[2]) < start:
        return None
    end = min(int(match[2]) + 1, size) if match[2] else size
    return start, end


def content_disposition(name: str) -> str:
    """``attachment`` with the name in ASCII for old programs, and in full (RFC 6266, RFC 8187)."""
    plain = "".join(char if " " <= char <= "~" and char not in '"\\%' else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def part_octets(part: Part, read: Read, start: int, end: int) -> AsyncGenerator[bytes, None]:
    """The octets of an :class:`Answer` for a part. Of the message itself they are ``read(start, end)``."""
    return decoded(part, read, start, end)
