"""TLS contexts for the way out: no verification in the handshake, no resumption; cached, because one costs 24 ms."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.delivery.judge import APPROVED_CIPHERS, MODERN_CIPHERS
from gateway.errors import GatewayError
from gateway.mail.protection import Assurance

__all__ = ["ClientCertificateError", "ClientContexts", "TlsProfile"]

ClientCertificateFiles = tuple[str, str]


class ClientCertificateError(GatewayError):
    """The certificate that we are to show to a host cannot be loaded; the message names the file."""


class TlsProfile:
    """``nist`` (SP 800-52r2, the default) or ``modern`` (with ChaCha20): the ciphers that count as protection."""

    def __init__(self, name: str = "nist") -> None:
        if name not in {"nist", "modern"}:
            raise ValueError(f"unknown TLS profile {name!r}")
        self.name = name
        self.ciphers = APPROVED_CIPHERS if name == "nist" else MODERN_CIPHERS

    @property
    def openssl(self) -> str:
        """The TLS 1.2 part for OpenSSL; its TLS 1.3 suites cannot be chosen there and are judged afterwards."""
        return "ECDHE+AESGCM" if self.name == "nist" else "ECDHE+AESGCM:ECDHE+CHACHA20"


class ClientContexts:
    """Makes and keeps client contexts. One for protected mail, one for opportunistic TLS, each per certificate."""

    def __init__(self, profile: TlsProfile | None = None) -> None:
        self.profile = profile or TlsProfile()
        self._cache: dict[tuple[bool, ClientCertificateFiles | None], tuple[tuple[int, ...], ssl.SSLContext]] = {}

    def get(
        self, require: Assurance = Assurance.ENCRYPTED, client_certificate: ClientCertificateFiles | None = None
    ) -> ssl.SSLContext:
        """The context for sessions that must attain ``require``.

        ``client_certificate``: paths of certificate and key in PEM; they are read again when the files change.
        Raises :class:`ClientCertificateError`.
        """
        key = (require > Assurance.NONE, client_certificate)
        stamp = _stamp(client_certificate)
        cached = self._cache.get(key)
        if cached is not None and cached[0] == stamp:
            return cached[1]
        context = self._make(protected=key[0])
        if client_certificate is not None:
            try:
                context.load_cert_chain(*client_certificate)
            except (OSError, ssl.SSLError) as error:
                raise ClientCertificateError(f"{client_certificate[0]}: {error}") from None
        self._cache[key] = (stamp, context)
        return context

    def _make(self, *, protected: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The chain is judged after the handshake, by gateway.delivery.judge, for every session.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # No resumption: a resumed session shows no certificate that could be judged.
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        if protected:
            context.set_ciphers(self.profile.openssl)
        else:
            # Opportunistic: whatever encrypts is better than clear text; what it was worth is recorded.
            context.set_ciphers("DEFAULT:!aNULL:!eNULL:@SECLEVEL=1")
        return context


def _stamp(files: ClientCertificateFiles | None) -> tuple[int, ...]:
    """What changes when the files do."""
    stamp: list[int] = []
    for file in files or ():
        try:
            status = Path(file).stat()
        except OSError as error:
            raise ClientCertificateError(f"{file}: {error.strerror}") from None
        stamp += (status.st_mtime_ns, status.st_size, status.st_ino)
    return tuple(stamp)
