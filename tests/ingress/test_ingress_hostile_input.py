"""Anything may come over the wire: the process lives on, every reply is one, nothing is taken that should not be."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.ingress.parameters import parse_mail, parse_rcpt, unxtext
from gateway.mail.envelope import Notify
from tests.ingress.ingress_harness import HEADER, REPLY, connector, running, settings_of

WORDS = st.sampled_from(
    [
        b"EHLO", b"HELO", b"MAIL FROM:", b"RCPT TO:", b"DATA", b"RSET", b"NOOP", b"VRFY", b"EXPN", b"HELP", b"AUTH",
        b"BDAT 9", b"BDAT 3 LAST",
        b"STARTTLS", b" ", b"\t", b"<", b">", b"<>", b"<ann@clinic.example>", b"<bob@b.example>", b"client.example",
        b"SIZE=", b"BODY=8BITMIME", b"NOTIFY=NEVER", b"ORCPT=rfc822;", b"ENVID=", b"SMTPUTF8", b"=", b";", b"+", b"@",
        b'"', b"\\", b":", b"\0", b"\r", b"\n", b"\xff", b"\xc3\xa9", b"%s%n{0}", b"x" * 600, b"\x1b[2J", b"\r\n", b".",
    ]
)  # fmt: skip
LINES = st.lists(WORDS, max_size=7).map(b"".join) | st.binary(max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=12), st.integers(1, 400))
def test_whatever_is_said_is_answered_with_replies_and_the_server_lives_on(lines: list[bytes], step: int) -> None:
    asyncio.run(_fuzz([line.replace(b"STARTTLS", b"NOOP") for line in lines], step))


async def _fuzz(lines: list[bytes], step: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # The limit on errors is out of the way: each session is to go as far as it can.
        async with running(settings_of(Path(folder), limits={"errors": 1000})) as run:
            client = await run.client()
            wire = b"EHLO c.example\r\n" + b"".join(line + b"\r\n" for line in lines)
            # Whatever state it is in now, this ends it: data first, where it takes all this for a message.
            wire += b"\r\n.\r\nQUIT\r\n"
            for start in range(0, len(wire), step):
                client.send(wire[start : start + step])
            client.writer.write_eof()
            # BDAT takes the rest for its chunk; or, where it is malformed, ends the session with much unread.
            chunked = b"BDAT" in wire.upper()
            try:
                answer = await asyncio.wait_for(client.reader.read(), 10)
            except ConnectionResetError:
                assert chunked
                answer = b""
            replies = answer.splitlines(keepends=True)
            for reply in replies:
                assert REPLY.match(reply), reply
            assert chunked or replies[-1].startswith((b"221 ", b"421 "))
            assert not run.events("session_failed")
            assert not run.events("command_failed")
            assert not run.events("reception_failed")
            other = await run.client()
            await other.hello()
            await other.envelope()
            assert (await other.data(HEADER + b"\r\nx\r\n"))[0] == 250
            for each in (client, other):
                await each.close()


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS | st.binary(max_size=8), max_size=8).map(b"".join))
def test_parameters_are_read_or_refused(argument: bytes) -> None:
    text = argument.decode("utf-8", "replace")
    for refused in (_refusal_of(lambda: parse_mail(text)), _refusal_of(lambda: parse_rcpt(text, "gw", smtputf8=True))):
        if refused is not None:
            assert refused.reply_code in (501, 553, 555)
            assert refused.line.isascii()
            assert refused.line.isprintable()


def _refusal_of(parse: Callable[[], object]) -> Refusal | None:
    try:
        parse()
    except Refusal as refused:
        return refused
    return None


FRAGMENTS = st.sampled_from(
    [
        b"From: ", b"ann@clinic.example", b"\r\n", b" ", b":", b"X", b"\xff", b"<", b",", b"\t", b"X-Gateway-Protect",
        b"DKIM-Signature: v=1; d=clinic.example",
    ]
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(FRAGMENTS, max_size=25))
def test_any_header_block_is_taken_or_refused_with_a_code(pieces: list[bytes]) -> None:
    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with running(settings_of(Path(folder))) as run:
                client = await run.client()
                await client.hello()
                await client.envelope()
                content = b"".join(pieces).replace(b"\r\n.", b"\r\n..") + b"\r\n"
                code, text = await client.data(content)
                assert code in (250, 550), text
                assert not run.events("reception_failed")
                await client.expect("NOOP", 250)
                await client.close()

    asyncio.run(scenario())


# -- parameters, one by one ----------------------------------------------------------------------------------------


def test_mail_parameters() -> None:
    mail = parse_mail("FROM: <ann@clinic.example>  size=12 BODY=7bit smtputf8 RET=full ENVID=QQ+40+2B AUTH=<>")
    assert (str(mail.sender), mail.size, mail.body, mail.smtputf8) == ("ann@clinic.example", 12, "7BIT", True)
    assert (mail.ret, mail.envid) == ("FULL", "QQ@+")
    assert parse_mail("FROM:<>").sender is None
    assert str(parse_mail("from:<@a.example,@b.example:ann@clinic.example>").sender) == "ann@clinic.example"
    assert str(parse_mail('FROM:<"a b>c"@clinic.example> SIZE=1').sender) == '"a b>c"@clinic.example'
    assert str(parse_mail("FROM:<ann@[192.0.2.1]>").sender) == "ann@[192.0.2.1]"


def test_rcpt_parameters() -> None:
    rcpt = parse_rcpt("TO:<bob@b.example> NOTIFY=SUCCESS,delay ORCPT=rfc822;a+20b@c", "gw.example")
    assert rcpt.notify == {Notify.SUCCESS, Notify.DELAY}
    assert rcpt.orcpt == "rfc822;a b@c"
    for text in ("TO:<Postmaster>", "TO:<postmaster>"):
        assert str(parse_rcpt(text, "gw.example").address) == "postmaster@gw.example"
    utf8 = parse_rcpt("TO:<jürgen@b.example> ORCPT=utf-8;jürgen@b.example", "gw.example", smtputf8=True)
    assert utf8.orcpt == "utf-8;jürgen@b.example"


@pytest.mark.parametrize(
    "argument",
    [
        "FROM:<ann@clinic.example>SIZE=1",
        "FROM:<ann@clinic.example> SIZE=1 SIZE=2",
        "FROM:<ann@clinic.example> SIZE=",
        "FROM:<ann@clinic.example> SIZE=-1",
        "FROM:<ann@clinic.example> SIZE=١",
        "FROM:<ann@clinic.example> SIZE=" + "9" * 21,
        "FROM:<ann@clinic.example> RET=SOME",
        "FROM:<ann@clinic.example> ENVID=" + "x" * 101,
        "FROM:<ann@clinic.example> ENVID=+0D+0A",
        "FROM:<ann@clinic.example> ENVID=+2b",
        "FROM:<ann@clinic.example> SMTPUTF8=1",
        "FROM:<ann@clinic.example> AUTH",
        "FROM:<ann@clinic.example> =x",
        "FROM <ann@clinic.example>",
        "TO:<ann@clinic.example>",
        "FROM:<ann@clinic.example",
        "FROM:<<ann@clinic.example>>",
        "FROM:<ann@clinic.example> <eve@evil.example>",
        "FROM:<@a.example:>",
        "FROM:< >",
        "FROM:<ann@clinic.example\t>",
    ],
)
def test_mail_arguments_that_are_refused(argument: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_mail(argument)
    assert caught.value.reply_code == 501


@pytest.mark.parametrize(
    "argument",
    [
        "TO:<bob@b.example> NOTIFY=NEVER,SUCCESS",
        "TO:<bob@b.example> NOTIFY=",
        "TO:<bob@b.example> NOTIFY=SOMETIMES",
        "TO:<bob@b.example> ORCPT=bob@b.example",
        "TO:<bob@b.example> ORCPT=rfc822;" + "x" * 501,
        "TO:<bob@b.example> ORCPT=rfc822;+00",
        "TO:<bob@b.example> ORCPT=utf-8;jürgen@b.example",
        "TO:<>",
        "TO:<bob>",
    ],
)
def test_rcpt_arguments_that_are_refused(argument: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_rcpt(argument, "gw.example")
    assert caught.value.reply_code == 501


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_xtext_decodes_what_was_encoded(text: str) -> None:
    encoded = "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)
    assert unxtext(encoded) == text


# -- nothing of ours, nothing of theirs ----------------------------------------------------------------------------


async def test_neither_log_nor_replies_carry_addresses_or_subjects(tmp_path: Path) -> None:
    connectors = [connector(stage="soft"), connector(name="other", accept={"networks": ["10.0.0.0/8"]})]
    async with running(settings_of(tmp_path, connectors=connectors)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        assert (await client.data(HEADER + b"\r\nsecretbody\r\n"))[0] == 250
        await client.expect("MAIL FROM:<eve@evil.example>", 451)
        await client.envelope()
        assert (await client.data(HEADER.replace(b"ann@clinic", b"eve@evil") + b"\r\nx\r\n"))[0] == 451
        await client.close()
        told = repr(run.log.entries)
        for secret in ("ann@", "bob@", "eve@", "hello", "secretbody"):
            assert secret not in told
        assert [event["alert"] for event in run.events("refused")] == [True, True]
        assert all(event["session"] for event in run.events("refused"))
