"""Events of the portal, for people who read a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from gateway.cli.words import moment

__all__ = ["portal_words"]

Data = dict[str, Any]


def portal_words(kind: str, data: Data) -> str:
    """What happened, in words; "" where it is no event of the portal."""
    said = _WORDS.get((kind, data.get("event", "")))
    return "" if said is None else said(data)


def _who(data: Data) -> list[str]:
    by, reason = data.get("operator"), data.get("reason")
    return [part for part in (f"by {by}" if by else "", reason) if part]


def _way(assurance: str) -> str:
    return "in the clear" if assurance == "none" else f"by TLS that was {assurance}"


def _reader(data: Data) -> str:
    return f"from {data['network']}, with a code that went {_way(data['level'])}"


def _recalled(data: Data) -> str:
    return "; ".join(["it had been read" if data.get("read") else "nobody had read it", *_who(data)])


_WORDS: Final[Mapping[tuple[str, str], Callable[[Data], str]]] = MappingProxyType(
    {
        ("noticing", "deposit"): lambda _: "it lies in the portal; the notice is on its way",
        ("deposited", "noticed"): lambda data: f"the notice was accepted, {_way(data['assurance'])}",
        ("deposited", "restore"): lambda data: "; ".join(["the recall was taken back", *_who(data)]),
        ("recall_undone", ""): lambda data: "; ".join(["the recall was taken back", *_who(data)]),
        ("recalled", "recall"): _recalled,
        ("recalled", ""): _recalled,
        ("extended", ""): lambda data: "; ".join([f"until {moment(data['until'])}", *_who(data)]),
        ("notice_sent_again", ""): lambda data: "; ".join(_who(data)),
        ("notice_came_back", ""): lambda data: data["reason"],
        ("reminded", ""): lambda _: "the recipient was told once more",
        ("phrase_made", ""): lambda data: (
            f"four words went to the sender: a code alone needs TLS that is {data['needs']} or better"
        ),
        ("code_asked", ""): lambda data: f"a code was mailed, asked for from {data['network']}",
        ("phrase_entered", ""): lambda data: f"the four words were entered, from {data['network']}",
        ("phrase_wrong", ""): lambda data: f"four wrong words were entered, from {data['network']}",
        ("picked_up", "open"): lambda data: f"read for the first time, {_reader(data)}",
        ("viewed", ""): lambda data: f"read again, {_reader(data)}",
        ("replied", ""): lambda data: f"a reply went to the sender, as {data['message']}",
    }
)
