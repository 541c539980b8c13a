"""Where accepted mail is kept: the settings under `store`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from pydantic import Field, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from gateway.config.secrets import KeySource, Secret, read_secret
from gateway.config.section import Section
from gateway.config.values import Duration

__all__ = ["S3", "SQLITE", "Bucket", "DatabaseUrl", "Store"]

_SCHEMES = frozenset({"postgresql", "postgres"})
_EXPECTED = "expected `sqlite` or `postgresql://USER@HOST:PORT/DATABASE`"


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl:
    """Which database: ``sqlite``, or the URL of a PostgreSQL database. Its text never shows a password."""

    kind: Literal["sqlite", "postgresql"]
    _text: Secret

    @property
    def is_sqlite(self) -> bool:
        """Whether it is the embedded database under ``data_dir``."""
        return self.kind == "sqlite"

    @property
    def has_password(self) -> bool:
        """Whether a password stands in the URL itself."""
        return not self.is_sqlite and bool(self._parts().password or "password" in parse_qs(self._parts().query))

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where the server is; none, or a path: by a socket of this machine."""
        parts = self._parts()
        named = parse_qs(parts.query).get("host", [])
        return tuple(host for text in [parts.hostname or "", *named] for host in text.split(",") if host)

    @property
    def options(self) -> Mapping[str, str]:
        """The connection options behind ``?``, as libpq names them."""
        return {name: values[-1] for name, values in parse_qs(self._parts().query).items()}

    def reveal(self, password: Secret | None = None) -> str:
        """The whole text, with this password in it where one is given."""
        if self.is_sqlite or password is None:
            return self._text.reveal().decode()
        parts = self._parts()
        user = quote(parts.username or "", safe="%")
        host = parts.netloc.rpartition("@")[2]
        netloc = f"{user}:{quote(password.reveal(), safe='')}@{host}"
        return _joined(parts._replace(netloc=netloc))

    def __str__(self) -> str:
        if self.is_sqlite:
            return "sqlite"
        parts = self._parts()
        user = f"{parts.username}@" if parts.username else ""
        return f"postgresql://{user}{parts.netloc.rpartition('@')[2]}{parts.path}"

    def __repr__(self) -> str:
        return f"DatabaseUrl({self})"

    def _parts(self) -> SplitResult:
        return urlsplit(self._text.reveal().decode())

    @classmethod
    def parse(cls, text: str) -> "DatabaseUrl":
        """The database in ``sqlite`` or ``postgresql://...``; raises ``ValueError``, which never repeats the text."""
        if text == "sqlite":
            return SQLITE
        if re.search(r"[\x00-\x20\x7f]", text):
            raise ValueError(f"{_EXPECTED}, without spaces")
        try:
            parts = urlsplit(text)
            _ = parts.port
            options = parse_qs(parts.query, strict_parsing=bool(parts.query), max_num_fields=50)
        except ValueError:
            raise ValueError(_EXPECTED) from None
        if parts.scheme not in _SCHEMES or parts.fragment or "://" not in text:
            raise ValueError(_EXPECTED)
        if len(parts.path) < 2 and "dbname" not in options:
            raise ValueError(f"the URL names no database; {_EXPECTED}")
        return cls("postgresql", Secret(_joined(parts).encode()))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(_database_url)


def _joined(parts: SplitResult) -> str:
    """Two slashes also where nothing stands between them and the path: by a socket."""
    return f"postgresql://{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")


SQLITE = DatabaseUrl("sqlite", Secret(b"sqlite"))
"""The embedded database."""


def _database_url(value: object, info: ValidationInfo) -> DatabaseUrl:
    if isinstance(value, DatabaseUrl):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(_EXPECTED)  # a password may stand in it: nothing of it is repeated
    secret = read_secret(value, info).reveal()
    try:
        return DatabaseUrl.parse(secret.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError(_EXPECTED) from None


_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9!_.*'()/-]{0,512}))?\Z")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, and what the names in it begin with."""

    name: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix}" if self.prefix else f"s3://{self.name}"


class S3(Section):
    """Access to the object storage that `store.blobs` names."""

    endpoint: str | None = None
    """URL of a service other than Amazon's, such as `https://minio.clinic.example:9000`; default: `AWS_ENDPOINT_URL`,
    else Amazon's by region."""

    region: str | None = None
    """Region of the bucket; default: `AWS_REGION`, else `us-east-1`."""

    access_key: Secret | None = None
    """Access key; default: as the usual tools do it, `AWS_ACCESS_KEY_ID` or the machine's own role."""

    secret_key: Secret | None = None
    """Its secret; default: `AWS_SECRET_ACCESS_KEY`, or the machine's own role."""


class Store(Section):
    """Where accepted mail and its records are kept."""

    url: DatabaseUrl = SQLITE
    """`sqlite`: a database under `data_dir`; or `postgresql://USER@HOST:PORT/DATABASE?sslmode=verify-full`, with the
    options of libpq behind the `?`. The whole may be given as `${VARIABLE}` or `file:PATH`; a password in it is never
    shown."""

    password: Secret | None = None
    """The password of PostgreSQL, where it does not stand in `url`."""

    lease: Duration = 60.0
    """PostgreSQL: how long after its last sign of life the other gateways take over what one had claimed. Where they
    run in one data directory its death is known at once."""

    blobs: str = "file"
    """Where bodies above 128 KiB lie, sealed: `file`, in files under `data_dir`; or `s3://BUCKET/PREFIX`, in object
    storage that speaks S3, which gateways on several hosts can share."""

    s3: S3 = S3()
    """Access to the object storage that `store.blobs` names."""

    keys: tuple[KeySource, ...] = Field(default=(KeySource("file", "kek.key"),), min_length=1)
    """Key-encryption keys: `file:PATH` (relative to `data_dir`), `${VARIABLE}` or `credential:NAME` (systemd). The
    first one wraps, the others can still be read. A file is made only while the store holds nothing - back it up:
    without it the store cannot be read. A new first key wraps only after `gateway store rotate-key`; a reload takes
    changes of this list."""

    @property
    def database(self) -> str:
        """``sqlite``, or the URL of PostgreSQL with its password: for whoever connects, never for a log."""
        return self.url.reveal(self.password)

    @property
    def bucket(self) -> Bucket | None:
        """Where large bodies lie in object storage; None where they are files. Raises ``ValueError``."""
        if self.blobs == "file":
            return None
        match = _BUCKET.match(self.blobs)
        if match is None:
            raise ValueError("expected file, or s3://BUCKET/PREFIX")
        return Bucket(match.group(1), (match.group(2) or "").strip("/"))
