"""What a single setting can be: durations, sizes, numbers, files - and, from their own modules, the rest.

``names`` domains, hosts, mailboxes; ``networks`` networks and endpoints; ``secrets`` secrets and keys. Each is a
pydantic type whose faults are said in plain words. Two things come from outside the value - the directory that relative
paths start from, and the environment - and travel as :class:`Surroundings` in the validation context.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo

from gateway.config.names import (
    AssuranceLevel,
    CertificateName,
    Domain,
    Domains,
    HeaderName,
    HostName,
    Mailbox,
    Name,
    Names,
    SenderPatterns,
    SpkiDigests,
    parse_certificate_name,
    parse_domain,
)
from gateway.config.networks import (
    CLOUD_NETWORKS,
    Endpoint,
    Network,
    NetworkName,
    NetworkNames,
    Networks,
    ResolverEndpoint,
)
from gateway.config.secrets import KeySource, PrivateKey, Secret, Secrets, credential_path
from gateway.config.written import Surroundings, shown, surroundings_of, text_of

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
    "PrivateKey",
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
]

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
    return parse_duration(text_of(value, "a duration such as 90s, 15m, 4h or 5d"))


def _size(value: object, info: ValidationInfo) -> object:
    if _number_in_code(value, info):
        return value
    return parse_size(text_of(value, "a size such as 25MB or 64KiB"))


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


# -- files ---------------------------------------------------------------------------------------------------------


def _file_name(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return surroundings_of(info).base / value
    text = text_of(value, "a path")
    if "\0" in text:
        raise ValueError("expected a path, found one with a NUL in it")
    surroundings = surroundings_of(info)
    if text.startswith("credential:"):
        return credential_path(text.removeprefix("credential:"), surroundings.environ)
    return surroundings.base / text.removeprefix("file:")


def _trust(value: object, info: ValidationInfo) -> "Path | Literal['system']":
    if value == "system":
        return "system"
    return _file_name(
        text_of(value, "`system` or the path of a PEM file") if not isinstance(value, Path) else value, info
    )


FileName = Annotated[Path, PlainValidator(_file_name)]
"""A path, relative to the directory of the configuration file; or ``credential:NAME``, which systemd hands over."""

Trust = Annotated[Path | Literal["system"], PlainValidator(_trust)]
"""``system``: the roots that the operating system trusts; or a PEM file with roots."""
