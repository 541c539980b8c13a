"""Key records: what a domain publishes under ``SELECTOR._domainkey`` (RFC 6376 section 3.6.1, RFC 8463 section 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from gateway.mail.dkim.taglist import DkimError, from_base64, tags

__all__ = ["KeyRecord", "is_selector", "record_name"]

#: Labels of letters, digits and hyphens, and the underscore that some use (section 3.1).
_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*\Z")
_LONGEST_SELECTOR = 63

_MIN_RSA_BITS = 1024
_MAX_RSA_BITS = 8192


def is_selector(text: str) -> bool:
    """Whether this can be a selector; at most 63 characters."""
    return len(text) <= _LONGEST_SELECTOR and _SELECTOR.match(text) is not None


def record_name(selector: str, domain: str) -> str:
    """The name of the TXT record that holds a key (section 3.6.2.1)."""
    return f"{selector}._domainkey.{domain}"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key record, read. ``hashes`` and ``services`` are empty where every one is allowed; ``material``: base64."""

    kind: str
    hashes: tuple[str, ...]
    services: tuple[str, ...]
    flags: tuple[str, ...]
    material: str

    @classmethod
    def parse(cls, record: bytes) -> KeyRecord:
        """Read the strings of a TXT record, joined. Raises :class:`DkimError` where it is none of this version."""
        found = tags(record)
        if found.get("v", "DKIM1") != "DKIM1":
            raise DkimError("the key record is of another version")
        return cls(
            kind=found.get("k", "rsa").lower(),
            hashes=_listed(found.get("h")),
            services=_listed(found.get("s")),
            flags=_listed(found.get("t")),
            material=found.get("p", ""),
        )

    @property
    def testing(self) -> bool:
        """The domain is only testing: verifiers may treat its signatures as none (flag ``y``)."""
        return "y" in self.flags

    def public_key(self, algorithm: str) -> rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
        """The key for signatures of this algorithm, such as ``rsa-sha256``. Raises :class:`DkimError`."""
        kind = algorithm.partition("-")[0]
        if self.kind != kind:
            raise DkimError("the key is of another kind")
        if self.hashes and "sha256" not in self.hashes:
            raise DkimError("the key is not for SHA-256")
        if self.services and not {"*", "email"} & set(self.services):
            raise DkimError("the key is not for mail")
        if not self.material:
            raise DkimError("the key has been revoked")
        material = from_base64(self.material)
        return _ed25519_key(material) if kind == "ed25519" else _rsa_key(material)


def _listed(value: str | None) -> tuple[str, ...]:
    return () if value is None else tuple(each.strip().lower() for each in value.split(":"))


def _ed25519_key(material: bytes) -> ed25519.Ed25519PublicKey:
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(material)
    except (ValueError, UnsupportedAlgorithm):
        raise DkimError("the key is malformed") from None


def _rsa_key(material: bytes) -> rsa.RSAPublicKey:
    try:
        # SubjectPublicKeyInfo, or the bare RSAPublicKey that RFC 6376 also speaks of; this takes either.
        key = serialization.load_der_public_key(material)
    except (ValueError, UnsupportedAlgorithm):
        raise DkimError("the key is malformed") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise DkimError("the key is of another kind")
    if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise DkimError(f"an RSA key of {key.key_size} bits is not taken")
    return key
