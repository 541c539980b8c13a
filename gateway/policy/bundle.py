"""Configuration and policy files together: all of it is right, or every fault of all files is told at once.

A reload is the same call again: whoever holds a :class:`Loaded` swaps it for the new one, or keeps it on
:class:`gateway.errors.ConfigError`. Nothing is half applied.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.config.faults import Notice, in_order, suggestion
from gateway.config.load import SettingsReading, read_settings
from gateway.config.model import Settings
from gateway.config.source import Document, PathInFile, read_document
from gateway.errors import ConfigError, Fault
from gateway.policy.cases import Case
from gateway.policy.parse import ParsedPolicy, parse_policy
from gateway.policy.rules import Policy
from gateway.policy.unsigned import unsigned_changes

__all__ = ["Loaded", "load_all"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that the operator's files say.

    ``notices``: what is worth knowing though nothing is wrong. ``digest``: SHA-256, in hex, over the bytes of all
    files. ``files``: the configuration first, then the policies by name, then what they name. ``cases``: policy tests.
    """

    settings: Settings
    policy: Policy
    notices: tuple[Notice, ...]
    digest: str
    files: tuple[Path, ...]
    cases: tuple[Case, ...] = ()


def load_all(path: Path, *, environ: Mapping[str, str] | None = None, now: float | None = None) -> Loaded:
    """Settings and policy; raises :class:`gateway.errors.ConfigError` with all faults of all files, by place.

    ``environ`` answers ``${NAME}`` (default: the process's); ``now`` judges certificates (seconds UTC; default: now).
    """
    reading = read_settings(path, environ=environ, now=now)
    faults = list(reading.faults)
    files = _policy_files(path, reading, faults)
    documents = [read_document(file, str(file)) for file in files]
    parsed = parse_policy(documents, reading.now)
    faults += parsed.faults
    if reading.settings is not None:
        faults += _unknown_mentions(parsed, reading.settings)
    if faults or reading.settings is None:
        raise ConfigError(in_order(faults))
    return Loaded(
        reading.settings,
        parsed.policy,
        reading.notices + _unsigned(reading, parsed.policy, reading.settings) + parsed.notices,
        _digest([reading.document.data, *(document.data for document in documents), *dict(parsed.files).values()]),
        (path, *files, *dict(parsed.files)),
        parsed.cases,
    )


def _unknown_mentions(parsed: ParsedPolicy, settings: Settings) -> list[Fault]:
    """A rule about a connector that does not exist would never match: a slip of the pen, or a connector renamed."""
    known = [connector.name for connector in settings.connectors]
    return [
        replace(mention.place, message=f"unknown {mention.what} {mention.name!r}{suggestion(mention.name, known)}")
        for mention in parsed.mentions
        if mention.name not in known
    ]


def _unsigned(reading: SettingsReading, policy: Policy, settings: Settings) -> tuple[Notice, ...]:
    places = [reading.document.fault(path, message) for path, message in unsigned_changes(policy, settings)]
    return tuple(Notice(place.file, place.line, place.column, place.message) for place in places)


def _policy_files(path: Path, reading: SettingsReading, faults: list[Fault]) -> list[Path]:
    """The files that the patterns name, each once, named as seen from where the configuration was named."""
    patterns = () if reading.settings is None else reading.settings.policies
    found: dict[Path, Path] = {}
    for pattern in patterns:
        matching = _matching(path.parent, pattern)
        if not matching:
            # Going on without would mean going on without the rules that someone wrote.
            place = _place_of(reading.document, pattern)
            faults.append(reading.document.fault(place, f"no file matches {pattern!r}"))
        for name in matching:
            found.setdefault(name.resolve(), name)
    return sorted(found.values())


def _matching(base: Path, pattern: str) -> list[Path]:
    if "\0" in pattern:
        return []
    if glob.has_magic(pattern):
        # Path.glob takes neither absolute patterns nor `..`.
        names = sorted(glob.glob(pattern, root_dir=base, recursive=True))  # noqa: PTH207 - see above
        return [_tidy(base / name) for name in names]
    return [_tidy(base / pattern)] if os.path.lexists(base / pattern) else []


def _tidy(path: Path) -> Path:
    """The path without ``..`` where that is the same place: beyond a symbolic link it need not be."""
    short = Path(os.path.normpath(path))
    try:
        return short if short.parent.samefile(path.parent) else path
    except OSError:
        return path


def _place_of(document: Document, pattern: str) -> PathInFile:
    node = document.node(("policies",))
    for index, item in enumerate((node and node.items) or []):
        if item.scalar == pattern:
            return ("policies", index)
    return ("policies",)


def _digest(files: list[bytes]) -> str:
    digest = hashlib.sha256()
    for data in files:
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
