"""The sockets that listen: made by the supervisor, handed to the workers, kept while workers come and go.

Each worker has a socket of its own for each address (``SO_REUSEPORT``: the kernel deals connections out). The
supervisor keeps it open, so what waits in the queue of a worker that died is served by its successor. A socket that
systemd hands over (``LISTEN_FDS``, sd_listen_fds(3)) is used where its address is that of a listener; all workers
share it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field

from gateway.config.model import Endpoint, Listener
from gateway.errors import GatewayError
from gateway.ingress.acceptor import bound, resolved
from gateway.ingress.server import Bound, keyed

__all__ = ["Activated", "Listening", "activated"]

_FIRST_ACTIVATED = 3  # SD_LISTEN_FDS_START


@dataclass(frozen=True, slots=True)
class Activated:
    """A socket of the service manager's, by the name that its unit gives."""

    name: str
    socket: socket.socket

    @property
    def address(self) -> tuple[str, int]:
        """What it is bound to."""
        return _address(self.socket)


def activated(environ: MutableMapping[str, str]) -> list[Activated]:
    """The sockets handed over to this very process; what says so is taken out of ``environ``."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for number in range(int(count)):
        handle = _FIRST_ACTIVATED + number
        os.set_inheritable(handle, False)  # noqa: FBT003  the library's own signature
        name = names[number] if number < len(names) else ""
        found.append(Activated(name or str(handle), socket.socket(fileno=handle)))
    return found


@dataclass(slots=True)
class Listening:
    """All sockets of one gateway. ``given`` are those of the service manager."""

    workers: int
    given: Sequence[Activated] = ()
    metrics: socket.socket | None = None
    web: socket.socket | None = None
    _used: set[int] = field(default_factory=set)
    _sockets: dict[str, list[socket.socket]] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def open_missing(self, listeners: Sequence[Listener]) -> list[str]:
        """Bind the addresses that are not open yet; their keys. All or none: raises :class:`GatewayError`."""
        opened: list[str] = []
        try:
            for key, listener in keyed(listeners).items():
                if key not in self._sockets:
                    self._sockets[key] = self._open(listener)
                    opened.append(key)
        except OSError as error:
            self.drop(opened)
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise GatewayError(f"cannot listen on {listener.address}: {reason}") from None
        return opened

    def adopt(self, listeners: Sequence[Listener]) -> None:
        """These are the listeners now; sockets of others are closed."""
        wanted = keyed(listeners)
        self.drop(self._sockets.keys() - wanted.keys())
        self._names = {key: listener.name for key, listener in wanted.items()}

    def drop(self, keys: Iterable[str]) -> None:
        """Close these."""
        kept = {each.socket.fileno() for each in self.given}
        for key in list(keys):
            for each in self._sockets.pop(key):
                if each.fileno() not in kept:
                    each.close()

    def open_metrics(self, wanted: Endpoint) -> None:
        """Bind the address of metrics and health. Raises :class:`GatewayError`."""
        self.metrics = self._single("metrics.listen", wanted)

    def open_web(self, wanted: Endpoint) -> None:
        """Bind the address of the portal. Raises :class:`GatewayError`."""
        self.web = self._single("portal.listen", wanted)

    def of(self, worker: int) -> dict[str, list[socket.socket]]:
        """The sockets of one worker (from 1), by the key of their listener."""
        return {key: self._part(sockets, worker) for key, sockets in self._sockets.items()}

    @property
    def bound(self) -> list[Bound]:
        """The addresses, in the order of the configuration."""
        found = []
        for key, name in self._names.items():
            addresses = dict.fromkeys(_address(each) for each in self._sockets[key])
            found += [Bound(name, host, port) for host, port in addresses]
        return found

    @property
    def strangers(self) -> list[Activated]:
        """Sockets handed over that belong to no listener."""
        return [each for each in self.given if each.socket.fileno() not in self._used]

    def keep_only(self, worker: int = 0, *, other: socket.socket | None = None) -> dict[str, list[socket.socket]]:
        """In the process of this worker: its own sockets; all others are closed.

        0: of no worker; ``other`` stays then, the one for metrics or web.
        """
        own = self.of(worker) if worker else {}
        kept = {each.fileno() for sockets in own.values() for each in sockets}
        for single in (self.metrics, self.web):
            if single is not None and single is not other:
                single.close()
        for sockets in self._sockets.values():
            for each in sockets:
                if each.fileno() not in kept:
                    each.close()
        return own

    def close(self) -> None:
        """Listen no more, as far as the supervisor can; metrics and health go on."""
        if self.web is not None:
            self.web.close()
        for sockets in self._sockets.values():
            for each in sockets:
                each.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _single(self, setting: str, wanted: Endpoint) -> socket.socket:
        found = self._activated(wanted.host, wanted.port)
        if found is not None:
            return found
        try:
            return bound(socket.AF_INET6 if ":" in wanted.host else socket.AF_INET, wanted.host, wanted.port)
        except OSError as error:
            raise GatewayError(f"{setting} {wanted}: {error.strerror}") from error

    def _part(self, sockets: list[socket.socket], worker: int) -> list[socket.socket]:
        """Every address has one socket for each worker, one behind the other; or one for all."""
        shared = {each.socket.fileno() for each in self.given}
        if any(each.fileno() in shared for each in sockets):
            return sockets
        return sockets[worker - 1 :: self.workers]

    def _open(self, listener: Listener) -> list[socket.socket]:
        wanted = listener.endpoint
        found = self._activated(wanted.host, wanted.port)
        if found is not None:
            return [found]
        opened: list[socket.socket] = []
        try:
            for family, address in resolved(wanted.host, wanted.port):
                port = wanted.port
                if port:
                    # Without SO_REUSEPORT, to see whether somebody else is there: another gateway would share.
                    bound(family, address, port).close()
                for _ in range(self.workers):
                    opened.append(bound(family, address, port, reuse_port=True))
                    port = opened[-1].getsockname()[1]
        except OSError:
            for each in opened:
                each.close()
            raise
        return opened

    def _activated(self, host: str, port: int) -> socket.socket | None:
        for each in self.given:
            if each.address == (host, port):
                self._used.add(each.socket.fileno())
                return each.socket
        return None


def _address(made: socket.socket) -> tuple[str, int]:
    name: Sequence[object] = made.getsockname()
    return (str(name[0]), int(str(name[1]))) if made.family in {socket.AF_INET, socket.AF_INET6} else ("", 0)
