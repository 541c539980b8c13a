"""Structured logs: one JSON object a line, ids instead of people.

Events carry message ids, connectors, domains and codes. Subjects and bodies are never given to the log; should one
slip into an event under a telling name, the redaction drops it, and full addresses are cut to their domain unless the
operator asks for them (``log.addresses``).
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol, TextIO, cast

import orjson
import structlog

__all__ = ["Lines", "Redaction", "set_up"]

_FORBIDDEN = frozenset({"subject", "body", "content", "password", "secret", "token", "header_block"})
# Wider than any grammar of addresses: quoted, international and single-label ones are people, too. The look-behind lets
# a match begin only where a word does, so that the work stays linear.
_ADDRESS = re.compile(
    r"""(?<![^\s<>@"(),;:])(?:"(?:[^"\\]|\\.)*"|[^\s<>@"(),;:]+)@(\[[^\]\s]*\]|[^\s<>@"'(),;:\[\]]+)"""
)
_MAX_TEXT = 2000


class Redaction:
    """A structlog processor. ``addresses``: leave mail addresses whole."""

    def __init__(self, *, addresses: bool = False) -> None:
        self._addresses = addresses

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """The event without what must not be logged."""
        for key, value in event.items():
            event[key] = self._clean_field(key, value)
        return event

    def _clean_field(self, key: object, value: Any) -> Any:
        forbidden = isinstance(key, str) and _is_forbidden(key)
        return "[redacted]" if forbidden else self._clean(value)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            text = value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…"
            return text if self._addresses or "@" not in text else _ADDRESS.sub(r"…@\1", text)
        if isinstance(value, (int, float)) or value is None:
            return value
        if isinstance(value, (list, tuple)):
            return [self._clean(item) for item in value]
        if isinstance(value, dict):
            return {key: self._clean_field(key, item) for key, item in value.items()}
        return value


@lru_cache(maxsize=1024)
def _is_forbidden(key: str) -> bool:
    return key.casefold() in _FORBIDDEN


class _JsonLine:
    """The last structlog processor: one line of ASCII. What is no JSON is shown as ``repr`` shows it."""

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        try:
            line = orjson.dumps(event, default=repr)
        except TypeError:  # keys that are no text, numbers beyond 64 bits, lone surrogates
            return json.dumps(event, default=repr, skipkeys=True)
        # Line separators that only Unicode knows are told apart by some readers: nothing outside ASCII.
        return line.decode() if line.isascii() else json.dumps(event, default=repr)


class _Stamp:
    """A structlog processor: when, and how bad."""

    def __call__(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["level"] = "error" if method == "exception" else method
        event["timestamp"] = f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z"
        return event


class Lines(Protocol):
    """What a log is written to."""

    def write(self, text: str, /) -> int:
        """Write text that ends with a line end."""
        ...

    def flush(self) -> None:
        """Keep nothing back."""
        ...

    def isatty(self) -> bool:
        """Whether a person reads along."""
        ...


class _Numbered:
    """A structlog processor that says which worker speaks."""

    def __init__(self, worker: int) -> None:
        self._worker = worker

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("worker", self._worker)
        return event


def set_up(
    *, level: str, output: str, addresses: bool, stream: TextIO | Lines | None = None, worker: int | None = None
) -> None:
    """Send all events of this process to ``stream`` (standard error): ``output`` is ``json`` or ``console``.

    ``worker``: its number, which stands in every event.
    """
    target = cast("TextIO", stream or sys.stderr)
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = _JsonLine() if output == "json" else structlog.dev.ConsoleRenderer(colors=target.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([] if worker is None else [_Numbered(worker)]),
            _Stamp(),
            structlog.processors.format_exc_info,
            Redaction(addresses=addresses),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=target, format="%(message)s", force=True)
    for name in ("mail.log", "asyncio", "alembic", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
