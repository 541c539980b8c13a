"""What stands before a session on a listener with ``proxy_protocol``: it finds out who the client is.

A connection from one of the listed proxies begins with a PROXY header, and is then handed to a session - through TLS,
where that is implicit - as the client's. A connection from anyone else is handed over at once: what it sends is SMTP,
or nothing that counts.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from typing import cast

from gateway.ingress.connectors import IpAddress, Network
from gateway.ingress.proxy_protocol import ProxyError, parse_header

__all__ = ["HEADER_TIMEOUT", "ProxyFront", "peer_address"]

#: How long a proxy may take for its header, in seconds: it stands in the first packet.
HEADER_TIMEOUT = 5.0


class ProxyFront(asyncio.Protocol):
    """The first moments of a connection.

    ``accept`` makes what serves a client with this address (None: the connection's own). ``failed`` hears why there is
    none; ``over`` hears, once, that this front has done its part.
    """

    def __init__(
        self,
        proxies: Sequence[Network],
        deadline: float,
        accept: Callable[[IpAddress | None], asyncio.BaseProtocol],
        failed: Callable[[IpAddress, str], None],
        over: Callable[[ProxyFront], None],
    ) -> None:
        self._proxies = proxies
        self._deadline = deadline
        self._accept = accept
        self._failed = failed
        self._over = over
        self._transport: asyncio.Transport | None = None
        self._peer = ipaddress.ip_address("0.0.0.0")  # noqa: S104 - nobody's, until there is one
        self._arrived = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._peer = peer_address(transport)
        if not any(self._peer.version == each.version and self._peer in each for each in self._proxies):
            self._hand_over(None, b"")

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._arrived += data
        try:
            header = parse_header(self._arrived)
        except ProxyError as error:
            self._fail(str(error))
            return
        if header is not None:
            self._hand_over(header.client, self._arrived[header.size :])

    def eof_received(self) -> None:
        """Called by the event loop."""
        self._fail("the connection ended before the header")

    def connection_lost(self, _error: Exception | None) -> None:
        """Called by the event loop."""
        self._over(self)

    def tick(self, now: float) -> None:
        """Look at the clock."""
        if now >= self._deadline:
            self._fail("no header in time")

    def abort(self) -> None:
        """Cut the connection off at once."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, why: str) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._failed(self._peer, why)
            self.abort()

    def _hand_over(self, client: IpAddress | None, rest: bytes) -> None:
        transport = self._transport
        assert transport is not None
        self._over(self)
        served = self._accept(client)
        # An event loop chooses how it reads by the protocol that is there when reading begins.
        transport.pause_reading()
        transport.set_protocol(served)
        served.connection_made(transport)
        if rest:
            _feed(served, rest)
        if not transport.is_closing():
            transport.resume_reading()


def _feed(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Give ``data`` to a protocol as an event loop would."""
    if not isinstance(protocol, asyncio.BufferedProtocol):
        cast("asyncio.Protocol", protocol).data_received(data)
        return
    while data:
        buffer = memoryview(protocol.get_buffer(len(data)))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]


def peer_address(transport: asyncio.BaseTransport) -> IpAddress:
    """The address at the other end; an IPv4 address as itself, on a socket for both families too."""
    peer = transport.get_extra_info("peername")
    address = ipaddress.ip_address(peer[0].partition("%")[0] if peer else "127.0.0.1")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
