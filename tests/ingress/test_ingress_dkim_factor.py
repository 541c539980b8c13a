"""The dkim factor against an independent implementation, and the rules that are stricter than RFC 6376."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.ingress.dkim import MAX_SIGNATURES, DkimError, Signature, key_name, parse_signature, signatures, verify
from gateway.mail.address import Address
from gateway.mail.dkim.canonical import BodyHasher, Canonicalization
from gateway.mail.headers import fields, split_message

REFERENCE: Any = dkim  # it has no types
NOW = 1_800_000_000.0
AUTHOR = Address.parse("ann@clinic.example")
HEADER = b"From: Ann <ann@clinic.example>\r\nTo:  bob@b.example\r\nSubject: a\r\n\tfolded   one\r\n"


class Signer:
    """Signs with dkimpy, at a chosen time."""

    def __init__(self, bits: int = 2048) -> None:
        key = rsa.generate_private_key(65537, bits)
        self.pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)

    def sign(self, message: bytes, *, canon: tuple[bytes, bytes] = (b"relaxed", b"relaxed"), **options: Any) -> bytes:
        options.setdefault("include_headers", [b"from", b"to", b"subject"])
        at = options.pop("at", NOW)
        signer = REFERENCE.DKIM(message)
        line = signer.sign(b"s1", b"clinic.example", self.pem, canonicalize=canon, **options)
        # dkimpy takes the time from the clock: sign again over a field that says what the test wants.
        return bytes(line) if at is None else self._retimed(message, bytes(line), canon, at)

    def _retimed(self, message: bytes, line: bytes, canon: tuple[bytes, bytes], at: float) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        from gateway.ingress import dkim as ours

        stamped = re.sub(rb"t=\d+", b"t=%d" % at, line)
        field = next(iter(fields(stamped)))
        signature = Signature(
            field,
            "rsa-sha256",
            "clinic.example",
            "s1",
            Canonicalization(canon[0].decode()),
            Canonicalization(canon[1].decode()),
            tuple(name.strip().lower() for name in field.text.partition(" h=")[2].partition(";")[0].split(":")),
            b"",
            b"",
        )
        key = serialization.load_pem_private_key(self.pem, None)
        assert isinstance(key, rsa.RSAPrivateKey)
        signed = ours._signed_bytes(signature, list(fields(split_message(message)[0])))
        value = base64.b64encode(key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))
        return re.sub(rb"([; \t\n]b=)[^;]*\Z", lambda match: match.group(1) + value + b"\r\n", stamped)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def check(message: bytes, record: bytes, now: float = NOW, step: int = 7) -> Signature:
    """Verify the first usable signature of ``message``, feeding the body in pieces of ``step``."""
    block, body = split_message(message)
    found = list(fields(block))
    usable = [parse_signature(each, now) for each in found if each.name == "dkim-signature"]
    signature = usable[0]
    verify(signature, found, hashed(signature.body_canonicalization, body.removeprefix(b"\r\n"), step), [record])
    return signature


def hashed(canonicalization: Canonicalization, body: bytes, step: int) -> bytes:
    hasher = BodyHasher(canonicalization)
    for start in range(0, len(body), step):
        hasher.update(body[start : start + step])
    return hasher.digest()


# -- body hash -----------------------------------------------------------------------------------------------------

LINES = st.lists(
    st.lists(st.sampled_from([b"a", b" ", b"\t", b".", b"x y", b""]), max_size=6).map(b"".join), max_size=8
)


@settings(max_examples=300, deadline=None)
@given(LINES, st.sampled_from(list(Canonicalization)), st.integers(1, 9))
def test_body_hash_is_that_of_dkimpy_at_every_split(lines: list[bytes], canon: Canonicalization, step: int) -> None:
    body = b"".join(line + b"\r\n" for line in lines)
    policy = (
        REFERENCE.canonicalization.Relaxed if canon is Canonicalization.RELAXED else REFERENCE.canonicalization.Simple
    )
    expected = hashlib.sha256(policy().canonicalize_body(body)).digest()
    assert hashed(canon, body, step) == expected


def test_a_body_of_empty_lines_is_not_kept() -> None:
    hasher = BodyHasher(Canonicalization.RELAXED)
    for _ in range(1000):
        hasher.update(b" \t\r\n" * 1000)
    assert len(hasher._carry) <= 1
    assert hasher.digest() == hashlib.sha256(b"").digest()


# -- whole signatures ----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=LINES,
    header=st.sampled_from([b"simple", b"relaxed"]),
    body_canon=st.sampled_from([b"simple", b"relaxed"]),
    step=st.integers(1, 11),
)
def test_what_dkimpy_signed_verifies(
    signer: Signer, lines: list[bytes], header: bytes, body_canon: bytes, step: int
) -> None:
    message = HEADER + b"\r\n" + b"".join(line + b"\r\n" for line in lines)
    line = signer.sign(message, canon=(header, body_canon), at=None)
    stamp = float(line.partition(b"t=")[2].partition(b";")[0])
    assert check(line + message, signer.record, now=stamp, step=step).domain == "clinic.example"


def test_ed25519_verifies() -> None:
    # dkimpy needs PyNaCl for these, so the signature is made from the very text of RFC 8463: SHA-256, then Ed25519.
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    digest = base64.b64encode(hashlib.sha256(b"hello\r\n").digest()).decode()
    tags = f"v=1; a=ed25519-sha256; c=relaxed/relaxed; d=clinic.example; s=s1; t={NOW:.0f}; h=from; bh={digest}; b="
    signed = f"from:Ann <ann@clinic.example>\r\ndkim-signature:{tags}".encode()
    value = base64.b64encode(key.sign(hashlib.sha256(signed).digest())).decode()
    message = f"DKIM-Signature: {tags}{value}\r\n".encode() + HEADER + b"\r\nhello\r\n"
    record = b"v=DKIM1; k=ed25519; p=" + base64.b64encode(public)
    check(message, record)
    with pytest.raises(DkimError, match="does not fit"):
        check(message.replace(b"From: Ann", b"From: Eve"), record)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.replace(b"hello", b"hellO"),
        lambda m: m.replace(b"\nFrom: Ann", b"\nFrom: Eve"),
        lambda m: m.replace(b"Subject: a", b"Subject: b"),
        lambda m: m.replace(b"hello", b"hello\r\nmore"),
    ],
)
def test_an_altered_message_does_not_verify(signer: Signer, change: Any) -> None:
    message = HEADER + b"\r\nhello\r\n"
    whole = signer.sign(message) + message
    check(whole, signer.record)
    with pytest.raises(DkimError):
        check(change(whole), signer.record)


def test_a_field_added_on_top_is_not_taken_for_the_signed_one(signer: Signer) -> None:
    message = HEADER + b"\r\nhello\r\n"
    signed = signer.sign(message, include_headers=[b"from", b"from", b"subject"])
    with pytest.raises(DkimError, match="does not fit"):
        check(signed + b"From: Eve <eve@clinic.example>\r\n" + message, signer.record)


@pytest.mark.parametrize(
    ("at", "now", "why"),
    [(NOW - 3601, NOW, "hour ago"), (NOW + 301, NOW, "future"), (NOW - 3600, NOW, None), (NOW + 300, NOW, None)],
)
def test_age_is_limited(signer: Signer, at: float, now: float, why: str | None) -> None:
    message = HEADER + b"\r\nhello\r\n"
    whole = signer.sign(message, at=at) + message
    if why is None:
        check(whole, signer.record, now=now)
    else:
        with pytest.raises(DkimError, match=why):
            check(whole, signer.record, now=now)


GOOD = "v=1; a=rsa-sha256; c=relaxed/relaxed; d=clinic.example; s=s1; t=1800000000; h=from:to; bh=AAAA; b=AAAA"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("v=1", "v=2", "v="),
        ("rsa-sha256", "rsa-sha1", "a="),
        ("t=1800000000; ", "", "t="),
        ("h=from:to", "h=to:subject", "From"),
        ("h=from:to", "h=from:to; l=0", "l="),
        ("h=from:to", "h=from:to; x=1799999999", "x="),
        ("h=from:to", "h=from:to; i=@evil.example", "i="),
        ("h=from:to", "h=from:to; q=http", "q="),
        ("c=relaxed/relaxed", "c=relaxed/none", "c="),
        ("d=clinic.example", "d=clinic.example; d=evil.example", "tag list"),
        ("d=clinic.example", "d=[192.0.2.1]", "literal"),
        ("s=s1", "s=../s1", "s="),
        ("bh=AAAA", "bh=*", "base64"),
        ("t=1800000000", "t=-1", "time"),
        ("t=1800000000", "t=١٢", "time"),
        ("b=AAAA", "b", "tag list"),
        ("b=AAAA", "b=", "b= is missing"),
    ],
)
def test_a_signature_that_the_factor_does_not_take(old: str, new: str, why: str) -> None:
    assert old in GOOD
    field = next(iter(fields(f"DKIM-Signature: {GOOD.replace(old, new)}\r\n".encode())))
    with pytest.raises(DkimError, match=re.escape(why)):
        parse_signature(field, NOW)


def test_the_good_one_is_read() -> None:
    signature = parse_signature(next(iter(fields(f"DKIM-Signature: {GOOD}\r\n".encode()))), NOW)
    assert key_name(signature) == "s1._domainkey.clinic.example"
    assert len(signature.digest) == 32


def test_only_signatures_of_the_author_and_a_configured_domain_are_looked_at() -> None:
    block = f"DKIM-Signature: {GOOD}\r\n".encode()
    other = f"DKIM-Signature: {GOOD.replace('d=clinic', 'd=evil')}\r\n".encode()
    found = list(fields(other + block))
    assert [s.domain for s in signatures(found, AUTHOR, ["clinic.example"], NOW)] == ["clinic.example"]
    assert signatures(found, AUTHOR, ["evil.example"], NOW) == ()
    assert signatures(found, Address.parse("a@sub.clinic.example"), ["sub.clinic.example"], NOW) == ()
    assert signatures(list(fields(other * MAX_SIGNATURES + block)), AUTHOR, ["clinic.example"], NOW) == ()


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"v=DKIM1; p=", "revoked"),
        (b"v=DKIM2; p=AAAA", "version"),
        (b"k=ed25519; p=AAAA", "kind"),
        (b"h=sha1; p=AAAA", "SHA-256"),
        (b"s=web; p=AAAA", "not for mail"),
        (b"t=y; p=AAAA", "tested"),
        (b"p=AAAA", "malformed"),
        (b"garbage", "tag list"),
    ],
)
def test_a_key_record_that_is_not_taken(signer: Signer, record: bytes, why: str) -> None:
    message = HEADER + b"\r\nhello\r\n"
    with pytest.raises(DkimError, match=why):
        check(signer.sign(message) + message, record)


def test_a_short_rsa_key_is_not_taken() -> None:
    # OpenSSL still makes 1024 bits; a shorter one has to be built from its numbers.
    numbers = rsa.RSAPublicNumbers(65537, (1 << 767) | 1)
    der = numbers.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    message = HEADER + b"\r\nhello\r\n"
    with pytest.raises(DkimError, match=r"bits|malformed"):
        check(Signer(1024).sign(message) + message, b"p=" + base64.b64encode(der))
