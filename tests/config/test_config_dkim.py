"""Keys to sign with, as settings: which are taken, and the place of every fault - but never the key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.mail.dkim.keys import SigningKey
from tests.config.conftest import Check

KEY = json.dumps(SigningKey.generate("ed25519").pem.decode())
CONNECTOR = "connectors: [{name: c, accept: {networks: [10.0.0.0/8]}, senders: a.example}]\n"


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: str = "", *, old: bool = False) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL if old else serialization.PrivateFormat.PKCS8
    sealed = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, sealed)


LONG = rsa.generate_private_key(65537, 2048)
UNFIT = {
    "not PEM": (b"s3cret-value\n", "expected a private key in PEM form, as in file:dkim/s1.pem"),
    "a public key": (
        LONG.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "expected a private key in PEM form",
    ),
    "too short": (pem(rsa.generate_private_key(65537, 1024)), "2048 to 4096 bits (RFC 8301), this one has 1024"),
    "another kind": (pem(ec.generate_private_key(ec.SECP256R1())), "this one is of the kind EC"),
    "a pass phrase": (pem(LONG, "hush"), "the key has a pass phrase"),
    "empty": (b"\n", "is empty"),
}


@pytest.mark.parametrize(("data", "words"), UNFIT.values(), ids=UNFIT.keys())
def test_an_unfit_key_is_a_fault_at_its_place(check: Check, tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "s1.pem").write_bytes(data)
    fault = check("dkim: {a.example: [{selector: s1, key: @@'file:s1.pem'}]}").only_fault
    assert words in fault
    assert "s3cret" not in fault


def test_a_key_that_is_not_there(check: Check) -> None:
    assert "No such file" in check("dkim: {a.example: [{selector: s1, key: @@'file:s1.pem'}]}").only_fault


def test_a_path_without_file_is_no_key(check: Check) -> None:
    assert "expected a private key in PEM form" in check("dkim: {a.example: [{selector: s, key: @@s1.pem}]}").only_fault


@pytest.mark.parametrize("old", [False, True])
def test_keys_are_read_and_never_shown(check: Check, tmp_path: Path, *, old: bool) -> None:
    (tmp_path / "s1.pem").write_bytes(pem(LONG, old=old))
    (tmp_path / "e1.pem").write_bytes(SigningKey(ed25519.Ed25519PrivateKey.generate()).pem)
    settings = check(
        CONNECTOR + "dkim:\n  A.Example:\n    - {selector: s1, key: 'file:s1.pem'}\n"
        "    - {selector: e1.gw, key: 'file:e1.pem'}\n@@"
    ).reading.settings
    assert settings is not None
    one, two = settings.dkim["a.example"]
    assert (one.selector, one.key.algorithm) == ("s1", "rsa-sha256")
    assert (two.selector, two.key.algorithm) == ("e1.gw", "ed25519-sha256")
    assert one.key == SigningKey.from_pem(pem(LONG))
    assert one.key != two.key
    assert "PRIVATE" not in repr(settings)
    assert "SigningKey(RSA-2048)" in repr(settings)


FAULTS = {
    "mistyped key": (
        f"dkim: {{a.example: [{{selector: s, key: {KEY}, @@selektor: t}}]}}",
        "unknown key 'selektor', did you mean 'selector'?",
    ),
    "selector": (f"dkim: {{a.example: [{{selector: @@'a b', key: {KEY}}}]}}", "expected a selector such as s1 .*'a b'"),
    "selector that ends with a dot": (f"dkim: {{a.example: [{{selector: @@a., key: {KEY}}}]}}", "expected a selector"),
    "domain": (f"dkim: {{@@a..example: [{{selector: s, key: {KEY}}}]}}", "empty label"),
    "the same selector twice": (
        f"dkim: {{a.example: [{{selector: s, key: {KEY}}}, {{selector: @@S, key: {KEY}}}]}}",
        "the selector S is given to two keys",
    ),
    "too many keys": (
        "dkim:\n  a.example:\n"
        + "".join(f"    - {'@@' if n == 4 else ''}{{selector: s{n}, key: {KEY}}}\n" for n in range(5)),
        "at most 4 a domain",
    ),
    "a name too long for DNS": (
        f"dkim: {{{'.'.join(['a' * 60] * 4)}: [{{selector: @@s1, key: {KEY}}}]}}",
        "too long for a name in DNS",
    ),
}


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cannot_be(check: Check, text: str, words: str) -> None:
    assert re.search(words, check(CONNECTOR + text).only_fault)


@pytest.mark.parametrize(
    ("connectors", "told"),
    [
        (CONNECTOR, False),
        (CONNECTOR.replace("a.example", "b.example"), True),
        (CONNECTOR.replace("a.example", '"*.example"'), False),
        (CONNECTOR.replace("a.example", '"*"'), False),
        (CONNECTOR.replace("senders", "stage: observe, senders"), True),
        ("", True),
    ],
)
def test_a_key_for_a_domain_that_nobody_sends_for_is_worth_knowing(
    check: Check, connectors: str, *, told: bool
) -> None:
    checked = check(connectors + f"dkim:\n  a.example: @@[{{selector: s1, key: {KEY}}}]\n")
    if told:
        assert "nothing will be signed with these keys" in checked.only_note
    else:
        assert not checked.reading.faults
        assert not [note for note in checked.reading.notices if "will be signed" in note.message]


def test_our_own_notices_are_reason_enough(check: Check) -> None:
    checked = check(f"dkim:\n  clinic.example: @@[{{selector: s1, key: {KEY}}}]\n")
    assert not [note for note in checked.reading.notices if "signed" in note.message]


def test_no_key_at_all_is_worth_knowing(check: Check) -> None:
    assert "its mail is not signed" in check(CONNECTOR + "dkim: {a.example: @@[]}").only_note


def test_a_connector_that_may_send_for_everyone_is_worth_knowing(check: Check) -> None:
    connector = "connectors: [{name: c, accept: {networks: [10.0.0.0/8]}, senders: @@'*'}]\n"
    keys = f"dkim: {{a.example: [{{selector: s1, key: {KEY}}}]}}\n"
    assert "signed with our keys for a.example" in check(connector + keys).only_note
    assert not [note for note in check(connector.replace("@@", "")).reading.notices if "signed" in note.message]
