"""The certificates that a peer sent, as they came: what every judgement starts from."""

from __future__ import annotations

import ssl
from typing import Any

from gateway.errors import GatewayError

__all__ = ["PeerChainUnavailable", "peer_chain", "require_peer_chain"]


class PeerChainUnavailable(GatewayError):
    """This Python does not give out the peer's certificates: nothing could be judged, so we do not start."""


def peer_chain(ssl_object: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
    """The peer's chain in DER, leaf first, unjudged; empty where it sent none.

    Public from Python 3.13 on; before, the same function of the object within. Never ``get_verified_chain``: without
    verification it returns a list for untrusted chains, too.
    """
    public: Any = getattr(ssl_object, "get_unverified_chain", None)
    if public is not None:
        return [bytes(der) for der in public() or ()]
    inner: Any = getattr(ssl_object, "_sslobj", None)
    if inner is None or not hasattr(inner, "get_unverified_chain"):
        raise PeerChainUnavailable("this Python's ssl module does not give out the peer's certificate chain")
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in inner.get_unverified_chain() or ()]


def require_peer_chain() -> None:
    """Raise :class:`PeerChainUnavailable` where :func:`peer_chain` cannot work; call it once at start."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    unconnected = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    try:
        peer_chain(unconnected)
    except ValueError:
        return  # "handshake not done yet": the function is there
