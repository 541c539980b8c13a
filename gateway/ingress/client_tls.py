"""TLS that asks clients for a certificate and lets every one of them through; judging comes afterwards.

Python's ``ssl`` cannot do that: with ``CERT_OPTIONAL`` OpenSSL's own verification aborts the handshake of a client
whose certificate is self-signed or was not issued for clients - and public CAs no longer issue those. So this is a
context that ``asyncio`` (and uvloop) takes for an ``ssl.SSLContext``, whose sessions are pyOpenSSL connections with a
verify callback that says yes. Bytes are pumped between the event loop's memory BIOs and pyOpenSSL's own.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from cryptography import x509
from OpenSSL import SSL

__all__ = ["AskingContext", "asking_openssl_context", "peer_chain"]

P = ParamSpec("P")
T = TypeVar("T")
_PUMP = 64 * 1024


class AskingContext(ssl.SSLContext):
    """A server context over ``context``, a pyOpenSSL one that asks for certificates."""

    _openssl: SSL.Context

    def __new__(cls, context: SSL.Context) -> AskingContext:  # noqa: PYI034 - Self confuses the typed base class
        """The base class wants a protocol; its own settings are never used."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._openssl = context
        return made

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the signature of the base class
        server_hostname: str | bytes | None = None,  # noqa: ARG002 - the same
        session: ssl.SSLSession | None = None,  # noqa: ARG002 - the same
    ) -> ssl.SSLObject:
        """A session as ``asyncio.sslproto`` uses it; only the server's side is there."""
        if not server_side:
            raise ValueError("this context is for servers")
        return cast("ssl.SSLObject", _Connection(self._openssl, self, incoming, outgoing))


def asking_openssl_context(certificate: str, key: str, ciphers: str) -> SSL.Context:
    """A pyOpenSSL context with our certificate that asks every client for one. Raises ``OpenSSL.SSL.Error``."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # A resumed session would show a certificate that was judged at another time.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(ciphers.encode("ascii"))
    context.use_certificate_chain_file(certificate)
    context.use_privatekey_file(key)
    context.check_privatekey()
    context.set_verify(SSL.VERIFY_PEER, _accept_every_certificate)
    return context


def _accept_every_certificate(_connection: object, _certificate: object, _error: int, _depth: int, _ok: int) -> bool:
    return True


def peer_chain(ssl_object: object) -> tuple[x509.Certificate, ...]:
    """The certificates that the client sent, leaf first; empty where it sent none or was not asked."""
    return ssl_object.peer_chain() if isinstance(ssl_object, _Connection) else ()


class _Connection:
    """What ``asyncio.sslproto`` and uvloop need of an ``ssl.SSLObject``, over a pyOpenSSL connection."""

    def __init__(
        self, openssl: SSL.Context, context: AskingContext, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self.context = context
        self.server_side = True
        self.server_hostname = None
        self.session_reused = False
        self._connection = SSL.Connection(openssl, None)
        self._connection.set_accept_state()
        self._incoming = incoming
        self._outgoing = outgoing

    def do_handshake(self) -> None:
        self._run(self._connection.do_handshake)

    def read(self, length: int = 1024, buffer: Any = None) -> bytes | int:
        """Like ``SSLObject.read``: the end of the stream is b"" or 0, not an exception."""
        try:
            if buffer is not None:
                return self._run(self._connection.recv_into, buffer, length)
            return self._run(self._connection.recv, length)
        except ssl.SSLZeroReturnError:
            return b"" if buffer is None else 0

    def write(self, data: Any) -> int:
        return self._run(self._connection.send, data)

    def unwrap(self) -> None:
        # As ssl does: the first call sends our close_notify, the second one says whether the peer's is there.
        if not self._run(self._connection.shutdown):
            self._run(self._connection.shutdown)

    def pending(self) -> int:
        return self._connection.pending()

    def version(self) -> str | None:
        return self._connection.get_protocol_version_name()

    def cipher(self) -> tuple[str, str, int] | None:
        name = self._connection.get_cipher_name()
        if name is None:
            return None
        return (name, self._connection.get_cipher_version() or "", self._connection.get_cipher_bits() or 0)

    def compression(self) -> None:
        return None

    def selected_alpn_protocol(self) -> None:
        return None

    def getpeercert(self, binary_form: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002 - as in SSLObject
        """Nothing: a certificate that was not judged is not shown as if it had been."""
        return

    def peer_chain(self) -> tuple[x509.Certificate, ...]:
        leaf = self._connection.get_peer_certificate(as_cryptography=True)
        if leaf is None:
            return ()
        rest = self._connection.get_peer_cert_chain(as_cryptography=True) or []
        # On the server's side OpenSSL leaves the leaf out of the chain, on the client's it does not.
        return (leaf, *(each for each in rest if each != leaf))

    def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call into OpenSSL with everything that arrived, and pass on everything that it wants sent."""
        arrived = self._incoming.read()
        if arrived:
            self._connection.bio_write(arrived)
        try:
            return function(*args, **kwargs)
        except SSL.WantReadError:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "more data is needed") from None
        except SSL.ZeroReturnError:
            raise ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "the peer closed the session") from None
        except SSL.SysCallError as error:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, f"the stream ended: {error}") from None
        except SSL.Error as error:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, _text(error)) from None
        finally:
            self._flush()

    def _flush(self) -> None:
        while True:
            try:
                self._outgoing.write(self._connection.bio_read(_PUMP))
            except SSL.WantReadError:
                return


def _text(error: SSL.Error) -> str:
    """The reason out of OpenSSL's error queue: ``[(library, function, reason), ...]``."""
    queue = error.args[0] if error.args else ()
    reasons = [entry[-1] for entry in queue if entry] if isinstance(queue, (list, tuple)) else []
    return "; ".join(map(str, reasons)) or "TLS error"
