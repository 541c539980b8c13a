"""The scanning process: ``python -m gateway.scanning.child``. One message after the other, until its pipe ends.

It holds no secret, opens no file, and has hard limits on memory and time: what a message makes it do ends with it.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import sys
from dataclasses import replace

from gateway.policy.content import ContentFacts
from gateway.policy.detect import prepare
from gateway.policy.examine import Examiner, examine
from gateway.scanning.frames import LONGEST_FRAME, facts_to_json, framed

__all__ = ["MESSAGE_LIMIT", "main"]

#: Octets of a message that are looked at; what lies beyond is unknown.
MESSAGE_LIMIT = 64 << 20
#: Address space: the message, what is decoded of it, and the interpreter.
_MEMORY = 1 << 30


def main() -> None:
    """Answer until there is nothing more to read."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    prepare()
    while (wanted := _frame()) is not None:
        examiner = pickle.loads(wanted)  # noqa: S301  from the worker that started us, over an inherited pipe
        answer = _look(examiner)
        gc.collect()
        _write(framed(answer))


def _look(examiner: Examiner) -> bytes:
    data, cut = _message()
    if data is None:
        raise SystemExit(0)
    try:
        facts = examine(bytes(data), examiner)
    except MemoryError:
        facts = ContentFacts.unknown("the message needs too much memory to be examined")
    if cut:
        reason = f"the message is larger than {MESSAGE_LIMIT >> 20} MiB"
        facts = replace(facts, unread=(*facts.unread, reason), attachments=None)
    return facts_to_json(facts)


def _message() -> tuple[bytearray | None, bool]:
    """The message up to the limit, and whether there was more; None where the worker has given it up."""
    data, cut = bytearray(), False
    while True:
        piece = _frame()
        if piece is None:
            return None, cut
        if not piece:
            return data, cut
        room = MESSAGE_LIMIT - len(data)
        cut = cut or len(piece) > room
        data += piece[:room]


def _frame() -> bytes | None:
    size = sys.stdin.buffer.read(4)
    if len(size) < 4:
        return None
    length = int.from_bytes(size, "big")
    if length > LONGEST_FRAME:
        return None
    data = sys.stdin.buffer.read(length)
    return data if len(data) == length else None


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    main()
