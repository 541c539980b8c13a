"""Takes mail over STARTTLS as fast as it can, and counts; a program of its own: ``python -m bench.sink``.

A thread a connection with blocking sockets: OpenSSL works outside the interpreter's lock, and little else is done here.
Controlled by lines on standard input: ``reset`` sets the counters to zero, ``count`` answers a line of JSON; the end of
the input ends the program. The first line it writes is ``listening``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

_CHUNK = 1 << 18
_END = b"\r\n.\r\n"
_EHLO = b"250-sink\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n%b250 ENHANCEDSTATUSCODES\r\n"


@dataclass
class Tally:
    """What came in since the last reset; ``last`` is the monotonic time at the newest final dot."""

    messages: int = 0
    octets: int = 0
    sessions: int = 0
    last: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def session(self) -> None:
        with self.lock:
            self.sessions += 1

    def message(self, octets: int) -> None:
        with self.lock:
            self.messages += 1
            self.octets += octets
            self.last = time.monotonic()

    def reset(self) -> None:
        with self.lock:
            self.messages = self.octets = self.sessions = 0
            self.last = 0.0

    def line(self) -> str:
        with self.lock:
            values = {"messages": self.messages, "octets": self.octets, "sessions": self.sessions, "last": self.last}
        return json.dumps(values)


class Session:
    """One client's session, from the banner to its end."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, tally: Tally) -> None:
        self._connection = connection
        self._context = context
        self._tally = tally
        self._buffer = bytearray()
        self._replies = bytearray()

    def run(self) -> None:
        """Serve until QUIT or the end of the connection."""
        try:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.sendall(b"220 sink ESMTP\r\n")
            while (line := self._line()) is not None and self._command(line):
                pass
            self._flush()
        except OSError:
            pass  # the client went away: what it had finished is counted
        finally:
            with contextlib.suppress(OSError):
                self._connection.close()

    def _line(self) -> bytes | None:
        while (end := self._buffer.find(b"\n")) < 0:
            self._flush()  # nothing more to read: now the client waits for the replies so far
            chunk = self._connection.recv(_CHUNK)
            if not chunk:
                return None
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _flush(self) -> None:
        if self._replies:
            self._connection.sendall(self._replies)
            self._replies.clear()

    def _command(self, line: bytes) -> bool:
        match line[:4].upper():
            case b"EHLO" | b"HELO":
                offered = b"" if isinstance(self._connection, ssl.SSLSocket) else b"250-STARTTLS\r\n"
                self._replies += _EHLO % offered
            case b"STAR":
                self._connection.sendall(b"220 2.0.0 go ahead\r\n")
                self._connection = self._context.wrap_socket(self._connection, server_side=True)
                self._tally.session()
            case b"DATA":
                self._replies += b"354 go ahead\r\n"
                self._body()
                self._replies += b"250 2.0.0 taken\r\n"
            case b"QUIT":
                self._replies += b"221 2.0.0 bye\r\n"
                return False
            case _:
                self._replies += b"250 2.1.0 ok\r\n"
        return True

    def _body(self) -> None:
        self._flush()
        octets = 0
        tail = bytearray(b"\r\n")  # a dot may be the very first line
        chunk = bytes(self._buffer)
        self._buffer.clear()
        while True:
            tail += chunk
            end = tail.find(_END)
            if end >= 0:
                self._buffer += tail[end + len(_END) :]
                self._tally.message(octets + end)
                return
            keep = min(len(tail), len(_END) - 1)
            octets += len(tail) - keep
            del tail[:-keep]
            chunk = self._connection.recv(_CHUNK)
            if not chunk:
                raise ConnectionResetError


def _accept(server: socket.socket, context: ssl.SSLContext, tally: Tally) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return  # closed: the program ends
        threading.Thread(target=Session(connection, context, tally).run, daemon=True).start()


def main() -> None:
    """Listen, count, and answer on standard output until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.sink")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    context.num_tickets = 0  # nobody resumes a session here
    tally = Tally()
    with socket.create_server((options.address, options.port), backlog=512) as server:
        threading.Thread(target=_accept, args=(server, context, tally), daemon=True).start()
        print("listening", flush=True)
        for line in sys.stdin:
            if line.strip() == "reset":
                tally.reset()
            elif line.strip() == "count":
                print(tally.line(), flush=True)


if __name__ == "__main__":
    main()
