"""What stands in a backup, and the proof that it was made by a holder of the store's keys.

A backup is a directory::

    manifest.json    what follows, sealed with an HMAC under a key-encryption key
    queue.db         the database as of one moment
    bodies.jsonl     a line for each body file: {"name": ..., "size": ..., "sha256": ...}
    blobs/           the body files, sealed as they were
    keys/            the key-encryption keys, where that was asked for

The manifest carries the digests of the database and of the list, the list those of the files: nothing in a backup can
be changed without a key - also not what protection waiting mail requires.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.errors import KeyMissing, StoreCorrupt, StoreError
from gateway.jsontext import from_json, to_sorted_json
from gateway.store.keyring import Kek

__all__ = [
    "BODIES",
    "DATABASE",
    "FORMAT",
    "KEYS",
    "LIST",
    "MANIFEST",
    "Manifest",
    "digest_of",
    "pieces_of",
    "read_manifest",
    "sealed_manifest",
    "sync_directory",
    "write_file",
]

#: The names in the directory.
MANIFEST, DATABASE, LIST, BODIES, KEYS = "manifest.json", "queue.db", "bodies.jsonl", "blobs", "keys"
FORMAT: Final = 1
_PURPOSE: Final = "backup-manifest"
#: Most that a manifest may be: it names no single message but those whose body is missing.
_LARGEST: Final = 64 * 1024 * 1024
_PIECE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. ``made`` is the moment (seconds since the epoch) whose state it is.

    ``database`` and ``bodies`` are sizes and digests; ``counts`` are recipients by live state, and messages; ``heads``
    the ends of the event chains that no later one links; ``keks`` the key-encryption keys that it takes to open it;
    ``missing`` messages whose body file was gone already.
    """

    id: str
    made: float
    gateway: str
    schema: str
    store: str
    database: dict[str, Any]
    bodies: dict[str, Any]
    counts: dict[str, int]
    heads: list[dict[str, Any]]
    keks: list[str]
    has_keys: bool
    missing: list[str] = field(default_factory=list)
    format: int = FORMAT

    def as_json(self) -> dict[str, Any]:
        """For the file, and for programs."""
        return asdict(self)


def sealed_manifest(manifest: Manifest, kek: Kek) -> bytes:
    """The file's content."""
    text = to_sorted_json(manifest.as_json())
    seal = {"kek": kek.id, "hmac": kek.seal(text.encode(), _PURPOSE)}
    return to_sorted_json({"manifest": manifest.as_json(), "seal": seal}).encode() + b"\n"


def read_manifest(directory: Path, keks: Sequence[Kek]) -> Manifest:
    """The manifest of a backup, proved by one of these keys.

    Raises :class:`KeyMissing` where none of them sealed it, :class:`StoreCorrupt` where it was changed, and
    :class:`StoreError` where there is none.
    """
    path = directory / MANIFEST
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST)
    except FileNotFoundError:
        raise StoreError(f"{directory} is no backup: it has no {MANIFEST}") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    try:
        data = from_json(content.decode())
        fields, seal = data["manifest"], data["seal"]
        kek_id, mac = str(seal["kek"]), str(seal["hmac"])
        text = to_sorted_json(fields)
        version = fields["format"]
    except (ValueError, KeyError, TypeError):
        raise StoreCorrupt(f"{path} is no manifest of a backup") from None
    kek = next((each for each in keks if each.id == kek_id), None)
    if kek is None:
        told = f"; a copy lies in {directory / KEYS}" if (directory / KEYS).is_dir() else ""
        raise KeyMissing(
            f"the backup was made under the key-encryption key {kek_id}, which store.keys does not give; given are "
            f"{', '.join(each.id for each in keks)}. Put the file back that held it{told}"
        )
    if not hmac.compare_digest(mac, kek.seal(text.encode(), _PURPOSE)):
        raise StoreCorrupt(f"{path} was changed since the backup was made")
    if version != FORMAT:
        raise StoreError(f"the backup has format {version}, this gateway knows {FORMAT}: restore it with a newer one")
    return Manifest(**fields)


def write_file(path: Path, pieces: Iterator[bytes], mode: int = 0o600) -> tuple[int, str]:
    """Make a file, synced; its size and the lower-case hex SHA-256 of its content. Raises ``OSError``."""
    seen, size = hashlib.sha256(), 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        for piece in pieces:
            seen.update(piece)
            size += len(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    return size, seen.hexdigest()


def pieces_of(path: Path) -> Iterator[bytes]:
    """The content of a file, a piece at a time. Raises ``OSError``."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def digest_of(path: Path) -> str:
    """The lower-case hex SHA-256 of a file. Raises ``OSError``."""
    seen = hashlib.sha256()
    for piece in pieces_of(path):
        seen.update(piece)
    return seen.hexdigest()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises ``OSError``."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
