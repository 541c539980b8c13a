"""The client's side of the ledger: every message has a token of its own, and every 250 is written down.

The token is the local part of the message's only recipient, so that queue, trace and peer all name it.
"""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from dataclasses import dataclass
from typing import Final

from tests.crash.scene import Scene

__all__ = ["Answer", "Client", "Load", "Message", "message", "send"]

_SMALL: Final = 900
LARGE: Final = 200_000
_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Message:
    """A message with its token; ``digest`` is that of the body, the way the flaky peer takes it."""

    token: str
    recipient: str
    content: bytes
    digest: str


def message(token: str, *, large: bool, domain: str = "flaky.example") -> Message:
    """A message that cannot be mistaken for another: the token seeds its body, which does not compress."""
    source = random.Random(token)
    lines = [source.randbytes(36).hex().encode() for _ in range((LARGE if large else _SMALL) // 74)]
    body = b"".join(line + b"\r\n" for line in lines)
    recipient = f"{token}@{domain}"
    header = (
        f"From: App <app@sender.example>\r\nTo: <{recipient}>\r\nSubject: {token}\r\n"
        f"Date: Mon, 2 Feb 2026 10:00:00 +0000\r\nMessage-ID: <{token}@sender.example>\r\n\r\n"
    ).encode()
    return Message(token, recipient, header + body, hashlib.sha256(body).hexdigest())


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said to the final dot, or to the command that was refused before it."""

    code: int
    text: str

    @property
    def accepted(self) -> bool:
        """Was the message taken?"""
        return self.code == 250


class Client:
    """An SMTP client in the clear, one command at a time: what is on the wire can be read in a trace.

    Raises ``OSError`` (``ConnectionError``) wherever the server goes away, also from the constructor.
    """

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.create_connection((address, port), timeout=_TIMEOUT)
        self.port: int = self._socket.getsockname()[1]
        self._file = self._socket.makefile("rb")
        try:
            self._expect(220)
            self._say(b"EHLO app.sender.example")
            self._expect(250)
        except BaseException:
            self.close()
            raise

    def send(self, one: Message, *others: str) -> Answer:
        """Hand over one message, to ``others`` too; the answer to the final dot, or the first refusal before it."""
        recipients = [b"RCPT TO:<%b>" % address.encode("ascii") for address in (one.recipient, *others)]
        for line, wanted in (
            (b"MAIL FROM:<app@sender.example>", 250),
            *((recipient, 250) for recipient in recipients),
            (b"DATA", 354),
        ):
            self._say(line)
            answer = self._answer()
            if answer.code != wanted:
                return answer
        self._socket.sendall(one.content + b".\r\n")
        return self._answer()

    def reset(self) -> None:
        """RSET, after a refusal."""
        self._say(b"RSET")
        self._expect(250)

    def close(self) -> None:
        """Go without a word."""
        self._file.close()
        self._socket.close()

    def _say(self, line: bytes) -> None:
        self._socket.sendall(line + b"\r\n")

    def _expect(self, code: int) -> None:
        answer = self._answer()
        if answer.code != code:
            raise ConnectionError(f"{answer.code} {answer.text}")

    def _answer(self) -> Answer:
        while True:
            line = self._file.readline(4096)
            if not line.endswith(b"\r\n"):
                raise ConnectionError("the gateway closed the connection")
            if line[3:4] != b"-":
                return Answer(int(line[:3]), line[4:].decode("utf-8", "replace").strip())


def send(stage: Scene, token: str, *, large: bool = False) -> Answer:
    """One message over a connection of its own; a connection that is refused or cut counts as an answer 421."""
    try:
        client = Client(stage.gateway.address, stage.gateway.port)
    except OSError as error:
        return Answer(421, str(error))
    try:
        return client.send(message(token, large=large))
    except OSError as error:
        return Answer(421, str(error))
    finally:
        client.close()


class Load:
    """Clients in threads that hand over message after message, over all restarts, and keep the ledger.

    ``pace``: seconds between two messages of one client, so that the backlog at the end can be delivered in time.
    ``name`` begins every token, where several loads are at work.
    """

    def __init__(
        self, address: str, port: int, *, clients: int, large_share: float, pace: float, seed: int, name: str = "t"
    ) -> None:
        self._where = (address, port)
        self._name = name
        self._pace = pace
        self._large_share = large_share
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.accepted: dict[str, str] = {}
        """Token -> digest of the body, of every message answered 250."""
        self.unknown: set[str] = set()
        """Tokens whose final dot had no answer: they may be ours or not."""
        self.answers: dict[int, int] = {}
        """How often each code was the answer."""
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(seed * 1000 + number)), name=f"load{number}")
            for number in range(clients)
        ]

    def start(self) -> None:
        """Begin; the gateway need not run yet."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the messages that are under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_TIMEOUT + 5)
            if thread.is_alive():
                raise RuntimeError(f"{thread.name} does not end")

    def count(self) -> int:
        """How many messages were accepted so far."""
        with self._lock:
            return len(self.accepted)

    def _run(self, number: int, source: random.Random) -> None:
        serial = 0
        while not self._stop.is_set():
            try:
                client = Client(*self._where)
            except OSError:
                self._stop.wait(0.02)  # it is down; the main thread starts it again
                continue
            try:
                while not self._stop.is_set():
                    serial += 1
                    one = message(f"{self._name}{number}-{serial}", large=source.random() < self._large_share)
                    self._hand_over(client, one)
                    self._stop.wait(self._pace)
            except OSError:
                pass
            finally:
                client.close()

    def _hand_over(self, client: Client, one: Message) -> None:
        with self._lock:
            self.unknown.add(one.token)
        answer = client.send(one)
        with self._lock:
            self.unknown.discard(one.token)
            self.answers[answer.code] = self.answers.get(answer.code, 0) + 1
            if answer.accepted:
                self.accepted[one.token] = one.digest
        if not answer.accepted:
            client.reset()
