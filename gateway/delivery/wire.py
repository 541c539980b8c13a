"""SMTP on the wire, without I/O: replies parsed within limits, command lines and bodies checked before they leave.

Replies: RFC 5321 section 4.2. Commands: 4.1.1; DSN parameters RFC 3461 section 4, RFC 6533. Bodies: 4.5.2 (dots).
Nothing here trusts its caller: what would put a stray line end on the wire raises :class:`UnsafeOutput`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gateway.errors import GuardViolation
from gateway.mail.address import Address, AddressError
from gateway.mail.envelope import Notify, Recipient
from gateway.mail.reply import Reply

__all__ = [
    "MAX_LINE",
    "MAX_LINES",
    "MAX_REPLY",
    "BodyEncoder",
    "Extensions",
    "RawReply",
    "ReplyError",
    "ReplyReader",
    "UnsafeOutput",
    "command_line",
    "mail_command",
    "rcpt_command",
    "xtext",
]

# RFC 5321 section 4.5.3.1.5 allows 512 octets a reply line. Longer ones exist; beyond 2 KB it is no reply any more.
MAX_LINE = 2048
MAX_LINES = 100
MAX_REPLY = 65536

# An ORCPT of more than 500 or an ENVID of more than 100 characters is not to be sent (RFC 3461 sections 4.2, 4.4).
_MAX_ORCPT = 500
_MAX_ENVID = 100

_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?\Z", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*\Z")


class ReplyError(Exception):
    """What the peer sent is no SMTP reply, or larger than we take; the message says which."""


class UnsafeOutput(GuardViolation):
    """Something that was about to be written would have broken the protocol's framing. Always a bug of ours."""


@dataclass(frozen=True, slots=True)
class RawReply:
    """A reply as it came: the code, and the text of each line (bytes that are not UTF-8 replaced)."""

    code: int
    lines: tuple[str, ...]

    @property
    def reply(self) -> Reply:
        """The value that the rest of the gateway works with, its text cleaned."""
        return Reply.parse(self.code, "\n".join(self.lines))


class ReplyReader:
    """Cuts a stream of bytes into replies. Holds at most one unfinished reply, within the limits above."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._code = 0
        self._size = 0

    @property
    def partial(self) -> bool:
        """Whether the beginning of a reply has arrived and its end has not."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> list[RawReply]:
        """The replies that ``data`` completes. Raises :class:`ReplyError`; the reader is then of no further use."""
        self._buffer += data
        complete: list[RawReply] = []
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            line = bytes(self._buffer[start : end + 1])
            start = end + 1
            reply = self._line(line)
            if reply is not None:
                complete.append(reply)
        del self._buffer[:start]
        if len(self._buffer) > MAX_LINE:
            raise ReplyError(f"a reply line of more than {MAX_LINE} octets")
        return complete

    def _line(self, line: bytes) -> RawReply | None:
        self._size += len(line)
        if len(line) > MAX_LINE:
            raise ReplyError(f"a reply line of more than {MAX_LINE} octets")
        if self._size > MAX_REPLY:
            raise ReplyError(f"a reply of more than {MAX_REPLY} octets")
        match = _REPLY_LINE.match(line.rstrip(b"\r\n"))
        if match is None:
            raise ReplyError("a line that is no SMTP reply")
        code = int(match.group(1))
        if self._lines and code != self._code:
            raise ReplyError("a reply whose lines carry different codes")
        self._code = code
        self._lines.append((match.group(3) or b"").decode("utf-8", "replace"))
        if match.group(2) == b"-":
            if len(self._lines) >= MAX_LINES:
                raise ReplyError(f"a reply of more than {MAX_LINES} lines")
            return None
        reply = RawReply(code, tuple(self._lines))
        self._lines = []
        self._size = 0
        return reply


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a peer offered in its answer to EHLO (RFC 5321 section 4.1.1.1): keyword in upper case -> parameters."""

    offered: tuple[tuple[str, str], ...] = ()
    _keywords: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keywords", frozenset(name for name, _ in self.offered))

    @classmethod
    def parse(cls, reply: RawReply) -> Extensions:
        """Read the lines after the first; a line that is no keyword is passed over."""
        found: dict[str, str] = {}
        for line in reply.lines[1:]:
            # "AUTH=LOGIN" is how some servers have offered AUTH since before RFC 4954.
            keyword, _, parameters = line.strip().replace("AUTH=", "AUTH ", 1).partition(" ")
            if _KEYWORD.match(keyword):
                found.setdefault(keyword.upper(), parameters.strip().upper())
        return cls(tuple(found.items()))

    def __contains__(self, keyword: str) -> bool:
        return keyword in self._keywords

    def parameters(self, keyword: str) -> tuple[str, ...]:
        """The parameters of this (upper-case) keyword; empty where it was not offered."""
        if keyword not in self._keywords:
            return ()
        for name, parameters in self.offered:
            if name == keyword:
                return tuple(parameters.split())
        return ()

    @property
    def size(self) -> int | None:
        """The largest message that the peer takes, in octets (RFC 1870); None where it does not say."""
        for parameter in self.parameters("SIZE")[:1]:
            if parameter.isascii() and parameter.isdigit() and len(parameter) <= 20 and int(parameter) > 0:
                return int(parameter)
        return None


def command_line(*words: str) -> bytes:
    """One command with its CRLF. Raises :class:`UnsafeOutput` where a word would make it two, or none."""
    line = " ".join(words).encode("utf-8", "surrogatepass")
    if _CONTROL.search(line) or not line.strip():
        raise UnsafeOutput("a command line with control characters was about to be sent")
    return line + b"\r\n"


def _path(address: Address | None) -> str:
    """The address in angle brackets. An :class:`Address` that was not made by ``parse`` does not get through."""
    if address is None:
        return "<>"
    try:
        whole = Address.parse(str(address)) == address
    except AddressError:
        whole = False
    if not whole:
        raise UnsafeOutput("an address that is none was about to be sent")
    return f"<{address}>"


def xtext(text: str) -> str:
    """``text`` as xtext (RFC 3461 section 4): what is not printable ASCII, ``+`` and ``=`` become ``+HH``."""
    return "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}"
        for octet in text.encode("utf-8", "replace")
    )


def _orcpt(text: str) -> str:
    """The value of ORCPT: type as it is, address as xtext, or as RFC 6533 section 3 wants it for ``utf-8``."""
    kind, semicolon, address = text.partition(";")
    if not semicolon or not _KEYWORD.match(kind):
        return ""
    if kind.lower() == "utf-8":
        address = "".join(c if "!" <= c <= "~" and c not in "+=\\" else f"\\x{{{ord(c):02X}}}" for c in address)
        value = f"{kind};{address}"
    else:
        value = f"{kind};{xtext(address)}"
    return value if len(value) <= _MAX_ORCPT else ""


def mail_command(
    sender: Address | None,
    *,
    size: int | None = None,
    eight_bit: bool = False,
    smtputf8: bool = False,
    ret: str = "",
    envid: str = "",
) -> bytes:
    """MAIL FROM with the parameters that are given; the caller gives only what the peer offers.

    Raises :class:`UnsafeOutput`.
    """
    words = ["MAIL FROM:" + _path(sender)]
    if size is not None:
        words.append(f"SIZE={size}")
    if eight_bit:
        words.append("BODY=8BITMIME")
    if smtputf8:
        words.append("SMTPUTF8")
    if ret in {"FULL", "HDRS"}:
        words.append(f"RET={ret}")
    if envid and len(encoded := xtext(envid)) <= _MAX_ENVID:
        words.append(f"ENVID={encoded}")
    return command_line(*words)


def rcpt_command(recipient: Recipient, *, dsn: bool = False) -> bytes:
    """RCPT TO; with ``dsn`` also NOTIFY and ORCPT where the recipient has them. Raises :class:`UnsafeOutput`."""
    words = ["RCPT TO:" + _path(recipient.address)]
    if dsn and recipient.notify:
        # NEVER stands alone (RFC 3461 section 4.1).
        named = {Notify.NEVER} if Notify.NEVER in recipient.notify else recipient.notify
        words.append("NOTIFY=" + ",".join(sorted(named)))
    if dsn and recipient.orcpt and (value := _orcpt(recipient.orcpt)):
        words.append(f"ORCPT={value}")
    return command_line(*words)


class BodyEncoder:
    """Makes a message ready for DATA block by block: dots doubled, and nothing else changed.

    Every octet passes the last check of the promise "no bare CR, LF or NUL leaves": :class:`UnsafeOutput`, raised
    before the offending block is given out. State is carried over block borders: a CR that ends a block waits for
    the next one.
    """

    def __init__(self) -> None:
        self._line_start = True
        self._held = b""
        self.octets = 0

    def feed(self, block: bytes) -> bytes:
        """The octets to write for this block."""
        self.octets += len(block)
        data = self._held + block
        self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        if not data:
            return b""
        ends = data.count(b"\r\n")
        if data.count(b"\r") != ends or data.count(b"\n") != ends:
            raise UnsafeOutput("a bare CR or LF was about to be sent inside a message")
        if b"\0" in data:
            raise UnsafeOutput("a NUL was about to be sent inside a message")
        stuffed = data.replace(b"\r\n.", b"\r\n..")
        if self._line_start and data.startswith(b"."):
            stuffed = b"." + stuffed
        self._line_start = data.endswith(b"\r\n")
        return stuffed

    def finish(self) -> bytes:
        """The end of the message: a CRLF where the last line lacks one, and the final dot."""
        if self._held:
            raise UnsafeOutput("a bare CR was about to be sent at the end of a message")
        return b".\r\n" if self._line_start else b"\r\n.\r\n"
