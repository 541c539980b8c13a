"""From a configuration file to settings, or to every fault in it at once.

1. read the YAML with its places
2. validate; where parts are wrong, take those out and go on with the rest, so that nothing hides behind them
3. check what holds between the settings
4. note sections that are given but have no effect in this version
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.clock import SystemClock
from gateway.config.checks import Problem, check_settings, user_faults
from gateway.config.faults import Notice, in_order, model_faults
from gateway.config.model import Settings
from gateway.config.rooms import WITHOUT_EFFECT
from gateway.config.source import Document, PathInFile, read_document
from gateway.config.values import Surroundings
from gateway.errors import ConfigError, Fault

__all__ = ["SettingsReading", "load_settings", "read_settings"]

_LISTS = ("listeners", "connectors", "policies")
"""Sections in which one bad entry does not spoil the others."""

_STAND_INS: Mapping[str, Any] = {"hostname": "stand.in.example", "postmaster": "postmaster@stand.in.example"}


@dataclass(frozen=True, slots=True)
class SettingsReading:
    """What came of a configuration file.

    ``settings`` is ``None`` only where nothing of it could be used; while there are ``faults`` it stands for the parts
    that are right, good for looking for more faults and for nothing else. ``now``: when it was judged, seconds UTC.
    """

    document: Document
    settings: Settings | None
    faults: tuple[Fault, ...]
    notices: tuple[Notice, ...]
    now: float | None = None


@dataclass(slots=True)
class _Pruned:
    """The values without their wrong parts, and where the entries of a list that are left stood before."""

    values: dict[str, Any]
    broken: set[str] = field(default_factory=set)
    places: dict[str, list[int]] = field(default_factory=dict)

    def path(self, path: PathInFile) -> PathInFile:
        if len(path) > 1 and path[0] in self.places and isinstance(path[1], int):
            return (path[0], self.places[str(path[0])][path[1]], *path[2:])
        return path


def load_settings(path: Path, *, environ: Mapping[str, str] | None = None, now: float | None = None) -> Settings:
    """The settings in a file; raises :class:`gateway.errors.ConfigError` with all faults.

    ``environ`` answers ``${NAME}`` (default: the process's), ``now`` judges certificates (seconds UTC; default: now).
    Policies are not looked at: :func:`gateway.policy.bundle.load_all` does both.
    """
    reading = read_settings(path, environ=environ, now=now)
    if reading.faults or reading.settings is None:
        raise ConfigError(reading.faults)
    return reading.settings


def read_settings(path: Path, *, environ: Mapping[str, str] | None = None, now: float | None = None) -> SettingsReading:
    """The settings in a file with all faults and notices; does not raise."""
    document = read_document(path)
    if document.faults and not document.root.mapping:
        return SettingsReading(document, None, document.faults, ())
    values = document.root.plain()
    if not isinstance(values, dict):
        fault = document.fault((), "expected a mapping with keys such as hostname and postmaster")
        return SettingsReading(document, None, (*document.faults, fault), ())

    surroundings = Surroundings(path.absolute().parent, dict(os.environ if environ is None else environ))
    faults = list(document.faults)
    settings, pruned = _validated(document, values, surroundings, faults)
    notices: list[Notice] = []
    moment = SystemClock().time() if now is None else now
    if settings is not None:
        for problem in check_settings(settings, broken=frozenset(pruned.broken), now=moment):
            _add(document, problem, pruned, faults, notices)
        faults += user_faults(settings)
    notices += _without_effect(document, values)
    return SettingsReading(document, settings, in_order(faults), in_order(notices), moment)


def _validated(
    document: Document, values: dict[str, Any], surroundings: Surroundings, faults: list[Fault]
) -> tuple[Settings | None, _Pruned]:
    """The settings, or those of what is left when the wrong parts are taken out."""
    try:
        return Settings.model_validate(values, context=surroundings), _Pruned(values)
    except ValidationError as error:
        found = model_faults(document, error, Settings)
    faults += [fault for _, fault in found]
    pruned = _prune(values, [path for path, _ in found])
    try:
        return Settings.model_validate(pruned.values, context=surroundings), pruned
    except ValidationError:
        # Something that shows only when something else is gone; the faults so far are enough to go on with.
        return None, pruned


def _prune(values: dict[str, Any], paths: list[PathInFile]) -> _Pruned:
    pruned = _Pruned(dict(values))
    wrong_entries: dict[str, set[int]] = {}
    for path in paths:
        section = str(path[0]) if path else ""
        pruned.broken.add(section)
        if section in _LISTS and len(path) > 1 and isinstance(path[1], int):
            wrong_entries.setdefault(section, set()).add(path[1])
        else:
            pruned.values.pop(section, None)
    for section, wrong in wrong_entries.items():
        entries = pruned.values.get(section)
        if isinstance(entries, list):
            pruned.places[section] = [index for index in range(len(entries)) if index not in wrong]
            pruned.values[section] = [entries[index] for index in pruned.places[section]]
    for section, stand_in in _STAND_INS.items():
        pruned.values.setdefault(section, stand_in)
    return pruned


def _add(document: Document, problem: Problem, pruned: _Pruned, faults: list[Fault], notices: list[Notice]) -> None:
    path = pruned.path(problem.path)
    if "values" in path and document.node(path) is None:
        # `value:` is the short form of a list `values:` with one entry
        path = (*path[: path.index("values")], "value")
    place = document.fault(path, problem.message)
    if problem.note:
        notices.append(Notice(place.file, place.line, place.column, place.message))
    else:
        faults.append(place)


def _without_effect(document: Document, values: dict[str, Any]) -> list[Notice]:
    """What is given, and does nothing yet."""
    found = []
    for section in values:
        if section in WITHOUT_EFFECT:
            place = document.key_fault((section,), f"the section {section!r} has no effect yet")
            found.append(Notice(place.file, place.line, place.column, place.message))
    return found
