"""Detectors that a policy defines."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.detect import Match, own_detector


def test_a_pattern_alone_finds_everywhere() -> None:
    assert own_detector("lot", r"\bL\d{4}\b").find("L1234, L12345 and L4321") == [Match(0, 5), Match(18, 23)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("patient AB1234567", True),
        ("AB1234567 is the Patient", True),
        ("CHART: AB1234567", True),
        ("AB1234567", False),
        ("inpatient AB1234567", False),
        ("patients AB1234567", False),
        ("patient " + "x" * 30 + " AB1234567", False),
        ("date of birth AB1234567", True),
        ("patiënt AB1234567", True),
        ("PATIËNT AB1234567", True),
    ],
)
def test_one_of_the_words_must_be_near(text: str, expected: bool) -> None:  # noqa: FBT001  # a table
    detector = own_detector(
        "mrn", r"\b[A-Z]{2}\d{7}\b", near_words=["patient", "Chart", "Date of birth", "patiënt"], within=20
    )
    assert bool(detector.find(text)) is expected


def test_a_word_that_the_distance_cuts_is_not_the_word() -> None:
    detector = own_detector("n", r"\d{4}", near_words=["chart"], within=6)
    assert detector.find("chart 1234") != []
    assert detector.find("flowchart 1234") == []
    assert detector.find("1234 charts") == []


def test_what_is_special_in_patterns_is_plain_in_words() -> None:
    assert own_detector("n", r"\d{4}", near_words=["a.b(c"]).find("a.b(c 1234") != []
    assert own_detector("n", r"\d{4}", near_words=["a.b"]).find("axb 1234") == []


@pytest.mark.parametrize(
    ("pattern", "words", "within", "said"),
    [
        ("(", (), 60, "not valid"),
        ("a{1000}{1000}", (), 60, "not valid"),
        ("x*", (), 60, "empty text"),
        ("x", ("",), 60, "a word is empty"),
        ("x", ("a",), 0, "within"),
        ("x", ("a",), 1001, "within"),
        ("x", tuple(map(str, range(201))), 60, "at most 200"),
    ],
)
def test_faults_are_told_in_plain_words(pattern: str, words: tuple[str, ...], within: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        own_detector("n", pattern, near_words=words, within=within)


def test_it_goes_to_other_processes_and_its_form_tells_what_it_finds() -> None:
    detector = own_detector("n", r"\d{4}", near_words=["b", "a"], within=9)
    again = pickle.loads(pickle.dumps(detector))
    assert again == detector
    assert again.find("a 1234") == [Match(2, 6)]
    assert own_detector("n", r"\d{4}", near_words=["A", "b"], within=9).canonical() == detector.canonical()
    assert own_detector("n", r"\d{5}", near_words=["a", "b"], within=9).canonical() != detector.canonical()
    assert own_detector("n", r"\d{4}", near_words=["a"], within=9).canonical() != detector.canonical()


@given(st.text(alphabet=st.characters(), max_size=100))
def test_no_text_raises(text: str) -> None:
    matches = own_detector("n", r"[a-f]+\b", near_words=["é", "0"], within=5).find(text)
    assert all(0 <= match.start < match.end <= len(text) for match in matches)
