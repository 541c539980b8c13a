"""Addresses, days and sizes as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from babel.dates import format_date, format_time
from babel.numbers import format_decimal

from gateway.web.pages import Language

__all__ = ["day", "masked", "moment", "size"]

#: The long forms of English put the month first in one country and the day in all others.
_ENGLISH: Final = "d MMMM y"
_THOUSAND: Final = 1000


def masked(address: str) -> str:
    """Enough of an address for its owner: ``p••@isp.example``."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}••@{domain}"


def day(seconds: float, language: Language) -> str:
    """A day in UTC; ``seconds`` since the epoch."""
    return _day(datetime.fromtimestamp(seconds, UTC), language)


def moment(when: datetime, language: Language) -> str:
    """Day and minute, with their zone: we do not know the reader's."""
    time = format_time(when, "HH:mm", locale=language.locale)
    return f"{_day(when, language)}, {time} UTC"


def size(octets: int, language: Language) -> str:
    """A size as file lists show it, in decimal units."""
    if octets < _THOUSAND:
        return f"{octets} B"
    value, unit = octets / _THOUSAND, "KB"
    for larger in ("MB", "GB"):
        if value >= _THOUSAND:
            value, unit = value / _THOUSAND, larger
    shown = "#,##0" if value >= 10 else "#,##0.#"
    return f"{format_decimal(value, format=shown, locale=language.locale)} {unit}"


def _day(when: datetime, language: Language) -> str:
    return format_date(when, _ENGLISH if language.tag == "en" else "long", locale=language.locale)
