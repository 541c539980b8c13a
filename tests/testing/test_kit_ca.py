"""Certificates of the kit, judged by OpenSSL: by its program, and in handshakes."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from gateway.testing import CA, Certificate, self_signed


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """A whole handshake in memory; returns the client's end, raises what either end raised."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = client.wrap_bio(to_client, to_server, server_hostname=name)
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client_end, server_end]
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    return client_end


def openssl_verify(ca: CA, certificate: Certificate, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    root = ca.write_root(folder / "root.pem")
    leaf, _ = certificate.write(folder, "leaf")
    untrusted = folder / "rest.pem"
    untrusted.write_bytes(certificate.chain_pem)
    return subprocess.run(
        ["openssl", "verify", "-CAfile", root, "-no-CApath", "-untrusted", untrusted, *options, leaf],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("key", ["ec", "rsa"])
@pytest.mark.parametrize("intermediate", [False, True])
@pytest.mark.parametrize("bare", [False, True])
def test_openssl_believes_what_the_ca_issues(tmp_path: Path, key: str, intermediate: bool, bare: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    ca = CA(bare=bare)
    good = ca.issue("mx.a.example", key="rsa" if key == "rsa" else "ec", intermediate=intermediate)
    result = openssl_verify(ca, good, tmp_path, "-verify_hostname", "mx.a.example", "-purpose", "sslserver")
    assert result.returncode == 0, result.stderr
    assert len(good.chain) == (2 if intermediate else 1)
    shake_hands(good.server_context(), ca.client_context(), "mx.a.example")


def test_a_bare_root_has_no_key_usage_and_an_ordinary_one_has() -> None:
    for bare in (True, False):
        extensions = CA(bare=bare).root.extensions
        found = any(isinstance(extension.value, x509.KeyUsage) for extension in extensions)
        assert found is not bare


def test_openssl_refuses_the_bad_ones_each_for_its_own_reason(tmp_path: Path) -> None:
    ca, name = CA(), "mx.a.example"
    future = dt.datetime(2048, 1, 1, tzinfo=dt.UTC)
    table = {
        "expired": (ca.expired(name), "certificate has expired"),
        "future": (ca.issue(name, not_before=future), "certificate is not yet valid"),
        "name": (ca.issue("other.example"), "hostname mismatch"),
        "purpose": (ca.issue(name, eku="client"), "unsuitable certificate purpose"),
        "self": (self_signed(name), "self-signed certificate"),
        "stranger": (CA("Somebody Else").issue(name), "unable to get local issuer certificate"),
    }
    for label, (bad, reason) in table.items():
        folder = tmp_path / label
        folder.mkdir()
        result = openssl_verify(ca, bad, folder, "-verify_hostname", name, "-purpose", "sslserver")
        assert result.returncode != 0
        assert reason in result.stderr.lower(), (label, result.stderr)
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(bad.server_context(), ca.client_context(), name)


def test_an_expired_intermediate_breaks_the_chain(tmp_path: Path) -> None:
    ca = CA()
    old = ca.intermediate(not_after=dt.datetime(2021, 6, 1, tzinfo=dt.UTC))
    result = openssl_verify(ca, ca.issue("mx.a.example", signed_by=old), tmp_path)
    assert "certificate has expired" in result.stderr


def test_names_may_be_wildcards_addresses_and_none() -> None:
    ca = CA()
    certificate = ca.issue("*.a.example", "127.0.0.1", "::1")
    for name in ("mx.a.example", "127.0.0.1", "::1"):
        shake_hands(certificate.server_context(), ca.client_context(), name)
    for name in ("a.example", "x.mx.a.example", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            shake_hands(certificate.server_context(), ca.client_context(), name)
    nameless = ca.issue(common_name="mx.a.example")
    client = ca.client_context()
    client.hostname_checks_common_name = False  # OpenSSL still falls back to it unless told not to
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(nameless.server_context(), client, "mx.a.example")


def test_a_cross_signed_authority_is_trusted_through_either_root() -> None:
    old, new = CA("Old Root"), CA("New Root")
    certificate = new.cross_signed_by(old).issue("mx.a.example")
    assert len(certificate.chain) == 2
    for root in (old, new):
        shake_hands(certificate.server_context(), root.client_context(), "mx.a.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(new.issue("mx.a.example").server_context(), old.client_context(), "mx.a.example")


def test_digests_are_those_that_openssl_computes(tmp_path: Path) -> None:
    certificate = CA().issue("mx.a.example")
    path, _ = certificate.write(tmp_path, "leaf")
    key = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-pubkey"], capture_output=True, check=True)
    spki = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=key.stdout, capture_output=True, check=True
    )
    assert certificate.spki_sha256 == hashlib.sha256(spki.stdout).hexdigest()
    assert certificate.sha256 == hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.pem.decode())).hexdigest()


def test_written_keys_are_private_and_replaced_in_one_step(tmp_path: Path) -> None:
    ca = CA()
    for _ in range(2):
        certificate, key = ca.issue("mx.a.example").write(tmp_path, "mx")
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mx.crt", "mx.key"]


def test_a_server_asks_for_client_certificates_of_its_ca() -> None:
    ca, clients = CA(), CA("Clients")
    certificate, mine = ca.issue("mx.a.example"), clients.issue("gw.a.example", eku="client")
    asking = certificate.server_context(client_ca=clients, maximum=ssl.TLSVersion.TLSv1_2)
    shake_hands(asking, ca.client_context(mine), "mx.a.example")
    shake_hands(asking, ca.client_context(), "mx.a.example")
    insisting = certificate.server_context(client_ca=clients, client_required=True, maximum=ssl.TLSVersion.TLSv1_2)
    with pytest.raises(ssl.SSLError):
        shake_hands(insisting, ca.client_context(), "mx.a.example")


def test_old_versions_are_really_spoken_and_modern_clients_refuse_them() -> None:
    ca = CA()
    old = ca.issue("mx.a.example", key="rsa").server_context(maximum=ssl.TLSVersion(0x0302))
    with pytest.raises(ssl.SSLError):
        shake_hands(old, ca.client_context(), "mx.a.example")
    lenient = ca.client_context()
    lenient.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        lenient.minimum_version = ssl.TLSVersion.TLSv1
    assert shake_hands(old, lenient, "mx.a.example").version() == "TLSv1.1"
