"""Hands mail in over STARTTLS; a program of its own: ``python -m bench.generator``.

So many threads, a connection each, so many messages a connection, MAIL, RCPT and DATA in one packet as large senders
do. Writes one line of JSON at its end: when it began and ended (monotonic clock, the same for all processes of the
machine), how many messages were answered 250, how many otherwise, and how long the final dot waited for its answer.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Final

_TIMEOUT: Final = 60.0
_LINE: Final = b"The quick brown fox jumps over the lazy dog, 0123456789 times a day.  .\r\n"


def body_of(size: int) -> bytes:
    """A body that makes the whole message about ``size`` bytes, lines of 73 bytes."""
    count = max(1, (size - 400) // len(_LINE))
    return _LINE * count


@dataclass
class Result:
    """What all threads together saw."""

    accepted: int = 0
    refused: int = 0
    errors: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Client:
    """One SMTP connection over TLS."""

    def __init__(self, address: str, port: int, context: ssl.SSLContext) -> None:
        plain = socket.create_connection((address, port), timeout=_TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket: socket.socket = plain
        self._buffer = b""
        try:
            self._expect(b"220")
            self._command(b"EHLO generator.example", b"250")
            self._command(b"STARTTLS", b"220")
            self._socket = context.wrap_socket(plain, server_hostname="relay.example")
            self._command(b"EHLO generator.example", b"250")
        except BaseException:
            self.close()
            raise

    def send(self, sender: bytes, recipient: bytes, header: bytes, body: bytes) -> tuple[bytes, float]:
        """One message; returns the answer to the final dot and how long it took to come."""
        self._socket.sendall(b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n" % (sender, recipient))
        for code in (b"250", b"250", b"354"):
            self._expect(code)
        if len(body) < 1 << 16:
            self._socket.sendall(header + body + b".\r\n")
        else:
            self._socket.sendall(header)
            self._socket.sendall(body)
            self._socket.sendall(b".\r\n")
        begun = time.monotonic()
        answer = self._reply()
        return answer, time.monotonic() - begun

    def quit(self) -> None:
        """QUIT; a relay that has gone already is no fault, everything was answered before."""
        with contextlib.suppress(OSError):
            self._command(b"QUIT", b"221")
        self.close()

    def close(self) -> None:
        """Close without a word."""
        self._socket.close()

    def _command(self, line: bytes, code: bytes) -> None:
        self._socket.sendall(line + b"\r\n")
        self._expect(code)

    def _expect(self, code: bytes) -> None:
        answer = self._reply()
        if not answer.startswith(code):
            raise ConnectionError(answer.decode("utf-8", "replace").strip())

    def _reply(self) -> bytes:
        while True:
            line, end, rest = self._buffer.partition(b"\r\n")
            if end:
                self._buffer = rest
                if line[3:4] != b"-":
                    return line
                continue
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise ConnectionError("the relay closed the connection")
            self._buffer += chunk


def _work(options: argparse.Namespace, numbers: itertools.count[int], context: ssl.SSLContext, result: Result) -> None:
    body = body_of(options.size)
    number = next(numbers)
    while number < options.messages:
        try:
            client = Client(options.address, options.port, context)
            try:
                for _ in range(options.per_connection):
                    if number >= options.messages:
                        break
                    header = (
                        b"Received: from app.example by generator.example; Mon, 2 Feb 2026 10:00:00 +0000\r\n"
                        b"From: Generator <app@%b>\r\nTo: <user%d@sink.example>\r\nSubject: Number %d\r\n"
                        b"Date: Mon, 2 Feb 2026 10:00:00 +0000\r\nMessage-ID: <%b.%d@generator.example>\r\n\r\n"
                    ) % (options.sender_domain.encode(), number, number, options.run.encode(), number)
                    sender = b"app@" + options.sender_domain.encode()
                    answer, waited = client.send(sender, b"user%d@sink.example" % number, header, body)
                    with result.lock:
                        result.waits.append(waited)
                        if answer.startswith(b"250"):
                            result.accepted += 1
                        else:
                            result.refused += 1
                            result.errors.append(answer.decode("utf-8", "replace"))
                    number = next(numbers)
            finally:
                client.quit()
        except OSError as error:
            # That message is given up and counted; the others go on.
            with result.lock:
                result.refused += 1
                result.errors.append(str(error) or type(error).__name__)
            number = next(numbers)


def main() -> None:
    """Send what was asked for and tell how it went."""
    parser = argparse.ArgumentParser(prog="python -m bench.generator")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--per-connection", type=int, default=20)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--sender-domain", default="sender.example")
    parser.add_argument("--run", default="run", help="goes into the Message-IDs, so that runs do not repeat them")
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # no roots loaded: nothing is judged here
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    numbers = itertools.count()  # next() on it is one step under the interpreter's lock
    result = Result()
    threads = [
        threading.Thread(target=_work, args=(options, numbers, context, result)) for _ in range(options.connections)
    ]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = time.monotonic()
    waits = sorted(result.waits) or [0.0]
    print(
        json.dumps(
            {
                "begun": begun,
                "ended": ended,
                "accepted": result.accepted,
                "refused": result.refused,
                "errors": sorted(set(result.errors))[:5],
                "wait_p50": waits[len(waits) // 2],
                "wait_p99": waits[min(len(waits) - 1, len(waits) * 99 // 100)],
            }
        )
    )


if __name__ == "__main__":
    main()
