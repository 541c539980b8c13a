"""An invitation in a few words: what an iCalendar file says of its first event (RFC 5545, RFC 5546)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.mail.content.charsets import read_text
from gateway.mail.reply import clean_text

__all__ = ["APPOINTMENT_LIMIT", "Appointment", "appointment_of"]

#: Octets; larger files are calendars, not invitations.
APPOINTMENT_LIMIT = 65_536
_FOLD = re.compile(r"\n[ \t]")
_LINE = re.compile(r"^([A-Za-z-]{1,40})((?:;[^:\n\"]{0,200}(?:\"[^\"\n]{0,200}\")?){0,8}):(.*)$", re.MULTILINE)
_ZONE = re.compile(r";TZID=\"?([^;\":]{1,60})", re.IGNORECASE)
_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)\d{0,2}(Z?))?\s*\Z")
_ESCAPED = re.compile(r"\\([\\;,nN])")
_WANTED = frozenset({"SUMMARY", "LOCATION", "DTSTART", "DTEND"})


@dataclass(frozen=True, slots=True)
class Appointment:
    """As the file writes it, each "" where it does not: times as ``2026-03-01 14:30 UTC`` or with a zone's name."""

    method: str
    summary: str
    start: str
    end: str
    location: str


def appointment_of(octets: bytes, charset: str) -> Appointment | None:
    """Of the first event; None where there is none, or the file is too large. Never raises."""
    if len(octets) > APPOINTMENT_LIMIT:
        return None
    text = _FOLD.sub("", read_text(octets, charset or "utf-8").texts[0])
    start = text.upper().find("BEGIN:VEVENT")
    if start < 0:
        return None
    method = next((match[3] for match in _LINE.finditer(text[:start]) if match[1].upper() == "METHOD"), "")
    end = text.upper().find("END:VEVENT", start)
    found: dict[str, str] = {}
    for match in _LINE.finditer(text[start : end if end >= 0 else len(text)]):
        name = match[1].upper()
        if name == "BEGIN" and match[3].strip().upper() == "VALARM":
            break  # it has a summary of its own
        if name in _WANTED and name not in found:
            found[name] = _moment(match[3], match[2]) if name.startswith("DT") else _words(match[3])
    return Appointment(
        clean_text(method, 20).upper(),
        found.get("SUMMARY", ""),
        found.get("DTSTART", ""),
        found.get("DTEND", ""),
        found.get("LOCATION", ""),
    )


def _words(value: str) -> str:
    return clean_text(_ESCAPED.sub(lambda match: " " if match[1] in "nN" else match[1], value), 200)


def _moment(value: str, parameters: str) -> str:
    match = _MOMENT.match(value.strip())
    if match is None:
        return clean_text(value, 40)
    year, month, day, hour, minute, utc = match.groups()
    if hour is None:
        return f"{year}-{month}-{day}"
    zone = _ZONE.search(parameters)
    name = "UTC" if utc else "" if zone is None else clean_text(zone[1], 60)
    return f"{year}-{month}-{day} {hour}:{minute} {name}".rstrip()
