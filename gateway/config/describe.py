"""Settings in words: what a value is, and how a default is written in the file."""

from __future__ import annotations

import enum
import ipaddress
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic.fields import FieldInfo

from gateway.config.storage import DatabaseUrl
from gateway.config.users import Users
from gateway.config.values import (
    AssuranceLevel,
    CertificateName,
    Count,
    Domain,
    Domains,
    Duration,
    Endpoint,
    FileName,
    HeaderName,
    HostName,
    KeySource,
    Mailbox,
    Name,
    Network,
    Port,
    PrivateKey,
    ResolverEndpoint,
    Secret,
    Size,
    Trust,
)
from gateway.mail.address import Address
from gateway.mail.protection import Assurance

__all__ = ["bare", "bare_origin", "kind", "written"]

_KINDS: tuple[tuple[Any, str], ...] = (
    (Duration, "duration"),
    (Size, "size"),
    (Count, "whole number"),
    (Port, "port"),
    (Domain, "domain"),
    (Domains, "domains"),
    (HostName, "host name or IP address"),
    (Mailbox, "mail address"),
    (Name, "name"),
    (HeaderName, "header name"),
    (CertificateName, "domain or `spki:SHA256`"),
    (FileName, "path"),
    (Users, "path"),
    (Trust, "`system` or path"),
    (AssuranceLevel, "`none`, `encrypted`, `verified`, `authenticated`"),
    (ResolverEndpoint, "address:port"),
    (Endpoint, "host:port"),
    (Secret, "secret"),
    (PrivateKey, "secret"),
    (KeySource, "key source"),
    (DatabaseUrl, "`sqlite` or `postgresql://...`"),
    (Network, "network"),
    (bool, "true or false"),
    (str, "text"),
    (int, "whole number"),
)


def kind(field: FieldInfo) -> str:
    """The type of a value, in words."""
    metadata = {repr(entry) for entry in field.metadata}
    for alias, words in _KINDS:
        if typing.get_origin(alias) is not Annotated:
            continue
        base, *marks = typing.get_args(alias)
        if base == field.annotation and {repr(mark) for mark in marks[:1]} & metadata:
            return words
    return _annotation_kind(field.annotation)


def _annotation_kind(annotation: Any) -> str:
    for alias, words in _KINDS:
        if annotation == alias:
            return words
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {typing.Union, types.UnionType}:
        parts = dict.fromkeys(_annotation_kind(part) for part in arguments if part is not type(None))
        return " or ".join(parts)
    if origin is tuple:
        return f"list: {_annotation_kind(arguments[0])}"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return _annotation_kind(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    if annotation in {ipaddress.IPv4Network, ipaddress.IPv6Network}:
        return "network"
    return {Address: "mail address", Assurance: "assurance", Path: "path", float: "number"}.get(annotation, "text")


def bare(annotation: Any) -> Any:
    """The annotation without ``Annotated`` around it."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def bare_origin(annotation: Any) -> Any:
    """``tuple``, ``dict`` or whatever else the annotation is made with."""
    return typing.get_origin(bare(annotation))


def written(field: FieldInfo, value: Any) -> str:
    """A default as it would be written in the file."""
    words = kind(field)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if words == "duration":
        return _duration(value)
    if words == "size":
        return _size(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_scalar(entry) for entry in value) + "]"
    if isinstance(value, dict):
        return "{}"
    return _scalar(value)


def _scalar(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if text == "" or text[0] in "*&[{" or (":" in text and not text.startswith("/")) else text


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _size(size: int) -> str:
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % length == 0:
            return f"{size // length}{unit}"
    return f"{size}B"
