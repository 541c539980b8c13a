"""What every caller may rely on: names, pickling, the digest's form, one scan for all, data that is whole."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.policy.detect import BUILT_IN, Detector, Match, Scan, own_detector
from gateway.policy.detect.build_icd10 import pack
from gateway.policy.detect.engine import Gates, Program, plain_view
from gateway.policy.detect.icd10 import WIDTH, code_kind, load_codes
from gateway.policy.detect.lexicon import load_lexicon


@pytest.mark.parametrize("name", BUILT_IN)
def test_detectors_go_to_other_processes(name: str) -> None:
    detector = BUILT_IN[name]
    again: Detector = pickle.loads(pickle.dumps(detector))
    text = "Patient: Jane Roe, SSN 536-22-8726, E11.9"
    assert again == detector
    assert again.name == name
    assert again.find(text) == detector.find(text)
    assert again.canonical() == detector.canonical()


def test_the_forms_for_the_digest_differ() -> None:
    forms = {repr(detector.canonical()) for detector in BUILT_IN.values()}
    assert len(forms) == len(BUILT_IN)


def test_phi_joins_halves_that_stand_in_different_texts() -> None:
    got = BUILT_IN["phi"].find_in_message(["MRN 1234567", "nothing", "biopsy on Friday"])
    assert got == [[Match(4, 11)], [], [Match(0, 6)]]
    assert BUILT_IN["phi"].find_in_message(["MRN 1234567", "nothing"]) == [[], []]


def test_phi_counts_what_two_parts_share_once() -> None:
    text = "DOB 01/02/1980, chart no. 01021980, metastatic cancer"
    matches = BUILT_IN["phi"].find(text)
    assert all(one.end <= other.start for one, other in pairwise(matches))
    assert len(matches) == 4


def test_detectors_of_one_name_do_not_mix_in_a_scan() -> None:
    scan = Scan(["aaa bbb"])
    assert [len(found) for found in scan.matches(own_detector("mine", "a+"))] == [1]
    assert [len(found) for found in scan.matches(own_detector("mine", "[ab]+"))] == [2]


def test_places_are_those_of_the_text_whatever_stands_before() -> None:
    text = "Ünïcödé \u4f60\u597d \U0001f600 536\u201122\u20138726"
    (match,) = BUILT_IN["us_ssn"].find(text)
    assert text[match.start : match.end] == "536\u201122\u20138726"
    assert len(plain_view(text)) == len(text)


def test_gates_that_give_up_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class GivesUp:
        def Match(self, text: bytes) -> list[int]:  # noqa: N802  # the engine's name
            return []

    program = Program("a")
    gates = Gates([program])
    assert gates.open_in(b"b") == frozenset()
    assert gates.open_in(b"a") == {program}
    monkeypatch.setitem(gates.__dict__, "_set", GivesUp())
    assert gates.open_in(b"b") == {program}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("E11.9", b"b"),
        ("e119", b"b"),
        ("E11", b"h"),
        ("I10", b"b"),
        ("A00", b"h"),
        ("Z99.89", b"b"),
        ("S72.001A", b"b"),
        ("S72.001", b"h"),
        ("U07.1", b"b"),
        ("B12", b""),
        ("ZZZ", b""),
        ("A0", b""),
    ],
)
def test_codes_are_those_of_the_list(code: str, kind: bytes) -> None:
    assert code_kind(code.encode()) == kind


def test_the_list_is_whole_and_sorted() -> None:
    codes = load_codes()
    entries = [codes[place : place + WIDTH] for place in range(0, len(codes), WIDTH)]
    assert len(entries) == 98_166
    assert sum(entry.endswith(b"b") for entry in entries) == 74_706
    assert entries == sorted(set(entries))


def test_the_list_is_packed_from_codes_with_and_without_dots() -> None:
    made = zlib.decompress(pack(["1", "A00-B99", "A00", "A00.1", "A001X", " B20 ", "chapter"]))
    assert made == b"A00    hA001   hA001X  bB20    b"


def test_terms_are_whole_words() -> None:
    load_lexicon().prepare()
    found = BUILT_IN["health_terms"].find
    assert found("HIV") == [Match(0, 3)]
    assert found("cancers, tumors") == [Match(0, 7), Match(9, 15)]
    assert found("hive cancel tumorous-free-ish"[:11]) == []
    assert found("sleep-apnea") == [Match(0, 11)]


def test_importing_reads_no_data() -> None:
    code = (
        "import sys, gateway.policy.detect as d\n"
        "from gateway.policy.detect import icd10, lexicon, gates\n"
        "print(icd10.load_codes.cache_info().currsize, lexicon.load_lexicon.cache_info().currsize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.split() == ["0", "0"]
