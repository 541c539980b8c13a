"""What became of each recipient: the data of ``gateway trace``, read from the gateway's own store, as values."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from gateway.cli.words import printable
from gateway.policy.bundle import load_all
from gateway.queue.states import LIVE, State
from gateway.queue.views import Filter, select_recipients, trace_messages
from gateway.store.database import Reader, open_engine

__all__ = ["Fate", "Mail", "Record", "Shown", "Try"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What TLS showed: version, assurance reached; ``chain`` and ``name`` are "ok" or what is wrong."""

    version: str
    assurance: str
    chain: str
    name: str


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt: the host (or what was asked in its place, such as DNS), how it ended, reply and TLS if any."""

    host: str
    outcome: str
    reply: str
    tls: Shown | None


@dataclass(frozen=True, slots=True)
class Fate:
    """A recipient of a message: what policy asked, what was tried, where it stands."""

    recipient: str
    state: State
    methods: tuple[str, ...]
    level: str
    rules: tuple[tuple[str, str], ...]
    method: str | None
    passed_over: tuple[tuple[str, str], ...]
    changed: tuple[str, ...]
    tried: tuple[Try, ...]
    tries: int
    error: str
    hold_reason: str
    next_attempt: float | None
    #: What the session attained that carried the notice of the portal; "" where none was carried.
    notice: str = ""
    #: Whether the sender was mailed an access phrase.
    phrase: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state not in LIVE or self.state in {State.HELD, State.DEPOSITED}

    @property
    def last(self) -> Try | None:
        """The last attempt."""
        return self.tried[-1] if self.tried else None


@dataclass(frozen=True, slots=True)
class Mail:
    """A message with all its recipients. ``ours``: a notice that the gateway wrote itself."""

    id: str
    sender: str
    ours: bool
    fates: tuple[Fate, ...]

    @property
    def settled(self) -> bool:
        """Whether nothing more happens by itself."""
        return all(fate.settled for fate in self.fates)


class Record:
    """Reads the store of the gateway with this configuration; each look is a short transaction of its own."""

    def __init__(self, config: Path) -> None:
        settings = load_all(config).settings
        self._reader = Reader(open_engine(settings.store.database, settings.data_dir, writes=False))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._reader.close)

    async def mail(self, ids: Sequence[str]) -> list[Mail]:
        """These messages, as they stand. Raises :class:`gateway.errors.StoreError`."""
        found = await self._reader.run(partial(trace_messages, message_ids=list(ids)))
        return [_mail(each) for each in found]

    async def since(self, moment: float) -> list[str]:
        """The ids of messages that came in since then, oldest first."""
        wanted = Filter(states=frozenset(State), since=moment)
        rows, after = [], ("", 0)
        while page := await self._reader.run(partial(select_recipients, wanted=wanted, after=after)):
            rows += page
            after = (page[-1].message, page[-1].n)
        return list(dict.fromkeys(row.message for row in rows))


def _mail(data: dict[str, Any]) -> Mail:
    fates = tuple(_fate(each) for each in data["recipients"])
    return Mail(data["id"], printable(data["sender"]), data["parent"] is not None, fates)


def _fate(data: dict[str, Any]) -> Fate:
    decision = data["decision"]
    required = decision["requirement"]
    return Fate(
        recipient=printable(data["recipient"]),
        state=State(data["state"]),
        methods=tuple(required["methods"]),
        level=required["tls"],
        rules=tuple((each["name"], printable(each["effect"])) for each in decision["rules"]),
        method=data["method"] or decision["method"],
        passed_over=tuple((each["method"], printable(each["reason"])) for each in decision["passed_over"]),
        changed=tuple(printable(f"{each['action']} {each['detail']}") for each in decision["actions"] if each["done"]),
        tried=tuple(_try(each) for each in data["attempts"]),
        tries=sum(event["kind"] == "claimed" for event in data["events"]),
        error=printable(data["last_error"] or ""),
        hold_reason=printable(data["hold_reason"] or ""),
        next_attempt=data["next_attempt"],
        notice=next(
            (event["data"]["assurance"] for event in data["events"] if event["data"].get("event") == "noticed"), ""
        ),
        phrase=any(event["kind"] == "phrase_made" for event in data["events"]),
    )


def _try(data: dict[str, Any]) -> Try:
    tls, reply = data["tls"], data["reply"]
    said = (
        ""
        if reply is None
        else " ".join(str(part) for part in (reply["code"], reply["enhanced"], reply["text"]) if part)
    )
    shown = (
        None
        if tls is None
        else Shown(tls["version"].replace("TLSv", "TLS "), tls["assurance"], tls["chain"], tls["name"])
    )
    return Try(data["host"] or (data["stage"] or "").upper(), printable(data["outcome"]), printable(said), shown)
