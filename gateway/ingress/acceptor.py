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

__all__ = ["Acceptor", "bound", "resolved"]

#: Connections taken in one turn of the loop.
BATCH = 64
#: Seconds until the next look where descriptors or memory have run out.
PAUSE = 0.5
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def bound(family: int, host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A socket at this address, not listening yet. Raises ``OSError``."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def resolved(host: str, port: int) -> list[tuple[int, str]]:
    """Family and address of each place that a listener's host means. Raises ``OSError``."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(info[0]), str(info[4][0])) for info in infos))


class Acceptor:
    """Serves one listening socket from :meth:`start` to :meth:`close`, which closes the socket.

    ``make`` gives the protocol of a new connection; ``exhausted`` hears why none can be
    taken for the moment, once until one was taken again.
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
        self._dry = False
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
                if not self._dry:
                    self._exhausted(error)
                self._dry = True
                self._loop.remove_reader(self._socket)
                self._looking_again = self._loop.call_later(
                    self._pause, self._loop.add_reader, self._socket, self._take
                )
                return
            self._dry = False
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
