"""What stands in a certificate, for people: names, dates, issuer, key. Judged by it is nothing (see ``judge``)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from gateway.delivery.judge import key_in_words
from gateway.delivery.names import alternative_names
from gateway.mail.reply import clean_text

__all__ = ["CertificateFacts", "facts_of"]

#: Of a chain, and of the names in a certificate: more are there to keep us busy.
_MAX_CHAIN = 20
_MAX_NAMES = 100


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """One certificate as it was sent. Times in seconds since the epoch; ``sha256`` of the whole, lower-case hex.

    ``error`` is set, and the rest empty, where it cannot be read. ``names`` holds the first hundred.
    """

    sha256: str
    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    not_before: float | None = None
    not_after: float | None = None
    key: str = ""
    signature: str = ""
    error: str = ""

    @property
    def own_issuer(self) -> bool:
        """Whether it names itself as its issuer."""
        return bool(self.subject) and self.subject == self.issuer

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "names": list(self.names),
            "not_before": self.not_before,
            "not_after": self.not_after,
            "key": self.key,
            "signature": self.signature,
            "sha256": self.sha256,
            "error": self.error or None,
        }


def facts_of(chain_der: Sequence[bytes]) -> tuple[CertificateFacts, ...]:
    """The first certificates of a chain, in the order that they were sent. Never raises."""
    return tuple(_read(der) for der in chain_der[:_MAX_CHAIN])


def _read(der: bytes) -> CertificateFacts:
    digest = hashlib.sha256(der).hexdigest()
    try:
        certificate = x509.load_der_x509_certificate(der)
        dns, addresses = alternative_names(certificate)
        algorithm = certificate.signature_hash_algorithm
        return CertificateFacts(
            sha256=digest,
            subject=clean_text(certificate.subject.rfc4514_string(), 200),
            issuer=clean_text(certificate.issuer.rfc4514_string(), 200),
            names=tuple(clean_text(str(name), 255) for name in (*dns, *addresses)[:_MAX_NAMES]),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            key=key_in_words(certificate),
            signature="" if algorithm is None else algorithm.name.upper(),
        )
    except Exception as error:  # noqa: BLE001 - a stranger's bytes; a parser may raise anything, and all of it means this
        return CertificateFacts(digest, error=f"cannot be read: {clean_text(str(error), 100)}")
