"""Connectors, dkim and loops through the whole door, over sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingress.seams import LookupFailed
from gateway.mail.address import Address
from gateway.mail.headers import fields
from gateway.mail.loopmark import count_passes, make_mark
from gateway.testing import FakeClock
from tests.ingress.ingress_harness import HEADER, LOOP_KEY, connector, no_txt, running, settings_of

KEY = ed25519.Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
RECORD = b"v=DKIM1; k=ed25519; p=" + base64.b64encode(PUBLIC)
CLOCK_START = 1_767_225_600


def signed(body: bytes, *, domain: str = "clinic.example", at: int = CLOCK_START) -> bytes:
    """A message with an Ed25519 signature over From, made by the text of RFC 8463."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    tags = f"v=1; a=ed25519-sha256; c=relaxed/simple; d={domain}; s=s1; t={at}; h=from; bh={digest}; b="
    data = f"from:Ann <ann@clinic.example>\r\ndkim-signature:{tags}".encode()
    value = base64.b64encode(KEY.sign(hashlib.sha256(data).digest())).decode()
    return f"DKIM-Signature: {tags}{value}\r\n".encode() + HEADER + b"\r\n" + body


def dkim_connector(**changes: object) -> dict[str, object]:
    accept = {"networks": ["127.0.0.0/8"], "dkim": ["clinic.example"]}
    return connector(name="google", accept=accept, **changes)


async def found(name: str) -> Sequence[bytes]:
    assert name == "s1._domainkey.clinic.example"
    return [RECORD]


async def failed(name: str) -> Sequence[bytes]:
    raise LookupFailed(f"{name}: timeout")


async def broken(name: str) -> Sequence[bytes]:
    raise RuntimeError(name)


BODY = b"hello\r\n..\r\n" + b"w" * 100_000 + b"\r\n"


@pytest.mark.parametrize(
    ("content", "lookup", "code"),
    [
        (signed(BODY), found, "250 2.0.0"),
        (signed(BODY), no_txt, "550 5.7.1"),
        (signed(BODY), failed, "451 4.7.5"),
        (signed(BODY), broken, "451 4.3.0"),
        (signed(BODY) + b"more\r\n", found, "550 5.7.1"),
        (signed(BODY, domain="evil.example"), found, "550 5.7.1"),
        (signed(BODY, at=CLOCK_START - 3700), found, "550 5.7.1"),
        (HEADER + b"\r\n" + BODY, failed, "550 5.7.1"),
    ],
)
async def test_a_signature_opens_the_door_at_the_end_of_data(
    tmp_path: Path, content: bytes, lookup: object, code: str
) -> None:
    settings = settings_of(tmp_path, connectors=[dkim_connector()])
    async with running(settings, clock=FakeClock(), lookup_txt=lookup) as run:  # type: ignore[arg-type] # all are such
        client = await run.client()
        await client.hello()
        await client.envelope()
        number, text = await client.data(content.replace(b"\r\n.", b"\r\n.."))
        assert f"{number} {text}".startswith(code)
        if number == 250:
            accepted = run.intake.accepted[0]
            assert accepted.data == content
            assert accepted.submission.dkim_signature is not None
            assert len(accepted.submission.dkim_signature) == 32
        else:
            assert all(spool.aborted for spool in run.intake.spools)
        await client.close()


async def test_a_connector_that_needs_no_signature_asks_for_no_key(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, connectors=[connector(), dkim_connector()])
    async with running(settings, clock=FakeClock(), lookup_txt=broken) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        assert (await client.data(signed(b"hello\r\n")))[0] == 250
        assert run.intake.accepted[0].submission.dkim_signature is None
        await client.close()


async def test_a_message_that_is_refused_early_forgets_its_look_up(tmp_path: Path) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def slow(_: str) -> Sequence[bytes]:
        asked.set()
        await never.wait()
        return []

    settings = settings_of(tmp_path, connectors=[dkim_connector(limits={"message_size": 5000})])
    async with running(settings, clock=FakeClock(), lookup_txt=slow) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        await client.expect("DATA", 354)
        client.send(signed(b"x\r\n"))
        await asyncio.wait_for(asked.wait(), 5)
        client.send(b"y" * 6000 + b"\r\n.\r\n")
        assert (await client.reply())[0] == 552
        await client.close()


# -- stages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "code", "violations"),
    [("enforce", 550, ()), ("soft", 451, ()), ("observe", 250, ("header: wrong value",))],
)
async def test_stages(tmp_path: Path, stage: str, code: int, violations: tuple[str, ...]) -> None:
    accept = {"networks": ["127.0.0.0/8"], "header": {"name": "X-Relay", "value": "right"}}
    async with running(settings_of(tmp_path, connectors=[connector(stage=stage, accept=accept)])) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        assert (await client.data(b"X-Relay: wrong\r\n" + HEADER + b"\r\nx\r\n"))[0] == code
        if code == 250:
            assert run.intake.accepted[0].submission.violations == violations
            assert b"X-Relay" not in run.intake.accepted[0].data
        else:
            assert run.events("refused")[0]["alert"] == (stage == "soft")
            assert "wrong" in run.events("refused")[0]["detail"]
        await client.envelope()
        assert (await client.data(b"X-Relay: right\r\n" + HEADER + b"\r\nx\r\n"))[0] == 250
        await client.close()


async def test_each_message_finds_its_own_connector_and_limits(tmp_path: Path) -> None:
    def app(name: str, size: int) -> dict[str, object]:
        accept = {"networks": ["127.0.0.0/8"], "header": {"name": "X-App", "value": name}}
        return connector(name=name, accept=accept, limits={"message_size": size})

    async with running(settings_of(tmp_path, connectors=[app("small", 1000), app("large", 100_000)])) as run:
        client = await run.client()
        await client.hello()
        results = []
        for name, size in itertools.product(("small", "large"), (10, 5000)):
            await client.envelope()
            content = f"X-App: {name}\r\n".encode() + HEADER + b"\r\n"
            await client.expect("DATA", 354)
            client.send(content + b"x" * size + b"\r\n.\r\n")
            results.append((name, size, (await client.reply())[0]))
        assert results == [("small", 10, 250), ("small", 5000, 552), ("large", 10, 250), ("large", 5000, 250)]
        await client.close()


# -- loops ---------------------------------------------------------------------------------------------------------

BOB, CAROL = Address.parse("bob@b.example"), Address.parse("carol@c.example")


def ids() -> list[str]:
    return [f"01890000-0000-7000-8000-{n:012x}" for n in range(40)]


async def test_the_third_pass_ends_a_loop(tmp_path: Path) -> None:
    marks = [make_mark(LOOP_KEY, each, [BOB]) for each in ids()[:3]]
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        for count, recipients, code in ((2, ("bob",), 250), (3, ("bob",), 554), (3, ("bob", "carol"), 250)):
            await client.envelope("ann@clinic.example", *(f"{each}@{each[0]}.example" for each in recipients))
            number, text = await client.data(b"".join(marks[:count]) + HEADER + b"\r\nx\r\n")
            assert number == code, text
        assert [each.submission.looping for each in run.intake.accepted] == [frozenset(), frozenset({BOB.key})]
        assert b"".join(marks[:2]) in run.intake.accepted[0].data, "marks are trace fields and stay"
        assert run.metrics.reasons == ["loop"]
        await client.close()


def counted(block: bytes, *recipients: Address) -> list[int]:
    return list(count_passes(LOOP_KEY, fields(block), recipients).values())


def test_copies_and_forgeries_of_marks_count_for_nothing() -> None:
    first, second = ids()[:2]
    mark = make_mark(LOOP_KEY, first, [BOB, CAROL])
    assert counted(mark, BOB, CAROL) == [1, 1]
    assert counted(mark * 5, BOB) == [1]
    assert counted(mark.replace(first.encode(), second.encode()), BOB) == [0]
    assert counted(make_mark(b"another key", first, [BOB]), BOB) == [0]
    assert counted(make_mark(LOOP_KEY, first, [CAROL]), BOB) == [0]
    assert counted(b"X-Gateway-Loop: \r\nX-Gateway-Loop: nonsense AAAA\r\n", BOB) == [0]
    assert counted(make_mark(LOOP_KEY, first, [Address.parse("BOB@b.example")]), BOB) == [1]


def test_a_mark_tells_nothing_and_fits_into_lines() -> None:
    many = [Address.parse(f"user{n}@d{n % 7}.example") for n in range(1000)]
    mark = make_mark(LOOP_KEY, ids()[0], many)
    assert all(len(line) <= 78 for line in mark.split(b"\r\n"))
    assert b"user" not in mark
    digests = mark.split()[2:]
    assert len(digests) == 1000
    assert digests == sorted(digests)
    assert len({len(each) for each in digests}) == 1
    other = make_mark(LOOP_KEY, ids()[1], many)
    assert not set(digests) & set(other.split()[2:]), "two passes cannot be linked by whom they were for"


@given(st.integers(0, 31), st.integers(0, 8))
def test_passes_are_counted_through_other_marks(passes: int, others: int) -> None:
    block = b"".join(make_mark(LOOP_KEY, each, [BOB]) for each in ids()[:passes])
    block += b"X-Gateway-Loop: junk\r\n" * others
    assert counted(block, BOB, CAROL) == [passes, 0]
