"""Names that leave the house: they name one deposit of one store, can be told, and open nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.portal.names import Names, handle_of, normal_typed
from gateway.portal.phrases import new_phrase, normal_phrase

NAMES = Names(b"s" * 32)
ids = st.uuids().map(str)
numbers = st.integers(1, 1000)


@given(ids, numbers, numbers)
def test_names_are_stable_and_differ_by_recipient_and_store(message: str, n: int, other: int) -> None:
    again, elsewhere = Names(b"s" * 32), Names(b"t" * 32)
    for name in ("token", "typed", "verp"):
        one = getattr(NAMES, name)(message, n)
        assert one == getattr(again, name)(message, n)
        assert one != getattr(elsewhere, name)(message, n)
        assert (one == getattr(NAMES, name)(message, other)) is (n == other)


@given(ids, numbers)
def test_they_fit_where_they_stand(message: str, n: int) -> None:
    assert re.fullmatch(r"[a-z2-7]{26}", NAMES.token(message, n))
    assert re.fullmatch(r"[a-z2-7]{16}", NAMES.verp(message, n))
    typed = NAMES.typed(message, n)
    assert re.fullmatch(r"[2-9A-HJKMNP-Z]{8}", typed)
    assert normal_typed(f" {typed[:4].lower()}-{typed[4:]} ") == typed


def test_what_finds_a_deposit_does_not_make_its_link() -> None:
    token = NAMES.token("0192f0c1-2345-7abc-8def-0123456789ab", 1)
    assert token.encode() not in handle_of(token)
    assert handle_of(token) != handle_of(token.upper())


@pytest.mark.parametrize("text", ["", "ABCD", "ABCD-123", "ABCD-1234", "IIII-OOOO", "ABCD-2345-6", "é" * 8])
def test_what_cannot_be_a_typed_code_is_none(text: str) -> None:
    assert normal_typed(text) == ""


def test_a_phrase_is_four_words_that_can_be_typed_any_way() -> None:
    phrases = {new_phrase() for _ in range(50)}
    assert len(phrases) == 50
    for phrase in phrases:
        assert re.fullmatch(r"[a-z]{3,8}( [a-z]{3,8}){3}", phrase)
        assert normal_phrase(f"  {phrase.upper().replace(' ', ' - ')}.\n") == phrase


@given(st.text())
def test_no_text_makes_a_phrase_fail(text: str) -> None:
    assert re.fullmatch(r"([a-z]+( [a-z]+)*)?", normal_phrase(text))
