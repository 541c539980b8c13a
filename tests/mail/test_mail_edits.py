"""Edits as a value: what they refuse to hold, how they are kept and put together."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway.mail.edits import NO_EDITS, EditError, Edits, Footer, combined

ALL = Edits(
    strip_tags=frozenset({"secure", "vertraulich"}),
    remove_headers=frozenset({"x-mailer"}),
    add_headers=(("X-Sent-By", "gateway"), ("Reply-To", "ask@clinic.example")),
    replace_subject="Grüße",
    prepend_subject=("[Extern]",),
    footers=(Footer("one\ntwo"), Footer("three", "<p>three</p>")),
)


def test_no_edits_are_false_and_each_single_one_is_true() -> None:
    assert not NO_EDITS
    assert not Edits()
    assert NO_EDITS.key == ""
    for one in (
        Edits(strip_tags=frozenset({"a"})),
        Edits(remove_headers=frozenset({"a"})),
        Edits(add_headers=(("A", ""),)),
        Edits(replace_subject=""),
        Edits(prepend_subject=("a",)),
        Edits(footers=(Footer("a"),)),
    ):
        assert one
        assert one.key
        assert Edits.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_edits_survive_being_kept_and_equal_ones_have_one_key() -> None:
    again = Edits.from_json(json.loads(json.dumps(ALL.as_json())))
    assert again == ALL
    assert (hash(again), again.key) == (hash(ALL), ALL.key)
    assert Edits(strip_tags=frozenset({"a"})).key != Edits(strip_tags=frozenset({"b"})).key
    assert Edits.from_json(None) is NO_EDITS


def test_the_plan_stands_in_the_order_of_the_kinds() -> None:
    kinds = [change.action for change in ALL.planned()]
    order = ["strip_tag", "remove_header", "add_header", "replace_subject", "prepend_subject", "footer"]
    assert kinds == sorted(kinds, key=order.index)
    assert set(kinds) == set(order)


@pytest.mark.parametrize(
    "value", ["a\rb", "a\nb", "a\r\nBcc: x@y.example", "a\0b", "\x1b[31m", "\x7f", "\x85", "\ud800"]
)
def test_what_could_inject_a_line_is_refused(value: str) -> None:
    builds: list[Callable[[], Edits]] = [
        lambda: Edits(add_headers=(("X-A", value),)),
        lambda: Edits(add_headers=((value, "x"),)),
        lambda: Edits(remove_headers=frozenset({value})),
        lambda: Edits(replace_subject=value),
        lambda: Edits(prepend_subject=(value,)),
        lambda: Edits(strip_tags=frozenset({value})),
    ]
    for build in builds:
        with pytest.raises(EditError):
            build()


def test_a_footer_may_have_lines_but_no_other_control_characters() -> None:
    assert Footer("\r\na\r\nb\nc\n").lines == ("a", "b", "c")
    assert Footer("1 < 2\nb").markup == "<div>1 &lt; 2<br>\r\nb</div>"
    assert Footer("a", "<p>\na</p>").markup == "<p>\r\na</p>"
    for text, html in (("", ""), (" \n", "<p>x</p>"), ("a\0", ""), ("a", "\x1b"), ("x" * 60_000, "")):
        with pytest.raises(EditError):
            Footer(text, html)


@pytest.mark.parametrize("name", ["From", "Date", "Content-Type", "MIME-Version", "X-Gateway-Id", "A B", "ü", "", "A:"])
def test_what_holds_a_message_together_is_not_to_be_touched(name: str) -> None:
    with pytest.raises(EditError):
        Edits(add_headers=((name, "x"),))
    with pytest.raises(EditError):
        Edits(remove_headers=frozenset({name.lower()}))


@pytest.mark.parametrize("name", ["To", "subject", "Message-ID", "DKIM-Signature", "ARC-Seal", "Received", "Resent-To"])
def test_what_others_write_is_not_added(name: str) -> None:
    with pytest.raises(EditError):
        Edits(add_headers=((name, "x"),))


def test_limits_and_spelling() -> None:
    with pytest.raises(EditError):
        Edits(add_headers=(("X-A", "x" * 3000),))
    with pytest.raises(EditError):
        Edits(remove_headers=frozenset({"X-Mailer"}))
    with pytest.raises(EditError):
        Edits(add_headers=(("Reply-To", "Jürgen <j@x.example>"),))
    with pytest.raises(EditError):
        Edits(strip_tags=frozenset({" "}))


def test_only_what_takes_something_out_conceals() -> None:
    assert not Edits(add_headers=(("A", "b"),), prepend_subject=("x",), footers=(Footer("f"),)).conceals
    assert Edits(strip_tags=frozenset({"a"})).conceals
    assert Edits(remove_headers=frozenset({"a"})).conceals
    assert Edits(replace_subject="").conceals


def test_several_rules_add_up_in_their_order() -> None:
    one = Edits(add_headers=(("A", "1"),), replace_subject="first", prepend_subject=("p",), footers=(Footer("f"),))
    two = Edits(add_headers=(("A", "1"), ("A", "2")), replace_subject="second", prepend_subject=("q", "p"))
    both = combined([NO_EDITS, one, two])
    assert both.add_headers == (("A", "1"), ("A", "2"))
    assert both.replace_subject == "first"
    assert both.prepend_subject == ("p", "q")
    assert both.footers == one.footers
    assert combined([]) is NO_EDITS
    assert combined([NO_EDITS, two]) is two
