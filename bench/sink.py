"""Takes mail as fast as it can, over STARTTLS where the client wants it, and counts; ``python -m bench.sink``.

One thread, a coroutine a connection (:mod:`bench.loop`). Controlled by lines on standard input: ``reset RUN`` sets the
counters to zero and counts what is addressed to that run from now on, ``count`` answers a line of JSON; the end of the
input ends the program. The first line it writes is ``listening``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from bench.loop import READ, Loop, Steps, Wish, handshake, receive, send

_END = b"\r\n.\r\n"
_EHLO = b"250-sink\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n%b250 ENHANCEDSTATUSCODES\r\n"
_OK = b"250 2.1.0 ok\r\n"
_RECIPIENT = b"RCPT TO:<"


@dataclass
class Tally:
    """What came in since the last reset.

    ``distinct`` are different message numbers of this run (the generator puts ``RUN-NUMBER`` into the recipient),
    ``duplicates`` those that had been there before, ``strays`` messages of another run; ``last`` is the monotonic time
    at the newest final dot, ``cpu`` the seconds that this process has worked.
    """

    run: bytes = b""
    messages: int = 0
    octets: int = 0
    sessions: int = 0
    duplicates: int = 0
    strays: int = 0
    last: float = 0.0
    begun: float = field(default_factory=time.process_time)
    seen: set[bytes] = field(default_factory=set)

    def message(self, recipient: bytes, octets: int) -> None:
        run, _, number = recipient.partition(b"@")[0].rpartition(b"-")
        if run != self.run:
            self.strays += 1
            return
        self.messages += 1
        self.octets += octets
        self.last = time.monotonic()
        if number in self.seen:
            self.duplicates += 1
        self.seen.add(number)

    def line(self) -> str:
        values = {
            name: getattr(self, name) for name in ("messages", "octets", "sessions", "duplicates", "strays", "last")
        }
        return json.dumps({**values, "distinct": len(self.seen), "cpu": time.process_time() - self.begun})


class Sink:
    """The sessions, and what they count."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.tally = Tally()
        self.loop = Loop()

    def accept(self, server: socket.socket) -> Steps:
        """Take connections, for ever."""
        while True:
            yield READ
            try:
                while True:
                    connection, _ = server.accept()
                    connection.settimeout(0)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.loop.start(connection.fileno(), self._session(connection))
            except BlockingIOError:
                pass

    def control(self, descriptor: int) -> Steps:
        """Do what standard input says; stops the loop at its end."""
        buffer = b""
        while True:
            yield READ
            chunk = os.read(descriptor, 4096)
            if not chunk:
                self.loop.stop()
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                match line.split():
                    case [b"reset", run]:
                        self.tally = Tally(run)
                    case [b"count"]:
                        print(self.tally.line(), flush=True)

    def _session(self, connection: socket.socket) -> Steps:
        replies = b""
        recipient = b""
        mailed = False
        try:
            yield from send(connection, b"220 sink ESMTP\r\n")
            buffer = b""
            while True:
                while (end := buffer.find(b"\n")) < 0:
                    if replies:  # nothing more to read: now the client waits for the replies so far
                        yield from send(connection, replies)
                        replies = b""
                    buffer += yield from receive(connection)
                line = buffer[:end]
                buffer = buffer[end + 1 :]
                match line[:4].upper():
                    case b"MAIL":
                        if not mailed:
                            mailed = True
                            self.tally.sessions += 1
                        replies += _OK
                    case b"RCPT":
                        recipient = line[len(_RECIPIENT) :].partition(b">")[0]
                        replies += _OK
                    case b"DATA":
                        yield from send(connection, replies + b"354 go ahead\r\n")
                        octets, buffer = yield from self._content(connection, buffer)
                        self.tally.message(recipient, octets)
                        replies = b"250 2.0.0 taken\r\n"
                    case b"EHLO" | b"HELO":
                        secure = isinstance(connection, ssl.SSLSocket)
                        replies += _EHLO % (b"" if secure else b"250-STARTTLS\r\n")
                    case b"STAR":
                        yield from send(connection, b"220 2.0.0 go ahead\r\n")
                        secured = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                        connection = secured
                        buffer = b""
                        yield from handshake(secured)
                    case b"QUIT":
                        yield from send(connection, replies + b"221 2.0.0 bye\r\n")
                        return
                    case _:
                        replies += _OK
        finally:
            connection.close()

    @staticmethod
    def _content(connection: socket.socket, chunk: bytes) -> Generator[Wish, None, tuple[int, bytes]]:
        """Read to the final dot; returns the octets before it and what stands behind it."""
        octets = 0
        tail = b"\r\n"  # a dot may be the very first line
        while True:
            window = tail + chunk
            end = window.find(_END)
            if end >= 0:
                return octets + end, window[end + len(_END) :]
            tail = window[1 - len(_END) :]
            octets += len(window) - len(tail)
            chunk = yield from receive(connection)


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
    sink = Sink(context)
    with socket.create_server((options.address, options.port), backlog=512) as server:
        server.settimeout(0)
        sink.loop.start(server.fileno(), sink.accept(server))
        sink.loop.start(sys.stdin.fileno(), sink.control(sys.stdin.fileno()))
        print("listening", flush=True)
        sink.loop.run()


if __name__ == "__main__":
    main()
