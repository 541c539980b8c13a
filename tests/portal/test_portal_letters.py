"""What recipients are mailed: nothing of the message, one link, in the organisation's name and language."""

from __future__ import annotations

import email
import email.policy
import gettext
from email.message import EmailMessage

import pytest
from babel.support import Translations
from hypothesis import given
from hypothesis import strategies as st

from gateway import catalogues
from gateway.mail.address import Address
from gateway.portal import letters
from gateway.portal.letters import Face, Stamp, about_phrase, build_code, build_notice
from gateway.portal.names import Names

NAMES, TO = Names(b"s" * 32), Address.parse("pat@isp.example")
ID, STAMP = "0192f0c1-2345-7abc-8def-0123456789ab", Stamp("0192f0c1", "gw.clinic.example", 1.8e9)


def face(name: str = "Example Clinic", contact: str = "+1 555 0100", language: str = "en") -> Face:
    sender = Address.parse("secure@clinic.example")
    return Face(name, sender, contact, language, "#1f4e79", "https://secure.clinic.example")


def parsed(data: bytes) -> EmailMessage:
    mail = email.message_from_bytes(data, policy=email.policy.SMTP)
    assert isinstance(mail, EmailMessage)
    assert not mail.defects
    return mail


@given(st.text(max_size=80), st.text(max_size=120), st.booleans())
def test_whatever_an_organisation_is_called_it_is_one_sound_mail(name: str, contact: str, reminder: bool) -> None:  # noqa: FBT001
    built = build_notice(face(name, contact), NAMES, ID, 1, TO, "dr@clinic.example", 1.9e9, STAMP, reminder=reminder)
    assert built.data.isascii()
    assert max(map(len, built.data.split(b"\r\n"))) <= 998
    mail = parsed(built.data)
    assert (mail["To"], mail["Auto-Submitted"]) == (str(TO), "auto-generated")
    assert mail["From"].addresses[0].addr_spec == "secure@clinic.example"
    for kind in ("plain", "html"):
        part = mail.get_body((kind,))
        assert part is not None
        assert part.get_content().count(f"https://secure.clinic.example/m/{NAMES.token(ID, 1)}") == 1
    html = built.html
    assert not any(word in html.replace(contact, "") for word in ("<script", "<img", "url(", "<link", "<form"))


def test_a_reminder_says_so_and_a_code_stands_in_the_body_alone() -> None:
    reminder = build_notice(face(), NAMES, ID, 1, TO, "dr@clinic.example", 1.9e9, STAMP, reminder=True)
    assert reminder.subject == "Reminder: a secure message from Example Clinic"
    assert "You have not read it yet." in reminder.text
    assert "until 17 March 2030" in " ".join(reminder.text.split())
    code = build_code(face(), TO, "246810", "K7-Q2", 10, STAMP)
    assert "246810" not in code.subject
    assert "\n  246810\n" in code.text
    assert "K7-Q2" in code.text


def test_another_language_is_a_catalogue_away(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Translations()
    said._catalog = {
        letters._NOTICE: "Sie haben eine vertrauliche Nachricht von %(organisation)s",
        "Read the message:": "Nachricht lesen:",
    }
    monkeypatch.setattr(letters, "catalogue_for", lambda language, _: (language, said))
    letters._environment.cache_clear()
    try:
        built = build_notice(face(language="de"), NAMES, ID, 1, TO, "dr@clinic.example", 1.9e9, STAMP)
    finally:
        letters._environment.cache_clear()
    assert built.subject == "Sie haben eine vertrauliche Nachricht von Example Clinic"
    assert "Nachricht lesen:" in built.text
    assert "17. März 2030" in " ".join(built.text.split())
    assert b"Content-Language: de" in built.data


def test_a_language_without_a_catalogue_is_english() -> None:
    assert isinstance(catalogues.catalogue_for("tlh", "gateway.portal")[1], gettext.NullTranslations)
    assert build_code(face(language="tlh"), TO, "1", "K7-Q2", 10, STAMP).subject == "Your code for Example Clinic"


def test_the_letter_to_the_sender_has_the_words_on_a_line_alone() -> None:
    subject, blocks = about_phrase("pat@isp.example", "one two three four", 1.9e9, "Mail travels in the clear.")
    assert "one two" not in subject
    assert ("  one two three four",) in blocks
