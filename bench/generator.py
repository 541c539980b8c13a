"""Hands mail in, over STARTTLS unless ``--plain``; a program of its own: ``python -m bench.generator``.

One thread, a coroutine a connection (:mod:`bench.loop`); so many messages a connection, MAIL, RCPT and DATA in one
packet as large senders do, the content in a second one. Each message differs from the one before in one number of fixed
width, written into the same bytes. With ``--rate`` messages begin at fixed times, however long earlier ones take (open
loop), else each connection sends as fast as it is answered.

Writes one line of JSON at its end: when it began, and when the last message was answered (monotonic clock, the same for
all processes of the machine), how many messages were answered 250, how many otherwise, how long the final dot waited
for its answer and the connection for its banner, how late messages began where times were given, and the seconds it
has worked.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import time
from dataclasses import dataclass, field
from typing import Final

from bench.client import Connection, Target, share, text_of, unverified
from bench.loop import Loop, Steps, send

_LINE: Final = b"The quick brown fox jumps over the lazy dog, 0123456789 times a day.  .\r\n"
_LOOK: Final = 0.1
_FAREWELL: Final = 2.0  # seconds for the answers to QUIT
_BLANK: Final = b"#" * 10  # where the number goes


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
    last: float = 0.0
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
    """What to send, and where to; ``rate`` ``None``: as fast as it is answered."""

    target: Target
    messages: int
    per_connection: int
    connections: int
    size: int
    domain: bytes
    run: bytes
    rate: float | None
    patience: float

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
        """Send everything; returns when that began, and when the last message was answered."""
        self._begun = time.monotonic()
        for _ in range(self._order.connections):
            self._connect()
        watch = os.eventfd(0)  # never written to: a place in the loop for one who only sleeps
        self._loop.start(watch, self._watch(watch))
        self._loop.run()
        self._loop.close()
        return self._begun, self.result.last

    def _watch(self, descriptor: int) -> Steps:
        """End everything where nothing was answered for too long; what is open then counts as refused."""
        result, total = self.result, self._order.messages
        seen = -1
        until = 0.0
        while self._loop.busy > 1:
            answered = result.accepted + result.refused
            if answered != seen:
                seen = answered
                until = time.monotonic() + (self._order.patience if answered < total else _FAREWELL)
            elif time.monotonic() > until:
                break
            yield time.monotonic() + _LOOK
        if result.accepted + result.refused < total:
            result.give_up(f"nothing was answered for {self._order.patience:g} s")
            result.refused = total - result.accepted
            self._numbers = iter(())
        self._loop.stop()
        os.close(descriptor)

    def _connect(self) -> None:
        number = next(self._numbers, None)
        if number is not None:
            connection = Connection(self._order.target)
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
            raise ConnectionError(text_of(answer))
        yield from send(connection.socket, content.number(digits))
        begun = time.monotonic()
        answer = yield from connection.answer(1)
        self.result.last = time.monotonic()
        self.result.waits.append(self.result.last - begun)
        if answer.startswith(b"250"):
            self.result.accepted += 1
        else:
            self.result.give_up(text_of(answer))


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
    parser.add_argument("--patience", type=float, default=60.0, help="seconds without any answer, and it gives up")
    parser.add_argument("--plain", action="store_true", help="no STARTTLS")
    options = parser.parse_args()
    order = Order(
        target=Target(options.address, options.port, None if options.plain else unverified()),
        messages=options.messages,
        per_connection=options.per_connection,
        connections=options.connections,
        size=options.size,
        domain=options.sender_domain.encode(),
        run=options.run.encode(),
        rate=options.rate,
        patience=options.patience,
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
        for label, part in (("p50", 0.5), ("p99", 0.99)):
            told[f"{name}_{label}"] = share(getattr(result, name), part)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
