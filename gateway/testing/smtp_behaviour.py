"""What a fake SMTP peer does: the happy path, with any single step replaced.

A *script* stands in a field of :class:`Behaviour`, one for each command. It is an :class:`Action`; or a
sequence of scripts, used one after the other over the life of the peer, the last one repeating; or a choice:
:class:`ByAddress`, :class:`Share`, :class:`PerSession`. Scripts nest::

    Behaviour(dot=[reply(451, "4.3.0 later"), OK])                # the first message is deferred, the rest is taken
    Behaviour(rcpt=ByAddress({"gone@b.example": reply(550, "5.1.1 no")}))
    Behaviour(dot=Share(0.3, reply(452, "4.3.1 full"), seed=7))   # three of ten, the same ones on each run
    Behaviour(mail=PerSession((OK, OK, reply(421, "4.7.0 enough"))))     # two messages a connection
"""

from __future__ import annotations

import random
import ssl
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeAlias, Union

if TYPE_CHECKING:
    from gateway.testing.ca import CA, Certificate

__all__ = [
    "OK",
    "Action",
    "Behaviour",
    "ByAddress",
    "Chooser",
    "Handshake",
    "Manner",
    "PerSession",
    "Script",
    "Share",
    "Step",
    "Tls",
    "delay",
    "drip",
    "drop",
    "drop_after",
    "endless",
    "garbage",
    "reply",
    "stall",
]

#: The points of a session that can be scripted; the names of the fields of :class:`Behaviour`.
Step = Literal[
    "greeting", "ehlo", "helo", "starttls", "auth", "mail", "rcpt", "data", "bdat", "dot", "rset", "noop", "quit"
]
Handshake = Literal["complete", "garbage", "drop", "stall"]


class Manner(Enum):
    """How an action answers."""

    SEND = "the reply, at once"
    DRIP = "the reply, one byte at a time"
    RAW = "other bytes in place of the reply"
    ENDLESS = "a multi-line reply that never ends"
    STALL = "nothing, while reading on"
    DROP = "nothing; the command takes no effect and the connection closes"
    DROP_AFTER = "nothing; the command takes effect and the connection closes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One answer to one command. Make it with :func:`reply`, :func:`delay` and so on.

    ``code`` None is the normal reply of a server that has nothing against it. ``delay`` seconds pass before the
    answer, ``pause`` between bytes or lines. ``close``: hang up after answering (421 always does). ``reset``:
    hang up with RST.
    """

    code: int | None = None
    text: str = ""
    manner: Manner = Manner.SEND
    delay: float = 0.0
    pause: float = 0.0
    raw: bytes = b""
    close: bool = False
    reset: bool = False


#: Do what a healthy server does.
OK = Action()


def reply(code: int, text: str = "", *, delay: float = 0.0, close: bool = False) -> Action:
    """Answer ``code`` and ``text`` (its lines become a multi-line reply); 2xx and 3xx let the command take effect."""
    return Action(code=code, text=text, delay=delay, close=close)


def delay(seconds: float) -> Action:
    """Answer as usual, that much later."""
    return Action(delay=seconds)


def drop(*, reset: bool = False) -> Action:
    """Close in place of an answer; the command has no effect. ``reset`` sends RST instead of FIN."""
    return Action(manner=Manner.DROP, reset=reset)


def drop_after(*, reset: bool = False) -> Action:
    """Let the command take effect - at ``dot``: take the message - then close without the reply."""
    return Action(manner=Manner.DROP_AFTER, reset=reset)


def garbage(raw: bytes = b"\x00\xff\xfe garbage \x80\r\n", *, close: bool = False) -> Action:
    """Send ``raw`` as it stands. The command takes effect only where ``raw`` begins with a 2xx or 3xx code."""
    return Action(manner=Manner.RAW, raw=raw, close=close)


def endless(text: str = "and on", code: int | None = None, *, pause: float = 0.0) -> Action:
    """A multi-line reply (``250-and on``) that goes on until the client leaves."""
    return Action(manner=Manner.ENDLESS, text=text, code=code, pause=pause)


def drip(pause: float = 0.01, code: int | None = None, text: str = "") -> Action:
    """The reply, one byte each ``pause`` seconds."""
    return Action(manner=Manner.DRIP, pause=pause, code=code, text=text)


def stall() -> Action:
    """Never answer, keep the connection, go on reading and recording."""
    return Action(manner=Manner.STALL)


Script: TypeAlias = Union["Action", "Sequence[Script]", "ByAddress", "Share", "PerSession"]


@dataclass(frozen=True, slots=True)
class ByAddress:
    """A script for each address, compared without case.

    At ``rcpt`` it is the recipient's, at ``mail`` the sender's ("" for null). ``@b.example`` stands for every
    address of that domain. At ``data`` and ``dot`` the first recipient of the message that has a script counts.
    """

    scripts: Mapping[str, Script]
    otherwise: Script = OK


@dataclass(frozen=True, slots=True)
class Share:
    """``script`` with the given probability, else ``otherwise``; reproducible from ``seed``."""

    probability: float
    script: Script
    otherwise: Script = OK
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PerSession:
    """A sequence that starts anew in each session, the last one repeating."""

    scripts: Sequence[Script]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How the peer speaks TLS; all of it needs a certificate.

    - ``offered`` False: STARTTLS is neither advertised nor taken. ``offered_first``: only the first so many
      sessions of the peer get it, then it is stripped.
    - ``implicit``: TLS from the first byte (RFC 8314).
    - ``handshake``: ``complete`` it; answer the ClientHello with ``garbage``; ``drop`` or ``stall`` after the
      ClientHello. A tuple goes by session, its last entry repeating.
    - ``inject``: clear bytes in the same segment as the 220 of STARTTLS; ``inject_late``: the same, in a
      segment of their own before the handshake.
    - ``minimum``, ``maximum``, ``ciphers``: what is spoken; versions before 1.2 really are.
    - ``client_ca``, ``client_required``: ask for client certificates of that CA; insist on one.
    - ``swap_after``, ``swap_to``: from that session on (counting from 0), show another certificate.
    """

    offered: bool = True
    offered_first: int | None = None
    implicit: bool = False
    handshake: Handshake | tuple[Handshake, ...] = "complete"
    inject: bytes = b""
    inject_late: bytes = b""
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
    ciphers: str | None = None
    client_ca: CA | None = None
    client_required: bool = False
    swap_after: int | None = None
    swap_to: Certificate | None = None

    def offers(self, session: int) -> bool:
        """Whether session number ``session`` (from 0) is offered STARTTLS."""
        return self.offered and (self.offered_first is None or session < self.offered_first)

    def handshake_of(self, session: int) -> Handshake:
        """What happens in the handshake of session number ``session`` (from 0)."""
        if isinstance(self.handshake, str):
            return self.handshake
        return self.handshake[min(session, len(self.handshake) - 1)]

    def certificate_of(self, session: int, usual: Certificate | None) -> Certificate | None:
        """The certificate that session number ``session`` (from 0) is shown."""
        return self.swap_to if self.swap_after is not None and session >= self.swap_after else usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Everything that a peer does; each default is what a healthy MX host of today does.

    - ``extensions``: EHLO lines as they stand (``STARTTLS`` and ``AUTH`` are added where they apply); a command
      parameter whose extension is missing is refused with 555. ``SIZE n`` is enforced. ``CHUNKING`` makes BDAT
      work.
    - ``require_tls``: MAIL without TLS is refused with 530. ``credentials`` (user, password) offers AUTH PLAIN
      under TLS; ``require_auth`` insists on it.
    - ``connection_limit``: more connections at a time are greeted with 421.
    - ``lax_end_of_data``: the end of DATA is also seen in ``LF . LF`` and ``CR . CR``, as victims of smuggling do.
    - ``read_pause``: seconds between two reads of a body; ``drop_body_after``: hang up after that many octets
      of it.
    """

    greeting: Script = OK
    ehlo: Script = OK
    helo: Script = OK
    starttls: Script = OK
    auth: Script = OK
    mail: Script = OK
    rcpt: Script = OK
    data: Script = OK
    bdat: Script = OK
    dot: Script = OK
    rset: Script = OK
    noop: Script = OK
    quit: Script = OK
    tls: Tls = field(default_factory=Tls)
    extensions: tuple[str, ...] = (
        "PIPELINING",
        "SIZE 157286400",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "ENHANCEDSTATUSCODES",
    )
    require_tls: bool = False
    credentials: tuple[str, str] | None = None
    require_auth: bool = False
    connection_limit: int | None = None
    lax_end_of_data: bool = False
    read_pause: float = 0.0
    drop_body_after: int | None = None

    def script(self, step: Step) -> Script:
        """The script of that step."""
        script: Script = getattr(self, step)
        return script

    def has(self, extension: str) -> bool:
        """Whether that EHLO keyword is among ``extensions``."""
        return any(line.split(" ")[0].upper() == extension for line in self.extensions)

    @property
    def size_limit(self) -> int | None:
        """The number of ``SIZE n``, None where there is none (or 0: no limit, RFC 1870 section 4)."""
        for line in self.extensions:
            keyword, _, value = line.partition(" ")
            if keyword.upper() == "SIZE" and value.isdigit():
                return int(value) or None
        return None


class Chooser:
    """Resolves scripts to actions and remembers how far each sequence and each seeded choice has come."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[object, ...]] = Counter()
        self._randoms: dict[tuple[object, ...], random.Random] = {}

    def choose(self, step: Step, script: Script, session: int, addresses: Sequence[str] = ()) -> Action:
        """The action for this occurrence of ``step``, in session number ``session``, about ``addresses``."""
        return self._resolve((step,), script, session, [address.casefold() for address in addresses])

    def _resolve(self, path: tuple[object, ...], script: Script, session: int, addresses: list[str]) -> Action:
        match script:
            case Action():
                return script
            case ByAddress():
                label, inner = _of_address(script, addresses)
                return self._resolve((*path, label), inner, session, addresses)
            case Share():
                source = self._randoms.setdefault(path, random.Random(script.seed))
                hit = source.random() < script.probability
                inner = script.script if hit else script.otherwise
                return self._resolve((*path, hit), inner, session, addresses)
            case PerSession():
                path = (*path, "session", session)
                return self._next(path, script.scripts, session, addresses)
            case _:
                return self._next(path, script, session, addresses)

    def _next(self, path: tuple[object, ...], scripts: Sequence[Script], session: int, addresses: list[str]) -> Action:
        index = min(self._counts[path], len(scripts) - 1)
        self._counts[path] += 1
        return self._resolve((*path, index), scripts[index], session, addresses)


def _of_address(choice: ByAddress, addresses: list[str]) -> tuple[str, Script]:
    known = {address.casefold(): script for address, script in choice.scripts.items()}
    for address in addresses:
        for label in (address, "@" + address.rpartition("@")[2]):
            if label in known:
                return label, known[label]
    return "otherwise", choice.otherwise
