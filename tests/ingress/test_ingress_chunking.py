"""BDAT (RFC 3030): any split gives what DATA gives, and no octet of a chunk is ever taken for a command."""

from __future__ import annotations

import asyncio
import itertools
import re
import smtplib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.ingress.chunking import Chunk, ChunkScanner, is_bdat, parse_bdat
from gateway.ingress.data import Violation
from gateway.testing import FakeClock, poll
from tests.ingress.ingress_harness import HEADER, MemoryIntake, Talker, connector, running, settings_of

BODY = HEADER + b"\r\nhello\r\n"
#: What a message would do if it were taken for commands.
EVIL = b"RSET\r\nMAIL FROM:<ann@clinic.example>\r\nRCPT TO:<victim@v.example>\r\nDATA\r\n"


def chunks(content: bytes, *cuts: int, empty_last: bool = False) -> bytes:
    """The content as pipelined BDAT commands, cut at these places."""
    edges = [0, *sorted(cuts), len(content)]
    pieces = [content[start:end] for start, end in itertools.pairwise(edges)]
    if empty_last:
        pieces.append(b"")
    wire = b"".join(b"BDAT %d\r\n%s" % (len(piece), piece) for piece in pieces[:-1])
    return wire + b"BDAT %d LAST\r\n%s" % (len(pieces[-1]), pieces[-1])


async def bdat(client: Talker, octets: bytes, *, last: bool = False) -> tuple[int, str]:
    client.send(b"BDAT %d%s\r\n%s" % (len(octets), b" LAST" if last else b"", octets))
    return await client.reply()


# -- pure ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "chunk"),
    [
        (b"BDAT 0", Chunk(0, last=False)),
        (b"bdat 12 last", Chunk(12, last=True)),
        (b"BDAT  86   LAST ", Chunk(86, last=True)),
        (b"BDAT", None),
        (b"BDAT x", None),
        (b"BDAT -1", None),
        (b"BDAT 1 FIRST", None),
        (b"BDAT 1LAST", None),
        (b"BDAT\t5", None),
        (b"BDAT " + b"9" * 21, None),
        ("BDAT \u0663".encode(), None),
        (b"BDATA 5", None),
    ],
)
def test_the_command(line: bytes, chunk: Chunk | None) -> None:
    assert is_bdat(line)
    assert parse_bdat(line) == chunk


CONTENT = st.lists(
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b".", b"\r\n.\r\n", b"a", b" ", b"text", b"\r", b"\n", b"\0"]),
    max_size=14,
).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(CONTENT, st.data())
def test_the_scanner_at_any_split(content: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=8))
    scanner, clean = ChunkScanner(), b""
    for start, end in itertools.pairwise([0, *sorted(cuts), len(content)]):
        clean += scanner.feed(content[start:end])
    clean += scanner.finish()
    assert scanner.received == len(content)
    if set(content.replace(b"\r\n", b"")) & set(b"\r\n\0"):
        assert scanner.violation is not None
    else:
        assert scanner.violation is None
        assert clean == content + (b"" if content.endswith(b"\r\n") or not content else b"\r\n")


def test_a_cr_at_the_very_end_is_bare() -> None:
    scanner = ChunkScanner()
    assert scanner.feed(b"a\r") == b"a"
    assert scanner.violation is None
    assert scanner.finish() == b""
    assert scanner.violation is Violation.BARE_CR


# -- the same as DATA ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    code: int
    text: str
    accepted: bytes | None
    result: str


async def outcome(content: bytes, wire: bytes, step: int, replies: int) -> Outcome:
    """What becomes of ``content`` by ``wire``, sent ``step`` octets at a time; the last of so many replies counts."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(settings_of(Path(folder), connectors=[connector(limits={"message_size": 2000})])) as run:
            client = await run.client()
            await client.hello()
            await client.envelope()
            for start in range(0, len(wire), step):
                client.send(wire[start : start + step])
                await asyncio.sleep(0)
            for _ in range(replies):
                code, text = await client.reply()
            await client.expect("NOOP", 250)  # in step
            await client.expect("DATA", 503)  # and without a transaction
            await client.close()
            kept = run.intake.accepted[0] if run.intake.accepted else None
            # Ids differ; and which of several things is bad first is told by the piece in which they come.
            text = re.sub(r"Accepted as .*|\(id .*\)|bare CR|bare LF|NUL", "", text)
            assert all(spool.aborted for spool in run.intake.spools) or kept is not None
            return Outcome(code, text, None if kept is None else kept.data, run.metrics.results[0][1])


MESSAGES = st.builds(
    lambda header, body: header + body,
    st.sampled_from([HEADER, b"", b"From: eve@evil.example\r\n", HEADER + HEADER, HEADER + b"X: " + b"x" * 1900]),
    st.sampled_from([b"\r\n", b""]).flatmap(lambda empty: CONTENT.map(lambda content: empty + content + b"\r\n")),
)


@settings(max_examples=40, deadline=None)
@given(MESSAGES, st.data())
def test_any_split_over_chunks_and_segments_gives_what_data_gives(content: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=5))
    step = data.draw(st.integers(1, 400))
    empty_last = data.draw(st.booleans())
    dotted = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    by_data = asyncio.run(outcome(content, b"DATA\r\n" + dotted + b".\r\n", 10_000, 2))
    wire = chunks(content, *cuts, empty_last=empty_last)
    by_bdat = asyncio.run(outcome(content, wire, step, len(cuts) + 1 + empty_last))
    assert by_bdat == by_data


@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_every_place_to_cut_a_message_in_two(tmp_path: Path, step: int) -> None:
    content = HEADER + b"\r\n.one\r\n..\r\n.\r\nend\r\n"
    async with running(settings_of(tmp_path, limits={"session_messages": 10_000})) as run:
        client = await run.client()
        await client.hello()
        for cut in range(len(content) + 1):
            await client.envelope()
            wire = chunks(content, cut)
            for start in range(0, len(wire), step):
                client.send(wire[start : start + step])
                if step < 100:
                    await asyncio.sleep(0)
            assert await client.reply() == (250, f"2.0.0 {cut} octets received")
            assert (await client.reply())[0] == 250
        assert {each.data for each in run.intake.accepted} == {content}
        assert len(run.intake.accepted) == len(content) + 1
        await client.close()


async def test_a_last_line_without_its_end_gets_it(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        for content in (HEADER + b"\r\nhello", HEADER[:-2], HEADER + b"\r\n."):
            await client.envelope()
            assert (await bdat(client, content[:30]))[0] == 250
            assert (await bdat(client, content[30:], last=True))[0] == 250
            assert run.intake.accepted[-1].data == content + b"\r\n"
        await client.close()


async def test_a_message_in_one_packet_with_what_is_before_and_behind(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        wire = b"EHLO c.example\r\nMAIL FROM:<ann@clinic.example>\r\nRCPT TO:<bob@b.example>\r\n" + chunks(BODY, 5, 9)
        client.send(wire + wire.partition(b"\r\n")[2] + b"QUIT\r\n")
        codes = [(await client.reply())[0] for _ in range(12)]
        assert codes == [250] * 11 + [221]
        assert [each.data for each in run.intake.accepted] == [BODY, BODY]
        await client.close()


async def test_megabytes_in_chunks_of_any_size(tmp_path: Path) -> None:
    content = HEADER + b"\r\n" + b"".join(b"%06d " % number + b"y" * 69 + b"\r\n" for number in range(60_000))
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        client.send(chunks(content, 1, 100_000, 100_001, 1_300_000))
        assert [(await client.reply())[0] for _ in range(5)] == [250] * 5
        assert run.intake.accepted[0].data == content
        await client.close()


# -- smuggling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [b"a\rb", b"a\nb", b"a\0b", b"\r\r\n", b"\r\n\n", b"\n.\n", b"\r\n.\r"])
async def test_what_makes_a_message_void_at_every_cut(tmp_path: Path, bad: bytes) -> None:
    content = HEADER + b"\r\nfirst" + bad + EVIL
    edge = content.index(b"first") + 5
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        for cut in range(edge, edge + len(bad) + 1):
            await client.envelope()
            client.send(chunks(content, cut, cut + 3, cut + 4))
            replies = [await client.reply() for _ in range(4)]
            assert replies[-1][0] == 550
            assert replies[-1][1].startswith("5.6.0 Message holds a ")
            # Each chunk has its reply, and once one is refused all are, in the same words.
            assert {code for code, _ in replies} <= {250, 550}
            assert [code for code, _ in replies] == sorted(code for code, _ in replies)
            await client.expect("NOOP", 250)
        assert not run.intake.accepted
        assert set(run.metrics.reasons) == {"smuggling"}
        assert {result for _, result in run.metrics.results} == {"smuggling"}
        await client.close()


@pytest.mark.parametrize("before", ["nothing", "EHLO", "MAIL", "refused RCPT", "no TLS"])
async def test_a_chunk_out_of_order_is_read_and_refused(tmp_path: Path, before: str) -> None:
    changes = {"listeners": [{"address": "127.0.0.1:0", "tls": "required"}]} if before == "no TLS" else {}
    async with running(settings_of(tmp_path, **changes)) as run:
        client = await run.client()
        if before != "nothing":
            await client.hello()
        if before in ("MAIL", "refused RCPT"):
            await client.expect("MAIL FROM:<ann@clinic.example>", 250)
        if before == "refused RCPT":
            await client.expect("RCPT TO:<>", 501)
        wanted = 530 if before == "no TLS" else 503
        client.send(b"BDAT %d\r\n%s" % (len(EVIL), EVIL) + b"BDAT %d LAST\r\n%s" % (len(EVIL), EVIL))
        assert [(await client.reply())[0] for _ in range(2)] == [wanted, wanted]
        await client.expect("NOOP", 250)
        assert not run.intake.spools
        await client.close()


async def test_what_comes_behind_a_refused_chunk_never_becomes_a_message_of_its_own(tmp_path: Path) -> None:
    intake = MemoryIntake()
    async with running(settings_of(tmp_path), intake=intake) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        intake.unready = Refusal(452, "4.3.1", "No room", reason="full")
        assert (await bdat(client, HEADER + b"Bcc: x@y.example\r\n"))[0] == 452
        intake.unready = None
        await client.expect("RCPT TO:<carol@c.example>", 503)
        await client.expect("DATA", 503)
        assert (await bdat(client, BODY))[0] == 452
        assert (await bdat(client, BODY, last=True))[0] == 452
        await client.expect("RCPT TO:<carol@c.example>", 503)
        await client.envelope()
        assert (await bdat(client, BODY, last=True))[0] == 250
        assert [each.data for each in intake.accepted] == [BODY]
        await client.close()


@pytest.mark.parametrize(
    "line",
    [b"BDAT", b"BDAT x", b"BDAT 5 FIRST", b"BDAT 5\r", b"BDAT 5\0", b"BDAT " + b"1" * 30, b"BDAT 5" + b" " * 200_000],
)
async def test_a_command_that_does_not_say_how_much_follows_ends_the_session(tmp_path: Path, line: bytes) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        client.send(line + b"\r\n" + EVIL)
        assert (await client.reply())[0] == 501
        assert (await client.reply())[0] == 421
        assert await client.at_end()
        assert not run.intake.spools
        await client.close()


async def test_a_bare_line_feed_behind_the_command_ends_the_session(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        client.send(b"BDAT 5 LAST\n" + EVIL)
        assert (await client.reply())[0] == 501
        assert (await client.reply())[0] == 421
        assert await client.at_end()
        await client.close()


# -- order ---------------------------------------------------------------------------------------------------------


async def test_data_and_bdat_do_not_mix(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        assert (await bdat(client, BODY[:20]))[0] == 250
        for line in ("DATA", "RCPT TO:<carol@c.example>", "MAIL FROM:<ann@clinic.example>"):
            await client.expect(line, 503)
        assert (await bdat(client, BODY[20:], last=True))[0] == 250
        assert (await bdat(client, b"", last=True))[0] == 503
        await client.envelope()
        assert (await client.data(BODY))[0] == 250
        assert (await bdat(client, b"more"))[0] == 503
        assert [each.data for each in run.intake.accepted] == [BODY, BODY]
        await client.close()


@pytest.mark.parametrize("verb", ["RSET", "EHLO client.example"])
async def test_a_reset_between_chunks_forgets_them(tmp_path: Path, verb: str) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        assert (await bdat(client, BODY + b"more"))[0] == 250
        await client.expect(verb, 250)
        assert run.intake.spools[0].aborted
        assert run.metrics.results == [("app", "incomplete")]
        assert (await bdat(client, BODY, last=True))[0] == 503
        await client.envelope()
        assert (await bdat(client, BODY, last=True))[0] == 250
        assert [each.data for each in run.intake.accepted] == [BODY]
        await client.close()


async def test_a_client_that_leaves_between_or_within_chunks_leaves_nothing(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        for rest in (b"", b"BDAT 10 LAST\r\nhalf"):
            client = await run.client()
            await client.hello()
            await client.envelope()
            assert (await bdat(client, BODY))[0] == 250
            client.send(rest)
            run.metrics.results.clear()
            await client.close()
            await poll(lambda: run.metrics.results == [("app", "incomplete")])
        assert all(spool.aborted for spool in run.intake.spools)
        assert not run.intake.accepted


async def test_binarymime_was_not_offered(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.expect("MAIL FROM:<ann@clinic.example> BODY=BINARYMIME", 501)
        await client.close()


# -- limits --------------------------------------------------------------------------------------------------------


async def test_a_message_that_grows_too_large_is_refused_chunk_by_chunk(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, connectors=[connector(limits={"message_size": 1000})])) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        assert (await bdat(client, BODY))[0] == 250
        for last in (False, False, True):
            code, text = await bdat(client, b"x" * 998 + b"\r\n", last=last)
            assert (code, text[:5]) == (552, "5.3.4")
        await client.envelope()
        assert (await bdat(client, BODY, last=True))[0] == 250
        assert run.metrics.results == [("app", "too_large"), ("app", "accepted")]
        await client.close()


@pytest.mark.parametrize("envelope", [True, False])
async def test_a_chunk_beyond_all_measure_ends_the_session_at_once(tmp_path: Path, *, envelope: bool) -> None:
    async with running(settings_of(tmp_path, connectors=[connector(limits={"message_size": 1000})])) as run:
        client = await run.client()
        await client.hello()
        if envelope:
            await client.envelope()
        client.send(b"BDAT 18446744073709551616 LAST\r\n")
        assert (await client.reply())[0] == 552
        assert (await client.reply())[0] == 421
        assert await client.at_end()
        await client.close()


@pytest.mark.parametrize("within", [True, False])
async def test_chunks_that_come_too_slowly(tmp_path: Path, *, within: bool) -> None:
    clock = FakeClock()
    async with running(settings_of(tmp_path, limits={"min_data_rate": 100}), clock=clock) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        assert (await bdat(client, BODY))[0] == 250
        if within:
            client.send(b"BDAT 1000\r\n")
        for _ in range(4):
            await clock.advance(9)
            if within:
                client.send(b"x")
            elif not run.metrics.reasons:
                await bdat(client, b"x")
        assert (await client.reply())[1].startswith("4.4.2 Data comes too slowly")
        assert await client.at_end()
        await poll(lambda: run.metrics.reasons == ["too_slow"])
        await client.close()


async def test_a_chunk_that_stalls_gets_a_421(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(settings_of(tmp_path, limits={"data_timeout": 20.0}), clock=clock) as run:
        client = await run.client()
        await client.hello()
        client.send(b"BDAT 1000\r\n")  # nowhere near a message, the same deadline
        await clock.advance(22)
        assert (await client.reply())[0] == 421
        assert await client.at_end()
        await poll(lambda: run.metrics.reasons == ["timeout"])
        await client.close()


# -- another client --------------------------------------------------------------------------------------------------


async def test_the_standard_librarys_client(tmp_path: Path) -> None:
    def send(port: int) -> list[int]:
        with smtplib.SMTP("127.0.0.1", port) as smtp:
            smtp.ehlo("client.example")
            assert smtp.has_extn("chunking")
            smtp.mail("ann@clinic.example")
            smtp.rcpt("bob@b.example")
            codes = []
            for piece, word in ((BODY[:40], ""), (BODY[40:], " LAST")):
                smtp.putcmd("BDAT", f"{len(piece)}{word}")
                smtp.send(piece)
                codes.append(smtp.getreply()[0])
            return codes

    async with running(settings_of(tmp_path)) as run:
        assert await asyncio.to_thread(send, run.port) == [250, 250]
        assert run.intake.accepted[0].data == BODY
