"""The order proof: what must have been synced before a ``250`` was written, read off a list of system calls.

For every accepted message, numbered by its unique token (its recipient's local part):

1. the transaction that holds its rows is found in the write-ahead log: the frames from one commit to the next, one of
   which has the token among its bytes (a frame is a header of 24 bytes, then the page; the header's second word is not
   zero in the frame that commits; SQLite file format, section 4.1);
2. the ``250`` is the reply after the ``354`` on the connection that the client counted;
3. the log file was synced by a call that began after the committing frame was written and returned before the 250
   began;
4. where the body is a file: every file made between DATA and the 250 that is still there was synced after its last
   write, its directory after it got its name, and the parent of every directory made on the way - all before the
   committing frame was written, because a row must never name a body that a power cut can take away.
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.crash.strace_log import Call

__all__ = ["Accepted", "Transaction", "faults", "transactions"]

_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = struct.Struct(">6I")
_SYNC: Final = frozenset({"fsync", "fdatasync"})
_WRITE: Final = frozenset({"write", "pwrite64", "writev", "pwritev", "pwritev2"})
_SEND: Final = frozenset({"write", "writev", "sendto", "sendmsg"})
_NAMING: Final = frozenset({"rename", "renameat", "renameat2", "link", "linkat"})
_REMOVING: Final = frozenset({"unlink", "unlinkat"})
#: Not bodies: the database opens its files with O_CREAT whenever it takes one more connection to itself.
_DATABASE: Final = (".db", "-wal", "-shm", "-journal", ".lock", ".log")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message answered 250: on which connection (the client's port), the how-many-th on it, how large."""

    token: str
    port: int
    position: int
    size: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one commit wrote into a write-ahead log; ``commit_begun`` and ``committed`` are line numbers."""

    log: str
    commit_begun: int
    committed: int
    pages: bytes


def transactions(calls: Iterable[Call]) -> list[Transaction]:
    """All commits in the order in which they were written.

    Writers of one database take turns, so the frames of two transactions never mix in one log.
    """
    found: list[Transaction] = []
    pages: dict[str, list[bytes]] = {}
    commit: dict[str, Call] = {}
    for call in calls:
        log = call.target
        if call.name != "pwrite64" or not log.endswith("-wal") or not call.succeeded:
            continue
        data = call.payload
        if call.offset == 0 and len(data) == _WAL_HEADER:
            continue
        if len(data) == _FRAME_HEADER.size:
            if _FRAME_HEADER.unpack(data)[1] != 0:
                commit[log] = call
            continue
        pages.setdefault(log, []).append(data)
        if log in commit:
            begun = commit.pop(log)
            found.append(Transaction(log, begun.begun, call.ended, b"".join(pages.pop(log))))
    return found


def faults(calls: Sequence[Call], accepted: Iterable[Accepted], *, data_dir: str, inline: int) -> list[str]:
    """What is wrong with the order, a sentence each; none: the proof holds.

    ``inline`` is the size in bytes up to which a body may live in the row: above it a file is demanded.
    """
    commits = transactions(calls)
    wrong: list[str] = []
    for message in accepted:
        window = _window(calls, message)
        if isinstance(window, str):
            wrong.append(window)
            continue
        asked, answered = window
        wrong += _message_faults(calls, commits, message, asked, answered, data_dir, inline)
    return wrong


def _window(calls: Sequence[Call], message: Accepted) -> tuple[Call, Call] | str:
    """The reply before the 354 (a spool may be opened when DATA is read) and the 250 of this message."""
    sends = [call for call in calls if call.name in _SEND and call.peer_port == message.port and call.payload]
    asked = False
    position = 0
    before = previous = sends[0] if sends else None
    for call in sends:
        if call.payload.rstrip(b"\r\n").rsplit(b"\n", 1)[-1].startswith(b"354"):
            asked, before = True, previous
        elif asked:
            if position == message.position and before is not None:
                if call.payload.startswith(b"250"):
                    return before, call
                return f"{message.token}: the reply on the wire is {call.payload[:40]!r}, the client counted a 250"
            position += 1
            asked = False
        previous = call
    return f"{message.token}: no 250 number {message.position} was written to port {message.port}"


def _message_faults(
    calls: Sequence[Call],
    commits: Sequence[Transaction],
    message: Accepted,
    asked: Call,
    answered: Call,
    data_dir: str,
    inline: int,
) -> list[str]:
    token = message.token.encode("ascii")
    commit = next((one for one in commits if token in one.pages and one.committed > asked.begun), None)
    if commit is None or commit.committed >= answered.begun:
        return [f"{message.token}: no transaction with its rows was written before its 250"]
    wrong = []
    if not _synced(calls, commit.log, after=commit.committed, before=answered.begun):
        wrong.append(f"{message.token}: the write-ahead log was not synced between its commit and its 250")
    made = _files_made(calls, asked.begun, answered.begun, data_dir)
    if message.size > inline and not any(_written(calls, file, commit.commit_begun) >= message.size for file in made):
        wrong.append(f"{message.token}: no file of {message.size} bytes or more was written before its rows")
    for file in made:
        wrong += [f"{message.token}: {fault}" for fault in _file_faults(calls, file, commit.commit_begun)]
    wrong += [
        f"{message.token}: directory {path} was made, its parent was not synced before the rows"
        for path, call in _directories_made(calls, asked.begun, commit.commit_begun, data_dir)
        if not _synced(calls, posixpath.dirname(path), after=call.ended, before=commit.commit_begun)
    ]
    return wrong


@dataclass(frozen=True, slots=True)
class _File:
    """A file made in the window: the names it had, and the calls that gave them (the last one counts)."""

    names: tuple[str, ...]
    named: Call


def _files_made(calls: Sequence[Call], begun: int, ended: int, data_dir: str) -> list[_File]:
    files: dict[str, _File] = {}
    for call in calls:
        if not (begun < call.begun < ended and call.succeeded):
            continue
        if call.name in {"open", "openat", "creat"} and ("O_CREAT" in call.arguments or "O_TMPFILE" in call.arguments):
            path = (call.result_name or "").removesuffix(" (deleted)")
            if path.startswith(data_dir + "/") and not path.endswith(_DATABASE):
                files[path] = _File((path,), call)
        elif call.name in _NAMING:
            old, new = _paths(call)
            old = next((name for name in call.names if name in files), old)  # linkat of an unnamed file
            if old in files:
                files[new] = _File((*files[old].names, new), call)
                del files[old]
        elif call.name in _REMOVING:
            files.pop(_paths(call)[0], None)
    return list(files.values())


def _file_faults(calls: Sequence[Call], file: _File, commit: int) -> list[str]:
    last_write = max(
        (call.ended for call in calls if call.name in _WRITE and call.target in file.names and call.begun < commit),
        default=None,
    )
    name = file.names[-1]
    if last_write is None:
        return []  # an empty file: a lock or a mark, no body
    wrong = []
    if not any(_synced(calls, one, after=last_write, before=commit) for one in file.names):
        wrong.append(f"file {name} was not synced between its last write and its rows")
    if file.named.ended >= commit or not _synced(calls, posixpath.dirname(name), after=file.named.ended, before=commit):
        wrong.append(f"the directory of {name} was not synced between its naming and its rows")
    return wrong


def _directories_made(calls: Sequence[Call], begun: int, ended: int, data_dir: str) -> list[tuple[str, Call]]:
    return [
        (_paths(call)[0], call)
        for call in calls
        if call.name in {"mkdir", "mkdirat"}
        and begun < call.begun < ended
        and call.succeeded
        and _paths(call)[0].startswith(data_dir + "/")
    ]


def _written(calls: Sequence[Call], file: _File, before: int) -> int:
    return sum(
        call.result or 0 for call in calls if call.name in _WRITE and call.target in file.names and call.ended < before
    )


def _synced(calls: Sequence[Call], path: str, *, after: int, before: int) -> bool:
    return any(
        call.name in _SYNC and call.target == path and call.succeeded and after < call.begun and call.ended < before
        for call in calls
    )


def _paths(call: Call) -> list[str]:
    """The paths among the arguments; a relative one stands below the descriptor given with it."""
    texts = [string.decode("utf-8", "surrogateescape") for string in call.strings]
    below = list(call.names)
    if len(below) < len(texts):
        below += [""] * (len(texts) - len(below))
    return [posixpath.normpath(posixpath.join(base, text)) for base, text in zip(below, texts, strict=False)]
