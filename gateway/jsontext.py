"""JSON as text, for rows, events and log lines: quick where it can be, and never at a loss.

``orjson`` writes some hundred bytes in a microsecond, but refuses what the standard library takes: lone surrogates and
integers beyond 64 bits. Neither should be in what we keep; where one is, the evidence must not be lost over it.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

__all__ = ["from_json", "to_json", "to_sorted_json"]


def to_json(value: Any) -> str:
    """``value`` as JSON without white space, keys in their order. Raises ``TypeError`` for what is no JSON."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, separators=(",", ":"))


def to_sorted_json(value: Any) -> str:
    """The one text of ``value``: the same with the keys of every object sorted."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        return json.dumps(value, separators=(",", ":"), sort_keys=True)


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ``ValueError``."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
