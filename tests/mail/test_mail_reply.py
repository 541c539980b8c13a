"""What a peer says is one clean line by the time that anybody sees it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail.reply import MAX_TEXT, Reply, clean_text


@given(st.text(max_size=80), st.integers(min_value=1, max_value=90))
@example("a\r\nb\0c\x1b[2Jd", 80)
@example("\u202eevil\u2066\u200f\u061c\u200e", 80)
@example("\x85\u2028\u2029\x9b", 80)
@example("\ud800", 80)
def test_nothing_of_a_stranger_moves_the_cursor_turns_the_text_or_breaks_the_line(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert len(cleaned) <= limit
    assert cleaned.splitlines() in ([], [cleaned])
    assert not any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in cleaned)
    assert not any(
        unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"} for c in cleaned
    )
    assert not set(cleaned) & set("\u061c\u200e\u200f")
    cleaned.encode()


@given(st.text(max_size=700))
def test_a_reply_is_short_and_survives_being_kept(text: str) -> None:
    reply = Reply.parse(550, text)
    assert len(reply.text) <= MAX_TEXT
    assert Reply.from_json(reply.as_json()) == reply
    assert "\n" not in str(reply)


@pytest.mark.parametrize(
    ("code", "text", "enhanced", "words"),
    [
        (550, "5.1.1 no such user", "5.1.1", "no such user"),
        (550, "5.1.1 no\n5.1.1 such\n5.1.1 user", "5.1.1", "no such user"),
        (550, "4.1.1 a liar", "", "4.1.1 a liar"),
        (250, "2.0.0", "2.0.0", ""),
        (250, "ok", "", "ok"),
        (550, "5.1.1.1 no code", "", "5.1.1.1 no code"),
        (550, "5.1234.1 no code", "", "5.1234.1 no code"),
    ],
)
def test_the_enhanced_code_is_taken_where_it_agrees(code: int, text: str, enhanced: str, words: str) -> None:
    reply = Reply.parse(code, text)
    assert (reply.enhanced, reply.text) == (enhanced, words)


def test_what_a_code_means() -> None:
    assert Reply.parse(250, "").positive
    assert Reply.parse(354, "").positive
    assert Reply.parse(451, "").temporary
    assert Reply.parse(550, "").permanent
    assert str(Reply(550, "", "")) == "550"
