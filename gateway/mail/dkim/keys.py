"""Private keys that we sign with: read from PEM, made, and the record that has to be published for one.

RSA of 2048 to 4096 bits - shorter ones can be broken, longer ones need not be understood by a verifier (RFC 8301
section 3.2) - or Ed25519 (RFC 8463), which many verifiers do not know yet: use it beside RSA.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

__all__ = ["SigningKey", "SigningKeyError"]

_RSA_BITS = range(2048, 4097)


class SigningKeyError(ValueError):
    """This is no key that we can sign with; the message says why, and nothing of the key."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SigningKey:
    """A private key that is never shown: neither ``str`` nor ``repr`` tells it."""

    _key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    @classmethod
    def from_pem(cls, data: bytes) -> SigningKey:
        """The key in a PEM file (PKCS #8, or PKCS #1 for RSA). Raises :class:`SigningKeyError`."""
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except TypeError:
            raise SigningKeyError("the key has a pass phrase: the daemon cannot ask for one") from None
        except (ValueError, UnsupportedAlgorithm):
            raise SigningKeyError("expected a private key in PEM form, as in file:dkim/s1.pem") from None
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return cls(key)
        if not isinstance(key, rsa.RSAPrivateKey):
            kind = type(key).__name__.lstrip("_").removesuffix("PrivateKey")
            raise SigningKeyError(f"DKIM knows RSA and Ed25519 keys; this one is of the kind {kind}")
        if key.key_size not in _RSA_BITS:
            raise SigningKeyError(
                f"an RSA key for DKIM has {_RSA_BITS.start} to {_RSA_BITS.stop - 1} bits (RFC 8301), this one has "
                f"{key.key_size}"
            )
        return cls(key)

    @classmethod
    def generate(cls, kind: Literal["rsa", "ed25519"] = "rsa") -> SigningKey:
        """A fresh key; RSA has 2048 bits, which still fits every DNS and is what everyone verifies."""
        if kind == "ed25519":
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(rsa.generate_private_key(65537, _RSA_BITS.start))

    @property
    def algorithm(self) -> str:
        """What ``a=`` calls signatures of this key."""
        return "rsa-sha256" if isinstance(self._key, rsa.RSAPrivateKey) else "ed25519-sha256"

    @property
    def words(self) -> str:
        """Such as ``RSA-2048``."""
        return f"RSA-{self._key.key_size}" if isinstance(self._key, rsa.RSAPrivateKey) else "Ed25519"

    @property
    def record(self) -> str:
        """What has to be published for it as a TXT record."""
        kind = self.algorithm.partition("-")[0]
        return f"v=DKIM1; k={kind}; p={b64encode(self._public).decode('ascii')}"

    @property
    def pem(self) -> bytes:
        """The private key itself, PKCS #8 without a pass phrase."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, data: bytes) -> bytes:
        """The signature over ``data``. RSA-2048 takes about half a millisecond, Ed25519 a tenth of that."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(hashlib.sha256(data).digest())  # RFC 8463 section 3

    def belongs_to(self, public: rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> bool:
        """Whether signatures of this key verify with ``public``."""
        return self._key.public_key() == public

    @property
    def _public(self) -> bytes:
        encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            # RFC 8463 section 4: the 32 octets themselves.
            encoding, form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        return self._key.public_key().public_bytes(encoding, form)

    def __repr__(self) -> str:
        return f"SigningKey({self.words})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SigningKey) and self._key.public_key() == other._key.public_key()

    def __hash__(self) -> int:
        return hash(self._public)
