"""What a client's certificate proves: its key always, its names only where a chain leads to ``tls.trust``."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import crypto

from gateway.errors import GatewayError
from gateway.mail.address import AddressError, normal_domain
from gateway.mail.reply import clean_text

__all__ = ["ClientCertificate", "Trust", "TrustError", "judge_certificate"]

#: Certificates of a chain that are looked at.
_MAX_CHAIN = 10


class TrustError(GatewayError, ValueError):
    """The trusted roots cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate whose key the client has shown to hold.

    ``names``: ``spki:`` and the digest of its key, and - where ``chain`` is "ok" - the DNS names of its SAN.
    ``subject`` is for people, cleaned.
    """

    names: frozenset[str]
    chain: str
    subject: str


class Trust:
    """The roots that client certificates are judged by: ``"system"`` or a PEM file. Raises :class:`TrustError`."""

    def __init__(self, trust: Path | str) -> None:
        paths = ssl.get_default_verify_paths()
        file = paths.cafile if trust == "system" else str(trust)
        folder = paths.capath if trust == "system" else None
        self._store = crypto.X509Store()
        try:
            self._store.load_locations(file, folder)
        except crypto.Error:
            raise TrustError(f"{file or folder}: cannot be read as trusted certificates") from None

    def judge(self, chain: Sequence[x509.Certificate], now: float) -> str:
        """Whether it is "ok", or why the chain leads to no trusted root at this time (seconds since the epoch).

        The purpose in the certificate is not asked for: public CAs issue for servers only, and a client that shows
        such a certificate holds its key all the same.
        """
        self._store.set_time(dt.datetime.fromtimestamp(now, dt.UTC))
        leaf, *rest = (crypto.X509.from_cryptography(each) for each in chain[:_MAX_CHAIN])
        try:
            crypto.X509StoreContext(self._store, leaf, rest).verify_certificate()
        except crypto.X509StoreContextError as error:
            return clean_text(str(error), 200)
        return "ok"


def judge_certificate(chain: Sequence[x509.Certificate], trust: Trust, now: float) -> ClientCertificate | None:
    """What this chain, leaf first, proves; None where there is none."""
    if not chain:
        return None
    leaf = chain[0]
    verdict = trust.judge(chain, now)
    names = {"spki:" + _spki_sha256(leaf)}
    if verdict == "ok":
        names |= _dns_names(leaf)
    return ClientCertificate(frozenset(names), verdict, clean_text(leaf.subject.rfc4514_string(), 200))


def _spki_sha256(leaf: x509.Certificate) -> str:
    spki = leaf.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _dns_names(leaf: x509.Certificate) -> set[str]:
    """The DNS names of the SAN, exactly as they are: a wildcard names no client. The common name is not looked at."""
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return set()
    names = set()
    for name in extension.value.get_values_for_type(x509.DNSName):
        try:
            names.add(normal_domain(name))
        except AddressError:
            continue
    return names
