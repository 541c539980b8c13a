"""What is encrypted already is known by its content - and what only says so is not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from gateway.mail.content import FileType, read_content
from gateway.mail.content.cms import Cms, cms_kind, signed_content

INNER = b"Content-Type: text/plain\r\n\r\nSSN 536-22-8726\r\n"


@pytest.fixture(scope="module")
def identity() -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a@x.example")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()), key


def enveloped(certificate: x509.Certificate) -> bytes:
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(INNER).add_recipient(certificate)
    return builder.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


def signed(certificate: x509.Certificate, key: rsa.RSAPrivateKey, *options: pkcs7.PKCS7Options) -> bytes:
    builder = pkcs7.PKCS7SignatureBuilder().set_data(INNER).add_signer(certificate, key, hashes.SHA256())
    return builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary, *options])


def smime(data: bytes, kind: str = "application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m") -> bytes:
    return (
        f"Subject: x\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
        + base64.encodebytes(data)
    )


def test_enveloped_data_is_protected_whatever_its_type_says(
    identity: tuple[x509.Certificate, rsa.RSAPrivateKey],
) -> None:
    for kind in (
        "application/pkcs7-mime",
        "application/x-pkcs7-mime; smime-type=signed-data",
        "application/octet-stream",
    ):
        content = read_content(smime(enveloped(identity[0]), kind))
        assert content.protected == {"smime"}
        assert content.unread
        (attachment,) = content.attachments
        assert (attachment.type, attachment.encrypted) == (FileType.ENCRYPTED, True)


def test_opaque_signed_data_is_read_and_not_protected(identity: tuple[x509.Certificate, rsa.RSAPrivateKey]) -> None:
    content = read_content(smime(signed(*identity)))
    assert content.protected == frozenset()
    assert content.signed
    assert any("536-22-8726" in part.text for part in content.texts)
    assert not content.unread


def test_signed_data_around_enveloped_data_is_protected(identity: tuple[x509.Certificate, rsa.RSAPrivateKey]) -> None:
    inner = smime(enveloped(identity[0]))
    builder = pkcs7.PKCS7SignatureBuilder().set_data(inner).add_signer(*identity, hashes.SHA256())
    content = read_content(smime(builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])))
    assert content.protected == {"smime"}
    assert content.signed


def test_a_detached_signature_is_nothing_to_read(identity: tuple[x509.Certificate, rsa.RSAPrivateKey]) -> None:
    data = signed(*identity, pkcs7.PKCS7Options.DetachedSignature)
    message = (
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary="b"\r\n\r\n--b\r\n'
        + INNER
        + b"--b\r\n"
        + smime(data, "application/pkcs7-signature; name=smime.p7s")
        + b"--b--\r\n"
    )
    content = read_content(message)
    assert content.signed
    assert not content.unread
    assert content.attachments[0].type is FileType.SIGNATURE
    assert any("536-22-8726" in part.text for part in content.texts)


def test_text_that_calls_itself_enveloped_is_neither_protected_nor_passed_over() -> None:
    content = read_content(smime(b"SSN 536-22-8726"))
    assert not content.protected
    assert content.unread


def test_every_prefix_of_a_signature_is_read(identity: tuple[x509.Certificate, rsa.RSAPrivateKey]) -> None:
    data = signed(*identity)
    assert cms_kind(data) is Cms.SIGNED
    assert signed_content(data) == INNER
    for end in range(0, len(data), 7):
        assert signed_content(data[:end]) in (None, b"", INNER)


def test_signed_data_in_pieces_of_indefinite_length_is_read() -> None:
    pieces = b"".join(b"\x04\x05" + INNER[at : at + 5].ljust(5) for at in range(0, len(INNER), 5))
    data = (
        bytes.fromhex("308006092a864886f70d010702a080308002010131003080")
        + bytes.fromhex("06092a864886f70d010701a0802480")
        + pieces
        + bytes(12)
    )
    assert signed_content(data) == INNER.ljust(-(-len(INNER) // 5) * 5)


def packet(kind: int, content: bytes) -> bytes:
    return bytes((0xC0 | kind, len(content))) + content


def armoured(data: bytes) -> bytes:
    return (
        b"-----BEGIN PGP MESSAGE-----\r\nVersion: x\r\n\r\n"
        + base64.encodebytes(data).replace(b"\n", b"\r\n")
        + b"=abcd\r\n-----END PGP MESSAGE-----\r\n"
    )


ENCRYPTED = armoured(packet(1, bytes(40)) + packet(3, bytes(9)) + packet(18, bytes(60)))
MERELY_SIGNED = armoured(packet(4, bytes(13)) + packet(11, b"b\x00\x00\x00\x00\x00SSN"))


def pgp_mime(body: bytes, more: bytes = b"", preamble: bytes = b"This is an OpenPGP/MIME encrypted message") -> bytes:
    return (
        b'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary="b"\r\n\r\n'
        + preamble
        + b"\r\n--b\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n"
        + b'--b\r\nContent-Type: application/octet-stream; name="encrypted.asc"\r\n\r\n'
        + body
        + more
        + b"\r\n--b--\r\n"
    )


def test_pgp_mime_is_protected() -> None:
    content = read_content(pgp_mime(ENCRYPTED))
    assert content.protected == {"pgp"}
    assert content.attachments[0].encrypted
    assert content.unread


@pytest.mark.parametrize(
    "message",
    [
        pgp_mime(MERELY_SIGNED),
        pgp_mime(b"SSN 536-22-8726"),
        pgp_mime(ENCRYPTED, b"\r\n--b\r\n\r\nSSN 536-22-8726"),
        pgp_mime(ENCRYPTED, preamble=b"SSN 536-22-8726 " * 40),
        b"\r\n" + MERELY_SIGNED,
        b"\r\nLook:\r\n" + ENCRYPTED,
        b"\r\n" + ENCRYPTED + b"And more",
        b"\r\n" + ENCRYPTED + ENCRYPTED.replace(b"=abcd", b"=abce"),
    ],
)
def test_what_is_not_wholly_encrypted_is_not_protected(message: bytes) -> None:
    content = read_content(message)
    assert not content.protected
    assert content.unread or any("536-22-8726" in part.text for part in content.texts)


def test_armour_as_the_whole_text_is_protected() -> None:
    content = read_content(b"Subject: x\r\n\r\n" + ENCRYPTED)
    assert content.protected == {"pgp"}
    assert content.unread


def test_a_sole_encrypted_pdf_is_protected_and_one_of_two_is_not() -> None:
    pdf = b"Content-Type: application/pdf; name=a.pdf\r\n\r\n%PDF-1.7 trailer <</Encrypt 3 0 R>>\r\n"
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nHello\r\n--b\r\n"
    assert read_content(head + pdf + b"--b--").protected == {"pdf"}
    assert read_content(head + pdf + b"--b\r\n" + pdf + b"--b--").protected == frozenset()
    assert read_content(head + pdf.replace(b"/Encrypt", b"/Other") + b"--b--").protected == frozenset()
