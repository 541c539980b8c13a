"""A recipient's fate in words: cells, lines and reasons; and what differs from what was told."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from gateway.demo.record import Fate, Shown, Try
from gateway.demo.screen import WIDTH, Screen, table
from gateway.demo.script import HELD, LETTERS, TAGGED, differences
from gateway.demo.words import asked, line, outcome, shown, style, why
from gateway.queue.states import State

NOW = 1_800_000_000.0
GOOD = Shown("TLS 1.3", "verified", "ok", "ok")
FINE = Fate(
    recipient="bob@lab.example",
    state=State.DELIVERED,
    methods=("tls", "smime", "pgp", "pdf", "portal"),
    level="encrypted",
    rules=(),
    method="tls",
    passed_over=(),
    changed=(),
    tried=(Try("mx.lab.example", "delivered", "250 2.0.0 Ok", GOOD),),
    tries=1,
    error="",
    hold_reason="",
    next_attempt=None,
)
NO_METHOD = replace(
    FINE,
    state=State.BOUNCED,
    method=None,
    level="verified",
    rules=(("patient-data", "require tls verified"),),
    passed_over=(
        ("tls", "chain: self-signed certificate"),
        ("smime", "not available in this version"),
        ("pgp", "not available in this version"),
    ),
    tried=(
        Try(
            "mx.lab.example",
            "chain: self-signed certificate",
            "",
            Shown("TLS 1.3", "encrypted", "self-signed certificate", "ok"),
        ),
    ),
    error="5.7.10 no protection that policy allows is possible for this recipient (tls: ...)",
)
REFUSED = replace(
    FINE,
    state=State.BOUNCED,
    tried=(Try("mx.lab.example", "refused by the peer", "550 5.1.1 No such user", GOOD),),
    error="refused by the peer: 550 5.1.1 No such user",
)
CLEAR = replace(
    FINE,
    methods=("tls", "plain"),
    method="plain",
    rules=(("village-has-no-tls", "allow plain"),),
    passed_over=(("tls", "STARTTLS is not offered"),),
    tried=(Try("mx.village.example", "delivered", "250 2.0.0 Ok", None),),
)
NO_HOST = replace(
    FINE,
    state=State.BOUNCED,
    method=None,
    tried=(Try("DNS", "the domain takes no mail (null MX)", "", None),),
    error="the domain takes no mail (null MX)",
)
WAITING = replace(
    FINE,
    state=State.DEFERRED,
    tried=(Try("mx.lab.example", "refused by the peer for now", "451 4.7.1 Greylisted", GOOD),),
    next_attempt=NOW + 2,
)
WAITS_FOR_PERSON = replace(
    FINE,
    state=State.HELD,
    method=None,
    tried=(),
    tries=0,
    hold_reason="a misspelt tag",
    rules=(("mistyped-tag", "hold"),),
)


def test_good_session_is_named_with_its_assurance() -> None:
    assert asked(FINE) == ("tls encrypted", "(no rule matched)")
    assert shown(FINE) == ("TLS 1.3, verified", "")
    assert outcome(FINE, NOW) == ("delivered by tls", "")
    assert why(FINE) == "The session was verified: a trusted certificate for the host's name."


def test_what_was_changed_in_the_message_is_told() -> None:
    assert why(replace(FINE, changed=("strip_tag secure",))).endswith("Changed on the way out: strip_tag secure.")


def test_a_host_that_falls_short_is_named_with_its_flaw_and_every_method_with_its_reason() -> None:
    assert asked(NO_METHOD) == ("tls verified", "patient-data")
    assert shown(NO_METHOD) == ("TLS 1.3, encrypted", "self-signed certificate")
    assert outcome(NO_METHOD, NOW) == ("bounced", "no method is left")
    assert why(NO_METHOD) == (
        "Rule patient-data: require tls verified. Not tls: chain: self-signed certificate. "
        "Not smime, pgp: not available in this version. No method was left: nothing was sent, and the sender was told."
    )


@pytest.mark.parametrize(
    ("fate", "cell", "reason"),
    [
        (REFUSED, ("bounced", "550 5.1.1 No such user"), "the host refused: 550 5.1.1 No such user"),
        (NO_HOST, ("bounced", "the domain takes no mail (null MX)"), "no way to deliver it: the domain takes no mail"),
        (CLEAR, ("delivered by plain", ""), "Not tls: STARTTLS is not offered. So it went in the clear"),
        (WAITING, ("waits", "451 4.7.1 Greylisted; next try in 2 s"), ""),
        (WAITS_FOR_PERSON, ("held", "a misspelt tag"), "It waits for a person"),
        (replace(FINE, tries=2, tried=(*WAITING.tried, *FINE.tried)), ("delivered by tls", "at try 2"), "Try 1: 451"),
    ],
)
def test_every_end_is_told_with_its_reason(fate: Fate, cell: tuple[str, str], reason: str) -> None:
    assert outcome(fate, NOW) == cell
    assert reason in why(fate)
    assert ": ".join(part for part in cell if part) in line(fate, NOW)


def test_what_only_encrypts_is_never_called_proved() -> None:
    short = Shown("TLS 1.3", "encrypted", "self-signed certificate", "ok")
    told = why(replace(FINE, tried=(replace(FINE.tried[0], tls=short),)))
    assert "not proved (self-signed certificate)" in told
    assert "Policy asks for encrypted: good enough." in told


def test_colours_only_repeat_what_words_say() -> None:
    assert style(FINE) == "green"
    assert style(NO_METHOD) == "red"
    assert style(replace(FINE, state=State.QUEUED)) == ""


def test_no_line_of_the_table_is_wider_than_it_promises() -> None:
    fates = [FINE, NO_METHOD, REFUSED, CLEAR, NO_HOST, WAITING, WAITS_FOR_PERSON]
    paper = io.StringIO()
    screen = Screen(Console(file=paper, width=240))
    screen.console.print(table(fates, {"lab.example": "good certificate"}, NOW))
    lines = paper.getvalue().splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "\x1b" not in paper.getvalue()
    assert sum("bob@lab.example" in each for each in lines) == len(fates)


def test_what_ended_as_told_makes_no_difference() -> None:
    fate = replace(
        FINE,
        recipient="ann@hospital.example",
        tried=(replace(FINE.tried[0], tls=replace(GOOD, assurance="authenticated")),),
    )
    assert differences(TAGGED, [fate]) == []


def test_whatever_differs_is_named() -> None:
    (to,) = TAGGED.to
    assert differences(TAGGED, []) == [f"{to}: never came in"]
    assert differences(TAGGED, [replace(NO_METHOD, recipient=to)]) == [
        f"{to}: state is bounced, but should be delivered",
        f"{to}: method is none, but should be tls",
        f"{to}: assurance is none, but should be authenticated",
    ]
    (held,) = HELD.to
    other = replace(WAITS_FOR_PERSON, recipient=held, hold_reason="contradiction")
    assert differences(HELD, [other]) == [f"{held}: reason is 'contradiction', but should be 'a misspelt tag'"]


def test_too_few_tries_are_a_difference() -> None:
    letter = LETTERS[0]
    once = [replace(FINE, recipient="eve@greylist.example")]
    assert f"{once[0].recipient}: number of tries is 1, but should be 2" in differences(letter, once)


def test_the_tour_keeps_its_promise_of_eight_recipients_and_more() -> None:
    assert len({to for letter in (*LETTERS, TAGGED, HELD) for to in letter.to}) >= 8
