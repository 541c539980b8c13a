"""The roots that others are judged by: loaded once, parsed once, given to OpenSSL's chain builder."""

from __future__ import annotations

import datetime as dt
import re
import ssl
from pathlib import Path

from OpenSSL import crypto

from gateway.errors import GatewayError

__all__ = ["Trust", "TrustError"]

_PEM = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.+?-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL)

# Where distributions keep their bundle, for a Python that was built elsewhere and looks in the wrong place.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # BSD, macOS
)

# The time of a store is set to the second once a minute: certificates do not live by the second.
_TIME_STEP = 60


class TrustError(GatewayError):
    """The roots cannot be loaded; the message names the file."""


class Trust:
    """A set of trusted roots. Immutable but for a cached OpenSSL store; use it from one thread at a time."""

    def __init__(self, roots: tuple[crypto.X509, ...], source: str) -> None:
        self._roots = roots
        self._store: tuple[int, crypto.X509Store] | None = None
        self.source = source

    @classmethod
    def load(cls, source: str | Path = "system") -> Trust:
        """The roots of the operating system, or those in a PEM file. Raises :class:`TrustError` for a file.

        A system without any gives an empty set: everything is then untrusted, and ``len()`` tells.
        """
        if source == "system":
            return cls._system()
        path = Path(source)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TrustError(f"{path}: {error.strerror}") from None
        roots = _parse(content)
        if not roots:
            raise TrustError(f"{path}: holds no certificate in PEM form")
        return cls(roots, str(path))

    @classmethod
    def from_pem(cls, content: bytes, source: str = "PEM") -> Trust:
        """The roots in this PEM text; blocks that do not parse are passed over."""
        return cls(_parse(content), source)

    @classmethod
    def _system(cls) -> Trust:
        paths = ssl.get_default_verify_paths()
        for candidate in (paths.cafile, paths.openssl_cafile, *_BUNDLES):
            if candidate and Path(candidate).is_file():
                roots = _parse(Path(candidate).read_bytes())
                if roots:
                    return cls(roots, "system")
        directory = Path(paths.capath or paths.openssl_capath)
        files = sorted(directory.glob("*.pem")) if directory.is_dir() else []
        return cls(_parse(b"\n".join(file.read_bytes() for file in files if file.is_file())), "system")

    def __len__(self) -> int:
        return len(self._roots)

    def store(self, now: float) -> crypto.X509Store:
        """An OpenSSL store that judges as of ``now`` (seconds since the epoch), to the minute.

        OpenSSL takes the time of a store only once, so each minute has a store of its own; filling one with the
        parsed roots costs half a millisecond.
        """
        minute = int(now // _TIME_STEP)
        if self._store is not None and self._store[0] == minute:
            return self._store[1]
        store = crypto.X509Store()
        for root in self._roots:
            store.add_cert(root)
        # An administrator may name an intermediate, or the very certificate of a partner, as trusted.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        store.set_time(dt.datetime.fromtimestamp(minute * _TIME_STEP, dt.UTC))
        self._store = (minute, store)
        return store


def _parse(content: bytes) -> tuple[crypto.X509, ...]:
    """The certificates of a PEM bundle, each once, in order; what OpenSSL cannot read is passed over."""
    found: dict[bytes, crypto.X509] = {}
    for block in _PEM.findall(content):
        plain = block.replace(b" TRUSTED CERTIFICATE", b" CERTIFICATE")
        if plain == block and plain not in found:
            try:
                found[plain] = crypto.load_certificate(crypto.FILETYPE_PEM, plain)
            except crypto.Error:
                continue
    return tuple(found.values())
