"""The verifier's matrix: chains of every kind that is met in the field, and some that are made up."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.delivery.judge import MODERN_CIPHERS, ChainVerdict, assurance, judge
from gateway.delivery.names import match_names
from gateway.delivery.trust import Trust, TrustError
from gateway.mail.protection import Assurance
from gateway.testing import CA, Certificate, self_signed

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC).timestamp()
HOST = "mx.example.org"
CERTIFICATE: Any = asn1.Certificate
NOT_YET = "certificate is not yet valid or the system clock is incorrect"


def chain_of(certificate: Certificate, *more: x509.Certificate) -> list[bytes]:
    return [c.public_bytes(serialization.Encoding.DER) for c in (*certificate.chain, *more)]


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA()


@pytest.fixture(scope="module")
def trust(ca: CA) -> Trust:
    return Trust.from_pem(ca.root_pem)


def test_a_leaf_below_the_root(ca: CA, trust: Trust) -> None:
    certificate = ca.issue(HOST)
    verdict = judge(chain_of(certificate), trust, [HOST], NOW)
    assert (verdict.chain, verdict.name) == ("ok", "ok")
    assert verdict.spki_sha256 == certificate.spki_sha256
    assert verdict.subject == f"CN={HOST}"
    assert verdict.key == "EC secp256r1"
    assert verdict.not_after is not None
    assert verdict.not_after > NOW


def test_an_intermediate_that_is_sent_along(ca: CA, trust: Trust) -> None:
    assert judge(chain_of(ca.issue(HOST, intermediate=True)), trust, [HOST], NOW).chain == "ok"


def test_a_missing_intermediate(ca: CA, trust: Trust) -> None:
    chain = chain_of(ca.issue(HOST, intermediate=True))[:1]
    verdict = judge(chain, trust, [HOST], NOW)
    assert verdict.chain == "unable to get local issuer certificate"
    assert verdict.name == "ok"


def test_order_and_strangers_in_the_chain_do_not_matter(ca: CA, trust: Trust) -> None:
    leaf, middle = chain_of(ca.issue(HOST, intermediate=True))
    stranger = CA("Stranger")
    noise = [stranger.root_der, b"not a certificate", *chain_of(stranger.issue("x.example"))]
    assert judge([leaf, *noise, middle, ca.root_der], trust, [HOST], NOW).chain == "ok"


def test_a_private_ca_without_key_usage() -> None:
    bare = CA("Firm", bare=True)
    assert judge(chain_of(bare.issue(HOST)), Trust.from_pem(bare.root_pem), [HOST], NOW).chain == "ok"


def test_a_ca_that_nobody_knows(trust: Trust) -> None:
    assert judge(chain_of(CA("Stranger").issue(HOST)), trust, [HOST], NOW).chain != "ok"


def test_a_ca_of_the_same_name_with_another_key(trust: Trust) -> None:
    assert judge(chain_of(CA().issue(HOST)), trust, [HOST], NOW).chain != "ok"


def test_self_signed(trust: Trust) -> None:
    verdict = judge(chain_of(self_signed(HOST)), trust, [HOST], NOW)
    assert verdict.chain.startswith("self")
    assert verdict.name == "ok"


def test_a_self_signed_certificate_that_the_administrator_trusts() -> None:
    certificate = self_signed(HOST)
    pem = certificate.leaf.public_bytes(serialization.Encoding.PEM)
    assert judge(chain_of(certificate), Trust.from_pem(pem), [HOST], NOW).chain == "ok"


def test_expired_and_not_yet_valid(ca: CA, trust: Trust) -> None:
    assert judge(chain_of(ca.expired(HOST)), trust, [HOST], NOW).chain == "certificate has expired"
    later = ca.issue(HOST, not_before=dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    assert judge(chain_of(later), trust, [HOST], NOW).chain == NOT_YET
    # The same store judges other times, too, in any order.
    assert judge(chain_of(later), trust, [HOST], NOW + 366 * 86400).chain == "ok"
    assert judge(chain_of(later), trust, [HOST], NOW).chain == NOT_YET


def test_an_expired_intermediate_beside_a_good_one(ca: CA, trust: Trust) -> None:
    older = CA("Old Root", not_after=dt.datetime(2022, 1, 1, tzinfo=dt.UTC))
    crossed = ca.cross_signed_by(older)
    assert judge(chain_of(crossed.issue(HOST)), trust, [HOST], NOW).chain == "ok"


def test_cross_signed_by_the_only_root_that_we_know() -> None:
    older, newer = CA("Old Root"), CA("New Root")
    crossed = newer.cross_signed_by(older)
    assert judge(chain_of(crossed.issue(HOST)), Trust.from_pem(older.root_pem), [HOST], NOW).chain == "ok"
    assert judge(chain_of(crossed.issue(HOST)), Trust.from_pem(newer.root_pem), [HOST], NOW).chain == "ok"


def test_purposes(ca: CA, trust: Trust) -> None:
    reason = "the certificate is not for servers (extended key usage)"
    assert judge(chain_of(ca.issue(HOST, eku="client")), trust, [HOST], NOW).chain == reason
    assert judge(chain_of(ca.issue(HOST, eku=None)), trust, [HOST], NOW).chain == "ok"


def test_a_leaf_cannot_issue(ca: CA, trust: Trust) -> None:
    middle = ca.issue("middle.example")
    key = serialization.load_pem_private_key(middle.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    forged = build(HOST, issuer=middle.leaf.subject, issuer_key=key)
    assert judge([forged, *chain_of(middle)], trust, [HOST], NOW).chain != "ok"


def build(
    host: str,
    *,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    issuer: x509.Name | None = None,
    issuer_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    ca: bool = False,
    permitted: str | None = None,
    eku: bool = True,
) -> bytes:
    """A certificate that a proper CA would not make."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    if not eku:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    if permitted:
        constraint = x509.NameConstraints([x509.DNSName(permitted)], None)
        builder = builder.add_extension(constraint, critical=True)
    certificate = builder.sign(issuer_key or key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.DER)


def made_root(*, permitted: str | None = None, eku: bool = True) -> tuple[Trust, x509.Name, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    der = build("Made Root", key=key, ca=True, permitted=permitted, eku=eku)
    root = x509.load_der_x509_certificate(der)
    return Trust.from_pem(root.public_bytes(serialization.Encoding.PEM)), root.subject, key


def test_a_short_rsa_key() -> None:
    trust, issuer, issuer_key = made_root()
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    verdict = judge([build(HOST, key=weak, issuer=issuer, issuer_key=issuer_key)], trust, [HOST], NOW)
    assert verdict.chain == "an RSA key of 1024 bits"
    assert verdict.key == "RSA 1024"


def test_a_short_curve() -> None:
    trust, issuer, issuer_key = made_root()
    weak = ec.generate_private_key(ec.SECP192R1())
    assert "192" in judge([build(HOST, key=weak, issuer=issuer, issuer_key=issuer_key)], trust, [HOST], NOW).chain


def test_a_signature_with_sha1() -> None:
    trust, issuer, issuer_key = made_root()
    certificate: Any = CERTIFICATE.load(build(HOST, issuer=issuer, issuer_key=issuer_key))
    certificate["tbs_certificate"]["signature"]["algorithm"] = "sha1_ecdsa"
    certificate["signature_algorithm"]["algorithm"] = "sha1_ecdsa"
    certificate["signature_value"] = issuer_key.sign(certificate["tbs_certificate"].dump(), ec.ECDSA(hashes.SHA1()))
    assert judge([certificate.dump(force=True)], trust, [HOST], NOW).chain == "a certificate is signed with SHA1"


def test_a_ca_that_may_only_vouch_for_other_names() -> None:
    trust, issuer, issuer_key = made_root(permitted="other.example")
    middle_key = ec.generate_private_key(ec.SECP256R1())
    middle = build("Middle", key=middle_key, issuer=issuer, issuer_key=issuer_key, ca=True, permitted="other.example")
    name = x509.load_der_x509_certificate(middle).subject
    leaf = build(HOST, issuer=name, issuer_key=middle_key)
    assert judge([leaf, middle], trust, [HOST], NOW).chain == "permitted subtree violation"


def test_an_intermediate_for_code_signing_only() -> None:
    trust, issuer, issuer_key = made_root()
    middle_key = ec.generate_private_key(ec.SECP256R1())
    middle = build("Middle", key=middle_key, issuer=issuer, issuer_key=issuer_key, ca=True, eku=False)
    leaf = build(HOST, issuer=x509.load_der_x509_certificate(middle).subject, issuer_key=middle_key)
    assert "not for servers" in judge([leaf, middle], trust, [HOST], NOW).chain


def test_no_certificate_at_all(trust: Trust) -> None:
    assert judge([], trust, [HOST], NOW) == ChainVerdict("the peer sent no certificate", "the peer sent no certificate")


def test_without_roots_nothing_is_trusted(ca: CA) -> None:
    assert judge(chain_of(ca.issue(HOST)), Trust.from_pem(b""), [HOST], NOW).chain == "no trusted roots are configured"


def test_a_chain_that_goes_on_and_on(ca: CA, trust: Trust) -> None:
    assert "more than 20" in judge([*chain_of(ca.issue(HOST)), *[ca.root_der] * 30], trust, [HOST], NOW).chain


@settings(max_examples=300)
@given(st.data())
def test_hostile_bytes_never_raise_and_never_pass(data: st.DataObject) -> None:
    ca = data.draw(st.just(HOSTILE))
    der = bytearray(HOSTILE_LEAF)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    verdict = judge([bytes(der)], HOSTILE_TRUST, [HOST], NOW)
    if bytes(der) != HOSTILE_LEAF:
        assert verdict.chain != "ok"
    assert ca is HOSTILE


HOSTILE = CA("Hostile")
HOSTILE_LEAF = chain_of(HOSTILE.issue(HOST))[0]
HOSTILE_TRUST = Trust.from_pem(HOSTILE.root_pem)


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_noise_in_place_of_certificates_never_raises(chain: list[bytes]) -> None:
    verdict = judge(chain, HOSTILE_TRUST, [HOST], NOW)
    assert verdict.chain != "ok"
    assert verdict.name != "ok"
    assert verdict.chain.isprintable()


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("mx.example.org", "mx.example.org", True),
        ("MX.Example.ORG", "mx.example.org", True),
        ("mx.example.org.", "mx.example.org", True),
        ("*.example.org", "mx.example.org", True),
        ("*.example.org", "a.mx.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.example.org", ".example.org", False),
        ("mx*.example.org", "mx1.example.org", False),
        ("*x.example.org", "mx.example.org", False),
        ("m.*.org", "m.example.org", False),
        ("*.*.org", "mx.example.org", False),
        ("*.org", "example.org", False),
        ("*", "mx", False),
        ("*.", "mx.", False),
        ("mx.example.org\0.evil.example", "mx.example.org", False),
        ("xn--mx-xka.example", "xn--mx-xka.example", True),
        ("", "", False),
    ],
)
def test_names(pattern: str, host: str, matches: bool) -> None:  # noqa: FBT001 - a parameter of the table
    assert (match_names([host], [pattern], []) == "ok") is matches


def test_names_of_a_certificate(ca: CA, trust: Trust) -> None:
    def name(certificate: Certificate, *wanted: str) -> str:
        return judge(chain_of(certificate), trust, wanted, NOW).name

    assert name(ca.issue("*.example.org", "other.example"), HOST) == "ok"
    assert name(ca.issue("other.example"), HOST) == "the certificate is for another name"
    assert name(ca.issue("other.example"), HOST, "other.example") == "ok"
    assert name(ca.issue(common_name=HOST), HOST) == "the certificate names no host"
    assert name(ca.issue("other.example", common_name=HOST), HOST) == "the certificate is for another name"
    assert name(ca.issue(HOST)) == "there is no name to match"


def test_address_literals_match_addresses_only(ca: CA, trust: Trust) -> None:
    by_address = chain_of(ca.issue("192.0.2.1", "2001:db8::1"))
    for wanted in ("192.0.2.1", "[192.0.2.1]", "2001:DB8:0::1", "[IPv6:2001:db8::1]"):
        assert judge(by_address, trust, [wanted], NOW).name == "ok"
    assert judge(by_address, trust, ["192.0.2.2"], NOW).name != "ok"
    assert match_names(["192.0.2.1"], ["192.0.2.1"], []) != "ok"
    assert match_names(["1.example"], [], [ipaddress.ip_address("192.0.2.1")]) != "ok"


OK = ChainVerdict("ok", "ok", "aa")
BAD_CHAIN = ChainVerdict("expired", "ok", "aa")
BAD_NAME = ChainVerdict("ok", "another name", "aa")
GCM = "ECDHE-RSA-AES256-GCM-SHA384"
TLS13 = "TLS_AES_256_GCM_SHA384"
CHACHA = "TLS_CHACHA20_POLY1305_SHA256"


@pytest.mark.parametrize(
    ("version", "cipher", "verdict", "authenticated", "level"),
    [
        ("TLSv1.3", TLS13, OK, True, Assurance.AUTHENTICATED),
        ("TLSv1.3", TLS13, OK, False, Assurance.VERIFIED),
        ("TLSv1.2", GCM, OK, False, Assurance.VERIFIED),
        ("TLSv1.3", TLS13, BAD_CHAIN, True, Assurance.ENCRYPTED),
        ("TLSv1.3", TLS13, BAD_NAME, True, Assurance.ENCRYPTED),
        ("TLSv1.1", GCM, OK, True, Assurance.NONE),
        ("TLSv1", GCM, OK, True, Assurance.NONE),
        ("SSLv3", GCM, OK, True, Assurance.NONE),
        ("", "", OK, True, Assurance.NONE),
        ("TLSv1.2", "AES256-GCM-SHA384", OK, True, Assurance.NONE),
        ("TLSv1.2", "ECDHE-RSA-AES256-SHA384", OK, True, Assurance.NONE),
        ("TLSv1.3", CHACHA, OK, True, Assurance.NONE),
    ],
)
def test_assurance(
    version: str,
    cipher: str,
    verdict: ChainVerdict,
    authenticated: bool,  # noqa: FBT001 - a parameter of the table
    level: Assurance,
) -> None:
    assert assurance(version, cipher, verdict, host_authenticated=authenticated) == level


def test_the_modern_profile_takes_chacha20() -> None:
    assert assurance("TLSv1.3", CHACHA, OK, ciphers=MODERN_CIPHERS) == Assurance.VERIFIED


def test_a_pinned_key_stands_for_chain_and_name_and_a_wrong_one_for_nothing() -> None:
    right, wrong = frozenset({"aa"}), frozenset({"bb"})
    assert assurance("TLSv1.3", TLS13, BAD_CHAIN, spki_pins=right) == Assurance.AUTHENTICATED
    assert assurance("TLSv1.3", TLS13, OK, host_authenticated=True, spki_pins=wrong) == Assurance.NONE
    assert assurance("TLSv1.1", GCM, OK, spki_pins=right) == Assurance.NONE
    assert assurance("TLSv1.3", TLS13, ChainVerdict("x", "x", ""), spki_pins=right) == Assurance.NONE


def test_trust_from_a_file(ca: CA, tmp_path: Path) -> None:
    file = ca.write_root(tmp_path / "roots.pem")
    assert len(Trust.load(file)) == 1
    with pytest.raises(TrustError, match=r"no\.pem"):
        Trust.load(tmp_path / "no.pem")
    (tmp_path / "empty.pem").write_text("nothing here")
    with pytest.raises(TrustError, match="no certificate"):
        Trust.load(tmp_path / "empty.pem")


def test_the_systems_roots_do_not_vouch_for_a_stranger(ca: CA) -> None:
    assert judge(chain_of(ca.issue(HOST)), Trust.load("system"), [HOST], NOW).chain != "ok"
