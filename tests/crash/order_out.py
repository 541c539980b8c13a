"""The order proof of delivery: each mark was on the disk before the step that it stands for.

Read off the same list of system calls as :mod:`tests.crash.order`, with the peer in clear text, so that ``RCPT TO`` can
be seen to leave. Marks are the records of a message's events (``claimed``, ``delivered``), found by its id in the
frames of the write-ahead log. For every message that was delivered:

1. the claim of its k-th attempt was synced before its k-th ``RCPT TO`` was sent: whatever dies then, the attempt is
   counted and whose it is is known;
2. ``delivered`` was not written before the last ``RCPT TO``, and was synced before anybody could read of it in the log;
3. its body's file was removed only after the record that deletes its key was synced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.crash.order import Transaction, transactions
from tests.crash.strace_log import Call

__all__ = ["Delivered", "delivery_faults"]

_SYNC: Final = frozenset({"fsync", "fdatasync"})
_SEND: Final = frozenset({"write", "writev", "sendto", "sendmsg"})


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message that the peer has taken: its token, its id as the client was told it, the size of its body."""

    token: str
    id: str
    size: int


def delivery_faults(calls: Sequence[Call], delivered: Iterable[Delivered], *, peer: int, inline: int) -> list[str]:
    """What is wrong with the order, a sentence each; none: the proof holds. ``peer`` is the port mail leaves to."""
    commits = transactions(calls)
    synced = _Syncs(calls)
    sent = [call for call in calls if call.name in _SEND and call.peer_port == peer]
    wrong: list[str] = []
    for message in delivered:
        asked = [call for call in sent if b"RCPT TO:<" + message.token.encode("ascii") + b"@" in call.payload]
        if not asked:
            wrong.append(f"{message.token}: no RCPT TO was sent")
            continue
        for attempt, call in enumerate(asked, 1):
            claim = _first(commits, _claims(message, attempt))
            if not synced.between(claim, call.begun):
                wrong.append(f"{message.token}: RCPT TO number {attempt} was sent before its claim was synced")
        wrong += _end_faults(calls, commits, synced, message, asked[-1], inline)
    return wrong


class _Syncs:
    """When the write-ahead log was synced."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._calls = [call for call in calls if call.name in _SYNC and call.succeeded]

    def between(self, commit: Transaction | None, before: int) -> bool:
        """Was that commit synced by a call that began after it was written, and returned by then?"""
        return commit is not None and any(
            call.target == commit.log and commit.committed < call.begun and call.ended < before for call in self._calls
        )


def _end_faults(
    calls: Sequence[Call],
    commits: Sequence[Transaction],
    synced: _Syncs,
    message: Delivered,
    asked: Call,
    inline: int,
) -> list[str]:
    wrong: list[str] = []
    end = _first(commits, [f"{message.id} attempt delivered deleted ".encode("ascii")])
    if end is None:
        return [f"{message.token}: no record of its delivery was written"]
    if end.commit_begun < asked.begun:
        wrong.append(f"{message.token}: it was called delivered before it was sent")
    told = next((call for call in calls if _tells(call, message)), None)
    if told is None or not synced.between(end, told.begun):
        wrong.append(f"{message.token}: its delivery was told before its record was synced")
    removed = [
        call
        for call in calls
        if call.name in {"unlink", "unlinkat"} and any(text.endswith(message.id.encode()) for text in call.strings)
    ]
    if message.size > inline and not removed:
        wrong.append(f"{message.token}: its file was not removed")
    if any(not synced.between(end, call.begun) for call in removed):
        wrong.append(f"{message.token}: its file was removed before the record of that was synced")
    return wrong


def _claims(message: Delivered, attempt: int) -> list[bytes]:
    """How the record of that claim begins in a page; the first claim may be made with the accept."""
    found = [f'{message.id} claimed [["claimed",1,{{"attempt":{attempt}}}]]']
    if attempt == 1:
        found.append(f"{message.id} accepted decided claimed ")
    return [text.encode("ascii") for text in found]


def _first(commits: Sequence[Transaction], patterns: Sequence[bytes]) -> Transaction | None:
    """The transaction that wrote it: pages that come later have it too."""
    return next((one for one in commits if any(pattern in one.pages for pattern in patterns)), None)


def _tells(call: Call, message: Delivered) -> bool:
    return (
        call.name == "write"
        and call.peer_port is None
        and b'"event":"attempt"' in call.payload.replace(b'": "', b'":"')
        and message.id.encode() in call.payload
        and b"delivered" in call.payload
    )
