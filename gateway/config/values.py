"""What a single setting can be: durations, sizes, addresses with ports, secrets, networks, key sources.

Each is a pydantic type whose faults are said in plain words. Two things come from outside the value - the directory
that relative paths start from, and the environment - and travel as :class:`Surroundings` in the validation context.
"""

import base64
import binascii
import hmac
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, PlainValidator, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from gateway.mail.address import Address, AddressError, normal_domain
from gateway.mail.protection import Assurance

__all__ = [
    "CLOUD_NETWORKS",
    "AssuranceLevel",
    "CertificateName",
    "Count",
    "Domain",
    "Domains",
    "Duration",
    "Endpoint",
    "FileName",
    "HeaderName",
    "HostName",
    "KeySource",
    "Mailbox",
    "Name",
    "Names",
    "Network",
    "NetworkName",
    "NetworkNames",
    "Networks",
    "Port",
    "ResolverEndpoint",
    "Secret",
    "Secrets",
    "SenderPatterns",
    "Size",
    "SpkiDigests",
    "Surroundings",
    "Trust",
    "parse_certificate_name",
    "parse_domain",
    "parse_duration",
    "parse_size",
    "shown",
]

CLOUD_NETWORKS = frozenset({"microsoft365", "google"})
"""Networks whose lists we ship. All tenants of these services share them: alone they say nothing about who sends."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\Z")
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}\Z")
_FIELD_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]{1,76}\Z")  # RFC 5322 section 3.6.8; short enough to stay unfolded
_MAX_SECRET_FILE = 65536  # a larger file is the wrong file


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a value stands: ``base`` is what relative paths start from; ``environ`` answers ``${NAME}``."""

    base: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def _surroundings(info: ValidationInfo) -> Surroundings:
    return info.context if isinstance(info.context, Surroundings) else Surroundings(Path())


def shown(value: object) -> str:
    """A value as the operator wrote it, short enough for one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = str(value)
    short = text if len(text) <= 60 else text[:57] + "..."
    return repr(short) if isinstance(value, str) else short


def _text(value: object, expected: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected {expected}, found {shown(value)}")
    return value


# -- durations and sizes -------------------------------------------------------------------------------------------


def parse_duration(text: str) -> float:
    """Seconds in ``90s``, ``15m``, ``4h``, ``5d`` (also ``ms`` and ``w``); raises ``ValueError``."""
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f"expected a duration such as 90s, 15m, 4h or 5d, found {shown(text)}")
    seconds = float(match.group(1)) * _SECONDS[match.group(2)]
    if seconds > 100 * 366 * 86400:
        raise ValueError(f"expected a duration of at most 100 years, found {shown(text)}")
    return seconds


def parse_size(text: str) -> int:
    """Bytes in ``25MB`` (10^6) or ``16KiB`` (2^10); raises ``ValueError``."""
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"expected a size such as 25MB or 64KiB, found {shown(text)}")
    size = int(float(match.group(1)) * _BYTES[match.group(2)])
    if size > 2**60:
        raise ValueError(f"expected a size below 1 EiB, found {shown(text)}")
    return size


def _number_in_code(value: object, info: ValidationInfo) -> bool:
    """Whether this is a plain number given by code: in a file the unit must be written."""
    return info.context is None and isinstance(value, (int, float)) and not isinstance(value, bool)


def _duration(value: object, info: ValidationInfo) -> object:
    if _number_in_code(value, info):
        return value
    return parse_duration(_text(value, "a duration such as 90s, 15m, 4h or 5d"))


def _size(value: object, info: ValidationInfo) -> object:
    if _number_in_code(value, info):
        return value
    return parse_size(_text(value, "a size such as 25MB or 64KiB"))


def _whole_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, found {shown(value)}")  # noqa: TRY004 - pydantic wants ValueError
    return value


Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0)]
"""Seconds; written ``90s``, ``15m``, ``4h``, ``5d``."""

Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
"""Bytes; written ``25MB`` (10^6) or ``64KiB`` (2^10)."""

Count = Annotated[int, BeforeValidator(_whole_number), Field(ge=0)]
"""A whole number, zero or more."""

Port = Annotated[int, BeforeValidator(_whole_number), Field(ge=1, le=65535)]
"""A TCP port to connect to."""


# -- names, domains, addresses -------------------------------------------------------------------------------------


def _one_or_many(value: object) -> object:
    """A bare value where a list is expected is a list of one."""
    return [value] if isinstance(value, (str, int)) and not isinstance(value, bool) else value


def parse_domain(value: object) -> str:
    """The domain in lower-case A-labels; raises ``ValueError``."""
    text = _text(value, "a domain such as clinic.example")
    try:
        domain = normal_domain(text)
    except AddressError as error:
        raise ValueError(f"expected a domain such as clinic.example, found {shown(text)}: {error}") from None
    if domain.startswith("["):
        raise ValueError(f"expected a domain such as clinic.example, found the address literal {shown(text)}")
    return domain


def _host_name(value: object) -> str:
    text = _text(value, "a host name or an IP address")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        return normal_domain(text)
    except AddressError as error:
        raise ValueError(f"expected a host name or an IP address, found {shown(text)}: {error}") from None


def _mailbox(value: object) -> Address:
    if isinstance(value, Address):
        return value
    text = _text(value, "a mail address such as ops@clinic.example")
    try:
        return Address.parse(text)
    except AddressError as error:
        raise ValueError(f"expected a mail address such as ops@clinic.example, found {shown(text)}: {error}") from None


def _name(value: object) -> str:
    text = _text(value, "a name")
    if len(text) > 64 or not re.match(r"[\w.:\[\]@*/ -]+\Z", text):
        raise ValueError(f"expected a name of at most 64 letters, digits and . : - _, found {shown(text)}")
    return text


def _header_name(value: object) -> str:
    text = _text(value, "a header name such as X-Clinic-Relay")
    if not _FIELD_NAME.match(text):
        raise ValueError(f"expected a header name such as X-Clinic-Relay, without a colon, found {shown(text)}")
    return text


def _sender_pattern(value: object) -> str:
    text = _text(value, 'a domain, "*.domain", or "*"')
    if text == "*":
        return text
    if text.startswith("*."):
        return "*." + parse_domain(text[2:])
    if "@" in text:
        raise ValueError(f'expected a domain, "*.domain", or "*", found the address {shown(text)}')
    return parse_domain(text)


def _assurance(value: object) -> Assurance:
    if isinstance(value, Assurance):
        return value
    # `none` is what people write; an empty value is not it.
    text = _text(value, "one of none, encrypted, verified, authenticated")
    try:
        return Assurance.parse(text)
    except ValueError:
        raise ValueError(f"expected one of none, encrypted, verified, authenticated, found {shown(text)}") from None


Name = Annotated[str, BeforeValidator(_name)]
"""A short label for logs and metrics."""

Names = Annotated[tuple[Name, ...], BeforeValidator(_one_or_many)]
Domain = Annotated[str, BeforeValidator(parse_domain)]
"""A domain in lower-case A-labels."""

Domains = Annotated[tuple[Domain, ...], BeforeValidator(_one_or_many)]
HostName = Annotated[str, BeforeValidator(_host_name)]
"""A host name in lower-case A-labels, or an IP address without brackets."""

Mailbox = Annotated[Address, PlainValidator(_mailbox)]
HeaderName = Annotated[str, BeforeValidator(_header_name)]
SenderPatterns = Annotated[tuple[Annotated[str, BeforeValidator(_sender_pattern)], ...], BeforeValidator(_one_or_many)]
AssuranceLevel = Annotated[Assurance, PlainValidator(_assurance)]


# -- networks and endpoints ----------------------------------------------------------------------------------------

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NetworkName = Network | Literal["microsoft365", "google"]


def _network(value: object) -> Network:
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    text = _text(value, "a network such as 192.0.2.0/24 or 2001:db8::/32")
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            wanted = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"{shown(text)} is not a network: did you mean {wanted}?") from None
        raise ValueError(f"expected a network such as 192.0.2.0/24 or 2001:db8::/32, found {shown(text)}") from None


def _network_name(value: object) -> object:
    if isinstance(value, str) and value in CLOUD_NETWORKS:
        return value
    if isinstance(value, str) and value and "." not in value and ":" not in value:
        raise ValueError(f"expected a network such as 192.0.2.0/24, microsoft365 or google, found {shown(value)}")
    return _network(value)


Networks = Annotated[tuple[Annotated[Network, PlainValidator(_network)], ...], BeforeValidator(_one_or_many)]
NetworkNames = Annotated[
    tuple[Annotated[NetworkName, PlainValidator(_network_name)], ...], BeforeValidator(_one_or_many)
]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port; ``str()`` gives ``host:port``, with brackets around an IPv6 address."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> "Endpoint":
        """The endpoint in ``host:port`` or ``[2001:db8::1]:port``; raises ``ValueError``.

        Port 0 asks the system for a free port. Without ``default_port`` the port must be given.
        """
        match = re.match(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?\Z", text)
        if match is None:
            raise ValueError(f'expected "host:port" (an IPv6 address in brackets), found {shown(text)}')
        host = _host_name(match.group(1))
        if match.group(2) is None and default_port is None:
            raise ValueError(f'expected "host:port", found {shown(text)} without a port')
        port = int(match.group(2)) if match.group(2) is not None else (default_port or 0)
        if port > 65535:
            raise ValueError(f"expected a port up to 65535, found {port}")
        return cls(host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_endpoint)


def _endpoint(value: object) -> Endpoint:
    return value if isinstance(value, Endpoint) else Endpoint.parse(_text(value, '"host:port"'))


def _resolver(value: object) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    text = _text(value, 'a resolver as "address:port"')
    try:
        return Endpoint(str(ipaddress.ip_address(text)), 53)
    except ValueError:
        endpoint = Endpoint.parse(text, 53)
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        raise ValueError(f"expected the IP address of a resolver, found the name {shown(text)}") from None
    return endpoint


ResolverEndpoint = Annotated[Endpoint, PlainValidator(_resolver)]
"""An address and port of a DNS resolver; the port may be left out."""


# -- files ---------------------------------------------------------------------------------------------------------


def _file_name(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return _surroundings(info).base / value
    text = _text(value, "a path")
    if "\0" in text:
        raise ValueError("expected a path, found one with a NUL in it")
    return _surroundings(info).base / text.removeprefix("file:")


def _trust(value: object, info: ValidationInfo) -> "Path | Literal['system']":
    if value == "system":
        return "system"
    return _file_name(
        _text(value, "`system` or the path of a PEM file") if not isinstance(value, Path) else value, info
    )


FileName = Annotated[Path, PlainValidator(_file_name)]
"""A path; a relative one starts at the directory of the configuration file."""

Trust = Annotated[Path | Literal["system"], PlainValidator(_trust)]
"""``system``: the roots that the operating system trusts; or a PEM file with roots."""


# -- secrets and keys ----------------------------------------------------------------------------------------------


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
        return core_schema.with_info_plain_validator_function(_secret)


def _secret(value: object, info: ValidationInfo) -> Secret:
    if isinstance(value, Secret):
        return value
    if isinstance(value, bytes):
        return Secret(value)
    if not isinstance(value, str) or not value:
        # The value itself is not repeated: it may be a secret of the wrong type.
        raise ValueError("expected a secret: text in quotes, ${VARIABLE} or file:PATH")
    surroundings = _surroundings(info)
    if match := _ENVIRONMENT.match(value):
        found = surroundings.environ.get(match.group(1))
        if not found:
            raise ValueError(f"the environment variable {match.group(1)} is not set or is empty")
        return Secret(found.encode("utf-8", "surrogateescape"))
    if value.startswith("file:"):
        return Secret(_read_secret(surroundings.base / value.removeprefix("file:")))
    if value.startswith("credential:"):
        return Secret(_read_secret(_credential(value.removeprefix("credential:"), surroundings.environ)))
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


def _credential(name: str, environ: Mapping[str, str]) -> Path:
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise ValueError(f"credential:{name} needs systemd's LoadCredential= (CREDENTIALS_DIRECTORY is not set)")
    if not re.match(r"(?!\.)[^/\0]+\Z", name):
        raise ValueError(f"expected the name of a credential, found {shown(name)}")
    return Path(directory) / name


Secrets = Annotated[tuple[Secret, ...], BeforeValidator(_one_or_many)]


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


# -- certificate pins ----------------------------------------------------------------------------------------------


def _spki(value: object) -> str:
    """The SHA-256 of a SubjectPublicKeyInfo as 64 hex digits, from hex (colons allowed) or base64."""
    text = _text(value, "a SHA-256 digest of a public key, in hex or base64")
    plain = text.removeprefix("sha256:").removeprefix("sha256/")
    digits = plain.replace(":", "").lower()
    if re.match(r"[0-9a-f]{64}\Z", digits):
        return digits
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ValueError(f"expected a SHA-256 digest of a public key, in hex or base64, found {shown(text)}")
    return raw.hex()


SpkiDigests = Annotated[tuple[Annotated[str, BeforeValidator(_spki)], ...], BeforeValidator(_one_or_many)]
"""SHA-256 digests of SubjectPublicKeyInfo structures, 64 lower-case hex digits each."""


def parse_certificate_name(value: object) -> str:
    """A client certificate by DNS name, or by key as ``spki:`` and 64 hex digits; raises ``ValueError``."""
    text = _text(value, "the DNS name in a client certificate, or spki:SHA256")
    return "spki:" + _spki(text.removeprefix("spki:")) if text.startswith("spki:") else parse_domain(text)


CertificateName = Annotated[str, BeforeValidator(parse_certificate_name)]
