"""Whole files: paths, environment, certificates, and the sample that ships."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.config.load import load_settings
from gateway.config.model import Settings
from gateway.errors import ConfigError
from gateway.testing import CA
from tests.config.conftest import BASE, Check

TLS = "tls: {certificate: crt.pem, key: key.pem}\nlisteners: [{address: '127.0.0.1:25'}]\n"


@pytest.fixture(scope="session")
def issued() -> dict[str, bytes]:
    """A certificate until 2100, one until 2030-01-31, and their keys."""
    ca = CA(not_after=dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    lasting = ca.issue("gw.clinic.example", not_after=dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    ending = ca.issue("gw.clinic.example", not_after=dt.datetime(2030, 1, 31, tzinfo=dt.UTC))
    key = load_pem_private_key(lasting.key_pem, None)
    return {
        "chain": lasting.chain_pem + ca.root_pem,
        "key": lasting.key_pem,
        "ending": ending.chain_pem,
        "ending-key": ending.key_pem,
        "locked": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"phrase")),
        "ca": ca.root_pem,
    }


def place(tmp_path: Path, certificate: bytes, key: bytes) -> None:
    (tmp_path / "crt.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


def test_a_pair_in_date_is_fine(check: Check, tmp_path: Path, issued: dict[str, bytes]) -> None:
    place(tmp_path, issued["chain"], issued["key"])
    reading = check(TLS, now=at("2029-01-01")).reading
    assert reading.faults == ()
    assert reading.settings is not None
    assert reading.settings.tls.certificate == tmp_path / "crt.pem"


@pytest.mark.parametrize(
    ("moment", "words"),
    [("2030-01-20", "ends on 2030-01-31"), ("2031-01-01", "expired on 2030-01-31"), ("1990-01-01", "valid only from")],
)
def test_a_certificate_out_of_date_is_a_note_not_an_outage(
    check: Check, tmp_path: Path, issued: dict[str, bytes], moment: str, words: str
) -> None:
    place(tmp_path, issued["ending"], issued["ending-key"])
    assert words in check(TLS.replace("crt.pem", "@@crt.pem"), now=at(moment)).only_note


@pytest.mark.parametrize(
    ("certificate", "key", "wrong", "words"),
    [
        ("chain", "ending-key", "key.pem", "does not belong to the certificate"),
        ("key", "key", "crt.pem", "holds no certificate"),
        ("chain", "chain", "key.pem", "holds no private key"),
        ("chain", "locked", "key.pem", "pass phrase"),
    ],
)
def test_files_that_do_not_make_a_pair(
    check: Check, tmp_path: Path, issued: dict[str, bytes], certificate: str, key: str, wrong: str, words: str
) -> None:
    place(tmp_path, issued[certificate], issued[key])
    assert words in check(TLS.replace(wrong, "@@" + wrong), now=at("2029-01-01")).only_fault


def test_missing_files_are_told_each(check: Check) -> None:
    faults = check(TLS).reading.faults
    assert [fault.message.rpartition("/")[2] for fault in faults] == [
        "crt.pem: No such file or directory",
        "key.pem: No such file or directory",
    ]


def test_roots_of_trust_must_be_certificates(check: Check, tmp_path: Path, issued: dict[str, bytes]) -> None:
    (tmp_path / "roots.pem").write_bytes(issued["key"])
    assert "holds no certificate" in check("tls: {trust: @@roots.pem}").only_fault
    (tmp_path / "roots.pem").write_bytes(issued["ca"])
    assert check("tls: {trust: roots.pem}").reading.faults == ()
    assert "is not a file" in check("tls: {trust: @@.}").only_fault


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/gateway.yaml").write_text(BASE + "data_dir: ../var\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings(Path("etc/gateway.yaml")).data_dir == tmp_path / "etc/../var"


def test_data_dir_that_is_a_file(check: Check, tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    assert "is not a directory" in check("data_dir: @@var").only_fault


def test_load_raises_all_faults(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("hostnam: x\nworkers: 0\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert [fault.line for fault in caught.value.faults] == [1, 1, 1, 2]
    assert str(caught.value.faults[0]).startswith(f"{path}:1:1: ")


def test_a_file_with_the_least_has_defaults_for_the_rest(check: Check) -> None:
    settings = check("").reading.settings
    assert isinstance(settings, Settings)
    assert settings.delivery.retry.expire == 5 * 86400
    assert settings.connectors == ()
    assert str(settings.metrics.listen) == "127.0.0.1:9725"
