"""One type for mail addresses: it can only hold validated bytes, so nothing can be injected through it.

RFC 5321 sections 4.1.2 (syntax) and 4.5.3.1 (lengths), RFC 6531 section 3.3 (internationalised), RFC 5891 (IDNA).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

import idna

__all__ = ["Address", "AddressError", "normal_domain"]

# RFC 5322 atext; RFC 6531 adds every non-ASCII code point (checked apart, controls excluded).
_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")
_QUOTED = re.compile(r'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"\Z')
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
#: What nearly all addresses are: read in one step. Anything else takes the long way, with the same result.
_COMMON = re.compile(
    r"([A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*)"
    r"@((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)\Z"
)
_LITERAL = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f:.]+)\]\Z", re.IGNORECASE)

_MAX_LOCAL = 64
_MAX_DOMAIN = 255
_MAX_TOTAL = 254


class AddressError(ValueError):
    """The text is not an address that we take; the message says what is wrong with it."""


@lru_cache(maxsize=8192)
def normal_domain(text: str) -> str:
    """The domain in lower-case A-label form, or an address literal in canonical form.

    Raises :class:`AddressError`.
    """
    if text.startswith("["):
        return _normal_literal(text)
    candidate = text.lower()
    if not candidate.isascii():
        try:
            candidate = idna.encode(candidate, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise AddressError(f"domain is not valid IDNA 2008: {error}") from None
    if not candidate:
        raise AddressError("the domain is empty")
    if len(candidate) > _MAX_DOMAIN:
        raise AddressError("the domain is longer than 255 octets")
    for label in candidate.split("."):
        if not _LABEL.match(label):
            raise AddressError(
                f"the domain has an invalid label {label!r}" if label else "the domain has an empty label"
            )
    return candidate


def _normal_literal(text: str) -> str:
    match = _LITERAL.match(text)
    if match is None:
        raise AddressError("the address literal is malformed")
    try:
        address = ipaddress.ip_address(match.group(1))
    except ValueError:
        raise AddressError("the address literal holds no IP address") from None
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"


def _unquoted_local(text: str) -> str:
    """The local part without quoting, its syntax checked."""
    if not text:
        raise AddressError("the local part is empty")
    if text.startswith('"'):
        if not _QUOTED.match(text) or not text.isprintable():
            raise AddressError("the quoted local part is malformed")
        local = re.sub(r"\\(.)", r"\1", text[1:-1])
        if not local:
            raise AddressError("the local part is empty")
        return local
    if not _is_dot_atom(text) or not text.isprintable():
        raise AddressError("the local part is malformed")
    return text


def _is_dot_atom(local: str) -> bool:
    if local.isascii():
        return _DOT_ATOM.match(local) is not None
    return _DOT_ATOM.match("".join(c if c.isascii() else "x" for c in local)) is not None


@lru_cache(maxsize=8192)
def _common(text: str) -> Address | None:
    """The address where it is of the common form; the same few senders, and recipients on their way, come again."""
    match = _COMMON.match(text) if len(text) <= _MAX_TOTAL else None
    if match is None:
        return None
    local, domain = match.groups()
    return Address(local, domain) if len(local) <= _MAX_LOCAL else None


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: ``local`` as its owner writes it, unquoted; ``domain`` in lower-case A-labels.

    Make one with :meth:`parse`; the constructor checks nothing.
    """

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str, *, smtputf8: bool = True) -> Address:
        """The address in ``text`` (no angle brackets, no display name).

        With ``smtputf8`` false, a local part outside ASCII is refused. Raises :class:`AddressError`.
        """
        common = _common(text)
        if common is not None:
            return common
        local, at, domain = text.rpartition("@")
        if not at:
            raise AddressError("there is no @")
        local = _unquoted_local(local)
        if not local.isascii() and not smtputf8:
            raise AddressError("the local part is not ASCII and SMTPUTF8 was not given")
        try:
            octets = len(local.encode())
        except UnicodeEncodeError:
            raise AddressError("the local part is not valid UTF-8") from None
        if octets > _MAX_LOCAL:
            raise AddressError("the local part is longer than 64 octets")
        address = cls(local, normal_domain(domain))
        if len(str(address).encode()) > _MAX_TOTAL:
            raise AddressError("the address is longer than 254 octets")
        return address

    def __str__(self) -> str:
        if not _is_dot_atom(self.local):
            return '"' + re.sub(r'(["\\])', r"\\\1", self.local) + '"@' + self.domain
        return f"{self.local}@{self.domain}"

    @property
    def key(self) -> str:
        """What two spellings of one mailbox share: compared without case."""
        return f"{self.local.casefold()}@{self.domain}"

    @property
    def is_ascii(self) -> bool:
        """Whether the address can be given to a peer without SMTPUTF8 (RFC 6531)."""
        return self.local.isascii()

    @property
    def is_literal(self) -> bool:
        """Whether the domain is an address literal such as ``[192.0.2.1]``."""
        return self.domain.startswith("[")

    @property
    def literal(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The IP address of an address literal; raises :class:`AddressError` for a domain name."""
        match = _LITERAL.match(self.domain)
        if match is None:
            raise AddressError("the domain is a name, not an address literal")
        return ipaddress.ip_address(match.group(1))
