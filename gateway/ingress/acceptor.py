"""Taking connections off a listening socket.

uvloop's own servers take one connection in each turn of the event loop: under load, when a turn lasts tens of
milliseconds, a crowd at the door waits for seconds. Here everything that waits is taken in one turn, up to a bound
that leaves the turn to others. Where the process runs out of descriptors or memory nothing is lost: the clients wait
in the kernel's queue, and we look again a moment later.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

__all__ = ["Acceptor"]

#: Connections taken in one turn of the loop.
BATCH = 64
#: Seconds until the next look where descriptors or memory have run out.
PAUSE = 0.5
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Serves one listening socket from :meth:`start` to :meth:`close`, which closes the socket.

    ``make`` gives the protocol of a new connection; ``exhausted`` hears why none can be taken for the moment.
    """

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
        exhausted: Callable[[OSError], None],
        *,
        pause: float = PAUSE,
    ) -> None:
        self._socket = listening
        self._make = make
        self._exhausted = exhausted
        self._loop = asyncio.get_running_loop()
        self._pause = pause
        self._looking_again: asyncio.TimerHandle | None = None
        self._joining: set[asyncio.Task[None]] = set()
        listening.setblocking(False)  # noqa: FBT003  the library's own signature

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The socket while it is open."""
        return (self._socket,) if self._socket.fileno() >= 0 else ()

    def start(self, backlog: int) -> None:
        """Listen, and take what comes."""
        self._socket.listen(backlog)
        self._loop.add_reader(self._socket, self._take)

    def close(self) -> None:
        """Take no more; what was taken goes on."""
        if self._socket.fileno() < 0:
            return
        if self._looking_again is not None:
            self._looking_again.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _take(self) -> None:
        for _ in range(BATCH):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._exhausted(error)
                self._loop.remove_reader(self._socket)
                self._looking_again = self._loop.call_later(
                    self._pause, self._loop.add_reader, self._socket, self._take
                )
                return
            connection.setblocking(False)  # noqa: FBT003  as above
            task = self._loop.create_task(self._join(connection))
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)

    async def _join(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError:
            connection.close()  # gone again before it was served
