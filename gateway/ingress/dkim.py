"""The ``dkim`` factor: a signature of the customer's own domain, verified while the message arrives (RFC 6376).

Stricter than a verifier for spam filters has to be, because here a signature opens the door: From is signed, the whole
body is signed (no ``l=``), ``d=`` is the author's domain, ``t=`` is there and at most an hour old, ``x=`` has not
passed, the key is RSA of 1024 bits or more with SHA-256, or Ed25519 (RFC 8463). :mod:`gateway.ingress.dkim_body`
hashes the body chunk by chunk.

1. :func:`signatures` picks those worth a look out of the header block (no key needed yet).
2. The body goes through the hashers that they ask for.
3. :func:`verify` checks one signature with its key record.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from gateway.ingress.dkim_body import Canonicalization
from gateway.mail.address import Address, AddressError, normal_domain
from gateway.mail.headers import Field

__all__ = ["MAX_SIGNATURES", "DkimError", "Signature", "key_name", "parse_signature", "signatures", "verify"]

#: Signature fields looked at; each could cost a DNS question.
MAX_SIGNATURES = 10
MAX_AGE = 3600.0
#: How far ahead of ours the signer's clock may be.
MAX_AHEAD = 300.0

_NAME = "dkim-signature"
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*\Z")
_WSP = re.compile(rb"[ \t]+")
_B_VALUE = re.compile(rb"(?P<keep>(?:\A|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")
_FIELD_NAME = re.compile(r"[!-9<-~]+\Z")  # ftext without ";"
_MIN_RSA_BITS = 1024
_MAX_RSA_BITS = 8192


class DkimError(ValueError):
    """The signature, or its key record, does not satisfy the factor; the message says why."""


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
    return f"{signature.selector}._domainkey.{signature.domain}"


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
    tags = _tags(field.value)
    if tags.get("v") != "1":
        raise DkimError("v= is not 1")
    if "l" in tags:
        raise DkimError("l= leaves part of the body unsigned")
    algorithm = _needed(tags, "a").lower()
    if algorithm not in ("rsa-sha256", "ed25519-sha256"):
        raise DkimError("a= is neither rsa-sha256 nor ed25519-sha256")
    domain = _domain(_needed(tags, "d"))
    selector = _needed(tags, "s")
    if not _SELECTOR.match(selector):
        raise DkimError("s= is malformed")
    names = tuple(name.strip().lower() for name in _needed(tags, "h").split(":"))
    if not all(_FIELD_NAME.match(name) for name in names):
        raise DkimError("h= is malformed")
    if "from" not in names:
        raise DkimError("From is not signed")
    _check_identity(tags.get("i"), domain)
    _check_times(tags, now)
    query = tags.get("q", "dns/txt")
    if "dns/txt" not in [each.strip().lower() for each in query.split(":")]:
        raise DkimError("q= is not dns/txt")
    header, _, body = tags.get("c", "simple/simple").lower().partition("/")
    return Signature(
        field,
        algorithm,
        domain,
        selector,
        _canonicalization(header),
        _canonicalization(body or "simple"),
        names,
        _base64(_needed(tags, "bh")),
        _base64(_needed(tags, "b")),
    )


def verify(signature: Signature, found: Sequence[Field], body_hash: bytes, records: Sequence[bytes]) -> None:
    """Check body hash, key record and signature. ``found`` is all fields as they arrived.

    Raises :class:`DkimError`.
    """
    if body_hash != signature.body_hash:
        raise DkimError("the body hash differs")
    if len(records) != 1:
        raise DkimError("there is no key record" if not records else "there is more than one key record")
    key = _public_key(records[0], signature.algorithm)
    signed = _signed_bytes(signature, found)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature.value, signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature.value, hashlib.sha256(signed).digest())  # RFC 8463 section 3
    except InvalidSignature:
        raise DkimError("the signature does not fit") from None


# -- tags ----------------------------------------------------------------------------------------------------------


def _tags(value: bytes) -> dict[str, str]:
    """A tag list (section 3.2). Raises :class:`DkimError`, also where a tag stands twice."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise DkimError("the tag list is not text") from None
    tags: dict[str, str] = {}
    parts = text.split(";")
    if not parts[-1].strip():
        parts.pop()
    for part in parts:
        name, equals, content = part.partition("=")
        name = name.strip()
        if not equals or not _TAG.match(name) or name in tags:
            raise DkimError("the tag list is malformed")
        tags[name] = content.strip()
    return tags


def _needed(tags: dict[str, str], name: str) -> str:
    if not tags.get(name):
        raise DkimError(f"{name}= is missing")
    return tags[name]


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


def _check_times(tags: dict[str, str], now: float) -> None:
    signed = _seconds(_needed(tags, "t"))
    if signed > now + MAX_AHEAD:
        raise DkimError("t= lies in the future")
    if signed < now - MAX_AGE:
        raise DkimError("t= is more than an hour ago")
    if "x" in tags:
        expires = _seconds(tags["x"])
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


def _base64(text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except (Base64Error, ValueError):
        raise DkimError("a value is not base64") from None


# -- key and signed bytes ------------------------------------------------------------------------------------------


def _public_key(record: bytes, algorithm: str) -> rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
    """The key of a record (section 3.6.1, RFC 8463 section 4)."""
    tags = _tags(record)
    if tags.get("v", "DKIM1") != "DKIM1":
        raise DkimError("the key record is of another version")
    kind = algorithm.partition("-")[0]
    if tags.get("k", "rsa").lower() != kind:
        raise DkimError("the key is of another kind")
    if "h" in tags and "sha256" not in [each.strip().lower() for each in tags["h"].split(":")]:
        raise DkimError("the key is not for SHA-256")
    services = [each.strip().lower() for each in tags.get("s", "*").split(":")]
    if "*" not in services and "email" not in services:
        raise DkimError("the key is not for mail")
    flags = [each.strip().lower() for each in tags.get("t", "").split(":")]
    if "y" in flags:
        raise DkimError("the key is only being tested")
    if not tags.get("p"):
        raise DkimError("the key has been revoked")
    material = _base64(tags["p"])
    if kind == "ed25519":
        try:
            return ed25519.Ed25519PublicKey.from_public_bytes(material)
        except (ValueError, UnsupportedAlgorithm):
            raise DkimError("the key is malformed") from None
    return _rsa_key(material)


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


def _signed_bytes(signature: Signature, found: Sequence[Field]) -> bytes:
    """The header fields under the signature, canonical (section 3.7): the last of each name first (5.4.2)."""
    left: dict[str, list[Field]] = {}
    for each in found:
        left.setdefault(each.name, []).append(each)
    canonical = _relaxed_field if signature.header_canonicalization is Canonicalization.RELAXED else _simple_field
    parts = [canonical(left[name].pop().raw) for name in signature.signed_names if left.get(name)]
    name, colon, value = signature.field.raw.partition(b":")
    own = name + colon + _B_VALUE.sub(rb"\g<keep>", value.removesuffix(b"\r\n")) + b"\r\n"
    parts.append(canonical(own).removesuffix(b"\r\n"))
    return b"".join(parts)


def _simple_field(raw: bytes) -> bytes:
    return raw


def _relaxed_field(raw: bytes) -> bytes:
    """Section 3.4.2."""
    name, _, value = raw.partition(b":")
    unfolded = _WSP.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + unfolded + b"\r\n"
