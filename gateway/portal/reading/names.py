"""Names and texts of strangers, made fit to be shown: as one line, in the order of their letters, and no path.

A file name tells the reader what will open. So nothing may hide its end: no characters that turn the direction of
writing, no run of blanks that pushes the extension out of sight, no cut that takes it off.
"""

from __future__ import annotations

import re
import unicodedata

from gateway.mail.content.words import decode_words, header_text
from gateway.mail.reply import clean_text

__all__ = ["field_text", "file_name", "message_name", "unique_names"]

_MAX_NAME = 120
_MAX_EXTENSION = 20
_FORBIDDEN = re.compile(r'[<>:"|?*%]')
_BLANKS = re.compile(r"\s+")
#: Windows takes these for devices, whatever the extension.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\.|\Z)", re.IGNORECASE)
#: Control, format, surrogate, private, unassigned characters, separators of lines.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Blank to the eye, though letters or symbols by their class.
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f")
_EXTENSIONS = {
    "application/ics": ".ics",
    "application/json": ".json",
    "application/msword": ".doc",
    "application/pdf": ".pdf",
    "application/pgp-encrypted": ".asc",
    "application/pgp-signature": ".asc",
    "application/pkcs7-mime": ".p7m",
    "application/pkcs7-signature": ".p7s",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/x-pkcs7-mime": ".p7m",
    "application/x-pkcs7-signature": ".p7s",
    "application/xml": ".xml",
    "application/zip": ".zip",
    "audio/mpeg": ".mp3",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/svg+xml": ".svg",
    "image/webp": ".webp",
    "message/delivery-status": ".txt",
    "message/global": ".eml",
    "message/rfc822": ".eml",
    "text/calendar": ".ics",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/plain": ".txt",
    "text/vcard": ".vcf",
    "video/mp4": ".mp4",
}


def field_text(value: bytes, limit: int = 500) -> str:
    """An unstructured field as people read it, on one line: encoded words decoded (RFC 2047), controls gone."""
    return clean_text(_BLANKS.sub(" ", decode_words(header_text(value).texts[0]).texts[0]), limit)


def file_name(raw: str, media_type: str, number: int) -> str:
    """A safe name for the file; where the message gives none, one by its type. The extension always shows."""
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", raw)[-1])
    name = "".join(" " if char in _FILLERS or char.isspace() else char for char in name)
    name = "".join(char for char in name if unicodedata.category(char) not in _UNSEEN)
    name = _BLANKS.sub(" ", _FORBIDDEN.sub("_", name)).lstrip(". ").rstrip(". ")
    stem, dot, extension = name.rpartition(".")
    if dot and stem:
        stem, extension = stem.strip(), "." + extension.strip()
    else:
        stem, extension = name, ""
    if not stem:
        return f"attachment-{number}{_EXTENSIONS.get(media_type, '.bin')}"
    if _DEVICES.match(stem + extension):
        stem = f"_{stem}"
    if len(extension) > _MAX_EXTENSION:  # not what programs go by; cut in the middle, so that both ends show
        name = stem + extension
        return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 40]}…{name[-39:]}"
    room = _MAX_NAME - len(extension)
    return (stem if len(stem) <= room else f"{stem[: room - 1]}…") + extension


def message_name(subject: str) -> str:
    """A name for the message with this (cleaned) subject; "" where it has none."""
    return file_name(re.sub(r"[/\\]", "_", subject) + ".eml", "message/rfc822", 1) if subject.strip() else ""


def unique_names(names: list[str]) -> list[str]:
    """The same names, the second of two alike with a number before its extension."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        key = name.casefold()
        count = seen[key] = seen.get(key, 0) + 1
        stem, dot, extension = name.rpartition(".")
        if count > 1:
            name = f"{stem} ({count}).{extension}" if dot else f"{extension} ({count})"  # noqa: PLW2901  its new form
        found.append(name)
    return found
