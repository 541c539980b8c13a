"""Our signatures against an independent verifier, which fields they close, and whose signature counts as standing."""

from __future__ import annotations

import re
from typing import Any

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ingress.dkim import parse_signature, verify
from gateway.mail.dkim.canonical import BodyHasher, Canonicalization
from gateway.mail.dkim.keys import SigningKey
from gateway.mail.dkim.records import KeyRecord, is_selector, record_name
from gateway.mail.dkim.signing import CLOSED, CLOSED_WHERE_PRESENT, MAX_OF_A_NAME, signature_field, signed_names
from gateway.mail.dkim.standing import standing_signature
from gateway.mail.dkim.taglist import DkimError
from gateway.mail.headers import Field, fields, split_message

REFERENCE: Any = dkim  # it has no types
NOW = 1_700_000_000.0
KEYS = {"rsa": SigningKey.generate("rsa"), "ed25519": SigningKey.generate("ed25519")}
FROM = b"From: Ann <ann@clinic.example>\r\n"


def signed(message: bytes, kind: str = "rsa") -> bytes:
    block, rest = split_message(message)
    hasher = BodyHasher(Canonicalization.RELAXED)
    hasher.update(rest[2:])
    line = signature_field(
        list(fields(block)), hasher.digest(), key=KEYS[kind], domain="clinic.example", selector="s1", now=NOW
    )
    return line + message


def verifies(message: bytes, kind: str = "rsa") -> bool:
    try:
        return bool(REFERENCE.DKIM(message).verify(0, dnsfunc=lambda *_, **__: KEYS[kind].record.encode()))
    except REFERENCE.ValidationError:
        return False


# -- as others see them -------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [*CLOSED[1:], *CLOSED_WHERE_PRESENT, "List-Unsubscribe", "Resent-From", "Received", "X-Anything", "SUBJECT", "cC"]
)
WORDS = st.text(alphabet=st.sampled_from("ab=;:,.<>@ \t\u00fc\U0001f600"), max_size=30)
FOLDED = st.lists(WORDS, min_size=1, max_size=3).map(
    lambda parts: "\r\n ".join(part or "x" for part in (p.strip() for p in parts))
)
LINES = st.lists(
    st.lists(st.sampled_from([b"a", b" ", b"\t", b".", b"x y", b"", b"\xc3\xbc", b"\xff"]), max_size=6).map(b"".join),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(
    header=st.lists(st.tuples(NAMES, FOLDED), max_size=8),
    lines=LINES,
    kind=st.sampled_from(["rsa", "ed25519"]),
    place=st.integers(0, 8),
)
def test_what_we_sign_an_independent_verifier_takes(
    header: list[tuple[str, str]], lines: list[bytes], kind: str, place: int
) -> None:
    written = [f"{name}: {value}\r\n".encode() for name, value in header]
    block = b"".join([*written[:place], FROM, *written[place:]])
    message = signed(block + b"\r\n" + b"".join(line + b"\r\n" for line in lines), kind)
    assert verifies(message, kind)
    found = list(fields(split_message(message)[0]))
    hasher = BodyHasher(Canonicalization.RELAXED)
    hasher.update(split_message(message)[1][2:])
    verify(parse_signature(found[0], NOW), found, hasher.digest(), [KEYS[kind].record.encode()])


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
@pytest.mark.parametrize(
    "body", [b"", b"\r\n", b"\r\n\r\n\r\n", b" \t \r\n", b"x", b"x  y\t\r\n\r\n \r\n", b"\r\nx\r\n"]
)
def test_bodies_that_are_hard_to_get_right(kind: str, body: bytes) -> None:
    assert verifies(signed(FROM + b"\r\n" + body, kind), kind)


@settings(max_examples=60, deadline=None)
@given(LINES, st.integers(1, 9))
def test_a_body_in_pieces_has_the_hash_of_the_whole(lines: list[bytes], step: int) -> None:
    body = b"\r\n".join(lines)
    whole, parts = BodyHasher(Canonicalization.RELAXED), BodyHasher(Canonicalization.RELAXED)
    whole.update(body)
    for start in range(0, len(body), step):
        parts.update(body[start : start + step])
    assert whole.digest() == parts.digest()


# -- what is closed -----------------------------------------------------------------------------------------------

MESSAGE = (
    b"Received: from x\r\n"
    + FROM
    + b"To: pat@a.example\r\nSubject: hello\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n"
    + b"Message-ID: <1@clinic.example>\r\nReferences: <0@a.example>\r\nList-Id: <l.clinic.example>\r\n\r\nhello\r\n"
)


@pytest.mark.parametrize(
    "added",
    [
        "From: Mallory <m@evil.example>",
        "To: all@a.example",
        "Cc: all@a.example",
        "Subject: urgent",
        "Reply-To: m@evil.example",
        "Date: Tue, 06 Jan 2026 10:00:00 +0000",
        "Message-ID: <2@evil.example>",
        "References: <9@evil.example>",
        "MIME-Version: 1.0",
        "Content-Type: text/html",
        "Content-Transfer-Encoding: base64",
    ],
)
@pytest.mark.parametrize("below", [False, True])
def test_nothing_that_readers_go_by_can_be_added(added: str, *, below: bool) -> None:
    message = signed(MESSAGE)
    line = added.encode() + b"\r\n"
    changed = message.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n", 1) if below else line + message
    # dkimpy itself looks at the first signature wherever it stands
    assert verifies(message)
    assert not verifies(changed)


@pytest.mark.parametrize(
    "added", ["Received: from y", "Sender: l@a.example", "List-Post: <mailto:l@a.example>", "X: y"]
)
def test_what_hosts_and_lists_rightly_add_breaks_nothing(added: str) -> None:
    assert verifies(added.encode() + b"\r\n" + signed(MESSAGE))


def test_white_space_that_relays_touch_breaks_nothing() -> None:
    message = signed(MESSAGE)
    assert verifies(message.replace(b"Subject: hello", b"SUBJECT:\r\n\t hello "))
    assert verifies(message.replace(b"\r\n\r\nhello\r\n", b"\r\n\r\nhello \t\r\n\r\n\r\n"))


def test_the_names_and_how_often() -> None:
    names = signed_names(list(fields(split_message(MESSAGE)[0])))
    assert names.count("from") == names.count("date") == names.count("references") == 2
    assert names.count("cc") == names.count("content-type") == names.count("list-id") == 1
    assert not {"received", "sender", "dkim-signature", "list-post"} & set(names)


def test_a_header_of_too_many_is_not_signed() -> None:
    with pytest.raises(ValueError, match="more than 50 fields to"):
        signed_names([Field("to", b"To: x\r\n")] * (MAX_OF_A_NAME + 1))


def test_the_field_is_folded_and_says_when_and_no_end() -> None:
    line = signed(MESSAGE).partition(b"Received")[0]
    assert max(map(len, line.split(b"\r\n"))) <= 78
    assert b" t=1700000000;" in line
    assert not re.search(rb"[;\s][xl]=", line)
    assert line.endswith(b"\r\n")


# -- keys and records ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_key_comes_back_from_its_file_and_fits_its_record(kind: str) -> None:
    key = KEYS[kind]
    again = SigningKey.from_pem(key.pem)
    assert (again, hash(again)) == (key, hash(key))
    record = KeyRecord.parse(key.record.encode())
    assert not record.testing
    assert key.belongs_to(record.public_key(key.algorithm))
    other = SigningKey.generate("ed25519")
    assert not other.belongs_to(record.public_key(key.algorithm))
    assert repr(key) in {"SigningKey(RSA-2048)", "SigningKey(Ed25519)"}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("v=DKIM2; p=x", "another version"),
        ("v=DKIM1; k=ed25519; p=x", "another kind"),
        ("v=DKIM1; h=sha1; p=x", "not for SHA-256"),
        ("v=DKIM1; s=tlsrpt; p=x", "not for mail"),
        ("v=DKIM1; p=", "revoked"),
        ("v=DKIM1; p=!!", "not base64"),
        ("v=DKIM1; p=AAAA", "malformed"),
        ("v=spf1 -all", "another version"),
        ("wildcard", "malformed"),
    ],
)
def test_records_that_no_signature_verifies_with(record: str, words: str) -> None:
    with pytest.raises(DkimError, match=words):
        KeyRecord.parse(record.encode()).public_key("rsa-sha256")


def test_selectors() -> None:
    assert all(map(is_selector, ["s1", "2026-01", "a.b_c.d", "x" * 63]))
    assert not any(map(is_selector, ["", "-a", "a-", "a..b", ".a", "a b", "ä", "x" * 64, "a\n", "a;b"]))
    assert record_name("s1", "a.example") == "s1._domainkey.a.example"


# -- whose signature stands ---------------------------------------------------------------------------------------

GOOD = "v=1; a=rsa-sha256; d=clinic.example; s=own; h=from:subject; bh=AAAA; b=AAAA"


def standing(value: str, domain: str = "clinic.example") -> str | None:
    raw = f"DKIM-Signature: {value}\r\n".encode()
    return standing_signature(fields(raw + FROM), domain, NOW)


def test_a_signature_of_the_very_domain_stands() -> None:
    assert standing(GOOD) == "own"
    assert standing(GOOD.replace("d=clinic", "d=CLINIC")) == "own"
    assert standing(GOOD + f"; x={int(NOW) + 7 * 86400}") == "own"
    assert standing("broken") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("d=clinic.example", "d=lab.clinic.example"),
        ("d=clinic.example", "d=example"),
        ("a=rsa-sha256", "a=rsa-sha1"),
        ("a=rsa-sha256", "a=ed25519-sha256"),
        ("h=from:subject", "h=subject"),
        ("b=AAAA", "l=10; b=AAAA"),
        ("; b=AAAA", "; b="),
        ("v=1", "v=2"),
        ("s=own", "s=o\x1b[31mwn"),
        ("; b=", "; x=1699999999; b="),
        ("; b=", "; x=1700003600; b="),
        ("; b=", "; x=soon; b="),
    ],
)
def test_what_verifiers_would_not_count_does_not(old: str, new: str) -> None:
    assert standing(GOOD) is not None
    assert standing(GOOD.replace(old, new, 1)) is None
