"""The ``dkim`` factor: a signature of the customer's own domain, verified while the message arrives (RFC 6376).

Stricter than a verifier for spam filters has to be, because here a signature opens the door: From is signed, the whole
body is signed (no ``l=``), ``d=`` is the author's domain, ``t=`` is there and at most an hour old, ``x=`` has not
passed, the key is RSA of 1024 bits or more with SHA-256, or Ed25519 (RFC 8463). What DKIM itself says - tag lists, key
records, canonical form - is in :mod:`gateway.mail.dkim`.

1. :func:`signatures` picks those worth a look out of the header block (no key needed yet).
2. The body goes through the hashers that they ask for.
3. :func:`verify` checks one signature with its key record.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.mail.address import Address, AddressError, normal_domain
from gateway.mail.dkim.canonical import Canonicalization, header_input
from gateway.mail.dkim.records import KeyRecord, is_selector, record_name
from gateway.mail.dkim.taglist import DkimError, from_base64, tags
from gateway.mail.headers import Field

__all__ = ["MAX_SIGNATURES", "DkimError", "Signature", "key_name", "parse_signature", "signatures", "verify"]

#: Signature fields looked at; each could cost a DNS question.
MAX_SIGNATURES = 10
MAX_AGE = 3600.0
#: How far ahead of ours the signer's clock may be.
MAX_AHEAD = 300.0

_NAME = "dkim-signature"
_B_VALUE = re.compile(rb"(?P<keep>(?:\A|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")
_FIELD_NAME = re.compile(r"[!-9<-~]+\Z")  # ftext without ";"


@dataclass(frozen=True, slots=True)
class Signature:
    """A DKIM-Signature field that satisfies every rule which needs neither the key nor the body."""

    field: Field
    algorithm: str
    domain: str
    selector: str
    header_canonicalization: Canonicalization
    body_canonicalization: Canonicalization
    signed_names: tuple[str, ...]
    body_hash: bytes
    value: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signature's value: what a replayed message shares with the first one."""
        return hashlib.sha256(self.value).digest()


def key_name(signature: Signature) -> str:
    """The name of the TXT record that holds the key (section 3.6.2.1)."""
    return record_name(signature.selector, signature.domain)


def signatures(found: Iterable[Field], author: Address, domains: Iterable[str], now: float) -> tuple[Signature, ...]:
    """The signatures that could satisfy the factor. ``now`` in seconds since the epoch."""
    if author.domain not in frozenset(domains):
        return ()
    usable = []
    for seen, field in enumerate(each for each in found if each.name == _NAME):
        if seen == MAX_SIGNATURES:
            break
        try:
            signature = parse_signature(field, now)
        except DkimError:
            continue
        if signature.domain == author.domain:
            usable.append(signature)
    return tuple(usable)


def parse_signature(field: Field, now: float) -> Signature:
    """Read a DKIM-Signature field (section 3.5) by the rules of the factor. Raises :class:`DkimError`."""
    found = tags(field.value)
    if found.get("v") != "1":
        raise DkimError("v= is not 1")
    if "l" in found:
        raise DkimError("l= leaves part of the body unsigned")
    algorithm = _needed(found, "a").lower()
    if algorithm not in ("rsa-sha256", "ed25519-sha256"):
        raise DkimError("a= is neither rsa-sha256 nor ed25519-sha256")
    domain = _domain(_needed(found, "d"))
    selector = _needed(found, "s")
    if not is_selector(selector):
        raise DkimError("s= is malformed")
    names = tuple(name.strip().lower() for name in _needed(found, "h").split(":"))
    if not all(_FIELD_NAME.match(name) for name in names):
        raise DkimError("h= is malformed")
    if "from" not in names:
        raise DkimError("From is not signed")
    _check_identity(found.get("i"), domain)
    _check_times(found, now)
    query = found.get("q", "dns/txt")
    if "dns/txt" not in [each.strip().lower() for each in query.split(":")]:
        raise DkimError("q= is not dns/txt")
    header, _, body = found.get("c", "simple/simple").lower().partition("/")
    return Signature(
        field,
        algorithm,
        domain,
        selector,
        _canonicalization(header),
        _canonicalization(body or "simple"),
        names,
        from_base64(_needed(found, "bh")),
        from_base64(_needed(found, "b")),
    )


def verify(signature: Signature, found: Sequence[Field], body_hash: bytes, records: Sequence[bytes]) -> None:
    """Check body hash, key record and signature. ``found`` is all fields as they arrived.

    Raises :class:`DkimError`.
    """
    if body_hash != signature.body_hash:
        raise DkimError("the body hash differs")
    if len(records) != 1:
        raise DkimError("there is no key record" if not records else "there is more than one key record")
    record = KeyRecord.parse(records[0])
    if record.testing:
        raise DkimError("the key is only being tested")
    key = record.public_key(signature.algorithm)
    signed = _signed_bytes(signature, found)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature.value, signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature.value, hashlib.sha256(signed).digest())  # RFC 8463 section 3
    except InvalidSignature:
        raise DkimError("the signature does not fit") from None


# -- tags ----------------------------------------------------------------------------------------------------------


def _needed(found: dict[str, str], name: str) -> str:
    if not found.get(name):
        raise DkimError(f"{name}= is missing")
    return found[name]


def _domain(text: str) -> str:
    try:
        domain = normal_domain(text)
    except AddressError as error:
        raise DkimError(f"d=: {error}") from None
    if domain.startswith("["):
        raise DkimError("d= is an address literal")
    return domain


def _check_identity(identity: str | None, domain: str) -> None:
    if identity is None:
        return
    own = _domain(identity.rpartition("@")[2])
    if own != domain and not own.endswith("." + domain):
        raise DkimError("i= is not within d=")


def _check_times(found: dict[str, str], now: float) -> None:
    signed = _seconds(_needed(found, "t"))
    if signed > now + MAX_AHEAD:
        raise DkimError("t= lies in the future")
    if signed < now - MAX_AGE:
        raise DkimError("t= is more than an hour ago")
    if "x" in found:
        expires = _seconds(found["x"])
        if expires <= signed or expires < now:
            raise DkimError("x= has passed")


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):  # section 3.5: at most 12 digits matter
        raise DkimError("a time is malformed")
    return int(text)


def _canonicalization(name: str) -> Canonicalization:
    try:
        return Canonicalization(name)
    except ValueError:
        raise DkimError("c= is unknown") from None


# -- key and signed bytes ------------------------------------------------------------------------------------------


def _signed_bytes(signature: Signature, found: Sequence[Field]) -> bytes:
    """The header fields under the signature, canonical."""
    name, colon, value = signature.field.raw.partition(b":")
    own = name + colon + _B_VALUE.sub(rb"\g<keep>", value.removesuffix(b"\r\n")) + b"\r\n"
    return header_input(signature.signed_names, found, own, signature.header_canonicalization)
