"""A reply as mail: what a browser sends comes out as one message, whatever is in it."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.portal.letters import Face
from gateway.portal.replies import Attachment, Reply, ReplyWriter
from gateway.store.bodies import Spool

FACE = Face("Example Clinic", Address.parse("secure@clinic.example"), "", "en", "#1f4e79", "https://s.example")
ID = "0192f0c1-2345-7abc-8def-0123456789ab"


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def written(
    text: str, subject: str = "Results", references: str = "", *files: tuple[str, str, bytes, int]
) -> tuple[bytes, EmailMessage]:
    reply = Reply(
        ID, "gw.clinic.example", FACE, Address.parse("pat@isp.example"), Address.parse("dr@clinic.example"),
        subject, "<m1@clinic.example>", references, 1.8e9,
    )  # fmt: skip
    nowhere: Any = None  # what is small never touches a disk
    writer = ReplyWriter(reply, Spool(nowhere, ID, bytes(32)))
    await writer.begin(text)
    for name, kind, data, size in files:
        assert await writer.attach(Attachment(name, kind, pieces(data, size))) == len(data)
    body = await writer.finish()
    raw = body.plain
    assert raw is not None
    parsed = email.message_from_bytes(raw, policy=email.policy.SMTP)
    assert isinstance(parsed, EmailMessage)
    return raw, parsed


@settings(deadline=None)
@given(
    text=st.text(max_size=300),
    subject=st.text(max_size=120),
    name=st.text(max_size=40),
    kind=st.sampled_from(["image/png", "text/html\r\nX: y", "multipart/mixed", "message/rfc822", "", "é/é"]),
    data=st.binary(max_size=400),
    size=st.integers(1, 100),
)
async def test_whatever_is_sent_is_one_sound_message(
    text: str, subject: str, name: str, kind: str, data: bytes, size: int
) -> None:
    raw, mail = await written(text, subject, "", (name, kind, data, size))
    assert raw.isascii()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert not mail.defects
    first, second = mail.iter_parts()
    said = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", re.sub(r"\r\n?|\n", "\n", text))
    assert first.get_content().replace("\r\n", "\n") == said + "\n"
    assert second.get_content_disposition() == "attachment"
    assert second.get_payload(decode=True) == data
    assert second.get_content_type() in {"image/png", "application/octet-stream"}
    assert {key.lower() for key in mail} == {
        "from", "reply-to", "to", "subject", "date", "message-id", "in-reply-to", "references", "mime-version",
        "content-type",
    }  # fmt: skip


@pytest.mark.parametrize(("subject", "shown"), [("Hello", "Re: Hello"), ("RE: Hello", "RE: Hello"), ("", "Re:")])
async def test_the_subject_is_answered_once(subject: str, shown: str) -> None:
    _, mail = await written("x", subject)
    assert mail["Subject"] == shown


async def test_a_long_chain_of_ids_is_kept_short_with_its_beginning() -> None:
    chain = " ".join(f"<m{number}@x.example>" for number in range(60))
    _, mail = await written("x", "y", chain)
    ids = mail["References"].split()
    assert len(ids) <= 20
    assert (ids[0], ids[-1]) == ("<m0@x.example>", "<m1@clinic.example>")
