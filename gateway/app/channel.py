"""What supervisor and workers say to each other: small JSON messages over a socket pair, with sockets where needed.

A message is a packet, so none is ever read in half. Neither side waits for the other: what does not fit into the
buffer - far more than is ever under way - is dropped.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

__all__ = ["Channel", "Message"]

Message = dict[str, Any]
_MOST_BYTES = 65536
_MOST_SOCKETS = 250  # the kernel's limit is 253
#: Longest text in a message; such as the reason why a worker could not start.
MAX_TEXT = 8000


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0.0)
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._end.fileno()

    def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> bool:
        """Say it; whether it went out."""
        data = json.dumps(message).encode()
        try:
            socket.send_fds(self._end, [data], [each.fileno() for each in sockets])
        except OSError:  # the other one is gone, or does not listen: its end, or its silence, is noticed elsewhere
            return False
        return True

    def receive(self) -> tuple[Message, list[socket.socket]] | None:
        """The next message; ``None`` at the end. Raises ``BlockingIOError`` where there is none now."""
        try:
            data, handles, _, _ = socket.recv_fds(self._end, _MOST_BYTES, _MOST_SOCKETS)
        except ConnectionError:
            return None
        if not data:
            return None
        message: Message = json.loads(data)
        return message, [socket.socket(fileno=handle) for handle in handles]

    def close(self) -> None:
        """The other side reads the end."""
        self._end.close()
