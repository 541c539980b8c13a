"""A scan that has learnt which detectors have nothing to do finds what each detector finds by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.detect import BUILT_IN, Scan

FRAGMENTS = [
    "SSN 536-22-8726", "536228726", "social security", "card 4111 1111 1111 1111", "NPI 1234567893", "1234567893",
    "MBI 1EG4-TE5-MK73", "DEA AB1234563", "E11.9", "diagnosis I10", "chemotherapy", "call (212) 555-0147",
    "DOB 04/05/1970", "born", "MRN 12345678", "patient: Jane Roe", "routing 011000015", "DE89370400440532013000",
    "NDC 0002-8215-01", "Order no. 536-22-8726", "12345", "https://x.example/536-22-8726", "hello", "Friday 10:30",
]  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=6).map(" ".join), max_size=3))
def test_learning_what_a_detector_asks_for_misses_nothing(texts: list[str]) -> None:
    scan = Scan(texts)
    for name, detector in BUILT_IN.items():
        if name != "phi":  # judged per message
            assert scan.matches(detector) == [detector.find(text) for text in texts], name
    assert scan.matches(BUILT_IN["phi"]) == BUILT_IN["phi"].find_in_message(texts)
