"""What a client says in PLAIN (RFC 4616) and LOGIN (an old habit without a standard), without any I/O."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from gateway.config.users import normal_name, normal_password

__all__ = ["Credentials", "Login", "SaslError", "decode", "plain"]

#: RFC 4616 section 2: each part has at most 255 octets.
_PART = 255


class SaslError(Exception):
    """A response that cannot be read; the message says why, and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password, in the forms in which they are compared."""

    name: str
    password: bytes = field(repr=False)

    @classmethod
    def of(cls, name: bytes, password: bytes) -> Credentials:
        """Raises :class:`SaslError`."""
        if not name or not password:
            raise SaslError("name or password is empty")
        if max(len(name), len(password)) > _PART or b"\0" in name + password:
            raise SaslError("name or password is too long or holds a NUL")
        try:
            return cls(normal_name(name.decode("utf-8")), normal_password(password.decode("utf-8")))
        except UnicodeDecodeError:
            raise SaslError("name or password is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class Login:
    """Who a client has proved to be. ``hashes``: those that its password was right for."""

    user: str
    hashes: frozenset[str]


def decode(response: bytes) -> bytes:
    """The octets behind a response in base64 (RFC 4954 section 4). Raises :class:`SaslError`."""
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        raise SaslError("not base64") from None


def plain(message: bytes) -> Credentials | None:
    """``[authzid] NUL authcid NUL passwd``; None where someone asks to act for another. Raises :class:`SaslError`."""
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise SaslError("not what PLAIN says")
    credentials = Credentials.of(parts[1], parts[2])
    return credentials if parts[0] in (b"", parts[1]) else None
