"""A configuration as a test writes it: text with a mark where the fault is expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.config.load import SettingsReading, read_settings

MARK = "@@"
BASE = "hostname: gw.clinic.example\npostmaster: ops@clinic.example\n"
NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Checked:
    """What a text gave, and the place that was marked in it."""

    reading: SettingsReading
    place: tuple[int, int]

    @property
    def only_fault(self) -> str:
        """The message of the only fault, which stands at the mark."""
        faults = [(fault.line, fault.column, fault.message) for fault in self.reading.faults]
        assert [fault[:2] for fault in faults] == [self.place], faults
        return faults[0][2]

    @property
    def only_note(self) -> str:
        """The message of the only note, which stands at the mark, where nothing is wrong."""
        assert self.reading.faults == ()
        notes = [(note.line, note.column, note.message) for note in self.reading.notices]
        marked = [note for note in notes if note[:2] == self.place]
        assert len(marked) == 1, notes
        return marked[0][2]


Check = Callable[..., Checked]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Read ``text`` (after hostname and postmaster, unless ``whole``) as a configuration file."""

    def read(text: str, *, whole: bool = False, environ: dict[str, str] | None = None, now: float = NOW) -> Checked:
        text = text if whole else BASE + text
        before, _, after = text.partition(MARK)
        assert MARK not in after
        place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        path = tmp_path / "gateway.yaml"
        path.write_text(before + after, encoding="utf-8")
        return Checked(read_settings(path, environ=environ or {}, now=now), place)

    return read
