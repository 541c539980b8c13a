"""The framing, whatever it is fed: one command a line, one message a dot, replies within limits."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.wire import (
    MAX_LINE,
    MAX_LINES,
    BodyEncoder,
    Extensions,
    RawReply,
    ReplyError,
    ReplyReader,
    UnsafeOutput,
    command_line,
    mail_command,
    rcpt_command,
    xtext,
)
from gateway.mail.address import Address, AddressError
from gateway.mail.envelope import Notify, Recipient

ANYTHING = st.text(st.characters(codec=None), max_size=30)
NASTY = st.one_of(ANYTHING, st.text(alphabet='ab\r\n\0 <>@".:=+\\ü\x7f\u2028', max_size=20))


@given(NASTY, NASTY, NASTY, NASTY, st.booleans())
def test_a_command_is_one_line_or_none(local: str, domain: str, envid: str, orcpt: str, parse: bool) -> None:  # noqa: FBT001
    try:
        address = Address.parse(f"{local}@{domain}") if parse else Address(local, domain)
    except AddressError:
        return
    recipient = Recipient(address, frozenset(Notify), orcpt)
    makers: tuple[Callable[[], bytes], ...] = (
        lambda: mail_command(address, size=5, eight_bit=True, smtputf8=True, ret="FULL", envid=envid),
        lambda: rcpt_command(recipient, dsn=True),
        lambda: command_line("EHLO", local),
    )
    for make in makers:
        try:
            line = make()
        except UnsafeOutput:
            continue
        assert line.endswith(b"\r\n")
        assert line.count(b"\r") == line.count(b"\n") == 1
        assert b"\0" not in line


@given(st.text(alphabet='ab ">@.ü\\=', min_size=1, max_size=12), st.booleans())
def test_no_address_becomes_a_parameter(local: str, quoted: bool) -> None:  # noqa: FBT001 - drawn
    try:
        address = Address.parse((f'"{local}"' if quoted else local) + "@b.example")
    except AddressError:
        return
    line = mail_command(address).decode()
    path = line.removeprefix("MAIL FROM:<").removesuffix(">\r\n")
    assert Address.parse(path) == address
    if " " in path or ">" in path:
        assert path.startswith('"')


@pytest.mark.parametrize(
    "address",
    [Address("a", "b.example> NOTIFY=NEVER"), Address("a>", "b.example\r\nDATA"), Address("", ""), Address("a", "[x]")],
)
def test_an_address_that_parse_did_not_make_does_not_leave(address: Address) -> None:
    with pytest.raises(UnsafeOutput):
        mail_command(address)


def test_notify_never_stands_alone() -> None:
    recipient = Recipient(Address.parse("b@x.example"), frozenset({Notify.NEVER, Notify.DELAY}))
    assert rcpt_command(recipient, dsn=True) == b"RCPT TO:<b@x.example> NOTIFY=NEVER\r\n"


def test_orcpt_that_cannot_be_passed_on_is_left_out() -> None:
    for orcpt in ("", "no semicolon", "bad type;x@y", "rfc822;" + "x" * 600):
        recipient = Recipient(Address.parse("b@x.example"), frozenset(), orcpt)
        assert rcpt_command(recipient, dsn=True) == b"RCPT TO:<b@x.example>\r\n"
    recipient = Recipient(Address.parse("b@x.example"), frozenset(), "utf-8;jürgen@x.example")
    assert rcpt_command(recipient, dsn=True).endswith(b"ORCPT=utf-8;j\\x{FC}rgen@x.example\r\n")


@given(ANYTHING)
def test_xtext_is_printable_and_reversible(text: str) -> None:
    encoded = xtext(text)
    assert all("!" <= c <= "~" and c != "=" for c in encoded)
    raw = bytearray()
    position = 0
    while position < len(encoded):
        if encoded[position] == "+":
            raw.append(int(encoded[position + 1 : position + 3], 16))
            position += 3
        else:
            raw.append(ord(encoded[position]))
            position += 1
    assert bytes(raw) == text.encode("utf-8", "replace")


# -- bodies ------------------------------------------------------------------------------------------------------------


def unstuff(wire: bytes) -> bytes:
    """What a strict server makes of it: the message up to the first CRLF.CRLF."""
    assert wire.endswith(b".\r\n")
    lines = wire.split(b"\r\n")
    end = lines.index(b".")
    assert end == len(lines) - 2  # the first lone dot is the last line
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])


LINES = st.lists(
    st.one_of(st.sampled_from([b"", b".", b"..", b".x", b"x.", b"QUIT"]), st.binary(max_size=9)), max_size=8
)


@given(LINES, st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_whatever_the_blocks_the_message_is_the_same_and_nothing_bare_leaves(
    lines: list[bytes],
    cuts: list[int],
    ended: bool,  # noqa: FBT001 - drawn
) -> None:
    message = b"\r\n".join(lines) + (b"\r\n" if ended else b"")
    borders = sorted({0, *(min(cut, len(message)) for cut in cuts), len(message)})
    encoder = BodyEncoder()
    clean = message.replace(b"\r\n", b"")
    try:
        out = b"".join(encoder.feed(message[a:b]) for a, b in itertools.pairwise(borders))
        out += encoder.finish()
    except UnsafeOutput:
        assert any(octet in clean for octet in (b"\r", b"\n", b"\0"))
        return
    assert not any(octet in clean for octet in (b"\r", b"\n", b"\0"))
    assert out.replace(b"\r\n", b"").count(b"\r") == out.replace(b"\r\n", b"").count(b"\n") == 0
    expected = message if not message or message.endswith(b"\r\n") else message + b"\r\n"
    assert unstuff(out) == expected
    assert encoder.octets == len(message)


# -- replies -----------------------------------------------------------------------------------------------------------


def test_replies_are_cut_out_of_any_segments() -> None:
    stream = b"220 hi\r\n250-a\r\n250-b\n250 c\r\n354\r\n"
    expected = [RawReply(220, ("hi",)), RawReply(250, ("a", "b", "c")), RawReply(354, ("",))]
    for step in (1, 2, 5, len(stream)):
        reader = ReplyReader()
        found = [r for n in range(0, len(stream), step) for r in reader.feed(stream[n : n + step])]
        assert found == expected
        assert not reader.partial


def feed_all(reader: ReplyReader, stream: bytes) -> None:
    for start in range(0, len(stream), 512):
        reader.feed(stream[start : start + 512])


@pytest.mark.parametrize(
    "stream",
    [
        b"hello\r\n",
        b"25 x\r\n",
        b"2500 x\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"250_x\r\n",
        b"\r\n",
        b"250-a\r\n251 b\r\n",
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"x" * (MAX_LINE + 1),
        b"250-x\r\n" * (MAX_LINES + 1),
        (b"250-" + b"x" * 2000 + b"\r\n") * 40,
        "２５０ x\r\n".encode(),
    ],
)
def test_what_is_no_reply_is_refused(stream: bytes) -> None:
    reader = ReplyReader()
    with pytest.raises(ReplyError):
        feed_all(reader, stream)


@given(st.lists(st.binary(max_size=400), max_size=30))
def test_noise_never_breaks_the_reader_nor_fills_it(segments: list[bytes]) -> None:
    reader = ReplyReader()
    for segment in segments:
        try:
            replies = reader.feed(segment)
        except ReplyError:
            return
        assert len(reader._buffer) <= MAX_LINE
        for reply in replies:
            assert 200 <= reply.code < 600
            assert reply.reply.text.isprintable() or not reply.reply.text


def test_extensions() -> None:
    lines = ("hi", "SIZE 1000", "auth plain", "AUTH=LOGIN", "8BITMIME ", "b@d", "", "Pipelining", "SIZE 5")
    extensions = Extensions.parse(RawReply(250, lines))
    assert extensions.size == 1000
    assert extensions.parameters("AUTH") == ("PLAIN",)
    assert all(keyword in extensions for keyword in ("8BITMIME", "PIPELINING", "SIZE"))
    assert "STARTTLS" not in extensions
    assert extensions.parameters("STARTTLS") == ()
