"""Who asks, behind which proxies; and the reader's language."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from gateway.web.client import client_of
from gateway.web.pages import Pages
from tests.web.stand import LOOPBACK, face, stand

TRUSTED = (*LOOPBACK, ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8:ff::/48"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),  # anybody can write it
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.66, 198.51.100.1"], "198.51.100.1"),  # the left one is hearsay
        ("127.0.0.1", ["203.0.113.66", "198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.66, 198.51.100.1, 10.1.1.1"], "198.51.100.1"),
        ("127.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("127.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("2001:db8:ff::1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, unknown"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, _hidden, 10.1.1.1"], "10.1.1.1"),
        ("127.0.0.1", ["999.1.1.1"], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, " + "10.1.1.1, " * 5000 + "10.1.1.1"], "10.1.1.1"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_nobody_vouches_for(
    peer: str, forwarded: list[str], address: str
) -> None:
    found = client_of(peer, {"x-forwarded-for": forwarded}, tls=False, trusted=TRUSTED)
    assert str(found.address) == address


@pytest.mark.parametrize(
    ("peer", "tls", "proto", "secure"),
    [
        ("192.0.2.9", False, ["https"], False),
        ("192.0.2.9", True, ["http"], True),
        ("127.0.0.1", False, ["https"], True),
        ("127.0.0.1", False, ["http, https"], True),
        ("127.0.0.1", False, ["https", "http"], False),  # the last is the nearest proxy's own word
        ("127.0.0.1", True, [], True),
        ("127.0.0.1", False, [], False),
    ],
)
def test_whether_the_way_is_encrypted(*, peer: str, tls: bool, proto: list[str], secure: bool) -> None:
    assert client_of(peer, {"x-forwarded-proto": proto}, tls=tls, trusted=TRUSTED).secure is secure


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.77", "198.51.100.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", "unknown"),
        ("not an address", "unknown"),
    ],
)
def test_limits_count_by_network(address: str, network: str) -> None:
    assert client_of(address, {}, tls=False, trusted=()).network == network


async def test_a_stranger_cannot_say_who_he_is_over_a_real_socket() -> None:
    headers = {"X-Forwarded-For": "198.51.100.1"}
    async with stand() as web:
        assert (await web.client.get("/who", headers=headers)).text == "127.0.0.1 False 127.0.0.0/24"
    async with stand(face(trusted=LOOPBACK)) as web:
        answer = await web.client.get("/who", headers={**headers, "X-Forwarded-Proto": "https"})
        assert answer.text == "198.51.100.1 True 198.51.100.0/24"


# -- language ---------------------------------------------------------------------------------------------------------

ARABIC = r"""
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\n"
"Language: ar\n"

msgid "Secure mail"
msgstr "بريد آمن"

msgid "There is nothing here"
msgstr "لا يوجد شيء هنا"

msgid "Reference: %(reference)s"
msgstr "المرجع: %(reference)s"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of templates with an Arabic catalogue."""
    name = "a_face_with_arabic"
    folder = tmp_path / name
    for part in ("templates", "locale/ar/LC_MESSAGES"):
        (folder / part).mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "templates" / "none.html").touch()
    (folder / "locale/ar/LC_MESSAGES/web.po").write_text(ARABIC, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize(
    ("accept", "tag"),
    [
        ("", "en"),
        ("ar", "ar"),
        ("ar-EG, en;q=0.5", "ar"),
        ("de, ar;q=0.2, en;q=0.8", "en"),
        ("en;q=0, ar;q=0.1", "ar"),
        ("*", "en"),
        ("x" * 10_000, "en"),
        ("ar;q=nan, ;;;,,,q=1", "en"),
        (",".join(["xx-YY"] * 1000), "en"),
    ],
)
def test_the_language_that_the_browser_asks_for(package: str, accept: str, tag: str) -> None:
    assert Pages(["gateway.web", package]).language(accept).tag == tag


def test_what_the_reader_has_chosen_goes_before_what_the_browser_says(package: str) -> None:
    pages = Pages(["gateway.web", package])
    assert pages.language("en", chosen="ar").tag == "ar"
    assert pages.language("ar", chosen="xx").tag == "ar"


async def test_pages_and_errors_are_translated_and_run_from_right_to_left(package: str) -> None:
    async with stand(face(packages=[package])) as web:
        headers = {"Accept-Language": "ar"}
        page = (await web.client.get("/", headers=headers)).text
        assert '<html lang="ar" dir="rtl">' in page
        assert "<h1>بريد آمن</h1>" in page
        error = (await web.client.get("/nowhere", headers=headers)).text
        assert "لا يوجد شيء هنا" in error
        assert "المرجع: " in error
        assert '<html lang="en" dir="ltr">' in (await web.client.get("/")).text
