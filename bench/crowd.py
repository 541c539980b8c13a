"""Many connections that do next to nothing, and how long a new one waits for its banner: ``python -m bench.crowd``.

``--idle`` connections say EHLO, over TLS where it is on, and then nothing; ``--slow`` ones send a byte a second, in
turn: in the middle of a command, of the TLS handshake (a message without TLS), of a header, of a body. Writes a line
``{"stand": N}`` once all stand, or once no further one came to stand for ten seconds; then asks for a banner
``--probes`` times a second until standard input ends, and tells what it saw and how many connections still stand.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Final, Literal, TypeAlias

from bench.client import Connection, Target, share, text_of, unverified
from bench.loop import Loop, Steps, Wish, receive, send

Kind: TypeAlias = Literal["idle", "command", "handshake", "header", "body"]

_SLOW: Final[tuple[Kind, ...]] = ("command", "handshake", "header", "body")
_PATIENCE: Final = 10.0
_AT_A_TIME: Final = 50  # connections that come to stand at once: a crowd, not an attack on the listen queue
_EVERY: Final = 1.0
_LOOK: Final = 0.1
_ENVELOPE: Final = b"MAIL FROM:<app@sender.example>\r\nRCPT TO:<slow@sink.example>\r\nDATA\r\n"
_HEADER: Final = b"From: <app@sender.example>\r\nTo: <slow@sink.example>\r\nSubject: slow\r\n"
#: A TLS record of 512 bytes that begins a ClientHello of 508: no byte of it is wrong before the last.
_HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32 + b"\x00\x01\x90" + b"\x13\x01" * 200


class Crowd:
    """The connections, and what is seen of them."""

    def __init__(self, target: Target, *, idle: int, slow: int, probes: float) -> None:
        self.loop = Loop()
        self.standing = 0
        self.lost = 0
        self.banners: list[float] = []
        self.unanswered = 0
        self._target = target
        self._probes = probes
        self._wanted = idle + slow
        kinds: list[Kind] = ["idle"] * idle
        self._waiting: Iterator[Kind] = itertools.chain(kinds, itertools.islice(itertools.cycle(_SLOW), slow))

    def gather(self) -> None:
        """Let the connections come, some at a time."""
        for _ in range(_AT_A_TIME):
            self._next()

    def control(self, descriptor: int) -> Steps:
        """Tell when all stand, probe, and stop the loop at the end of that descriptor's input."""
        seen = -1
        until = 0.0
        while self.standing < self._wanted and (seen != self.standing or time.monotonic() < until):
            if seen != self.standing:
                seen, until = self.standing, time.monotonic() + _PATIENCE
            yield time.monotonic() + _LOOK
        print(json.dumps({"stand": self.standing}), flush=True)
        due = time.monotonic()
        os.set_blocking(descriptor, False)
        while self._open(descriptor):
            if self._probes:
                probe = Connection(self._target)
                self.loop.start(probe.socket.fileno(), self._probe(probe))
                due += 1 / self._probes
            else:
                due += _LOOK
            while time.monotonic() < due:
                yield due
        self.loop.stop()

    @staticmethod
    def _open(descriptor: int) -> bool:
        try:
            return bool(os.read(descriptor, 1024))
        except BlockingIOError:
            return True

    def _next(self) -> None:
        kind = next(self._waiting, None)
        if kind is not None:
            connection = Connection(self._target)
            self.loop.start(connection.socket.fileno(), self._life(connection, kind))

    def _life(self, connection: Connection, kind: Kind) -> Steps:
        stands = False
        try:
            drop = yield from self._begin(connection, kind)
            stands = True
            self.standing += 1
            self._next()
            if kind == "idle":
                while True:
                    yield from receive(connection.socket)
            for byte in drop:
                yield from send(connection.socket, bytes((byte,)))
                due = time.monotonic() + _EVERY
                while time.monotonic() < due:
                    yield due
        finally:
            connection.socket.close()
            if stands:
                self.standing -= 1
                self.lost += 1
            else:
                self._next()

    def _begin(self, connection: Connection, kind: Kind) -> Generator[Wish, None, Iterable[int]]:
        """Bring a connection to where it slows down; returns the bytes that it will let drop."""
        if kind == "handshake" and self._target.context is not None:
            yield from connection.greet()
            yield from connection.command(b"STARTTLS\r\n", b"220")
            return itertools.cycle(_HELLO)
        yield from connection.open()
        match kind:
            case "idle":
                return b""
            case "command":
                return itertools.repeat(ord("N"))
            case _:
                yield from send(connection.socket, _ENVELOPE)
                answer = yield from connection.answer(3)
                if not answer.startswith(b"354"):
                    raise ConnectionError(text_of(answer))
                if kind == "body":
                    yield from send(connection.socket, _HEADER + b"\r\n")
                return itertools.cycle(_HEADER)

    def _probe(self, connection: Connection) -> Steps:
        try:
            self.unanswered += 1
            self.banners.append((yield from connection.greet()))
            self.unanswered -= 1
        finally:
            connection.socket.close()


def main() -> None:
    """Come, stand, probe, tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowd")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--idle", type=int, default=0)
    parser.add_argument("--slow", type=int, default=0)
    parser.add_argument("--probes", type=float, default=0.0)
    parser.add_argument("--plain", action="store_true", help="no STARTTLS")
    options = parser.parse_args()
    target = Target(options.address, options.port, None if options.plain else unverified())
    crowd = Crowd(target, idle=options.idle, slow=options.slow, probes=options.probes)
    crowd.gather()
    crowd.loop.start(sys.stdin.fileno(), crowd.control(sys.stdin.fileno()))
    crowd.loop.run()
    told = {
        "stand": crowd.standing,
        "lost": crowd.lost,
        "probes": len(crowd.banners),
        "unanswered": crowd.unanswered,
        "banner_p50": share(crowd.banners, 0.5),
        "banner_p99": share(crowd.banners, 0.99),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
