"""What holds for every number and every text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.detect import BUILT_IN, MAX_MATCHES, Match, Scan, prepare
from gateway.policy.detect.checksums import aba_ok, dea_ok, luhn_ok
from gateway.policy.facts import normal_text

DIGIT = st.sampled_from("0123456789")
BEFORE = st.sampled_from(["", "Hello, ", "see 12 of 14: ", "(", "Grüße, ", "a\n", "2026-11-17 ", "\u4f60\u597d "])
BEHIND = st.sampled_from(["", ".", ", thanks", ")", " and so on", "\nRegards", "; ok", "!"])


def found(name: str, text: str) -> list[str]:
    text = normal_text(text)
    return [text[match.start : match.end] for match in BUILT_IN[name].find(text)]


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=count, max_size=count)


def with_check_digit(body: str, good: object) -> str:
    assert callable(good)
    return next(body + last for last in "0123456789" if good((body + last).encode()))


def npi_good(number: bytes) -> bool:
    return luhn_ok(number, 24)


def bare(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


SSN = st.tuples(st.integers(1, 899).filter(lambda area: area != 666), st.integers(1, 99), st.integers(1, 9999)).filter(
    lambda parts: parts not in {(78, 5, 1120), (219, 9, 9999)}
)


@given(SSN, st.sampled_from(["-", ".", " - ", "\u2011", "\u2013", " ", "", "\u00a0", "/"]), BEFORE, BEHIND)
def test_every_possible_social_security_number_is_found(
    parts: tuple[int, int, int], separator: str, before: str, behind: str
) -> None:
    written = f"{parts[0]:03}{separator}{parts[1]:02}{separator}{parts[2]:04}"
    got = found("us_ssn", f"{before}SSN {written}{behind}")
    assert f"{parts[0]:03}{parts[1]:02}{parts[2]:04}" in {bare(text) for text in got}


@given(SSN, BEFORE, BEHIND)
def test_with_dashes_it_needs_no_word(parts: tuple[int, int, int], before: str, behind: str) -> None:
    written = f"{parts[0]:03}-{parts[1]:02}-{parts[2]:04}"
    assert written in found("us_ssn", f"{before}{written}{behind}")


@given(
    st.one_of(
        st.tuples(st.just("000"), digits(2), digits(4)),
        st.tuples(st.just("666"), digits(2), digits(4)),
        st.tuples(st.integers(900, 999).map(str), digits(2), digits(4)),
        st.tuples(digits(3), st.just("00"), digits(4)),
        st.tuples(digits(3), digits(2), st.just("0000")),
    ),
    st.sampled_from(["-", " ", ""]),
)
def test_no_impossible_one_is_found(parts: tuple[str, str, str], separator: str) -> None:
    assert found("us_ssn", f"SSN {separator.join(parts)}") == []


PREFIXES = (
    *(("4", 16), ("51", 16), ("2221", 16), ("34", 15), ("37", 15)),
    *(("6011", 16), ("65", 16), ("36", 14), ("3528", 16), ("62", 16)),
)


@st.composite
def cards(draw: st.DrawFn) -> str:
    prefix, length = draw(st.sampled_from(PREFIXES))
    body = prefix + draw(digits(length - len(prefix) - 1))
    return with_check_digit(body, luhn_ok)


def grouped(card: str, separator: str) -> str:
    sizes = {15: (4, 6, 5), 14: (4, 6, 4)}.get(len(card), (4, 4, 4, 4))
    parts, place = [], 0
    for size in sizes:
        parts.append(card[place : place + size])
        place += size
    return separator.join(parts)


@given(cards().filter(lambda card: len(set(card)) > 1), st.sampled_from(["", " ", "-", "\u2011"]), BEFORE, BEHIND)
def test_every_card_number_is_found(card: str, separator: str, before: str, behind: str) -> None:
    assert card in {bare(text) for text in found("credit_card", f"{before}{grouped(card, separator)}{behind}")}


@given(cards(), st.integers(0, 13), st.integers(1, 9), st.sampled_from(["", " ", "-"]))
def test_one_wrong_digit_is_no_card_number(card: str, place: int, add: int, separator: str) -> None:
    wrong = card[:place] + str((int(card[place]) + add) % 10) + card[place + 1 :]
    assert found("credit_card", f"card {grouped(wrong, separator)}.") == []


@given(st.sampled_from("12"), digits(8), BEFORE, BEHIND, st.integers(0, 9), st.integers(1, 9))
def test_npi(first: str, rest: str, before: str, behind: str, place: int, add: int) -> None:
    number = with_check_digit(first + rest, npi_good)
    assert number in found("npi", f"{before}NPI {number}{behind}")
    wrong = number[:place] + str((int(number[place]) + add) % 10) + number[place + 1 :]
    assert found("npi", f"NPI {wrong}.") == []


@given(st.sampled_from("ABCDEFGHJKLMPRSTUX"), st.sampled_from("ABCXYZ9"), digits(6), BEFORE, BEHIND)
def test_dea(kind: str, letter: str, body: str, before: str, behind: str) -> None:
    number = with_check_digit(body, dea_ok)
    assert kind + letter + number in found("dea", f"{before}DEA {kind}{letter}{number}{behind}")
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert found("dea", f"DEA {kind}{letter}{wrong}.") == []


@given(st.sampled_from(["01", "12", "21", "32", "61", "72", "80"]), digits(6), BEFORE, BEHIND)
def test_routing_numbers(prefix: str, body: str, before: str, behind: str) -> None:
    number = with_check_digit(prefix + body, aba_ok)
    assert number in found("us_bank_routing", f"{before}routing number {number}{behind}")
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert found("us_bank_routing", f"routing number {wrong}.") == []


LETTER = st.sampled_from("ACDEFGHJKMNPQRTUVWXY")
EITHER = st.one_of(LETTER, DIGIT)


@given(
    st.tuples(st.sampled_from("123456789"), LETTER, EITHER, DIGIT).map("".join),
    st.tuples(LETTER, EITHER, DIGIT).map("".join),
    st.tuples(LETTER, LETTER, DIGIT, DIGIT).map("".join),
    st.sampled_from(["", "-", "\u2011"]),
    BEFORE,
    BEHIND,
    st.booleans(),
)
def test_mbi(first: str, second: str, third: str, separator: str, before: str, behind: str, lower: bool) -> None:  # noqa: FBT001  # drawn
    number = separator.join((first, second, third))
    number = number.lower() if lower else number
    assert bare(number) in {bare(text) for text in found("mbi", f"{before}{number}{behind}")}


def well_formed(text: str, matches: list[Match]) -> bool:
    ends = [0]
    for match in matches:
        if not ends[-1] <= match.start < match.end <= len(text):
            return False
        ends.append(match.end)
    return True


PIECES = (
    *("SSN", "536", "-", "22", "8726", " ", "4111 1111 1111 1111", "dx", "E11.9", "I10", "DOB", "1/2/1980", "npi"),
    *("1234567893", "(", ")", "217", "555", "0143", "Patient: ", "Jane", "Roe", "cancer", "MRN", "DE89", "\0"),
    *("\ud800", "é", "\u2013", "@", "https://", "."),
)
NOISE = st.one_of(
    st.text(max_size=200),
    st.text(alphabet=st.characters(categories=["Cs", "Cf", "Nd", "Lo", "Pd"]), max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
)


@pytest.mark.parametrize("name", BUILT_IN)
@given(text=NOISE)
def test_no_text_raises_and_matches_are_in_order(name: str, text: str) -> None:
    assert well_formed(text, BUILT_IN[name].find(text))


@settings(max_examples=200)
@given(st.lists(NOISE, max_size=4))
def test_a_shared_scan_finds_what_each_detector_finds_alone(texts: list[str]) -> None:
    scan = Scan(texts)
    for detector in BUILT_IN.values():
        assert scan.matches(detector) == detector.find_in_message(texts)


HOSTILE = (
    *(
        "SSN 000-00-0000 ",
        "1",
        "1 ",
        "536 22 8726 ",
        "4111 1111 1111 1112 ",
        "dob ",
        "01/02/1980 dob ",
        "dx E11 ",
        "E11.9/",
    ),
    *(
        "call 217 555 014 ",
        "Patient: Jane Roe ",
        "patient ",
        "MRN 1 ",
        "DE89 3704 0044 0532 0130 01 ",
        "npi 1234567890 ",
    ),
    *("https://x/4111111111111111", "ndc 12345-6789-01 ", "cancer", "1EG4-TE5-MK7 ", "é1", "wire 021000022 "),
)


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_with_the_text_and_no_faster(unit: str) -> None:
    prepare()

    def seconds(size: int) -> float:
        text = (unit * (size // len(unit) + 1))[:size]
        start = time.process_time()
        scan = Scan([text])
        for detector in BUILT_IN.values():
            scan.matches(detector)
        return time.process_time() - start

    seconds(10_000)
    small = min(seconds(20_000) for _ in range(3))
    large = seconds(320_000)
    assert large <= 16 * 4 * small + 0.05  # quadratic would be 256 times as much


def test_matches_end_at_the_limit() -> None:
    text = "536-22-8726 " * (MAX_MATCHES + 10)
    assert len(BUILT_IN["us_ssn"].find(text)) == MAX_MATCHES
