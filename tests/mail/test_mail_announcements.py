"""Letters of ours: what they say, and that they fit where they are read."""

from __future__ import annotations

import email
import email.policy
import shlex
from dataclasses import replace
from email.message import EmailMessage

import pytest

from gateway.mail.address import Address
from gateway.mail.announcements import (
    Alarm,
    HeldMail,
    MatchedMail,
    Rest,
    Seen,
    Text,
    about_alarm,
    about_alarm_rest,
    about_held,
    about_held_rest,
    about_held_rest_to_sender,
    about_matched,
    about_matched_rest,
    about_over,
    about_over_rest,
    hold_in_words,
)
from gateway.mail.letter import Letter, build_letter
from gateway.observe.alarms import ALARMS

GW = "gw.clinic.example"
ID = "019b76da-a800-7000-8000-000000000000"
NOW = 1_767_225_600.0
HELD = HeldMail(
    message=ID,
    sender="anna@clinic.example",
    recipients=("bob@payer.example", "eve@payer.example"),
    whole=True,
    rules=("large-lists-are-held",),
    reason="review",
    received=NOW,
    until=NOW + 86400,
    size=48_213,
)
MATCHED = MatchedMail(
    ID, "anna@clinic.example", ("bob@payer.example",), ("phi",), NOW, 812, ("bob@payer.example: held: review",)
)
REST = Rest(499, NOW, NOW + 3000, tuple(Seen(NOW + n, ID, "bob@payer.example") for n in range(10)))


def alarm(kind: str) -> Alarm:
    words = ALARMS[kind]
    return Alarm(kind, "1 bytes free under data_dir", words.means, words.remedy, NOW)


EVERY: dict[str, Text] = {
    "held": about_held(HELD, GW),
    "held rest": about_held_rest(REST, GW, sender="anna@clinic.example", reason="review"),
    "held rest to sender": about_held_rest_to_sender(REST, GW, reason="review", postmaster="pm@clinic.example"),
    "matched": about_matched(MATCHED),
    "matched rest": about_matched_rest(REST, sender="anna@clinic.example", rules=["phi"]),
    "over": about_over(alarm("space"), NOW + 60, GW),
    "over rest": about_over_rest("space", REST, GW),
    **{f"alarm {kind}": about_alarm(alarm(kind), GW) for kind in ALARMS},
    **{f"alarm {kind} rest": about_alarm_rest(alarm(kind), REST, GW) for kind in ALARMS},
}


def sent(text: Text, *to: str) -> tuple[bytes, EmailMessage]:
    addresses = tuple(Address.parse(each) for each in to or ("ops@clinic.example",))
    data = build_letter(Letter(ID, addresses, *text, Address.parse("pm@clinic.example"), GW, NOW))
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return data, parsed


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_letter_fits_a_readers_window_and_keeps_automatic_replies_away(name: str) -> None:
    data, parsed = sent(EVERY[name])
    assert data.isascii()
    assert b"\n" not in data.replace(b"\r\n", b"")
    assert parsed.defects == []
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert parsed["Subject"].startswith(f"[{GW}] ")
    body = parsed.get_content()
    # Commands are never broken; all else fits eighty columns.
    assert max(len(line) for line in body.splitlines() if not line.startswith("    ")) <= 80
    assert max(map(len, body.splitlines())) <= 100
    assert "\n\n\n" not in body.replace("\r\n", "\n")


def test_reviewers_learn_what_waits_why_until_when_and_what_to_type() -> None:
    body = sent(EVERY["held"])[1].get_content()
    for line in (
        f"  message:   {ID}",
        "  from:      anna@clinic.example",
        "  to:        bob@payer.example, eve@payer.example",
        "  size:      48 kB",
        "  rule:      large-lists-are-held",
        "  reason:    review",
        "  until:     02 Jan 2026, 00:00 UTC; then it goes back to its sender",
        f"    gateway queue show {ID}",
        f'    gateway queue release {ID} --reason "..."',
        f'    gateway queue cancel {ID} --reason "..."',
    ):
        assert line in body.splitlines(), line


def test_what_cannot_be_released_is_not_offered_for_release() -> None:
    held = replace(HELD, sender="", whole=False, rules=("a", "b"), reason="contradiction")
    body = sent(about_held(held, GW))[1].get_content()
    assert "queue release" not in body
    assert f"gateway queue redecide {ID} --state held --allow-weaker" in body
    assert "it has no sender to go back to" in " ".join(body.split())


def test_reasons_are_said_in_words() -> None:
    assert hold_in_words("review") == "review"
    assert "contradict each other" in hold_in_words("contradiction")
    assert hold_in_words("review; unknown: phi") == "review; not all of it could be examined (rule phi)"


def test_nothing_that_a_stranger_wrote_makes_a_line_of_its_own() -> None:
    evil = replace(HELD, reason="x\r\nBcc: all@x\u202e", by="a\nb")
    subject, blocks = about_held(evil, GW)
    data, parsed = sent((f"{subject}\r\nBcc: y@z", blocks))
    assert b"\r\nBcc" not in data
    assert parsed["Bcc"] is None
    assert "\u202e" not in data.decode()


def test_many_recipients_are_counted_and_international_ones_are_written() -> None:
    many = tuple(f"a{n}@payer.example" for n in range(8))
    held = replace(HELD, sender="jürgen@clinic.example", recipients=many, reason="Prüfung", size=12_000_000)
    data, parsed = sent(about_held(held, GW), "jürgen@clinic.example", "ops@clinic.example")
    assert not data.isascii()
    assert parsed["Content-Transfer-Encoding"] == "8bit"
    body = parsed.get_content()
    assert "and 3 more" in body
    assert "Prüfung" in body
    assert "12 MB" in body


def test_a_summary_counts_what_it_does_not_list() -> None:
    body = sent(EVERY["held rest"])[1].get_content()
    assert "499 more messages" in body
    assert "... and 489 more" in body
    assert "gateway queue release --state held --from anna@clinic.example" in body


@pytest.mark.parametrize("sender", ["$(reboot)@x.example", "a`id`@x.example", "a|sh@x.example", "o'neil@x.example"])
def test_an_address_is_never_a_command_for_whoever_pastes_the_line(sender: str) -> None:
    assert Address.parse(sender.replace("(", "{").replace(")", "}"))  # such addresses exist
    texts = about_held_rest(REST, GW, sender=sender, reason="x"), about_matched_rest(REST, sender=sender, rules=["r"])
    for _, blocks in texts:
        for line in (line for block in blocks for line in block if line.startswith("    gateway ")):
            assert sender in shlex.split(line)
            assert sender not in line or f"'{sender}'" in line


def test_a_sender_is_told_of_recipients_not_of_our_ids() -> None:
    body = sent(EVERY["held rest to sender"])[1].get_content()
    assert "    00:00  bob@payer.example" in body.splitlines()
    assert ID not in body
