"""Secrets and keys as settings: never shown, and for keys, where they come from."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, GetCoreSchemaHandler, PlainValidator, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from gateway.config.written import one_or_many, shown, surroundings_of
from gateway.mail.dkim.keys import SigningKey

__all__ = ["KeySource", "PrivateKey", "Secret", "Secrets", "credential_path", "read_secret"]

_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}\Z")
_MAX_SECRET_FILE = 65536  # a larger file is the wrong file


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Secret:
    """A value that is never shown: neither ``str`` nor ``repr`` nor a fault tells it.

    Written as itself, as ``${ENVIRONMENT_VARIABLE}``, as ``file:PATH``, or as ``credential:NAME`` (systemd). One
    line end at the end of a file is not part of the secret.
    """

    _value: bytes

    def reveal(self) -> bytes:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(read_secret)


def read_secret(value: object, info: ValidationInfo) -> Secret:
    """The secret that is written as ``value``; raises ``ValueError``, which never repeats it."""
    if isinstance(value, Secret):
        return value
    if isinstance(value, bytes):
        return Secret(value)
    if not isinstance(value, str) or not value:
        # The value itself is not repeated: it may be a secret of the wrong type.
        raise ValueError("expected a secret: text in quotes, ${VARIABLE} or file:PATH")
    surroundings = surroundings_of(info)
    if match := _ENVIRONMENT.match(value):
        found = surroundings.environ.get(match.group(1))
        if not found:
            raise ValueError(f"the environment variable {match.group(1)} is not set or is empty")
        return Secret(found.encode("utf-8", "surrogateescape"))
    if value.startswith("file:"):
        return Secret(_read_secret(surroundings.base / value.removeprefix("file:")))
    if value.startswith("credential:"):
        return Secret(_read_secret(credential_path(value.removeprefix("credential:"), surroundings.environ)))
    return Secret(value.encode())


def _read_secret(path: Path) -> bytes:
    if "\0" in str(path):
        raise ValueError("the path of the secret has a NUL in it")
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SECRET_FILE + 1)
    except OSError as error:
        raise ValueError(f"cannot read the secret from {path}: {error.strerror}") from None
    if len(data) > _MAX_SECRET_FILE:
        raise ValueError(f"the file {path} is too large for a secret (over 64 KiB)")
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data:
        raise ValueError(f"the file {path} is empty")
    return data


def credential_path(name: str, environ: Mapping[str, str]) -> Path:
    """Where systemd put the credential of that name; raises ``ValueError`` where it hands over none."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise ValueError(f"credential:{name} needs systemd's LoadCredential= (CREDENTIALS_DIRECTORY is not set)")
    if not re.match(r"(?!\.)[^/\0]+\Z", name):
        raise ValueError(f"expected the name of a credential, found {shown(name)}")
    return Path(directory) / name


Secrets = Annotated[tuple[Secret, ...], BeforeValidator(one_or_many)]


def _private_key(value: object, info: ValidationInfo) -> SigningKey:
    return value if isinstance(value, SigningKey) else SigningKey.from_pem(read_secret(value, info).reveal())


PrivateKey = Annotated[SigningKey, PlainValidator(_private_key)]
"""A secret that is a private key for DKIM, read."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where a key-encryption key comes from. The store needs to know: it may make a *file*, never anything else.

    ``kind`` ``file``: ``name`` is a path, relative to ``data_dir``; ``env``: the name of an environment variable;
    ``credential``: the name of a systemd credential.
    """

    kind: Literal["file", "env", "credential"]
    name: str

    @classmethod
    def parse(cls, text: str) -> "KeySource":
        """The source in ``file:PATH``, ``${NAME}`` or ``credential:NAME``; raises ``ValueError``."""
        if match := _ENVIRONMENT.match(text):
            return cls("env", match.group(1))
        scheme, colon, rest = text.partition(":")
        if colon and scheme == "file" and rest and "\0" not in rest:
            return cls("file", rest)
        if colon and scheme == "credential" and re.match(r"(?!\.)[^/\0]+\Z", rest):
            return cls("credential", rest)
        # Not repeated: someone may have written the key itself.
        raise ValueError("expected file:PATH, ${VARIABLE} or credential:NAME; a key itself does not belong in here")

    def path(self, data_dir: Path) -> Path:
        """The file of a ``file`` source; raises ``ValueError`` for another kind."""
        if self.kind != "file":
            raise ValueError(f"{self} is not a file")
        return data_dir / self.name

    def read(self, data_dir: Path, environ: Mapping[str, str]) -> bytes | None:
        """The raw bytes at the source, or ``None`` where nothing is there.

        Raises ``OSError`` where something is there and cannot be read: that must never look like "no key yet".
        """
        if self.kind == "env":
            found = environ.get(self.name)
            return found.encode("utf-8", "surrogateescape") if found else None
        if self.kind == "credential":
            directory = environ.get("CREDENTIALS_DIRECTORY")
            if not directory:
                return None
            path = Path(directory) / self.name
        else:
            path = self.path(data_dir)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def __str__(self) -> str:
        return f"${{{self.name}}}" if self.kind == "env" else f"{self.kind}:{self.name}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_key_source)


def _key_source(value: object) -> KeySource:
    if isinstance(value, KeySource):
        return value
    if not isinstance(value, str):
        raise ValueError("expected file:PATH, ${VARIABLE} or credential:NAME")  # noqa: TRY004 - pydantic's protocol
    return KeySource.parse(value)
