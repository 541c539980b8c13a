"""The client's side of SMTP, for the generator and for crowds: coroutines of :mod:`bench.loop`."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.loop import WRITE, Steps, Wish, handshake, receive, send

__all__ = ["GREETING", "Connection", "Target", "share", "text_of", "unverified"]

GREETING: Final = b"EHLO generator.example\r\n"


def unverified() -> ssl.SSLContext:
    """TLS in which nothing is judged: no roots are loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def share(values: Sequence[float], part: float) -> float:
    """That quantile; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to; ``context`` ``None``: without TLS."""

    address: str
    port: int
    context: ssl.SSLContext | None


class Connection:
    """One SMTP connection, from connecting to its end."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.socket = socket.socket()
        self.socket.settimeout(0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = b""

    def open(self) -> Generator[Wish, None, float]:
        """Connect, greet, TLS where it is on; returns how long the banner took to come."""
        banner = yield from self.greet()
        if self._target.context is not None:
            yield from self.command(b"STARTTLS\r\n", b"220")
            self.socket = secure = self._target.context.wrap_socket(
                self.socket, server_hostname="relay.example", do_handshake_on_connect=False
            )
            yield from handshake(secure)
            yield from self.command(GREETING, b"250")
        return banner

    def greet(self) -> Generator[Wish, None, float]:
        """Connect, and EHLO in clear; returns how long the banner took to come."""
        begun = time.monotonic()
        try:
            self.socket.connect((self._target.address, self._target.port))
        except BlockingIOError:
            yield WRITE
        answer = yield from self.answer(1)
        banner = time.monotonic() - begun
        if not answer.startswith(b"220"):
            raise ConnectionError(text_of(answer))
        yield from self.command(GREETING, b"250")
        return banner

    def command(self, line: bytes, code: bytes) -> Steps:
        """One command; raises ``ConnectionError`` unless the answer has that code."""
        yield from send(self.socket, line)
        answer = yield from self.answer(1)
        if not answer.startswith(code):
            raise ConnectionError(text_of(answer))

    def answer(self, count: int) -> Generator[Wish, None, bytes]:
        """Wait for so many answers, which may have several lines each; returns the last one's last line."""
        answers = self._answers
        while True:
            # Whole answers of one line each, which is nearly always, are one step here.
            if answers.endswith(b"\r\n"):
                lines = [line for line in answers.split(b"\r\n") if line[3:4] != b"-"]
                if len(lines) == count + 1:
                    self._answers = b""
                    return lines[-2]
                if len(lines) > count + 1:
                    raise ConnectionError(f"an answer too many: {text_of(answers)}")
            answers += yield from receive(self.socket)


def text_of(answer: bytes) -> str:
    return answer.decode("utf-8", "replace").strip()
