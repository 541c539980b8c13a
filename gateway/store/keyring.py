"""Three layers of keys: the operator's key-encryption key wraps ring keys, ring keys wrap data keys.

Key-encryption keys come from the configuration and are never in the database. Ring keys are rows, a new one each
quarter, so that a change of the operator's key touches a handful of rows and not every message. A data key seals one
body; its wrapped form goes with the message's last recipient, and that is the shredding.

The key-encryption key that wraps the newest ring key goes on wrapping, whatever stands first in the configuration:
only a rotation changes it (``gateway store rotate-key``), for all ring keys in one transaction. So no process that has
not heard of it can wrap anything under an old key afterwards: it would have to read the new rows first, and cannot.

Wrapping is AES-256-GCM under a key derived (HKDF-SHA256) for the one thing that is wrapped, with a random nonce: there
is no count of messages at which a ring key wears out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, insert, select, update

from gateway.errors import KeyMissing, StoreCorrupt, StoreError
from gateway.store.schema import ring_keys
from gateway.store.sealing import KEY_SIZE

__all__ = ["Kek", "KeyRing", "Rotation", "create_key_file", "parse_key", "unwrap", "wrap"]

_NONCE = 12
#: A new ring key each quarter.
RING_KEY_AGE = 91 * 86400.0


def _derived(key: bytes, purpose: str) -> AESGCM:
    return AESGCM(HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=purpose.encode()).derive(key))


def wrap(key: bytes, secret: bytes, purpose: str) -> bytes:
    """``secret`` encrypted under ``key`` for one purpose, such as ``data-key/MESSAGE``."""
    nonce = os.urandom(_NONCE)
    return nonce + _derived(key, purpose).encrypt(nonce, secret, purpose.encode())


def unwrap(key: bytes, wrapped: bytes, purpose: str) -> bytes:
    """The inverse of :func:`wrap`. Raises :class:`StoreCorrupt` for another key, purpose or changed bytes."""
    try:
        return _derived(key, purpose).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], purpose.encode())
    except (InvalidTag, ValueError):
        raise StoreCorrupt(f"a wrapped key ({purpose}) cannot be opened") from None


def parse_key(data: bytes) -> bytes:
    """A 32-byte key written raw, in hex or in base64. Raises ``ValueError``."""
    if len(data) == KEY_SIZE:
        return data
    text = data.strip()
    for decode in (bytes.fromhex, _base64):
        try:
            key = decode(text.decode("ascii"))
        except ValueError:
            continue
        if len(key) == KEY_SIZE:
            return key
    raise ValueError("a key-encryption key is 32 bytes: raw, in hex, or in base64")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


@dataclass(frozen=True, slots=True, repr=False)
class Kek:
    """A key-encryption key. ``id`` is a digest that tells keys apart and reveals nothing of the key."""

    key: bytes

    @property
    def id(self) -> str:
        """32 hex digits."""
        return hashlib.sha256(b"secure-email-gateway kek id\0" + self.key).hexdigest()[:32]

    def __repr__(self) -> str:
        return f"Kek({self.id})"

    def seal(self, data: bytes, purpose: str) -> str:
        """What only a holder of this key can say about ``data``: HMAC-SHA256, in hex."""
        key = HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=purpose.encode()).derive(self.key)
        return hmac.new(key, data, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did: the key that wraps now, those that wrapped before, the ring keys wrapped anew."""

    to: str
    before: tuple[str, ...]
    ring_keys: tuple[int, ...]


def create_key_file(path: Path) -> bytes:
    """Make a new key file: never over an existing one, readable by the owner only, synced with its directory.

    Returns the key. Raises :class:`StoreError`.
    """
    key = os.urandom(KEY_SIZE)
    text = key.hex().encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
        try:
            while text:
                text = text[os.write(handle, text) :]
            os.fsync(handle)
        except OSError:
            path.unlink()  # half a key must not look like one
            raise
        finally:
            os.close(handle)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StoreError(f"cannot make the key file {path}: {error.strerror}") from error
    return key


class KeyRing:
    """The ring keys of one store, opened with the operator's keys. Safe to share between threads for reading."""

    def __init__(self, keks: Sequence[Kek]) -> None:
        if not keks:
            raise KeyMissing("store.keys names no key-encryption key")
        self._keks: dict[str, Kek] = {}
        self.use(keks)
        self._keys: dict[int, bytes] = {}
        self._current = 0
        self._current_since = 0.0

    def use(self, keks: Sequence[Kek]) -> None:
        """Know these key-encryption keys from now on: the first is the one that a rotation goes to."""
        self._first = keks[0]
        self._keks = {kek.id: kek for kek in keks}

    def load(self, connection: Connection) -> None:
        """Open every ring key. Raises :class:`KeyMissing` where a row's key-encryption key was not given."""
        newest, since = self._current, self._current_since
        for row in connection.execute(select(ring_keys).order_by(ring_keys.c.id)):
            kek = self._keks.get(row.kek)
            if kek is None:
                raise KeyMissing(
                    f"the store holds data under the key-encryption key {row.kek}, which store.keys does not give; "
                    f"given are {', '.join(self._keks)}. Put the file back that held it"
                )
            self._keys[row.id] = unwrap(kek.key, row.wrapped, f"ring-key/{row.id}")
            newest, since = row.id, row.created
        self._current, self._current_since = newest, since  # others wrap meanwhile: never with an older one

    def make(self, connection: Connection, now: float) -> tuple[int, bytes, float]:
        """Write the row of a new ring key; give the result to :meth:`adopt` once it is durable."""
        newest = connection.execute(
            select(ring_keys.c.id, ring_keys.c.kek).order_by(ring_keys.c.id.desc()).limit(1)
        ).first()
        kek = self._first if newest is None else self._keks[newest.kek]
        number = 1 if newest is None else newest.id + 1
        key = os.urandom(KEY_SIZE)
        wrapped = wrap(kek.key, key, f"ring-key/{number}")
        connection.execute(insert(ring_keys).values(id=number, created=now, kek=kek.id, wrapped=wrapped))
        return number, key, now

    def rotate(self, connection: Connection) -> Rotation:
        """Wrap every ring key under the first of our key-encryption keys. Raises as :meth:`load` does."""
        self.load(connection)
        done: list[int] = []
        before: list[str] = []
        for row in connection.execute(select(ring_keys).order_by(ring_keys.c.id)).all():
            if row.kek == self._first.id:
                continue
            wrapped = wrap(self._first.key, self._keys[row.id], f"ring-key/{row.id}")
            connection.execute(
                update(ring_keys).where(ring_keys.c.id == row.id).values(kek=self._first.id, wrapped=wrapped)
            )
            done.append(row.id)
            before.append(row.kek)
        return Rotation(self._first.id, tuple(dict.fromkeys(before)), tuple(done))

    def adopt(self, fresh: tuple[int, bytes, float]) -> None:
        """Wrap with this ring key from now on."""
        number, key, created = fresh
        self._keys[number] = key
        self._current, self._current_since = number, created

    @property
    def current(self) -> int:
        """The id of the ring key that wraps new data keys."""
        return self._current

    def is_due(self, now: float) -> bool:
        """Whether a new ring key should be made."""
        return not self._current or now - self._current_since >= RING_KEY_AGE

    def wrap(self, secret: bytes, purpose: str) -> tuple[int, bytes]:
        """``secret`` under the current ring key: the ring key's id and the wrapped bytes."""
        return self._current, wrap(self._keys[self._current], secret, purpose)

    def unwrap(self, ring_key: int, wrapped: bytes, purpose: str) -> bytes:
        """The secret again. Raises :class:`StoreCorrupt` or :class:`KeyMissing`."""
        key = self._keys.get(ring_key)
        if key is None:
            raise KeyMissing(f"ring key {ring_key} is not in the store")
        return unwrap(key, wrapped, purpose)

    def missing(self, ring_key: int) -> bool:
        """Whether another process made this ring key after we loaded ours."""
        return ring_key not in self._keys
