"""What a TLS session proves: one pure judgement over chain, roots, names and time, for sessions at every level.

Handshakes run without verification (:mod:`gateway.delivery.contexts`), so that evidence exists whatever the policy;
:func:`judge` looks at the chain afterwards and :func:`assurance` says which level the session attained. Chains are
built by OpenSSL: it takes the private CAs, cross-signed roots and missing key usages that are met in the field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from gateway.delivery.names import alternative_names, match_names
from gateway.delivery.trust import Trust
from gateway.mail.protection import Assurance
from gateway.mail.reply import clean_text

__all__ = ["APPROVED_CIPHERS", "MODERN_CIPHERS", "ChainVerdict", "assurance", "judge", "key_in_words"]

#: NIST SP 800-52r2 section 3.3.1, less what has no forward secrecy or no AEAD.
APPROVED_CIPHERS = frozenset(
    {
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
    }
)

#: The profile ``modern`` adds ChaCha20-Poly1305, as sound, but not approved by NIST.
MODERN_CIPHERS = APPROVED_CIPHERS | {
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
}

_CERTIFICATE: Any = asn1.Certificate  # a library without annotations

_VERSIONS = frozenset({"TLSv1.2", "TLSv1.3"})

# More certificates than this are no chain but an attempt to keep us busy.
_MAX_CHAIN = 20
_MIN_RSA_BITS = 2048
_MIN_EC_BITS = 224

_WEAK_HASHES = frozenset({"md2", "md4", "md5", "sha1"})


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """What the peer's certificates show. ``chain`` and ``name`` are ``ok`` or the reason why not.

    ``spki_sha256`` is the lower-case hex digest of the leaf's subject public key info (RFC 7469 section 2.4), ""
    where there is no readable leaf. ``not_after`` in seconds since the epoch. ``key`` in words: ``RSA 2048``.
    """

    chain: str
    name: str
    spki_sha256: str = ""
    subject: str = ""
    not_after: float | None = None
    key: str = ""


def judge(chain_der: Sequence[bytes], trust: Trust, names: Sequence[str], now: float) -> ChainVerdict:
    """Judge a chain as the peer sent it, leaf first, at the time ``now`` (seconds since the epoch).

    ``names`` are the host names, or IP addresses, of which one must match. Never raises: what cannot be read is a
    reason in the verdict.
    """
    if not chain_der:
        return ChainVerdict("the peer sent no certificate", "the peer sent no certificate")
    spki = _spki_digest(chain_der[0])
    try:
        leaf = x509.load_der_x509_certificate(chain_der[0])
        subject = clean_text(leaf.subject.rfc4514_string(), 200)
        not_after = leaf.not_valid_after_utc.timestamp()
        key = key_in_words(leaf)
    except Exception as error:  # noqa: BLE001 - a stranger's bytes; a parser may raise anything, and all of it means this
        reason = f"the certificate cannot be read: {clean_text(str(error), 100)}"
        return ChainVerdict(reason, reason, spki)
    return ChainVerdict(
        chain=_judge_chain(chain_der, leaf, trust, now),
        name=_judge_name(leaf, names),
        spki_sha256=spki,
        subject=subject,
        not_after=not_after,
        key=key,
    )


def assurance(
    version: str,
    cipher: str,
    verdict: ChainVerdict,
    *,
    host_authenticated: bool = False,
    spki_pins: frozenset[str] = frozenset(),
    ciphers: frozenset[str] = APPROVED_CIPHERS,
) -> Assurance:
    """The level that a session attains (architecture: "Protection methods and TLS assurance").

    ``host_authenticated``: the host's name is one that an attacker on the DNS path could not have chosen. Pinned
    keys are the administrator's own judgement of this peer: the right key stands for chain and name, a wrong one
    is a stranger's and attains nothing, however well it encrypts.
    """
    if version not in _VERSIONS or cipher not in ciphers:
        return Assurance.NONE
    if spki_pins:
        return Assurance.AUTHENTICATED if verdict.spki_sha256 in spki_pins else Assurance.NONE
    if verdict.chain != "ok" or verdict.name != "ok":
        return Assurance.ENCRYPTED
    return Assurance.AUTHENTICATED if host_authenticated else Assurance.VERIFIED


def _spki_digest(der: bytes) -> str:
    """Digest of the key exactly as it stands in the certificate, also of kinds that nothing here understands."""
    try:
        certificate: Any = _CERTIFICATE.load(der)
        spki = certificate["tbs_certificate"]["subject_public_key_info"].dump()
    except Exception:  # noqa: BLE001 - a stranger's bytes, as above: there is no key then
        return ""
    return hashlib.sha256(spki).hexdigest()


def _judge_name(leaf: x509.Certificate, names: Sequence[str]) -> str:
    try:
        dns, addresses = alternative_names(leaf)
    except Exception as error:  # noqa: BLE001 - a stranger's extension, as above
        return f"the certificate's names cannot be read: {clean_text(str(error), 100)}"
    return match_names(names, dns, addresses)


def _judge_chain(chain_der: Sequence[bytes], leaf: x509.Certificate, trust: Trust, now: float) -> str:
    if len(trust) == 0:
        return "no trusted roots are configured"
    if len(chain_der) > _MAX_CHAIN:
        return f"the peer sent more than {_MAX_CHAIN} certificates"
    try:
        parsed = crypto.load_certificate(crypto.FILETYPE_ASN1, chain_der[0])
        context = crypto.X509StoreContext(trust.store(now), parsed, _loadable(chain_der[1:]))
        verified = [certificate.to_cryptography() for certificate in context.get_verified_chain()]
        return _first_weakness(verified, leaf)
    except crypto.X509StoreContextError as error:
        return clean_text(str(error), 200)
    except Exception as error:  # noqa: BLE001 - a stranger's bytes, as above
        return f"the chain cannot be read: {clean_text(str(error), 100)}"


def _loadable(chain_der: Sequence[bytes]) -> list[crypto.X509]:
    """The certificates beside the leaf; one that cannot be read may still not be needed."""
    found = []
    for der in chain_der:
        try:
            found.append(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
        except crypto.Error:
            continue
    return found


def _first_weakness(verified: Sequence[x509.Certificate], leaf: x509.Certificate) -> str:
    """``ok``, or what OpenSSL does not judge by itself: key usage for servers, short keys, broken digests.

    The last certificate is the anchor: it is trusted as it is, only its key must be strong.
    """
    for depth, certificate in enumerate(verified):
        weakness = _weak_key(certificate)
        if weakness:
            return weakness
        if depth == len(verified) - 1 and depth > 0:
            break
        algorithm = certificate.signature_hash_algorithm
        # A lone certificate is its own anchor: nothing hangs on its signature.
        if len(verified) > 1 and algorithm is not None and algorithm.name in _WEAK_HASHES:
            return f"a certificate is signed with {algorithm.name.upper()}"
        if not _for_servers(certificate, is_leaf=certificate == leaf):
            return "the certificate is not for servers (extended key usage)"
    return "ok"


def _for_servers(certificate: x509.Certificate, *, is_leaf: bool) -> bool:
    """Whether the extended key usage allows serverAuth; an absent extension allows all (RFC 5280 section 4.2.1.12)."""
    try:
        usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return True
    allowed = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    # "any" in a CA's certificate does not narrow; in a leaf it is not what the Baseline Requirements mean, yet valid.
    if not is_leaf:
        # Server-gated cryptography: what old intermediates carried in place of serverAuth.
        allowed |= {x509.ObjectIdentifier("2.16.840.1.113730.4.1"), x509.ObjectIdentifier("1.3.6.1.4.1.311.10.3.3")}
    return bool(usages & allowed)


def _weak_key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return "" if key.key_size >= _MIN_RSA_BITS else f"an RSA key of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if key.curve.key_size >= _MIN_EC_BITS else f"an elliptic curve of {key.curve.key_size} bits"
    if isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
        return ""
    return "a key of a kind that is not for TLS"


def key_in_words(certificate: x509.Certificate) -> str:
    """Kind and size of its key: ``RSA 2048``, ``EC secp256r1``; ``unknown`` where it cannot be read."""
    try:
        key = certificate.public_key()
    except Exception:  # noqa: BLE001 - an unknown kind of key is described, not refused, here
        return "unknown"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.removeprefix("_").removesuffix("PublicKey").upper()
