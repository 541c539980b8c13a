"""Names as settings: domains, hosts, mailboxes, headers, sender patterns, certificates by name or key."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import BeforeValidator, PlainValidator

from gateway.config.written import one_or_many, shown, text_of
from gateway.mail.address import Address, AddressError, normal_domain
from gateway.mail.protection import Assurance

__all__ = [
    "AssuranceLevel",
    "CertificateName",
    "Domain",
    "Domains",
    "HeaderName",
    "HostName",
    "Mailbox",
    "Name",
    "Names",
    "SenderPatterns",
    "SpkiDigests",
    "matches_sender",
    "parse_certificate_name",
    "parse_domain",
    "parse_host_name",
]

_FIELD_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]{1,76}\Z")  # RFC 5322 section 3.6.8; short enough to stay unfolded


def parse_domain(value: object) -> str:
    """The domain in lower-case A-labels; raises ``ValueError``."""
    text = text_of(value, "a domain such as clinic.example")
    try:
        domain = normal_domain(text)
    except AddressError as error:
        raise ValueError(f"expected a domain such as clinic.example, found {shown(text)}: {error}") from None
    if domain.startswith("["):
        raise ValueError(f"expected a domain such as clinic.example, found the address literal {shown(text)}")
    return domain


def parse_host_name(value: object) -> str:
    """A host name in A-labels or an IP address without brackets; raises ``ValueError``."""
    text = text_of(value, "a host name or an IP address")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        return normal_domain(text)
    except AddressError as error:
        raise ValueError(f"expected a host name or an IP address, found {shown(text)}: {error}") from None


def _mailbox(value: object) -> Address:
    if isinstance(value, Address):
        return value
    text = text_of(value, "a mail address such as ops@clinic.example")
    try:
        return Address.parse(text)
    except AddressError as error:
        raise ValueError(f"expected a mail address such as ops@clinic.example, found {shown(text)}: {error}") from None


def _name(value: object) -> str:
    text = text_of(value, "a name")
    if len(text) > 64 or not re.match(r"[\w.:\[\]@*/ -]+\Z", text):
        raise ValueError(f"expected a name of at most 64 letters, digits and . : - _, found {shown(text)}")
    return text


def _header_name(value: object) -> str:
    text = text_of(value, "a header name such as X-Clinic-Relay")
    if not _FIELD_NAME.match(text):
        raise ValueError(f"expected a header name such as X-Clinic-Relay, without a colon, found {shown(text)}")
    return text


def _sender_pattern(value: object) -> str:
    text = text_of(value, 'a domain, "*.domain", or "*"')
    if text == "*":
        return text
    if text.startswith("*."):
        return "*." + parse_domain(text[2:])
    if "@" in text:
        raise ValueError(f'expected a domain, "*.domain", or "*", found the address {shown(text)}')
    return parse_domain(text)


def _assurance(value: object) -> Assurance:
    if isinstance(value, Assurance):
        return value
    # `none` is what people write; an empty value is not it.
    text = text_of(value, "one of none, encrypted, verified, authenticated")
    try:
        return Assurance.parse(text)
    except ValueError:
        raise ValueError(f"expected one of none, encrypted, verified, authenticated, found {shown(text)}") from None


Name = Annotated[str, BeforeValidator(_name)]
"""A short label for logs and metrics."""

Names = Annotated[tuple[Name, ...], BeforeValidator(one_or_many)]
Domain = Annotated[str, BeforeValidator(parse_domain)]
"""A domain in lower-case A-labels."""

Domains = Annotated[tuple[Domain, ...], BeforeValidator(one_or_many)]
HostName = Annotated[str, BeforeValidator(parse_host_name)]
"""A host name in lower-case A-labels, or an IP address without brackets."""

Mailbox = Annotated[Address, PlainValidator(_mailbox)]
HeaderName = Annotated[str, BeforeValidator(_header_name)]
SenderPatterns = Annotated[tuple[Annotated[str, BeforeValidator(_sender_pattern)], ...], BeforeValidator(one_or_many)]
AssuranceLevel = Annotated[Assurance, PlainValidator(_assurance)]


def matches_sender(patterns: Iterable[str], address: Address) -> bool:
    """Whether the domain is one of ``patterns``: a domain, ``*.domain`` (anything below it), or ``*``."""
    return any(
        pattern in ("*", address.domain) or (pattern.startswith("*.") and address.domain.endswith(pattern[1:]))
        for pattern in patterns
    )


def _spki(value: object) -> str:
    """The SHA-256 of a SubjectPublicKeyInfo as 64 hex digits, from hex (colons allowed) or base64."""
    text = text_of(value, "a SHA-256 digest of a public key, in hex or base64")
    plain = text.removeprefix("sha256:").removeprefix("sha256/")
    digits = plain.replace(":", "").lower()
    if re.match(r"[0-9a-f]{64}\Z", digits):
        return digits
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ValueError(f"expected a SHA-256 digest of a public key, in hex or base64, found {shown(text)}")
    return raw.hex()


SpkiDigests = Annotated[tuple[Annotated[str, BeforeValidator(_spki)], ...], BeforeValidator(one_or_many)]
"""SHA-256 digests of SubjectPublicKeyInfo structures, 64 lower-case hex digits each."""


def parse_certificate_name(value: object) -> str:
    """A client certificate by DNS name, or by key as ``spki:`` and 64 hex digits; raises ``ValueError``."""
    text = text_of(value, "the DNS name in a client certificate, or spki:SHA256")
    return "spki:" + _spki(text.removeprefix("spki:")) if text.startswith("spki:") else parse_domain(text)


CertificateName = Annotated[str, BeforeValidator(parse_certificate_name)]
