"""Structured logs: one JSON object a line, ids instead of people.

Events carry message ids, connectors, domains and codes. Subjects and bodies are never given to the log; should one
slip into an event under a telling name, the redaction drops it, and full addresses are cut to their domain unless the
operator asks for them (``log.addresses``).
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Protocol, TextIO, cast

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
        forbidden = isinstance(key, str) and key.casefold() in _FORBIDDEN
        return "[redacted]" if forbidden else self._clean(value)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            text = value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…"
            return text if self._addresses or "@" not in text else _ADDRESS.sub(r"…@\1", text)
        if isinstance(value, (list, tuple)):
            return [self._clean(item) for item in value]
        if isinstance(value, dict):
            return {key: self._clean_field(key, item) for key, item in value.items()}
        return value


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
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=True)
        if output == "json"
        else structlog.dev.ConsoleRenderer(colors=target.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([] if worker is None else [_Numbered(worker)]),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
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
