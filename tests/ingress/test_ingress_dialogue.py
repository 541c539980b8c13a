"""Dialogues over real sockets: what a client may say, and what it is answered."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Refusal, StoreFull
from gateway.ingress.seams import ControlHeaders
from gateway.mail.envelope import Notify
from gateway.testing import poll
from tests.ingress.ingress_harness import HEADER, MemoryIntake, connector, running, settings_of

BODY = HEADER + b"\r\nhello\r\n"


async def test_a_message_arrives_byte_for_byte(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        offers = (await client.hello()).splitlines()
        assert offers[0] == "gw.clinic.example"
        assert {"PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING", "STARTTLS"} < set(
            offers
        )
        assert "SIZE 150000000" in offers
        assert not {"BINARYMIME", "REQUIRETLS", "AUTH"} & {offer.split(" ")[0] for offer in offers}
        await client.expect("MAIL FROM:<ann@clinic.example> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=a+2Bb", 250)
        await client.expect("RCPT TO:<bob@b.example> NOTIFY=success,FAILURE ORCPT=rfc822;Bob+40b.example", 250)
        await client.expect("RCPT TO:<carol@c.example>", 250)
        code, text = await client.data(HEADER + b"\r\n..dots\r\nlate \xc3\xa9\r\n")
        assert code == 250
        accepted = run.intake.accepted[0]
        assert accepted.data == HEADER + b"\r\n.dots\r\nlate \xc3\xa9\r\n"
        message = accepted.submission.message
        assert message.id in text
        envelope = message.envelope
        assert str(envelope.sender) == "ann@clinic.example"
        assert [str(each.address) for each in envelope.recipients] == ["bob@b.example", "carol@c.example"]
        assert envelope.recipients[0].notify == {Notify.SUCCESS, Notify.FAILURE}
        assert envelope.recipients[0].orcpt == "rfc822;Bob@b.example"
        assert (envelope.ret, envelope.envid, envelope.body) == ("HDRS", "a+b", "8BITMIME")
        assert (envelope.helo, envelope.client_address, envelope.protocol) == ("client.example", "127.0.0.1", "ESMTP")
        assert accepted.submission.eight_bit
        assert not envelope.smtputf8
        assert run.metrics.results == [("app", "accepted")]
        await client.expect("QUIT", 221)
        assert await client.at_end()
        await client.close()


async def test_several_messages_in_one_session_and_the_postmaster(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        for _ in range(3):
            await client.envelope("ann@clinic.example", "Postmaster", "bob@b.example", "BOB@b.example")
            assert (await client.data(BODY))[0] == 250
        await client.close()
        assert [str(each.address) for each in run.intake.accepted[2].submission.message.envelope.recipients] == [
            "Postmaster@gw.clinic.example".replace("P", "p", 1),
            "bob@b.example",
        ]


async def test_pipelined_commands_are_answered_in_order(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        client.send(
            b"EHLO c.example\r\nMAIL FROM:<ann@clinic.example>\r\nRCPT TO:<bob@b.example>\r\nRCPT TO:<broken\r\n"
            b"DATA\r\n" + BODY + b".\r\nNOOP\r\nMAIL FROM:<ann@clinic.example>\r\nRSET\r\nQUIT\r\n"
        )
        codes = [(await client.reply())[0] for _ in range(10)]
        assert codes == [250, 250, 250, 501, 354, 250, 250, 250, 250, 221]
        assert len(run.intake.accepted) == 1
        await client.close()


async def test_a_client_that_half_closes_still_gets_its_answers(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        client.send(b"EHLO c.example\r\nMAIL FROM:<ann@clinic.example>\r\nRCPT TO:<bob@b.example>\r\nDATA\r\n")
        client.send(BODY + b".\r\n")
        client.writer.write_eof()
        assert [(await client.reply())[0] for _ in range(5)] == [250, 250, 250, 354, 250]
        assert await client.at_end()
        await client.close()


@pytest.mark.parametrize(
    ("line", "code", "enhanced"),
    [
        (b"FOO", 500, "5.5.1"),
        (b"", 500, "5.5.2"),
        (b"\xff\xfe", 500, "5.5.2"),
        (b"NOOP \xff", 500, "5.5.2"),
        (b"NO\0OP", 500, "5.5.2"),
        (b"NO\rOP", 500, "5.5.2"),
        (b"NOOP\nNOOP", 500, "5.5.2"),
        (b"NOOP " + b"x" * 1100, 500, "5.5.2"),
        (b"NOOP " + b"x" * 300_000, 500, "5.5.2"),
        (b"HELO", 501, "5.5.4"),
        (b"EHLO not a name", 501, "5.5.4"),
        (b"MAIL", 501, "5.5.4"),
        (b"MAIL FROM:", 501, "5.5.4"),
        (b"MAIL FROM:ann@clinic.example", 501, "5.5.4"),
        (b"MAIL FROM:<ann@clinic.example> SIZE=x", 501, "5.5.4"),
        (b"MAIL FROM:<ann@clinic.example> BODY=BINARYMIME", 501, "5.5.4"),
        (b"MAIL FROM:<ann@clinic.example> REQUIRETLS", 555, "5.5.4"),
        (b"MAIL FROM:<ann@clinic.example> SIZE=999999999999", 552, "5.3.4"),
        (b"MAIL FROM:<ann@@clinic.example>", 501, "5.1.7"),
        ("MAIL FROM:<jürgen@clinic.example>".encode(), 553, "5.6.7"),
        (b"MAIL FROM:<eve@evil.example>", 550, "5.7.1"),
        (b"RCPT TO:<bob@b.example>", 503, "5.5.1"),
        (b"DATA", 503, "5.5.1"),
        (b"RSET x", 501, "5.5.4"),
        (b"QUIT now", 501, "5.5.4"),
        (b"VRFY", 501, "5.5.4"),
        (b"VRFY bob", 252, "2.5.2"),
        (b"EXPN staff", 502, "5.5.1"),
        (b"AUTH PLAIN AAAA", 502, "5.5.1"),
        (b"HELP", 214, "2.0.0"),
        (b"STARTTLS now", 501, "5.5.4"),
    ],
)
async def test_what_is_wrong_is_answered_with_a_code_and_the_session_goes_on(
    tmp_path: Path, line: bytes, code: int, enhanced: str
) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        found, text = await client.say(line)
        assert (found, text.split(" ")[0]) == (code, enhanced)
        if line == b"NOOP\nNOOP":
            await client.reply()
        await client.envelope()
        assert (await client.data(BODY))[0] == 250
        await client.close()


async def test_out_of_order_commands(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        assert "EHLO first" in await client.expect("MAIL FROM:<ann@clinic.example>", 503)
        await client.hello()
        await client.expect("MAIL FROM:<ann@clinic.example>", 250)
        await client.expect("MAIL FROM:<ann@clinic.example>", 503)
        await client.expect("DATA", 503)
        await client.expect("RCPT TO:<>", 501)
        await client.expect("RCPT TO:<bob@b.example> FOO=1", 555)
        await client.expect("RCPT TO:<bob@b.example>", 250)
        await client.expect("DATA now", 501)
        await client.expect("RSET", 250)
        await client.expect("RCPT TO:<bob@b.example>", 503)
        await client.expect("MAIL FROM:<ann@clinic.example>", 250)
        await client.hello()  # a new EHLO forgets the transaction
        await client.expect("RCPT TO:<bob@b.example>", 503)
        await client.close()


async def test_helo_has_no_parameters(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.expect("HELO client.example", 250)
        await client.expect("MAIL FROM:<ann@clinic.example> SIZE=10", 501)
        await client.envelope()
        assert (await client.data(BODY))[0] == 250
        assert run.intake.accepted[0].submission.message.envelope.protocol == "SMTP"
        await client.close()


async def test_too_many_errors_end_the_session(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, limits={"errors": 3})) as run:
        client = await run.client()
        for _ in range(3):
            await client.expect("FOO", 500)
        assert await client.reply() == (421, "4.7.0 Too many errors, closing connection")
        assert await client.at_end()
        await client.close()


async def test_smtputf8_is_computed_from_what_is_there(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.expect("MAIL FROM:<ann@clinic.example> SMTPUTF8", 250)
        await client.expect("RCPT TO:<bob@b.example>", 250)
        assert (await client.data(BODY))[0] == 250
        await client.expect("MAIL FROM:<ann@clinic.example> SMTPUTF8", 250)
        await client.expect("RCPT TO:<jürgen@b.example>", 250)
        assert (await client.data(BODY))[0] == 250
        await client.envelope()
        assert (await client.data(BODY.replace(b"hello", "grüße".encode(), 1)))[0] == 250
        envelopes = [each.submission.message.envelope for each in run.intake.accepted]
        # A recipient's address alone does not count: the others' hosts need not know SMTPUTF8 for it.
        assert [each.smtputf8 for each in envelopes] == [False, False, True]
        assert [each.protocol for each in envelopes] == ["UTF8SMTP", "UTF8SMTP", "ESMTP"]
        await client.close()


# -- what the intake says ------------------------------------------------------------------------------------------


async def test_the_intake_can_refuse_at_every_step(tmp_path: Path) -> None:
    intake = MemoryIntake()
    async with running(settings_of(tmp_path), intake=intake) as run:
        client = await run.client()
        await client.hello()
        intake.unready = Refusal(452, "4.3.1", "No room", reason="full")
        await client.expect("MAIL FROM:<ann@clinic.example>", 452)
        intake.unready = None
        intake.recipient = lambda address: (
            Refusal(550, "5.7.1", "Not to them", reason="policy") if address.domain == "no.example" else None
        )
        await client.expect("MAIL FROM:<ann@clinic.example>", 250)
        await client.expect("RCPT TO:<x@no.example>", 550)
        await client.expect("RCPT TO:<bob@b.example>", 250)
        intake.unready = Refusal(452, "4.3.1", "No room", reason="full")
        await client.expect("DATA", 452)
        intake.unready = None
        intake.accept_error = Refusal(550, "5.7.1", "Not this content", reason="policy")
        assert await client.data(BODY) == (550, "5.7.1 Not this content")
        assert intake.spools[-1].aborted
        for attribute in ("open_error", "write_error", "accept_error"):
            intake.accept_error = None
            setattr(intake, attribute, StoreFull("the disk is full at /var/lib/secret"))
            await client.envelope()
            code, text = await client.data(BODY)
            assert (code, text[:5]) == (452, "4.3.1")
            assert "secret" not in text
            setattr(intake, attribute, RuntimeError("internals at /var/lib/secret"))
            await client.envelope()
            code, text = await client.data(BODY)
            assert (code, text[:5]) == (451, "4.3.0")
            assert "internals" not in text
            setattr(intake, attribute, None)
        await client.envelope()
        assert (await client.data(BODY))[0] == 250
        assert len(intake.accepted) == 1
        assert all(spool.aborted for spool in intake.spools[:-1])
        assert {"full", "policy", "store"} <= set(run.metrics.reasons)
        await client.close()


async def test_an_unready_intake_that_is_stopping_ends_the_session(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        run.intake.unready = Refusal(421, "4.3.2", "Stopping", reason="stopping")
        await client.expect("MAIL FROM:<ann@clinic.example>", 421)
        assert await client.at_end()
        await client.close()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_during_the_commit_does_not_undo_it(tmp_path: Path, how: str) -> None:
    async with running(settings_of(tmp_path)) as run:
        run.intake.gate = asyncio.Event()
        client = await run.client()
        await client.hello()
        await client.envelope()
        await client.expect("DATA", 354)
        client.send(BODY + b".\r\n")
        await poll(lambda: run.intake.committing)
        if how == "reset":
            plug: socket.socket = client.writer.get_extra_info("socket")
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() then sends RST
        await client.close()
        (session,) = run.server._sessions
        await poll(lambda: session._lost or session._input.at_eof())
        assert not run.intake.accepted
        run.intake.gate.set()
        await poll(lambda: run.metrics.results)
        assert len(run.intake.accepted) == 1
        assert run.metrics.results == [("app", "client_gone")]
        assert run.events("accepted")[0]["client_gone"]


async def test_a_server_that_is_stopped_in_the_middle_of_a_commit_waits_for_it(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        run.intake.gate = asyncio.Event()
        client = await run.client()
        await client.hello()
        await client.envelope()
        await client.expect("DATA", 354)
        client.send(BODY + b".\r\n")
        await poll(lambda: run.intake.committing)
        closing = asyncio.create_task(run.server.close())
        assert await client.at_end()
        assert not closing.done()
        run.intake.gate.set()
        await closing
        assert len(run.intake.accepted) == 1
        await client.close()


async def test_a_client_that_leaves_in_the_middle_of_data_leaves_nothing(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        await client.expect("DATA", 354)
        client.send(BODY)
        await poll(lambda: run.intake.spools)
        await client.close()
        await poll(lambda: run.metrics.results == [("app", "incomplete")])
        assert run.intake.spools[0].aborted
        assert not run.intake.accepted


# -- limits --------------------------------------------------------------------------------------------------------


async def test_size_recipients_and_rate(tmp_path: Path) -> None:
    limits = {"message_size": 2000, "recipients": 2, "messages_per_minute": 2}
    async with running(settings_of(tmp_path, connectors=[connector(limits=limits)])) as run:
        client = await run.client()
        assert "SIZE 2000" in await client.hello()
        await client.expect("MAIL FROM:<ann@clinic.example> SIZE=2001", 552)
        await client.envelope()
        code, text = await client.data(BODY + b"x" * 3000 + b"\r\n")
        assert (code, text[:5]) == (552, "5.3.4")
        await client.envelope("ann@clinic.example", "a@b.example", "b@b.example")
        await client.expect("RCPT TO:<c@b.example>", 452)
        await client.expect("RCPT TO:<a@b.example>", 250)  # the same one again costs nothing
        assert (await client.data(BODY))[0] == 250
        await client.envelope()
        assert (await client.data(BODY))[0] == 250
        await client.expect("MAIL FROM:<ann@clinic.example>", 451)
        assert run.metrics.reasons == ["too_large", "too_large", "recipients", "rate"]
        await client.close()


async def test_a_client_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, connectors=[connector(limits={"message_size": 1000})])) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        await client.expect("DATA", 354)
        client.send(BODY + b"x" * 400_000)
        assert (await client.reply())[0] == 421
        await client.close()


async def test_a_header_that_is_too_large(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, limits={"header_size": "1KiB"})) as run:
        client = await run.client()
        await client.hello()
        for content in (HEADER + b"X: " + b"x" * 2000 + b"\r\n\r\nbody\r\n", HEADER + b"X: " + b"x" * 1000 + b"\r\n"):
            await client.envelope()
            code, text = await client.data(content)
            assert (code, text[:5]) == (552, "5.3.4")
        assert not run.intake.spools
        await client.close()


async def test_session_messages(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, limits={"session_messages": 1})) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        assert (await client.data(BODY))[0] == 250
        await client.expect("MAIL FROM:<ann@clinic.example>", 421)
        assert await client.at_end()
        await client.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"connections": 2}},
        {"connectors": [connector(limits={"connections": 2})]},
        {"connectors": [connector(accept={"networks": ["10.0.0.0/8"]})], "limits": {"connections_per_network": 2}},
    ],
)
async def test_connections_in_all_of_a_connector_and_of_a_network(tmp_path: Path, changes: dict[str, Any]) -> None:
    async with running(settings_of(tmp_path, **changes)) as run:
        clients = [await run.client() for _ in range(2)]
        refused = await run.client(greet=False)
        assert (await refused.reply())[0] == 421
        assert await refused.at_end()
        await clients.pop().close()
        await poll(lambda: run.server.counts.total == 1)
        clients.append(await run.client())
        for client in [*clients, refused]:
            await client.close()


# -- reading the message -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code", "enhanced"),
    [
        (b"", 550, "5.6.0"),
        (b"\r\nno header\r\n", 550, "5.6.0"),
        (b"no field\r\n\r\nbody\r\n", 550, "5.6.0"),
        (b" From: ann@clinic.example\r\n\r\n", 550, "5.6.0"),
        (HEADER + b"From: eve@evil.example\r\n\r\n", 550, "5.6.0"),
        (b"From: ann@clinic.example, eve@evil.example\r\n\r\n", 550, "5.6.0"),
        (b"From: staff: ann@clinic.example;\r\n\r\n", 550, "5.6.0"),
        (b"From: ann@clinic.example\r\n \t\r\n\r\n", 550, "5.6.0"),
        (b"From: eve@evil.example\r\n\r\n", 550, "5.7.1"),
        (HEADER + b"X-Gateway-Protect: smime\r\nX-Gateway-Protect: pgp\r\n\r\n", 550, "5.6.0"),
        (HEADER + b"X-Gateway-Protect: \r\n\r\n", 550, "5.6.0"),
        (HEADER + b"X-Gateway-Idempotency-Key: a b\r\n\r\n", 550, "5.6.0"),
        (b"Received: x\r\n" * 30 + HEADER + b"\r\n", 554, "5.4.6"),
        (b"Received: x\r\n" * 29 + HEADER + b"\r\n", 250, "2.0.0"),
        (HEADER, 250, "2.0.0"),
    ],
)
async def test_messages_that_are_refused_for_what_they_are(
    tmp_path: Path, content: bytes, code: int, enhanced: str
) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        found, text = await client.data(content)
        assert (found, text.split(" ")[0]) == (code, enhanced)
        await client.expect("NOOP", 250)
        await client.close()


async def test_control_fields_and_blind_copies_are_taken_out(tmp_path: Path) -> None:
    extra = (
        b"bcc: x@b.example\r\nX-GATEWAY-protect : SMIME, pgp\r\nX-Gateway-Tag: a\r\nX-Gateway-Tag: b\r\n"
        b"X-Gateway-Idempotency-Key:\r\n key-1\r\nX-Gateway-Id: kept\r\nX-Gateway-Other: gone\r\n"
        b"X-Kept:   as\r\n\tit  is \r\n"
    )
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        assert (await client.data(extra + HEADER + b"\r\nX-Gateway-Tag: in the body\r\n"))[0] == 250
        accepted = run.intake.accepted[0]
        kept = b"X-Gateway-Id: kept\r\nX-Kept:   as\r\n\tit  is \r\n" + HEADER
        assert accepted.data == kept + b"\r\nX-Gateway-Tag: in the body\r\n"
        assert accepted.submission.header_block == kept
        control = accepted.submission.control
        assert control == ControlHeaders(("smime", "pgp"), frozenset({"a", "b"}), "key-1")
        await client.close()
