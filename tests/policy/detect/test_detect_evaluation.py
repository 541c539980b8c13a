"""How good the detectors are, and that the page for policy authors says it."""

from __future__ import annotations

import re

import pytest

from gateway.policy.detect import BUILT_IN, HEALTH, IDENTIFIERS
from tests.policy.detect.evaluation import JUDGED, PAGE, combinations, finds, lines, scores, written


@pytest.mark.parametrize("name", JUDGED)
def test_every_detector_is_judged_by_enough_and_does_well(name: str) -> None:
    score = scores()[name]
    assert score.found + score.missed >= 60
    assert score.false + score.silent >= 60
    assert score.precision >= 0.97
    assert score.recall >= 0.96


def test_every_number_in_every_form_and_sentence_is_found_and_no_near_miss() -> None:
    wrong = [case for case in combinations() if finds(case) != case.expected]
    assert wrong == []


def test_the_lines_that_go_wrong_are_those_that_are_known_to() -> None:
    """What stands behind the mark of the hard ones may fail; nothing before it."""
    cases = list(lines())
    first_hard = next(index for index, case in enumerate(cases) if "five three six" in case.texts[0])
    assert [case for case in cases[:first_hard] if finds(case) != case.expected] == []


def test_the_page_tells_the_scores() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "stale: python -m tests.policy.detect.evaluation"


def test_the_page_describes_every_detector() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("## The detectors")[2].partition("## What they do not find")[0]
    rows = re.findall(r"^\| `(\w+)`", page, flags=re.MULTILINE)
    assert {*rows, "pci"} == set(BUILT_IN)
    assert len(rows) == len(set(rows))
    halves = {
        half: set(re.findall(rf"\*\*{half}\*\*: (.*)$", page, flags=re.MULTILINE)[0].split(", "))
        for half in ("who", "what")
    }
    assert halves == {"who": {f"`{name}`" for name in IDENTIFIERS}, "what": {f"`{name}`" for name in HEALTH}}
