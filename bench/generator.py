"""Hands mail in, over STARTTLS unless ``--plain``; a program of its own: ``python -m bench.generator``.

One thread, a coroutine a connection (:mod:`bench.loop`); so many messages a connection, MAIL, RCPT and DATA in one
packet as large senders do, the content in a second one. Each message differs from the one before in one number of fixed
width, written into the same bytes. With ``--rate`` messages begin at fixed times, however long earlier ones take (open
loop), else each connection sends as fast as it is answered.

Writes one line of JSON at its end: when it began and ended (monotonic clock, the same for all processes of the
machine), how many messages were answered 250, how many otherwise, how long the final dot waited for its answer and the
connection for its banner, how late messages began where times were given, and the seconds it has worked.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import socket
import ssl
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.loop import WRITE, Loop, Steps, Wish, handshake, receive, send

_LINE: Final = b"The quick brown fox jumps over the lazy dog, 0123456789 times a day.  .\r\n"
_BLANK: Final = b"#" * 10  # where the number goes
_GREETING: Final = b"EHLO generator.example\r\n"


def body_of(size: int) -> bytes:
    """A body that makes the whole message about ``size`` bytes, lines of 73 bytes."""
    count = max(1, (size - 400) // len(_LINE))
    return _LINE * count


class Form:
    """Bytes with places for a number of ten digits, all of them in ``head``."""

    def __init__(self, head: bytes, rest: bytes) -> None:
        self._text = bytearray(head + rest)
        parts = head.split(_BLANK)
        ends = itertools.accumulate(len(part) + len(_BLANK) for part in parts[:-1])
        self._places = [slice(end - len(_BLANK), end) for end in ends]

    def number(self, digits: bytes) -> bytearray:
        """The bytes, with those digits in every place; valid until the next call."""
        for place in self._places:
            self._text[place] = digits
        return self._text


@dataclass
class Result:
    """What all connections together saw; times in seconds."""

    accepted: int = 0
    refused: int = 0
    errors: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    banners: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def give_up(self, why: str) -> None:
        """One message was not taken."""
        self.refused += 1
        if len(self.errors) < 5 and why not in self.errors:
            self.errors.append(why)


@dataclass(frozen=True, slots=True)
class Order:
    """What to send, and where to; ``context`` ``None``: without TLS, ``rate`` ``None``: as fast as it is answered."""

    address: str
    port: int
    messages: int
    per_connection: int
    connections: int
    size: int
    domain: bytes
    run: bytes
    rate: float | None
    context: ssl.SSLContext | None

    def envelope(self) -> Form:
        """MAIL, RCPT and DATA in one packet; the sink counts by what stands in the recipient."""
        return Form(
            b"MAIL FROM:<app@%b>\r\nRCPT TO:<%b-%b@sink.example>\r\nDATA\r\n" % (self.domain, self.run, _BLANK), b""
        )

    def content(self) -> Form:
        """Header, body and final dot."""
        head = (
            b"Received: from app.example by generator.example; Mon, 2 Feb 2026 10:00:00 +0000\r\n"
            b"From: Generator <app@%b>\r\nTo: <%b-%b@sink.example>\r\nSubject: Number %b\r\n"
            b"Date: Mon, 2 Feb 2026 10:00:00 +0000\r\nMessage-ID: <%b.%b@generator.example>\r\n\r\n"
        ) % (self.domain, self.run, _BLANK, _BLANK, self.run, _BLANK)
        return Form(head, body_of(self.size) + b".\r\n")


class Connection:
    """One SMTP connection, from connecting to its end."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.socket = socket.socket()
        self.socket.settimeout(0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = b""

    def open(self) -> Generator[Wish, None, float]:
        """Connect, greet, TLS; returns how long the banner took to come."""
        begun = time.monotonic()
        try:
            self.socket.connect((self._order.address, self._order.port))
        except BlockingIOError:
            yield WRITE
        yield from self.answer(1)
        banner = time.monotonic() - begun
        yield from self.command(_GREETING, b"250")
        if self._order.context is not None:
            yield from self.command(b"STARTTLS\r\n", b"220")
            self.socket = secure = self._order.context.wrap_socket(
                self.socket, server_hostname="relay.example", do_handshake_on_connect=False
            )
            yield from handshake(secure)
            yield from self.command(_GREETING, b"250")
        return banner

    def command(self, line: bytes, code: bytes) -> Steps:
        """One command; raises ``ConnectionError`` unless the answer has that code."""
        yield from send(self.socket, line)
        answer = yield from self.answer(1)
        if not answer.startswith(code):
            raise ConnectionError(_text(answer))

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
                    raise ConnectionError(f"an answer too many: {_text(answers)}")
            answers += yield from receive(self.socket)


def _text(answer: bytes) -> str:
    return answer.decode("utf-8", "replace").strip()


class Load:
    """All connections, and the numbers that they share."""

    def __init__(self, order: Order) -> None:
        self.result = Result()
        self._order = order
        self._loop = Loop()
        self._numbers = iter(range(order.messages))
        self._forms: list[tuple[Form, Form]] = []
        self._begun = 0.0

    def run(self) -> tuple[float, float]:
        """Send everything; returns when that began and ended."""
        self._begun = time.monotonic()
        for _ in range(self._order.connections):
            self._connect()
        self._loop.run()
        self._loop.close()
        return self._begun, time.monotonic()

    def _connect(self) -> None:
        number = next(self._numbers, None)
        if number is not None:
            connection = Connection(self._order)
            self._loop.start(connection.socket.fileno(), self._life(connection, number))

    def _life(self, connection: Connection, number: int) -> Steps:
        forms = self._forms.pop() if self._forms else (self._order.envelope(), self._order.content())
        left = self._order.per_connection
        try:
            self.result.banners.append((yield from connection.open()))
            following: int | None = number
            while following is not None:
                number = following
                yield from self._message(connection, number, *forms)
                left -= 1
                following = next(self._numbers, None) if left else None
        except OSError as error:
            # The message at hand is given up and counted; the others go on.
            self.result.give_up(str(error) or type(error).__name__)
        else:
            # A relay that has gone already is no fault: everything was answered before.
            with contextlib.suppress(OSError):
                yield from connection.command(b"QUIT\r\n", b"221")
        finally:
            connection.socket.close()
            self._forms.append(forms)
            self._connect()

    def _message(self, connection: Connection, number: int, envelope: Form, content: Form) -> Steps:
        rate = self._order.rate
        if rate is not None:
            due = self._begun + number / rate
            while (late := time.monotonic() - due) < 0:
                yield due
            self.result.late.append(late)
        digits = b"%010d" % number
        yield from send(connection.socket, envelope.number(digits))
        answer = yield from connection.answer(3)
        if not answer.startswith(b"354"):
            raise ConnectionError(_text(answer))
        yield from send(connection.socket, content.number(digits))
        begun = time.monotonic()
        answer = yield from connection.answer(1)
        self.result.waits.append(time.monotonic() - begun)
        if answer.startswith(b"250"):
            self.result.accepted += 1
        else:
            self.result.give_up(_text(answer))


def _share(values: Sequence[float], share: float) -> float:
    """That quantile; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


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
    parser.add_argument(
        "--run", default="run", help="goes into recipients and Message-IDs, so that runs do not repeat them"
    )
    parser.add_argument("--rate", type=float, help="messages a second that begin, whatever becomes of earlier ones")
    parser.add_argument("--plain", action="store_true", help="no STARTTLS")
    options = parser.parse_args()
    context = None
    if not options.plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # no roots loaded: nothing is judged here
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    order = Order(
        address=options.address,
        port=options.port,
        messages=options.messages,
        per_connection=options.per_connection,
        connections=options.connections,
        size=options.size,
        domain=options.sender_domain.encode(),
        run=options.run.encode(),
        rate=options.rate,
        context=context,
    )
    load = Load(order)
    worked = time.process_time()
    begun, ended = load.run()
    result = load.result
    told = {
        "begun": begun,
        "ended": ended,
        "cpu": time.process_time() - worked,
        "accepted": result.accepted,
        "refused": result.refused,
        "errors": result.errors,
    }
    for name in ("waits", "banners", "late"):
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            told[f"{name}_{label}"] = _share(getattr(result, name), share)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
