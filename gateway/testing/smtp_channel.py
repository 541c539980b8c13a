"""The bytes beneath a fake SMTP session: clear, then perhaps TLS, each recorded where it belongs.

TLS runs over memory buffers rather than through the event loop: so the fake sees what came in clear after STARTTLS, can
put bytes of its own around the handshake, and behaves alike on every loop and Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import TYPE_CHECKING

from gateway.testing.smtp_record import Session, TlsFacts

if TYPE_CHECKING:
    from gateway.clock import Clock

__all__ = ["Channel", "NamedSSLObject", "note_server_name"]

_PIECE = 256 * 1024
_MAX_LINE = 64 * 1024


class NamedSSLObject(ssl.SSLObject):
    """An ``SSLObject`` that remembers the server name which the client asked for."""

    server_name_asked: str | None = None


def note_server_name(tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    """To be set as ``sni_callback`` of a context whose ``sslobject_class`` is :class:`NamedSSLObject`."""
    if isinstance(tls, NamedSSLObject):
        tls.server_name_asked = name


class Channel:
    """Reads and writes one connection and records what the client sends in ``session``.

    ``recording`` False keeps bytes out of the record, for bodies too large to keep.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: Session, clock: Clock
    ) -> None:
        self.buffer = bytearray()
        self.recording = True
        self._reader = reader
        self._writer = writer
        self._session = session
        self._clock = clock
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()

    @property
    def under_tls(self) -> bool:
        """Whether what is read now comes decrypted."""
        return self._tls is not None

    async def fill(self) -> bool:
        """Put more of what the client sends into ``buffer``; False once it sends no more."""
        data = await (self._read_clear() if self._tls is None else self._read_tls(self._tls))
        if data and self.recording:
            record = self._session.clear_bytes if self._tls is None else self._session.tls_bytes
            record += data
        self.buffer += data
        return bool(data)

    async def _read_clear(self) -> bytes:
        try:
            return await self._reader.read(_PIECE)
        except ConnectionError:
            return b""

    async def _read_tls(self, tls: ssl.SSLObject) -> bytes:
        while True:
            try:
                return tls.read(_PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                more = await self._read_clear()
                if not more:
                    return b""
                self._incoming.write(more)
            except ssl.SSLError as error:
                self._session.faults.append(f"broken TLS record: {error.reason}")
                return b""

    async def line(self) -> bytes | None:
        """The next line with its LF; None at the end. A line beyond 64 KiB comes in pieces."""
        searched = 0
        while True:
            at = self.buffer.find(b"\n", searched)
            if at >= 0 or len(self.buffer) > _MAX_LINE:
                cut = at + 1 if at >= 0 else _MAX_LINE
                line = bytes(self.buffer[:cut])
                del self.buffer[:cut]
                return line
            searched = len(self.buffer)
            if not await self.fill():
                return None

    async def exactly(self, count: int) -> bytes | None:
        """The next ``count`` octets, fewer where so many are not there yet but at least one; None at the end."""
        if not self.buffer and not await self.fill():
            return None
        piece = bytes(self.buffer[:count])
        del self.buffer[: len(piece)]
        return piece

    def _put(self, data: bytes) -> None:
        """Hand it to the transport; what a closed one does with it differs from event loop to event loop."""
        if self._writer.is_closing():
            raise ConnectionResetError("the client is gone")
        self._writer.write(data)

    async def send(self, data: bytes) -> None:
        """Write, and wait while the client does not read. Raises ``ConnectionError`` where it is gone."""
        if self._tls is None:
            self._put(data)
            await self._writer.drain()
        else:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise ConnectionAbortedError(str(error)) from error
            await self._flush()

    async def send_clear(self, data: bytes) -> None:
        """Write below TLS."""
        self._put(data)
        await self._writer.drain()

    async def send_slowly(self, data: bytes, pause: float) -> None:
        """Write one byte each ``pause`` seconds."""
        for byte in data:
            await self.send(bytes((byte,)))
            await self._clock.sleep(pause)

    async def absorb(self) -> None:
        """Read and record until the client leaves."""
        while await self.fill():
            self.buffer.clear()

    async def absorb_handshake(self, at_most: int | None = None) -> None:
        """Read what should be a handshake into its own record: until the client leaves, or ``at_most`` octets came."""
        session = self._session
        session.handshake_bytes += self.buffer
        self.buffer.clear()
        while at_most is None or len(session.handshake_bytes) < at_most:
            data = await self._read_clear()
            if not data:
                return
            session.handshake_bytes += data

    async def handshake(self, context: ssl.SSLContext) -> None:
        """Do the server's part of a handshake. Raises ``ssl.SSLError`` or ``ConnectionError`` where it fails."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(bytes(self.buffer))
        self._session.handshake_bytes += self.buffer
        self.buffer.clear()
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._read_clear()
                if not data:
                    raise ConnectionResetError("the client left during the handshake") from None
                self._session.handshake_bytes += data
                self._incoming.write(data)
            except ssl.SSLError:
                with contextlib.suppress(ConnectionError):
                    await self._flush()  # the alert
                raise
        await self._flush()
        self._tls = tls
        cipher = tls.cipher()
        self._session.tls = TlsFacts(
            version=tls.version() or "",
            cipher=cipher[0] if cipher else "",
            sni=tls.server_name_asked if isinstance(tls, NamedSSLObject) else None,
            client_certificate=tls.getpeercert(binary_form=True),
        )

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._put(data)
            await self._writer.drain()

    def send_no_more(self) -> None:
        """Close our half, so that the client sees the end while what it still sends is read."""
        if not self._writer.is_closing():
            with contextlib.suppress(OSError):
                self._writer.write_eof()

    async def close(self, *, reset: bool = False) -> None:
        """Hang up: with close_notify and FIN, or with RST."""
        if reset:
            connection = self._writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        elif self._tls is not None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            with contextlib.suppress(ConnectionError):
                self._put(self._outgoing.read())
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
