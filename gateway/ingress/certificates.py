"""Our own certificate on listeners: contexts made from files, and made anew when the files change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL

from gateway.config.model import ClientCertificates
from gateway.errors import GatewayError
from gateway.ingress.client_tls import AskingContext, asking_openssl_context

__all__ = ["CertificateError", "Contexts", "Reload", "ServerCertificate"]

#: TLS 1.2: ephemeral key exchange with authenticated encryption only (NIST SP 800-52r2 section 3.3.1; ChaCha20 for
#: clients that prefer it). TLS 1.3 has nothing weaker.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class CertificateError(GatewayError, ValueError):
    """Certificate or key cannot be used; the message says why, without their content."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """One certificate, ready to serve: for listeners that ignore client certificates and for those that ask."""

    ignoring: ssl.SSLContext
    asking: AskingContext
    not_after: float

    def for_listener(self, wanted: ClientCertificates) -> ssl.SSLContext:
        """The context for a listener's ``client_certificates``."""
        return self.asking if wanted is ClientCertificates.REQUEST else self.ignoring


@dataclass(frozen=True, slots=True)
class Reload:
    """The files have changed; ``error`` says why the old certificate stays in use, "" where the new one is."""

    error: str = ""


class ServerCertificate:
    """The certificate in two files. Raises :class:`CertificateError` where it cannot be used at first."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._paths = (certificate, key)
        self._seen = self._fingerprint()
        self.contexts = _load(certificate, key)

    @property
    def not_after(self) -> float:
        """When the certificate in use ends, in seconds since the epoch."""
        return self.contexts.not_after

    def reload_if_changed(self) -> Reload | None:
        """Look at the files, which costs two ``stat``; None where they are as they were.

        A certificate that cannot be used leaves the one in use as it is, and is reported once.
        """
        fingerprint = self._fingerprint()
        if fingerprint == self._seen:
            return None
        self._seen = fingerprint
        try:
            self.contexts = _load(*self._paths)
        except CertificateError as error:
            return Reload(str(error))
        return Reload()

    def _fingerprint(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in self._paths:
            try:
                status = path.stat()
            except OSError as error:
                found.append(error.errno)
            else:
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)


def _load(certificate: Path, key: Path) -> Contexts:
    ignoring = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ignoring.minimum_version = ssl.TLSVersion.TLSv1_2
    ignoring.set_ciphers(CIPHERS)
    ignoring.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        # A pass phrase cannot be asked for by a daemon: without this OpenSSL would ask the terminal.
        ignoring.load_cert_chain(certificate, key, password=_no_pass_phrase)
        asking = AskingContext(asking_openssl_context(str(certificate), str(key), CIPHERS))
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except OSError as error:  # ssl.SSLError is one
        raise CertificateError(f"{certificate}, {key}: {error.strerror or error}") from None
    except (SSL.Error, ValueError) as error:
        raise CertificateError(f"{certificate}, {key}: not a certificate with its key: {error}") from None
    return Contexts(ignoring, asking, leaf.not_valid_after_utc.timestamp())


def _no_pass_phrase() -> str:
    raise ValueError("the key has a pass phrase, which a daemon cannot ask for")
