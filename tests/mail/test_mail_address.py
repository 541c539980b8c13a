"""An address can only hold what was validated: nothing can be injected through it."""

from __future__ import annotations

import string
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail.address import Address, AddressError, normal_domain

ATEXT = string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~-"
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
DOT_ATOM = st.lists(st.text(ATEXT, min_size=1, max_size=8), min_size=1, max_size=4).map(".".join)
QUOTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=24)
INTERNATIONAL = st.text(st.sampled_from("äöüßéñøдж日本語한글αβ"), min_size=1, max_size=8)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.one_of(DOT_ATOM, QUOTABLE.map(quoted), INTERNATIONAL), DOMAIN)
def test_what_is_parsed_is_written_so_that_it_parses_to_the_same(local: str, domain: str) -> None:
    address = Address.parse(f"{local}@{domain}")
    assert Address.parse(str(address)) == address
    assert len(str(address).encode()) <= 254


@given(st.text(max_size=60))
@example("a@b\r\n.example")
@example('"a\r\nRCPT TO:<x@y>"@b.example')
@example("a\u202eb@c.example")
@example("a@b.example\n")
@example('"a\\\r"@b.example')
@example("\ud800@b.example")
@example("a@\ud800.example")
@example("a@b\u3002example")
@example("a@xn--\u00e4.example")
@example("a@" + "\u0660" * 70 + ".example")
def test_whatever_the_text_an_address_holds_nothing_that_could_break_a_line(text: str) -> None:
    try:
        address = Address.parse(text)
    except AddressError:
        return
    written = str(address)
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in written)
    if not written.startswith('"'):
        assert " " not in written
        assert "<" not in written
        assert ">" not in written
    assert " " not in address.domain
    assert address.domain.isascii()
    assert Address.parse(written) == address


@given(DOT_ATOM, DOMAIN, st.sampled_from(["\r", "\n", "\0", "\t", " ", "\x7f", "\x85", "\u2028", "<", ">", "\u202e"]))
def test_no_control_character_passes_at_any_place(local: str, domain: str, bad: str) -> None:
    for text in (
        f"{bad}{local}@{domain}",
        f"{local}{bad}x@{domain}",
        f"{local}@{domain}{bad}",
        f"{local}@x{bad}{domain}",
    ):
        with pytest.raises(AddressError):
            Address.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "a@",
        "@b.example",
        "a",
        "a..b@c.example",
        ".a@b.example",
        "a.@b.example",
        "a@b..example",
        "a@-b.example",
        "a@b-.example",
        "a@b.example.",
        '""@b.example',
        '"a@b.example',
        "a@[999.1.1.1]",
        "a@[IPv6:zz]",
        "a@[::1",
        f"{'a' * 65}@b.example",
        f"a@{'b' * 64}.example",
        f"a@{'.'.join(['b' * 60] * 5)}.example",
        f"{'a' * 64}@{'.'.join(['b' * 63] * 3)}",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        Address.parse(text)


def test_the_lengths_of_the_standard_are_exact() -> None:
    assert Address.parse(f"{'a' * 64}@b.example").local == "a" * 64
    domain = ".".join(["b" * 63, "b" * 63, "b" * 61])  # 189 octets
    assert len(str(Address.parse(f"{'a' * 64}@{domain}"))) == 254
    with pytest.raises(AddressError):
        Address.parse(f"{'a' * 64}@{domain}b")
    assert Address.parse(f"{'ä' * 32}@b.example").local == "ä" * 32
    with pytest.raises(AddressError):
        Address.parse(f"{'ä' * 33}@b.example")  # 66 octets


def test_domains_have_one_form() -> None:
    assert Address.parse("a@EXAMPLE.COM").domain == "example.com"
    assert Address.parse("a@BÜCHER.example").domain == "xn--bcher-kva.example"
    assert normal_domain("[ipv6:2001:DB8::0:1]") == "[IPv6:2001:db8::1]"
    assert str(Address.parse("a@[192.0.2.1]").literal) == "192.0.2.1"
    assert Address.parse("a@[192.0.2.1]").is_literal
    with pytest.raises(AddressError):
        _ = Address.parse("a@b.example").literal


def test_a_quoted_local_part_is_kept_unquoted_and_compared_without_case() -> None:
    address = Address.parse('"Anna Lee"@B.example')
    assert (address.local, str(address)) == ("Anna Lee", '"Anna Lee"@b.example')
    assert Address.parse('"anna"@b.example') == Address.parse("anna@b.example")
    assert Address.parse("ANNA@b.example").key == Address.parse("anna@B.EXAMPLE").key
    assert Address.parse("ANNA@b.example").local == "ANNA"


def test_without_smtputf8_a_local_part_outside_ascii_is_refused() -> None:
    assert not Address.parse("jürgen@b.example").is_ascii
    with pytest.raises(AddressError):
        Address.parse("jürgen@b.example", smtputf8=False)
    assert Address.parse("j@bücher.example", smtputf8=False).is_ascii
