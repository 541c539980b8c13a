"""The page about ``gateway doctor`` explains every finding that it can make, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.cli.doctor_checks import KINDS, Status

ROWS = re.findall(
    r"^\| `(\w+)` \| (note|warning|bad) \| (.+) \| (.+) \|$",
    (Path(__file__).parents[2] / "docs/doctor.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)


def test_every_finding_is_explained_with_a_remedy_and_no_other() -> None:
    possible = {(kind, status) for kind, statuses in KINDS.items() for status in statuses.split()}
    assert {(kind, status) for kind, status, _, _ in ROWS} == possible
    assert all(means.strip() and remedy.strip() for _, _, means, remedy in ROWS)


def test_every_status_is_one() -> None:
    assert {status for statuses in KINDS.values() for status in statuses.split()} <= set(map(str, Status))
