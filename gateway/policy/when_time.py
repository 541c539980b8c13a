"""Reading the condition ``time``: ``{between: "18:00-07:00", days: [sat, sun], zone: Europe/Berlin}``."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.config.source import Node
from gateway.policy.about_envelope import DAYS, TimeIs
from gateway.policy.conditions import Condition
from gateway.policy.reader import Reader
from gateway.policy.when_texts import read_one_of

__all__ = ["read_time"]

_BETWEEN = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]) ?- ?(?:([01][0-9]|2[0-3]):([0-5][0-9])|(24):(00))\Z")


def read_time(reader: Reader, node: Node) -> Condition | None:
    """The condition; without ``zone`` the hours are UTC's."""
    days, start, end, zone = frozenset(range(7)), 0, 0, "UTC"
    for key, value in reader.entries(node, "key of time", ("between", "days", "zone")):
        if key == "zone":
            zone = _zone(reader, value)
        elif key == "days":
            days = _days(reader, value)
        else:
            start, end = _between(reader, value)
    if node.mapping is not None and not {"between", "days"} & node.mapping.keys():
        reader.fault(node, "expected between, days, or both")
    return TimeIs(days, start, end, zone)


def _zone(reader: Reader, node: Node) -> str:
    name = reader.text(node, "the name of a time zone, such as Europe/Berlin") or "UTC"
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        reader.fault(node, f"unknown time zone {name!r}; expected one such as Europe/Berlin or America/New_York")
    return name


def _days(reader: Reader, node: Node) -> frozenset[int]:
    known = {name: number for number, name in enumerate(DAYS)}
    return frozenset(read_one_of(reader, node, "day", "days, such as mon", known))


def _between(reader: Reader, node: Node) -> tuple[int, int]:
    text = reader.text(node, 'hours such as "18:00-07:00"') or ""
    match = _BETWEEN.match(text)
    if match is None:
        if text:
            reader.fault(node, f'expected hours such as "18:00-07:00", found {text!r}')
        return 0, 0
    start = int(match[1]) * 60 + int(match[2])
    end = int(match[3] or match[5]) * 60 + int(match[4] or match[6])
    if start == end:
        reader.fault(node, "this is no time at all; leave `between` away for the whole day")
    return start, end % 1440
