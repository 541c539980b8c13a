"""Whether the certificate files that the settings name can be used: readable, well-formed, a pair, in date."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

__all__ = ["ChainProblem", "judge_pair", "judge_roots"]

_SOON = dt.timedelta(days=14)
_MAX_BYTES = 8 << 20  # all the roots of a system are about 250 KB


@dataclass(frozen=True, slots=True)
class ChainProblem:
    """What is wrong, and with which of the two files.

    A certificate out of date is a ``note``: it protects the wire as before, and a gateway that refused to start with it
    would stop all mail.
    """

    about: Literal["certificate", "key"]
    message: str
    note: bool = False


def judge_pair(certificate: Path, key: Path, now: float) -> list[ChainProblem]:
    """What is wrong with a certificate chain and its key at ``now`` (seconds UTC); nothing: an empty list."""
    return list(_judge_pair(certificate, key, now))


def judge_roots(path: Path) -> list[ChainProblem]:
    """What is wrong with a file of trusted roots."""
    loaded = _certificates(path)
    return [loaded] if isinstance(loaded, ChainProblem) else []


def _judge_pair(certificate: Path, key: Path, now: float) -> Iterator[ChainProblem]:
    chain = _certificates(certificate)
    public = _public_of_key(key)
    if isinstance(public, ChainProblem):
        yield public
    if isinstance(chain, ChainProblem):
        yield chain
        return
    leaf = chain[0]
    try:
        own = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        yield ChainProblem("certificate", f"the public key in {certificate} is of a kind that we cannot use")
        return
    if isinstance(public, bytes) and public != own:
        yield ChainProblem("key", f"the key in {key} does not belong to the certificate in {certificate}")
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    end = leaf.not_valid_after_utc
    if moment > end:
        yield ChainProblem("certificate", f"the certificate in {certificate} expired on {end:%Y-%m-%d}", note=True)
    elif moment < leaf.not_valid_before_utc:
        message = f"the certificate in {certificate} is valid only from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        yield ChainProblem("certificate", message, note=True)
    elif end - moment < _SOON:
        yield ChainProblem("certificate", f"the certificate in {certificate} ends on {end:%Y-%m-%d}", note=True)


def _read(path: Path, about: Literal["certificate", "key"]) -> bytes | ChainProblem:
    try:
        if path.exists() and not path.is_file():
            return ChainProblem(about, f"{path} is not a file")
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        return ChainProblem(about, f"cannot read {path}: {error.strerror or error}")


def _certificates(path: Path) -> list[x509.Certificate] | ChainProblem:
    data = _read(path, "certificate")
    if isinstance(data, ChainProblem):
        return data
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        return ChainProblem("certificate", f"{path} holds no certificate in PEM form")


def _public_of_key(path: Path) -> bytes | ChainProblem:
    data = _read(path, "key")
    if isinstance(data, ChainProblem):
        return data
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        return ChainProblem("key", f"the key in {path} has a pass phrase: the daemon cannot ask for one")
    except (ValueError, UnsupportedAlgorithm):
        return ChainProblem("key", f"{path} holds no private key in PEM form")
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
