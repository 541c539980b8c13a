"""Carrying mail over a session: results per recipient, streams, and the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.delivery.protocol import ConnectionFault
from gateway.delivery.target import TlsPolicy
from gateway.delivery.transaction import NeedsSevenBit, StaleSession
from gateway.delivery.wire import UnsafeOutput
from gateway.errors import GuardViolation
from gateway.mail.address import Address
from gateway.mail.attempt import Stage, Verdict
from gateway.mail.envelope import Notify, Recipient
from gateway.mail.protection import Assurance
from gateway.testing import (
    Action,
    Behaviour,
    ByAddress,
    PerSession,
    SmtpPeer,
    Tls,
    drop,
    drop_after,
    endless,
    garbage,
    poll,
    reply,
    stall,
)
from tests.delivery.session_world import QUICK, SECRET, doing, recipients, some_text, transaction, world

OPPORTUNISTIC = TlsPolicy(require=Assurance.NONE, starttls="try")
ALL = ("PIPELINING", "SIZE 157286400", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
ALONE = ALL[1:]
THREE = ("a@good.example", "b@good.example", "c@good.example")


def verbs(peer: SmtpPeer) -> list[str]:
    return peer.sessions[-1].verbs_under_tls(tls=True)


@pytest.mark.parametrize("extensions", [ALL, ALONE, ()])
async def test_a_message_arrives_octet_for_octet(extensions: tuple[str, ...]) -> None:
    text = some_text(300_000)
    async with world(Behaviour(extensions=extensions)) as w:
        session = await w.open()
        for blocks in (0, 65536, 4097, 333):
            result = await session.send(transaction(text, to=THREE, prefix=b"Received: us\r\n", blocks=blocks))
            assert [r.delivered for r in result.recipients] == [True] * 3
            assert result.reply is not None
            assert (result.reply.code, result.unknown) == (250, False)
        messages = await w.peer.wait_messages(4)
        assert all(message.raw == b"Received: us\r\n" + text for message in messages)
        assert messages[0].addresses == list(THREE)
        assert w.peer.faults == []
        assert len(w.peer.sessions) == 1


@pytest.mark.parametrize("extensions", [ALL, ALONE])
async def test_pipelined_commands_leave_in_one_go_and_others_wait_their_turn(
    extensions: tuple[str, ...],
) -> None:
    timeouts = QUICK.model_copy(update={"mail": 0.3})
    async with world(Behaviour(mail=stall(), extensions=extensions), timeouts=timeouts) as w:
        session = await w.open()
        (result, *_) = (await session.send(transaction(to=THREE))).recipients
        assert result.failure is not None
        assert (result.failure.stage, result.failure.verdict) == (Stage.MAIL, Verdict.TEMPORARY)
        assert (b"RCPT TO:<c@good.example>\r\nDATA\r\n" in w.peer.received) is (extensions == ALL)
        assert (b"RCPT" in w.peer.received) is (extensions == ALL)


async def test_a_message_without_a_final_line_end_gets_one() -> None:
    async with world() as w:
        session = await w.open()
        assert (await session.send(transaction(b"Subject: x\r\n\r\nno end"))).recipients[0].delivered
        assert (await session.send(transaction(b""))).recipients[0].delivered
        messages = await w.peer.wait_messages(2)
        assert [message.raw for message in messages] == [b"Subject: x\r\n\r\nno end\r\n", b""]


async def test_the_null_sender() -> None:
    async with world() as w:
        session = await w.open()
        await session.send(transaction(sender=None))
        assert (await w.peer.wait_messages(1))[0].sender == ""


@pytest.mark.parametrize("extensions", [ALL, ALONE])
async def test_each_recipient_has_its_own_result(extensions: tuple[str, ...]) -> None:
    script = ByAddress(
        {"a@good.example": reply(550, "5.1.1 unknown"), "b@good.example": reply(451, "4.2.1 greylisted")}
    )
    async with world(Behaviour(rcpt=script, extensions=extensions)) as w:
        session = await w.open()
        result = await session.send(transaction(to=THREE))
        gone, later, fine = result.recipients
        assert gone.failure is not None
        assert (gone.failure.verdict, gone.failure.stage) == (Verdict.FINAL, Stage.RCPT)
        assert gone.reply is not None
        assert (gone.reply.code, gone.reply.enhanced) == (550, "5.1.1")
        assert later.failure is not None
        assert (later.failure.verdict, later.failure.stage) == (Verdict.TEMPORARY, Stage.RCPT)
        assert fine.delivered
        assert (await w.peer.wait_messages(1))[0].addresses == ["c@good.example"]
        assert session.alive


@pytest.mark.parametrize("extensions", [ALL, ALONE])
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT])
@pytest.mark.parametrize(("code", "verdict"), [(554, Verdict.FINAL), (451, Verdict.TEMPORARY)])
async def test_a_refusal_at_every_stage_and_the_session_goes_on(
    extensions: tuple[str, ...], stage: Stage, code: int, verdict: Verdict
) -> None:
    script = (reply(code, "no"), Action())
    async with world(doing(stage.value, script, extensions=extensions)) as w:
        session = await w.open()
        (result,) = (await session.send(transaction())).recipients
        assert result.failure is not None
        assert (result.failure.stage, result.failure.verdict) == (stage, verdict)
        assert result.reply is not None
        assert result.reply.code == code
        assert session.alive
        assert (await session.send(transaction())).recipients[0].delivered
        assert [message.raw for message in w.peer.messages] == [SECRET]
        assert verbs(w.peer).count("RSET") == 1


async def test_nobody_accepted_yet_the_peer_wants_a_body_gets_a_lone_dot() -> None:
    behaviour = Behaviour(rcpt=(reply(550), Action()), data=(garbage(b"354 go on\r\n"), Action()))
    async with world(behaviour) as w:
        session = await w.open()
        (result,) = (await session.send(transaction())).recipients
        assert result.failure is not None
        assert result.failure.verdict == Verdict.FINAL
        assert b"secret" not in w.peer.received


async def test_552_for_too_many_recipients_passes() -> None:
    script = ByAddress({"b@good.example": reply(552), "c@good.example": reply(552, "5.2.2 mailbox full")})
    async with world(Behaviour(rcpt=script)) as w:
        session = await w.open()
        first, many, full = (await session.send(transaction(to=THREE))).recipients
        assert first.delivered
        assert many.failure is not None
        assert many.failure.verdict == Verdict.TEMPORARY
        assert full.failure is not None
        assert full.failure.verdict == Verdict.FINAL


@pytest.mark.parametrize("action", [drop(), drop(reset=True), garbage(), endless(), garbage(b"250 ok\r\n" * 9)])
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
async def test_trouble_before_the_body_is_ordinary(stage: str, action: Action) -> None:
    async with world(doing(stage, action)) as w:
        session = await w.open()
        result = await session.send(transaction())
        failure = result.recipients[0].failure
        assert failure is not None
        assert failure.verdict == Verdict.TEMPORARY
        assert not session.alive
        assert result.unknown is False
        assert w.peer.messages == []


@pytest.mark.parametrize("action", [drop(), drop_after(), drop(reset=True), garbage(), endless(), stall(), reply(220)])
async def test_lost_after_the_final_dot_is_unknown(action: Action) -> None:
    timeouts = QUICK.model_copy(update={"dot": 0.5})
    async with world(Behaviour(dot=action), timeouts=timeouts) as w:
        session = await w.open()
        result = await session.send(transaction())
        failure = result.recipients[0].failure
        assert failure is not None
        assert (failure.stage, failure.verdict, result.unknown) == (Stage.DOT, Verdict.TEMPORARY, True)
        assert not session.alive


async def test_a_250_and_then_goodbye_is_delivered() -> None:
    async with world(Behaviour(dot=garbage(b"250 2.0.0 ok\r\n421 4.3.2 bye\r\n", close=True))) as w:
        session = await w.open()
        result = await session.send(transaction())
        assert result.recipients[0].delivered
        assert not session.alive


async def test_421_in_the_middle() -> None:
    script = ByAddress({"a@good.example": reply(550), "b@good.example": reply(421, "4.3.2 shutting down")})
    async with world(Behaviour(rcpt=script)) as w:
        session = await w.open()
        gone, closing, unheard = (await session.send(transaction(to=THREE))).recipients
        assert gone.failure is not None
        assert gone.failure.verdict == Verdict.FINAL
        for result in (closing, unheard):
            assert result.failure is not None
            assert result.failure.verdict == Verdict.TEMPORARY
        assert not session.alive


async def test_the_connection_breaks_in_the_body() -> None:
    async with world(Behaviour(drop_body_after=100_000)) as w:
        session = await w.open()
        result = await session.send(transaction(some_text(4_000_000), blocks=65536))
        failure = result.recipients[0].failure
        assert failure is not None
        assert failure.verdict == Verdict.TEMPORARY
        assert w.peer.messages == []


async def test_a_peer_that_stops_reading_is_left() -> None:
    timeouts = QUICK.model_copy(update={"block": 0.3})
    async with world(Behaviour(read_pause=60), timeouts=timeouts) as w:
        session = await w.open()
        result = await session.send(transaction(some_text(6_000_000), blocks=65536))
        failure = result.recipients[0].failure
        assert failure is not None
        assert (failure.stage, failure.verdict, result.unknown) == (Stage.BODY, Verdict.TEMPORARY, False)


async def test_a_reply_before_the_end_of_the_body_counts_and_ends_the_session() -> None:
    # A 354 and, right behind it, the refusal: the peer has seen the size and wants none of it.
    async with world() as w:
        session = await w.open()
        gate = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"Subject: x\r\n\r\n" + b"x" * 70_000
            protocol = session._protocol
            protocol.data_received(b"552 5.3.4 too much for me\r\n")
            gate.set()
            yield b"y" * 70_000 + b"\r\n"

        result = await session.send(transaction(body=body, size=14 + 140_000 + 2))
        failure = result.recipients[0].failure
        assert gate.is_set()
        assert failure is not None
        assert (failure.stage, failure.verdict) == (Stage.BODY, Verdict.FINAL)
        assert failure.reply is not None
        assert failure.reply.enhanced == "5.3.4"
        assert not session.alive
        assert w.peer.messages == []


async def test_a_positive_reply_before_the_final_dot_delivers_nothing() -> None:
    async with world() as w:
        session = await w.open()

        async def body() -> AsyncIterator[bytes]:
            yield b"Subject: x\r\n\r\n" + b"x" * 70_000
            session._protocol.data_received(b"250 2.0.0 thank you, that will do\r\n")
            yield b"\r\n"

        result = await session.send(transaction(body=body, size=14 + 70_000 + 2))
        assert not result.recipients[0].delivered
        assert not session.alive


# -- reuse -------------------------------------------------------------------------------------------------------------


async def test_a_session_carries_many_messages() -> None:
    async with world() as w:
        session = await w.open()
        for _ in range(20):
            assert (await session.send(transaction())).recipients[0].delivered
        assert (session.transactions, session.alive) == (20, True)
        assert session.age >= session.idle >= 0
        await session.quit()
        assert not session.alive
        await poll(lambda: w.peer.sessions[0].ended)
        assert w.peer.sessions[0].ended == "quit"


@pytest.mark.parametrize("second", [reply(421), drop()])
async def test_a_reused_connection_that_is_gone_is_no_attempt(second: Action) -> None:
    async with world(Behaviour(mail=PerSession((Action(), second)))) as w:
        session = await w.open()
        await session.send(transaction())
        with pytest.raises(StaleSession):
            await session.send(transaction())
        assert not session.alive
        assert (await (await w.open()).send(transaction())).recipients[0].delivered


async def test_a_fresh_connection_that_is_gone_is_an_attempt() -> None:
    async with world(Behaviour(mail=reply(421))) as w:
        session = await w.open()
        failure = (await session.send(transaction())).recipients[0].failure
        assert failure is not None
        assert failure.verdict == Verdict.TEMPORARY


async def test_a_peer_that_says_goodbye_while_idle_is_noticed() -> None:
    async with world() as w:
        session = await w.open()
        await session.send(transaction())
        session._protocol.data_received(b"421 4.4.2 idle for too long\r\n")
        assert not session.alive
        assert session._protocol.goodbye is not None
        with pytest.raises(StaleSession, match="idle for too long"):
            await session.send(transaction())


async def test_a_reply_that_nobody_asked_for_ends_the_session() -> None:
    async with world() as w:
        session = await w.open()
        await session.send(transaction())
        session._protocol.data_received(b"250 2.0.0 for the next one\r\n")
        assert not session.alive
        with pytest.raises(StaleSession):
            await session.send(transaction())


async def test_rset_that_fails_makes_the_session_stale() -> None:
    async with world(Behaviour(dot=reply(451), rset=reply(502))) as w:
        session = await w.open()
        await session.send(transaction())
        with pytest.raises(StaleSession):
            await session.send(transaction())
        assert not session.alive


async def test_quit_does_not_wait_for_a_peer_that_does_not_answer() -> None:
    async with world(Behaviour(quit=stall())) as w:
        session = await w.open()
        started = asyncio.get_running_loop().time()
        await session.quit()
        assert asyncio.get_running_loop().time() - started < 3
        assert not session.alive


# -- the guard ---------------------------------------------------------------------------------------------------------


async def test_the_guard_stands_before_mail_from() -> None:
    async with world() as w:
        session = await w.open(Assurance.ENCRYPTED)
        with pytest.raises(GuardViolation):
            await session.send(transaction(required=Assurance.AUTHENTICATED))
        assert b"MAIL" not in w.peer.received
        assert b"secret" not in w.peer.received
        assert not session.alive


async def test_a_session_in_clear_never_carries_what_must_be_encrypted() -> None:
    async with world(Behaviour(tls=Tls(offered=False))) as w:
        session = await w.open(policy=OPPORTUNISTIC)
        with pytest.raises(GuardViolation):
            session.guard(Assurance.ENCRYPTED)
        with pytest.raises(GuardViolation):
            await session.send(transaction(required=Assurance.ENCRYPTED))
        assert b"MAIL" not in w.peer.received


async def test_the_lowest_write_refuses_mail_below_the_floor_whoever_asks() -> None:
    async with world() as w:
        session = await w.open(Assurance.ENCRYPTED)
        protocol = session._protocol
        protocol.raise_floor(Assurance.AUTHENTICATED)
        protocol.raise_floor(Assurance.NONE)  # a floor never sinks
        for data in (b"NOOP\r\n", b"RSET\r\n"):
            protocol.command(data)
            await protocol.reply(5)
        with pytest.raises(GuardViolation):
            protocol.write(b"NOOP\r\nMAIL FROM:<a@b.example>\r\n")
        with pytest.raises(ConnectionFault):
            await protocol.reply(5)
        assert b"MAIL" not in w.peer.received


async def test_no_assurance_is_attested_to_a_connection_in_clear() -> None:
    async with world(Behaviour(tls=Tls(offered=False))) as w:
        session = await w.open(policy=OPPORTUNISTIC)
        with pytest.raises(GuardViolation):
            session._protocol.attest(Assurance.ENCRYPTED)
        assert session.attained == Assurance.NONE


async def test_permission_is_asked_directly_before_mail_from() -> None:
    class LeaseLost(Exception):
        pass

    def refuse() -> None:
        raise LeaseLost

    async with world() as w:
        session = await w.open()
        with pytest.raises(LeaseLost):
            await session.send(transaction(permit=refuse))
        assert b"MAIL" not in w.peer.received


# -- the body ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"Subject: x\r\n\r\na\rb\r\n",
        b"Subject: x\r\n\r\na\nb\r\n",
        b"Subject: x\r\n\r\n\n.\r\nMAIL FROM:<evil@x.example>\r\n",
        b"Subject: x\r\n\r\n\r.\r\n",
        b"Subject: x\r\n\r\n\r\n.\r\r\n",
        b"Subject: x\r\n\r\na\0b\r\n",
        b"Subject: x\r\n\r\nends in CR\r",
    ],
)
@pytest.mark.parametrize("blocks", [0, 1, 3])
async def test_a_body_that_would_break_the_framing_never_gets_its_dot(raw: bytes, blocks: int) -> None:
    async with world(Behaviour(lax_end_of_data=True)) as w:
        session = await w.open()
        with pytest.raises(UnsafeOutput):
            await session.send(transaction(raw, blocks=blocks))
        assert not session.alive
        await poll(lambda: w.peer.sessions[0].ended)
        assert w.peer.messages == []


@pytest.mark.parametrize("size", [len(SECRET) - 1, len(SECRET) + 1])
async def test_a_body_of_another_length_never_gets_its_dot(size: int) -> None:
    async with world() as w:
        session = await w.open()
        with pytest.raises(UnsafeOutput, match="its end is not sent"):
            await session.send(transaction(size=size))
        await poll(lambda: w.peer.sessions[0].ended)
        assert w.peer.messages == []


async def test_a_body_that_cannot_be_read_to_its_end_is_not_delivered_in_part() -> None:
    class DiskGone(Exception):
        pass

    async def body() -> AsyncIterator[bytes]:
        yield SECRET
        raise DiskGone

    async with world() as w:
        session = await w.open()
        with pytest.raises(DiskGone):
            await session.send(transaction(body=body))
        await poll(lambda: w.peer.sessions[0].ended)
        assert w.peer.messages == []
        assert not session.alive


async def test_cancelling_in_the_body_drops_the_connection() -> None:
    started = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield SECRET
        started.set()
        await asyncio.Event().wait()

    async with world() as w:
        session = await w.open()
        sending = asyncio.create_task(session.send(transaction(body=body)))
        await started.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await poll(lambda: w.peer.sessions[0].ended)
        assert w.peer.messages == []


# -- what the peer lacks -----------------------------------------------------------------------------------------------


async def test_too_large_is_said_without_asking() -> None:
    async with world(Behaviour(extensions=("PIPELINING", "SIZE 20"))) as w:
        session = await w.open()
        (result,) = (await session.send(transaction())).recipients
        assert result.failure is not None
        assert (result.failure.verdict, result.status) == (Verdict.FINAL, "5.3.4")
        assert b"MAIL" not in w.peer.received
        assert session.alive


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE x", "SIZE -5", "SIZE 99999999999999999999999"])
async def test_a_size_that_says_nothing_limits_nothing(size: str) -> None:
    async with world(Behaviour(ehlo=garbage(f"250-hi\r\n250-STARTTLS\r\n250 {size}\r\n".encode()))) as w:
        assert (await w.open()).extensions.size is None


async def test_eight_bit_bodies_are_announced_or_handed_back_for_conversion() -> None:
    async with world() as w:
        await (await w.open()).send(transaction(eight_bit=True))
        assert b"BODY=8BITMIME" in w.peer.received
    async with world(Behaviour(extensions=("PIPELINING",))) as w:
        session = await w.open()
        with pytest.raises(NeedsSevenBit):
            await session.send(transaction(eight_bit=True))
        assert b"MAIL" not in w.peer.received
        assert (await session.send(transaction())).recipients[0].delivered


async def test_a_peer_without_smtputf8() -> None:
    to = ("b@good.example", "jürgen@good.example")
    async with world(Behaviour(extensions=("PIPELINING",))) as w:
        session = await w.open()
        plain, international = (await session.send(transaction(to=to))).recipients
        assert plain.delivered
        assert international.failure is not None
        assert (international.failure.verdict, international.status) == (Verdict.FINAL, "5.6.7")
        for changes in ({"smtputf8": True}, {"sender": "ü@clinic.example"}):
            plain, international = (await session.send(transaction(to=to, **changes))).recipients
            assert plain.failure is not None
            assert plain.failure.verdict == Verdict.DEFINITE
            assert "SMTPUTF8" in plain.failure.reason
            assert international.failure is not None
            assert international.failure.verdict == Verdict.FINAL
        assert len(w.peer.messages) == 1


async def test_international_mail_to_a_peer_that_takes_it() -> None:
    async with world() as w:
        session = await w.open()
        assert (await session.send(transaction(to=("jürgen@good.example",)))).recipients[0].delivered
        (message,) = w.peer.messages
        assert message.addresses == ["jürgen@good.example"]
        assert "SMTPUTF8" in message.sender_parameters


DSN = Recipient(
    Address.parse("b@good.example"), frozenset({Notify.FAILURE, Notify.DELAY}), "rfc822;b+c=d e@good.example"
)


async def test_dsn_parameters_go_to_those_who_offer_dsn() -> None:
    async with world() as w:
        result = await (await w.open()).send(transaction(to=(DSN,), ret="HDRS", envid="id with+plus"))
        assert result.dsn
        (message,) = w.peer.messages
        assert message.sender_parameters["RET"] == "HDRS"
        assert message.sender_parameters["ENVID"] == "id+20with+2Bplus"
        assert message.recipients[0].parameters == {
            "NOTIFY": "DELAY,FAILURE",
            "ORCPT": "rfc822;b+2Bc+3Dd+20e@good.example",
        }
    async with world(Behaviour(extensions=("PIPELINING",))) as w:
        result = await (await w.open()).send(transaction(to=(DSN,), ret="HDRS", envid="x"))
        assert not result.dsn
        assert not any(word in w.peer.received for word in (b"RET=", b"ENVID=", b"NOTIFY=", b"ORCPT="))


async def test_a_recipient_that_is_named_twice_is_sent_once() -> None:
    async with world() as w:
        twice = recipients("b@good.example")[0]
        result = await (await w.open()).send(transaction(to=(twice, twice)))
        assert [r.delivered for r in result.recipients] == [True, True]
        assert w.peer.messages[0].addresses == ["b@good.example"]
