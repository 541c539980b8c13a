"""Whole messages: whatever the octets, judging them ends with a requirement that is safe."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.source import read_document
from gateway.mail.address import Address
from gateway.policy import evaluate
from gateway.policy.facts import normal_text
from gateway.policy.parse import parse_policy
from gateway.policy.whole import facts_of

POLICIES = Path(__file__).parents[2] / "policies"
STRICT = parse_policy([read_document(POLICIES / "healthcare-strict.yaml", "strict")]).policy
SENDER, TO = Address.parse("dr@clinic.example"), (Address.parse("pat@isp.example"),)

PIECES = [
    b"Subject: [secure] x\r\n", b"From: a@b.example\r\n", b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Type: text/html; charset=utf-16\r\n", b"Content-Transfer-Encoding: base64\r\n", b"\r\n", b"--b\r\n",
    b"--b--\r\n", b"SSN 536-22-8726, diagnosis E11.9\r\n", b"<p>536<!-- -->-22-8726</p>\r\n", b"U1NO\r\n",
    b"\xff\xfe\x00",
    b"msip_labels: MSIP_Label_x\r\n", b"List-Id: <x>\r\n", b"begin 644 x\r\n", b"-----BEGIN PGP MESSAGE-----\r\n",
]  # fmt: skip


def judge(message: bytes) -> None:
    facts = facts_of(STRICT, message, sender=SENDER, recipients=TO, time=1_800_000_000.0)
    requirement = evaluate(STRICT, facts)
    assert requirement.digest == STRICT.digest
    assert requirement.tls.name != "NONE"


@given(st.binary(max_size=2000))
def test_no_octets_make_judging_fail(message: bytes) -> None:
    judge(message)


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=30)), max_size=30).map(b"".join))
def test_nothing_that_looks_like_a_message_does_either(message: bytes) -> None:
    judge(message)


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_plain_text_is_made_normal_as_any_text_is(text: str) -> None:
    assert normal_text(text) == " ".join(text.split())
