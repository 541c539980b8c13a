"""The fake peer as a healthy server, judged by aiosmtplib, and each way it misbehaves, byte for byte."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import Any

import aiosmtplib
import pytest

from gateway.testing import (
    CA,
    OK,
    Action,
    Behaviour,
    ByAddress,
    Certificate,
    FakeClock,
    PerSession,
    Share,
    SmtpPeer,
    Tls,
    delay,
    drip,
    drop,
    drop_after,
    endless,
    garbage,
    poll,
    reply,
    stall,
)

Talk = Callable[..., Any]
MAIL = b"Subject: hi\r\n\r\n.a dot\r\n..two\r\nend\r\n"


def client(peer: SmtpPeer, **options: Any) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(hostname=peer.address, port=peer.port, timeout=5, start_tls=False, **options)


async def test_a_real_client_delivers_byte_for_byte_and_everything_is_written_down() -> None:
    async with SmtpPeer() as peer, client(peer) as smtp:
        await smtp.sendmail(
            "a@a.example",
            ["b@b.example", "c@c.example"],
            MAIL,
            mail_options=["BODY=8BITMIME", "RET=HDRS", "ENVID=x1"],
            rcpt_options=["NOTIFY=NEVER"],
        )
        await smtp.quit()
        (message,) = await peer.wait_messages(1)
        (session,) = await peer.wait_sessions(1)
    assert message.raw == MAIL
    assert message.wire == b"Subject: hi\r\n\r\n..a dot\r\n...two\r\nend\r\n"
    assert (message.size, message.sha256) == (len(MAIL), hashlib.sha256(MAIL).hexdigest())
    assert (message.sender, message.addresses) == ("a@a.example", ["b@b.example", "c@c.example"])
    assert message.sender_parameters["RET"] == "HDRS"
    assert message.recipients[0].parameters == {"NOTIFY": "NEVER"}
    assert (message.tls_version, message.reply, message.chunked) == (None, 250, False)
    assert session.verbs == ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", ".", "QUIT"]
    assert [command.reply for command in session.commands] == [250, 250, 250, 250, 354, 250, 221]
    assert session.ended == "quit"
    assert peer.faults == []
    assert message.wire + b".\r\n" in session.clear_bytes
    assert not session.tls_bytes
    assert not session.handshake_bytes


async def test_pipelined_commands_are_answered_in_order(dialogue: Talk) -> None:
    async with SmtpPeer(behaviour=Behaviour(rcpt=ByAddress({"no@b.example": reply(550, "5.1.1 no")}))) as peer:
        async with dialogue(peer) as talk:
            await talk.greeted()
            group = ["MAIL FROM:<a@a.example>", "RCPT TO:<no@b.example>", "RCPT TO:<b@b.example>", "DATA"]
            talk.send("".join(f"{line}\r\n" for line in group).encode())
            assert [(await talk.reply())[0] for _ in range(4)] == [250, 550, 250, 354]
            talk.send(b"x\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
            assert [(await talk.reply())[0] for _ in range(4)] == [250, 250, 250, 354]
            talk.send(b".\r\nQUIT\r\n")
            assert [(await talk.reply())[0] for _ in range(2)] == [250, 221]
        assert [(m.sender, m.raw) for m in peer.messages] == [("a@a.example", b"x\r\n"), ("", b"")]
        assert peer.faults == []


async def test_every_split_of_the_stream_reads_alike(dialogue: Talk) -> None:
    stream = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nRSET\r\nNOOP\r\n"
    async with SmtpPeer() as peer, dialogue(peer) as talk:
        await talk.greeted()
        for byte in stream:
            talk.send(bytes([byte]))
            await talk.writer.drain()
        assert [(await talk.reply())[0] for _ in range(4)] == [250] * 4


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        (["MAIL FROM:<a@a.example>"], [503]),
        (["EHLO x", "RCPT TO:<b@b.example>"], [250, 503]),
        (["EHLO x", "DATA"], [250, 503]),
        (["EHLO x", "MAIL FROM:<a@a.example>", "DATA"], [250, 250, 554]),
        (["EHLO x", "MAIL FROM:<a@a.example>", "MAIL FROM:<a@a.example>"], [250, 250, 503]),
        (["EHLO x", "MAIL FROM:<a@a.example> SIZE=999999999"], [250, 552]),
        (["EHLO x", "MAIL FROM:<a@a.example> REQUIRETLS"], [250, 555]),
        (["EHLO x", "MAIL FROM:a@a.example"], [250, 501]),
        (["EHLO x", "MAIL FROM:<ä@a.example>"], [250, 553]),
        (["EHLO x", "MAIL FROM:<ä@a.example> SMTPUTF8", "RCPT TO:<ü@b.example>"], [250, 250, 250]),
        (["EHLO x", 'MAIL FROM:<"a>b"@a.example>'], [250, 250]),
        (["EHLO x", "MAIL FROM:<a@a.example>", "RCPT TO:<>"], [250, 250, 501]),
        (["EHLO x", "MAIL FROM:<a@a.example>", "RSET", "RCPT TO:<b@b.example>"], [250, 250, 250, 503]),
        (["EHLO x", "BDAT 5"], [250, 502]),
        (["EHLO x", "STARTTLS"], [250, 502]),
        (["EHLO x", "AUTH PLAIN AGEAYg=="], [250, 502]),
        (["HELP"], [500]),
        (["X" * 3000], [500]),
    ],
)
async def test_what_is_out_of_order_is_refused(dialogue: Talk, lines: list[str], codes: list[int]) -> None:
    async with SmtpPeer() as peer, dialogue(peer) as talk:
        assert (await talk.reply())[0] == 220
        assert [await talk.say(line) for line in lines] == codes


async def test_breaches_of_the_client_are_noted(dialogue: Talk) -> None:
    behaviour = Behaviour(extensions=("8BITMIME",))
    async with SmtpPeer(behaviour=behaviour) as peer, dialogue(peer) as talk:
        await talk.greeted()
        talk.send(b"NOOP\nMAIL FROM: <a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n\xff\r\n.\r\n")
        assert [(await talk.reply())[0] for _ in range(5)] == [250, 250, 250, 354, 250]
        assert peer.faults == [
            "NOOP: line ends without CRLF",
            "NOOP: more was sent before the answer, PIPELINING was not offered",
            "MAIL: more was sent before the answer, PIPELINING was not offered",
            "MAIL: space after FROM:",
            "RCPT: more was sent before the answer, PIPELINING was not offered",
            "DATA: more was sent before the answer, PIPELINING was not offered",
            "octets above 127 without BODY=8BITMIME",
        ]


@pytest.mark.parametrize(
    ("behaviour", "upto"),
    [
        (Behaviour(greeting=reply(554, "5.3.2 not today")), ""),
        (Behaviour(ehlo=reply(554, "5.3.2 not today")), "EHLO"),
        (Behaviour(mail=reply(554, "5.3.2 not today")), "MAIL"),
        (Behaviour(rcpt=reply(554, "5.3.2 not today")), "RCPT"),
        (Behaviour(data=reply(554, "5.3.2 not today")), "DATA"),
    ],
)
async def test_each_command_can_be_refused(dialogue: Talk, behaviour: Behaviour, upto: str) -> None:
    steps = {"EHLO": "EHLO x", "MAIL": "MAIL FROM:<a@a.example>", "RCPT": "RCPT TO:<b@b.example>", "DATA": "DATA"}
    async with SmtpPeer(behaviour=behaviour) as peer, dialogue(peer) as talk:
        code, text = await talk.reply()
        for verb, line in steps.items():
            if code == 554:
                break
            talk.send(line.encode() + b"\r\n")
            code, text = await talk.reply()
            assert (code == 554) == (verb == upto)
        assert (code, text) == (554, "5.3.2 not today")


async def test_a_refused_message_is_kept_apart_and_the_session_goes_on(dialogue: Talk) -> None:
    async with SmtpPeer(behaviour=Behaviour(dot=[reply(451, "4.3.0 later"), OK])) as peer, dialogue(peer) as talk:
        await talk.greeted(upto="DATA")
        assert await talk.say("first\r\n.") == 451
        for line in ["MAIL FROM:<a@a.example>", "RCPT TO:<b@b.example>", "DATA"]:
            await talk.say(line)
        assert await talk.say("second\r\n.") == 250
        assert [(m.raw, m.reply) for m in peer.refused] == [(b"first\r\n", 451)]
        assert [(m.raw, m.reply) for m in peer.messages] == [(b"second\r\n", 250)]


async def test_a_recipient_decides_at_rcpt_and_at_the_dot(dialogue: Talk) -> None:
    behaviour = Behaviour(
        rcpt=ByAddress({"full@b.example": [reply(452, "4.2.2 full"), OK], "@gone.example": reply(550, "5.1.1 gone")}),
        dot=ByAddress({"late@b.example": reply(554, "5.6.0 no")}),
    )
    async with SmtpPeer(behaviour=behaviour) as peer, dialogue(peer) as talk:
        await talk.greeted(upto="MAIL")
        codes = [
            await talk.say(f"RCPT TO:<{address}>")
            for address in ["FULL@b.example", "x@gone.example", "full@b.example", "late@b.example"]
        ]
        assert codes == [452, 550, 250, 250]
        await talk.say("DATA")
        assert await talk.say(".") == 554
        assert peer.refused[0].addresses == ["full@b.example", "late@b.example"]


async def test_a_share_is_random_yet_the_same_on_each_run(dialogue: Talk) -> None:
    runs = []
    for _ in range(2):
        script = Share(0.3, reply(451, "4.0.0 no"), seed=5)
        async with SmtpPeer(behaviour=Behaviour(noop=script)) as peer, dialogue(peer) as talk:
            await talk.greeted()
            runs.append([await talk.say("NOOP") for _ in range(200)])
    assert runs[0] == runs[1]
    assert 35 < runs[0].count(451) < 85


async def test_sequences_run_over_the_life_of_the_peer_or_of_a_session(dialogue: Talk) -> None:
    behaviour = Behaviour(noop=[reply(251), reply(252), OK], rset=PerSession((OK, reply(450))))
    async with SmtpPeer(behaviour=behaviour) as peer:
        seen = []
        for _ in range(2):
            async with dialogue(peer) as talk:
                await talk.greeted()
                seen.append([await talk.say(line) for line in ["NOOP", "NOOP", "RSET", "RSET", "RSET"]])
        assert seen == [[251, 252, 250, 450, 450], [250, 250, 250, 450, 450]]
        peer.behaviour = behaviour  # sequences start anew
        async with dialogue(peer) as talk:
            await talk.greeted()
            assert await talk.say("NOOP") == 251


async def test_421_closes(dialogue: Talk) -> None:
    async with SmtpPeer(behaviour=Behaviour(mail=reply(421, "4.3.2 stopping"))) as peer, dialogue(peer) as talk:
        await talk.greeted()
        assert await talk.say("MAIL FROM:<a@a.example>") == 421
        assert await talk.ended() == b""
        assert (await peer.wait_sessions(1))[0].ended == "peer"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("act", "kept"), [(drop, 0), (drop_after, 1)])
async def test_a_connection_lost_at_the_dot(dialogue: Talk, act: Callable[..., Action], kept: int, reset: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    async with SmtpPeer(behaviour=Behaviour(dot=act(reset=reset))) as peer, dialogue(peer) as talk:
        await talk.greeted(upto="DATA")
        talk.send(b"x\r\n.\r\n")
        assert await talk.ended() == (b"reset" if reset else b"")
        await peer.wait_sessions(1)
        assert len(peer.messages) == kept
        assert all(message.reply is None for message in peer.messages)


async def test_a_connection_lost_in_the_middle_of_a_body(dialogue: Talk) -> None:
    async with SmtpPeer(behaviour=Behaviour(drop_body_after=10_000)) as peer, dialogue(peer) as talk:
        await talk.greeted(upto="DATA")
        talk.send(b"x" * 20_000)
        assert await talk.ended() in {b"", b"reset"}
        assert peer.messages == []


@pytest.mark.parametrize("raw", [b"\x00\xff\xfe\r\n", b"hello\r\n", b"99\r\n", b"", b"250"])
async def test_garbage_goes_out_as_it_stands_and_accepts_nothing(dialogue: Talk, raw: bytes) -> None:
    async with SmtpPeer(behaviour=Behaviour(mail=garbage(raw, close=True))) as peer, dialogue(peer) as talk:
        await talk.greeted()
        talk.send(b"MAIL FROM:<a@a.example>\r\n")
        assert await talk.ended() == raw
        assert peer.sessions[0].commands[-1].reply is None


async def test_a_hand_made_positive_reply_takes_effect(dialogue: Talk) -> None:
    raw = b"250-\xff\xfe\r\n250 ok\r\n250 one too many\r\n"
    async with SmtpPeer(behaviour=Behaviour(mail=garbage(raw))) as peer, dialogue(peer) as talk:
        await talk.greeted()
        talk.send(b"MAIL FROM:<a@a.example>\r\n")
        assert await talk.reader.readexactly(len(raw)) == raw
        assert await talk.say("RCPT TO:<b@b.example>") == 250


async def test_an_endless_reply_never_ends_and_lets_go_when_the_client_leaves(dialogue: Talk) -> None:
    async with SmtpPeer(behaviour=Behaviour(ehlo=endless("more"))) as peer:
        async with dialogue(peer) as talk:
            await talk.reply()
            talk.send(b"EHLO x\r\n")
            assert await talk.reader.readexactly(10 * 100_000) == b"250-more\r\n" * 100_000
        assert (await peer.wait_sessions(1))[0].ended == "client"


async def test_a_reply_may_come_one_byte_at_a_time(dialogue: Talk) -> None:
    clock = FakeClock()
    async with SmtpPeer(behaviour=Behaviour(noop=drip(1.0)), clock=clock) as peer, dialogue(peer) as talk:
        await talk.greeted()
        talk.send(b"NOOP\r\n")
        got = b""
        for expected in b"250 2.0.0 Ok\r\n":
            got += await talk.reader.readexactly(1)
            assert got[-1] == expected
            await poll(lambda: clock.sleepers)
            await clock.advance(1)
        assert await talk.say("RSET") == 250


async def test_a_delay_waits_for_the_clock_while_a_taken_message_is_there_already(dialogue: Talk) -> None:
    clock = FakeClock()
    async with SmtpPeer(behaviour=Behaviour(dot=delay(600)), clock=clock) as peer, dialogue(peer) as talk:
        await talk.greeted(upto="DATA")
        talk.send(b".\r\n")
        await poll(lambda: clock.next_wake == 600)
        assert len(peer.messages) == 1
        await clock.advance(600)
        assert (await talk.reply())[0] == 250


async def test_a_stalling_peer_goes_on_listening(dialogue: Talk) -> None:
    async with SmtpPeer(behaviour=Behaviour(mail=stall())) as peer:
        async with dialogue(peer) as talk:
            await talk.greeted()
            talk.send(b"MAIL FROM:<a@a.example>\r\nsecret")
            with pytest.raises(TimeoutError):
                await talk.reply(0.1)
            await poll(lambda: peer.received.endswith(b"secret"))
        assert (await peer.wait_sessions(1))[0].ended == "client"
        assert peer.sessions[0].commands[-1].reply is None


async def test_helo_serves_where_ehlo_is_unknown() -> None:
    async with SmtpPeer(behaviour=Behaviour(ehlo=reply(502, "5.5.1 what?"))) as peer, client(peer) as smtp:
        await smtp.sendmail("a@a.example", ["b@b.example"], MAIL)
        assert peer.messages[0].raw == MAIL
        assert peer.sessions[0].verbs[:2] == ["EHLO", "HELO"]


async def test_bdat_delivers_in_chunks(dialogue: Talk) -> None:
    async with SmtpPeer(behaviour=Behaviour(extensions=("CHUNKING", "PIPELINING"))) as peer, dialogue(peer) as talk:
        await talk.greeted(upto="RCPT")
        talk.send(b"BDAT 7\r\n.\r\nab\r\nBDAT 3 LAST\r\n\r\n.BDAT 0 LAST\r\n")
        assert [(await talk.reply())[0] for _ in range(3)] == [250, 250, 503]
        assert (peer.messages[0].raw, peer.messages[0].chunked) == (b".\r\nab\r\n\r\n.", True)
        assert peer.faults == []


async def test_auth_plain_is_offered_under_tls_only(ca: CA, certificate: Certificate) -> None:
    behaviour = Behaviour(credentials=("gw", "secret"), require_auth=True, tls=Tls(implicit=True))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer:
        async with client(peer, use_tls=True, tls_context=ca.client_context()) as smtp:
            with pytest.raises(aiosmtplib.SMTPResponseException) as refusal:
                await smtp.sendmail("a@a.example", ["b@b.example"], MAIL)
            assert refusal.value.code == 530
            with pytest.raises(aiosmtplib.SMTPAuthenticationError):
                await smtp.login("gw", "wrong")
            await smtp.login("gw", "secret")
            await smtp.sendmail("a@a.example", ["b@b.example"], MAIL)
        assert peer.sessions[0].authenticated == "gw"
        peer.behaviour = Behaviour(credentials=("gw", "secret"))
        async with client(peer) as smtp:
            assert (await smtp.ehlo()).code == 250
            assert not smtp.supports_extension("auth")
            token = base64.b64encode(b"\0gw\0secret").decode()
            assert (await smtp.execute_command(b"AUTH", b"PLAIN", token.encode())).code == 538


async def test_more_connections_than_the_limit_are_greeted_with_421(dialogue: Talk) -> None:
    async with (
        SmtpPeer(behaviour=Behaviour(connection_limit=2)) as peer,
        dialogue(peer) as one,
        dialogue(peer) as two,
        dialogue(peer) as three,
    ):
        assert [(await talk.reply())[0] for talk in (one, two, three)] == [220, 220, 421]
        assert await three.ended() == b""
        assert peer.peak == 3


async def test_a_large_body_is_counted_and_not_kept(dialogue: Talk) -> None:
    line = b"x" * 998 + b"\r\n"
    async with SmtpPeer(keep_bodies=False) as peer, dialogue(peer) as talk:
        await talk.greeted(upto="DATA")
        digest = hashlib.sha256()
        for _ in range(32):
            talk.send(line * 1000)
            digest.update(line * 1000)
            await talk.writer.drain()
        talk.send(b".\r\n")
        assert (await talk.reply())[0] == 250
        (message,) = peer.messages
        assert (message.size, message.sha256, message.raw) == (32_000_000, digest.hexdigest(), b"")
        assert len(peer.received) < 1000
        assert await talk.say("QUIT") == 221
        assert peer.sessions[0].verbs[-1] == "QUIT"


async def test_a_message_beyond_the_size_limit_is_refused_at_its_end(dialogue: Talk) -> None:
    async with SmtpPeer(behaviour=Behaviour(extensions=("SIZE 1000",))) as peer, dialogue(peer) as talk:
        await talk.greeted(upto="DATA")
        assert await talk.say("x" * 1500 + "\r\n.") == 552
        assert peer.messages == []


async def test_a_lax_peer_takes_the_smuggled_message(dialogue: Talk) -> None:
    smuggled = b"x\n.\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nevil\r\n.\r\n"
    for lax, count in [(False, 1), (True, 2)]:
        async with SmtpPeer(behaviour=Behaviour(lax_end_of_data=lax)) as peer, dialogue(peer) as talk:
            await talk.greeted(upto="DATA")
            talk.send(smuggled + b"QUIT\r\n")
            await talk.ended()
            assert len(peer.messages) == count
            assert "bare LF in the body" in peer.faults


async def test_a_peer_comes_back_on_its_port(dialogue: Talk) -> None:
    async with SmtpPeer() as peer:
        port = peer.port
        async with dialogue(peer) as talk:
            await talk.greeted()
            await peer.stop()
            assert await talk.ended() in {b"", b"reset"}
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(peer.address, port)
        await peer.start()
        async with dialogue(peer) as talk:
            await talk.greeted()
        assert peer.port == port
        assert len(peer.sessions) == 2


async def test_waiting_for_mail_that_does_not_come_tells_what_came(dialogue: Talk) -> None:
    async with SmtpPeer(behaviour=Behaviour(mail=reply(450, "4.2.0 no"))) as peer, dialogue(peer) as talk:
        await talk.greeted()
        await talk.say("MAIL FROM:<a@a.example>")
        with pytest.raises(TimeoutError, match=r"0 of 1 messages(.|\n)*#0 clear EHLO=250 MAIL=450"):
            await peer.wait_messages(1, 0.05)
