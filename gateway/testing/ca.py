"""Certificates of every kind that a peer may show: good, expired, misnamed, mis-purposed, cross-signed.

Made with ``cryptography`` throughout: the interesting ones (no keyUsage, other purposes, cross-signed, self-signed)
are those that certificate kits for tests leave out. Keys are elliptic unless asked otherwise: an RSA key costs 100 ms.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import ssl
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

__all__ = ["CA", "Certificate", "KeyKind", "Purpose", "self_signed"]

Purpose = Literal["server", "client", "both", "email"]
KeyKind = Literal["ec", "rsa"]
_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

#: Wide and fixed, so that certificates hold on the real clock and on a fake one alike; 2049 is the end of UTCTime.
_NOT_BEFORE = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_NOT_AFTER = dt.datetime(2049, 12, 31, tzinfo=dt.UTC)

_PURPOSES: dict[Purpose, list[ObjectIdentifier]] = {
    "server": [ExtendedKeyUsageOID.SERVER_AUTH],
    "client": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "both": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "email": [ExtendedKeyUsageOID.EMAIL_PROTECTION],
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key and the chain that its holder sends (leaf first, the root left out)."""

    chain: tuple[x509.Certificate, ...]
    key_pem: bytes

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate itself."""
        return self.chain[0]

    @property
    def der(self) -> bytes:
        """The leaf, DER."""
        return self.leaf.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The leaf alone, PEM."""
        return _pem(self.leaf)

    @property
    def chain_pem(self) -> bytes:
        """The whole chain, PEM, leaf first."""
        return b"".join(map(_pem, self.chain))

    @property
    def spki_sha256(self) -> str:
        """SHA-256 of the leaf's SubjectPublicKeyInfo in hex: what a pin and a TLSA ``3 1 1`` record hold."""
        spki = self.leaf.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(spki).hexdigest()

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole leaf in hex: what a TLSA ``3 0 1`` record holds."""
        return hashlib.sha256(self.der).hexdigest()

    def write(self, directory: Path, stem: str) -> tuple[Path, Path]:
        """Write ``STEM.crt`` (chain) and ``STEM.key`` (mode 0600) into ``directory``; returns both paths.

        Each is replaced in one step, so that a watcher never sees half a file.
        """
        certificate, key = directory / f"{stem}.crt", directory / f"{stem}.key"
        _replace(key, self.key_pem, 0o600)
        _replace(certificate, self.chain_pem, 0o644)
        return certificate, key

    def load_into(self, context: ssl.SSLContext) -> None:
        """Give ``context`` this certificate: a server's own, or the one that a client shows when asked."""
        with tempfile.TemporaryDirectory() as folder:
            context.load_cert_chain(*self.write(Path(folder), "own"))

    def server_context(
        self,
        *,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
        ciphers: str | None = None,
        client_ca: CA | None = None,
        client_required: bool = False,
    ) -> ssl.SSLContext:
        """A context for a server that shows this certificate.

        Versions below 1.2 really work: OpenSSL's security level is lowered for them. ``ciphers`` is OpenSSL's list
        (up to 1.2). With ``client_ca`` the client is asked for a certificate of that CA, and with
        ``client_required`` refused without one.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        limit_versions(context, minimum, maximum)
        if ciphers is not None:
            context.set_ciphers(ciphers)
        self.load_into(context)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED if client_required else ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=client_ca.root_pem.decode("ascii"))
        return context


class CA:
    """A certificate authority with its own root; makes leaves, intermediates and cross-signed twins.

    ``bare``: a private CA as many firms run one, the root without keyUsage and key identifiers (OpenSSL takes it,
    stricter verifiers do not).
    """

    def __init__(
        self,
        name: str = "Test Root",
        *,
        key: KeyKind = "ec",
        bare: bool = False,
        not_before: dt.datetime = _NOT_BEFORE,
        not_after: dt.datetime = _NOT_AFTER,
    ) -> None:
        self._key = _new_key(key)
        self._name = _common_name(name)
        self._bare = bare
        self._certificate = _authority(self._name, self._key, self._name, self._key, (not_before, not_after), bare=bare)
        self._above: tuple[x509.Certificate, ...] = ()
        self._root = self._certificate
        self._child: CA | None = None

    @classmethod
    def _derived(cls, name: x509.Name, key: _PrivateKey, certificate: x509.Certificate, issuer: CA) -> CA:
        made: CA = cls.__new__(cls)
        made._key, made._name, made._certificate = key, name, certificate
        made._bare = issuer._bare
        made._above = (certificate, *issuer._above)
        made._root = issuer._root
        made._child = None
        return made

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate of this authority: the root, or that of an intermediate."""
        return self._certificate

    @property
    def root(self) -> x509.Certificate:
        """The root above everything that this authority issues."""
        return self._root

    @property
    def root_pem(self) -> bytes:
        """The root, PEM: what others put among their trusted roots."""
        return _pem(self._root)

    @property
    def root_der(self) -> bytes:
        """The root, DER."""
        return self._root.public_bytes(serialization.Encoding.DER)

    def write_root(self, path: Path) -> Path:
        """Write the root as a PEM file, for ``tls.trust`` and the like; returns ``path``."""
        _replace(path, self.root_pem, 0o644)
        return path

    def intermediate(
        self,
        name: str = "Test Intermediate",
        *,
        key: KeyKind = "ec",
        not_before: dt.datetime = _NOT_BEFORE,
        not_after: dt.datetime = _NOT_AFTER,
    ) -> CA:
        """An authority below this one; what it issues carries the chain up to, not including, the root."""
        subject, private = _common_name(name), _new_key(key)
        certificate = _authority(subject, private, self._name, self._key, (not_before, not_after), bare=self._bare)
        return CA._derived(subject, private, certificate, self)

    def cross_signed_by(self, older: CA) -> CA:
        """This authority (same name, same key) with a certificate issued by ``older``.

        What the result issues is trusted by those who know ``older``'s root, through the cross-signed certificate in
        the chain, and by those who know only this authority's own root.
        """
        certificate = _authority(
            self._name, self._key, older._name, older._key, (_NOT_BEFORE, _NOT_AFTER), bare=self._bare
        )
        return CA._derived(self._name, self._key, certificate, older)

    def issue(
        self,
        *names: str,
        not_before: dt.datetime = _NOT_BEFORE,
        not_after: dt.datetime = _NOT_AFTER,
        eku: Purpose | None = "server",
        key: KeyKind = "ec",
        intermediate: bool = False,
        signed_by: CA | None = None,
        common_name: str | None = None,
    ) -> Certificate:
        """A certificate for ``names``: host names (``*.`` too), IP addresses, mail addresses (those with an ``@``).

        ``eku`` None leaves the purpose out; ``intermediate`` signs with an intermediate made once for this CA;
        ``signed_by`` with another authority. ``common_name`` sets the subject (default: the first name); with no
        ``names`` it stands alone, which RFC 9525 section 6.3 forbids to believe.
        """
        if signed_by is not None:
            issuer = signed_by
        elif intermediate:
            self._child = self._child or self.intermediate()
            issuer = self._child
        else:
            issuer = self
        private = _new_key(key)
        certificate = _leaf(
            names, common_name, private, issuer._name, issuer._key, validity=(not_before, not_after), eku=eku
        )
        return Certificate((certificate, *issuer._above), _key_pem(private))

    def expired(self, *names: str, key: KeyKind = "ec") -> Certificate:
        """A certificate for ``names`` whose time is over since 2021."""
        end = dt.datetime(2021, 1, 1, tzinfo=dt.UTC)
        return self.issue(*names, not_after=end, key=key)

    def client_context(self, certificate: Certificate | None = None) -> ssl.SSLContext:
        """A context for a client that trusts only this root, and shows ``certificate`` when asked for one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.root_pem.decode("ascii"))
        if certificate is not None:
            certificate.load_into(context)
        return context


def self_signed(
    *names: str,
    not_before: dt.datetime = _NOT_BEFORE,
    not_after: dt.datetime = _NOT_AFTER,
    eku: Purpose | None = "server",
    key: KeyKind = "ec",
) -> Certificate:
    """A certificate for ``names`` that nobody vouches for but itself, as many mail servers still show."""
    private = _new_key(key)
    subject = _common_name(names[0] if names else "self-signed")
    certificate = _leaf(names, None, private, subject, private, validity=(not_before, not_after), eku=eku)
    return Certificate((certificate,), _key_pem(private))


def limit_versions(context: ssl.SSLContext, minimum: ssl.TLSVersion, maximum: ssl.TLSVersion) -> None:
    """Set the TLS versions that ``context`` speaks; those before 1.2 need OpenSSL's security level 0 as well."""
    top = maximum if maximum != ssl.TLSVersion.MAXIMUM_SUPPORTED else ssl.TLSVersion.TLSv1_3
    if minimum < ssl.TLSVersion.TLSv1_2 or top < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        # Naming an old version warns; to speak it is the purpose here.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = min(minimum, top)
        context.maximum_version = maximum


def _new_key(kind: KeyKind) -> _PrivateKey:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _san(name: str) -> x509.GeneralName:
    if "@" in name:
        return x509.RFC822Name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, key: _PrivateKey, issuer: x509.Name, validity: tuple[dt.datetime, dt.datetime]
) -> x509.CertificateBuilder:
    # A start that lies after the end can only mean "expired before it began"; the builder refuses that order.
    not_before = min(validity[0], validity[1] - dt.timedelta(days=1))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(validity[1])
    )


def _authority(
    subject: x509.Name,
    key: _PrivateKey,
    issuer: x509.Name,
    issuer_key: _PrivateKey,
    validity: tuple[dt.datetime, dt.datetime],
    *,
    bare: bool,
) -> x509.Certificate:
    builder = _builder(subject, key, issuer, validity).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    if not bare:
        builder = (
            builder.add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
    return builder.sign(issuer_key, hashes.SHA256())


def _leaf(
    names: tuple[str, ...],
    common_name: str | None,
    key: _PrivateKey,
    issuer: x509.Name,
    issuer_key: _PrivateKey,
    *,
    validity: tuple[dt.datetime, dt.datetime],
    eku: Purpose | None,
) -> x509.Certificate:
    subject = _common_name(common_name or (names[0] if names else "nameless"))
    builder = (
        _builder(subject, key, issuer, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_san(name) for name in names]), critical=False)
    if eku is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(_PURPOSES[eku]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _replace(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)
