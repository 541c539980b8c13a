"""The group of a TLS key exchange, such as ``x25519``: read off the handshake, where Python does not tell it.

Python has ``SSLObject.group()`` from 3.15 on. Before, the handshake messages themselves say it - RFC 8446 section
4.2.8 (ServerHello, ``key_share``), RFC 8422 section 5.4 (ServerKeyExchange of TLS 1.2) -, and OpenSSL shows them to a
debugging hook of the context. Where neither is there the group stays unknown: nothing is judged by it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from weakref import WeakKeyDictionary

__all__ = ["GroupWatch", "group_in"]

#: IANA's registry "TLS Supported Groups": those that are met.
_NAMES = {
    0x0017: "secp256r1",
    0x0018: "secp384r1",
    0x0019: "secp521r1",
    0x001A: "brainpoolP256r1",
    0x001B: "brainpoolP384r1",
    0x001C: "brainpoolP512r1",
    0x001D: "x25519",
    0x001E: "x448",
    0x0100: "ffdhe2048",
    0x0101: "ffdhe3072",
    0x0102: "ffdhe4096",
    0x0103: "ffdhe6144",
    0x0104: "ffdhe8192",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
}

_SERVER_HELLO, _SERVER_KEY_EXCHANGE = 2, 12
_KEY_SHARE = 51
_NAMED_CURVE = 3

#: The hook, by its name in CPython since 3.8; it is not public, so it may be missing.
_HOOK = "_msg_callback"


class GroupWatch:
    """Notes the group of every handshake made with the contexts that it was shown. For sessions of a probe only."""

    def __init__(self) -> None:
        self._groups: WeakKeyDictionary[object, str] = WeakKeyDictionary()

    def watch(self, context: ssl.SSLContext) -> None:
        """From now on note the groups of this context's handshakes; it must not be one that deliveries use."""
        if hasattr(context, _HOOK) and not hasattr(ssl.SSLObject, "group"):
            setattr(context, _HOOK, self._heard)

    def group(self, ssl_object: ssl.SSLObject) -> str:
        """The group of this session; "" where it is not known."""
        public: Callable[[], str | None] | None = getattr(ssl_object, "group", None)
        if public is not None:
            return public() or ""
        return self._groups.get(ssl_object, "")

    def _heard(
        self,
        connection: object,
        direction: str,
        version: object,  # noqa: ARG002 - the hook's signature, here and below
        content: object,  # noqa: ARG002
        kind: object,  # noqa: ARG002
        data: bytes,
    ) -> None:
        if direction == "read":
            group = group_in(data)
            if group:
                self._groups[connection] = group


def group_in(message: bytes) -> str:
    """The group that a handshake message of a server names; "" for any other message, and for what is cut short."""
    if len(message) < 4 or int.from_bytes(message[1:4]) != len(message) - 4:
        return ""
    kind, body = message[0], message[4:]
    if kind == _SERVER_KEY_EXCHANGE and len(body) >= 3 and body[0] == _NAMED_CURVE:
        return _name(body[1:3])
    if kind == _SERVER_HELLO and len(body) > 35:
        # Version, random, session id, cipher suite and compression stand before the extensions.
        return _in_extensions(body[35 + body[34] + 5 :])
    return ""


def _in_extensions(extensions: bytes) -> str:
    while len(extensions) >= 4:
        kind, end = int.from_bytes(extensions[:2]), 4 + int.from_bytes(extensions[2:4])
        if kind == _KEY_SHARE and 6 <= end <= len(extensions):
            return _name(extensions[4:6])
        extensions = extensions[end:]
    return ""


def _name(number: bytes) -> str:
    value = int.from_bytes(number)
    return _NAMES.get(value, f"0x{value:04x}")
