"""SPF as verifiers evaluate it: RFC 7208, its examples (appendix A), its macros (section 7.4), its limits."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import SystemClock
from gateway.config.outbound import Dns
from gateway.directory import DnsResolver
from gateway.directory.spf import SpfVerdict, check_host
from gateway.directory.spf_record import SpfSyntaxError, expand, is_spf, parse_spf
from gateway.testing import DnsServer, Flag

# RFC 7208 appendix A, with the addresses that it has.
EXAMPLE = """
example.com. A 192.0.2.10
example.com. A 192.0.2.11
amy.example.com. A 192.0.2.65
bob.example.com. A 192.0.2.66
mail-a.example.com. A 192.0.2.129
mail-b.example.com. A 192.0.2.130
example.com. MX 10 mail-a.example.com.
example.com. MX 20 mail-b.example.com.
example.org. MX 10 mail-c.example.org.
mail-c.example.org. A 192.0.2.140
10.2.0.192.in-addr.arpa. PTR example.com.
65.2.0.192.in-addr.arpa. PTR amy.example.com.
129.2.0.192.in-addr.arpa. PTR mail-a.example.com.
140.2.0.192.in-addr.arpa. PTR mail-c.example.org.
"""


def verdict(zone: str, address: str, domain: str, *flags: tuple[str, Flag], **more: str) -> SpfVerdict:
    async def look() -> SpfVerdict:
        async with DnsServer(zone) as server:
            for name, flag in flags:
                server.flag(name, flag)
            settings = Dns.model_validate({"resolvers": [server.resolver], "timeout": "2s"})
            resolver = DnsResolver(settings, SystemClock())
            found = await check_host(resolver, address, domain, **more)
            await resolver.close()
            return found

    return asyncio.run(look())


def result(record: str, address: str, zone: str = EXAMPLE, domain: str = "example.com") -> str:
    return str(verdict(f'{zone}\n{domain}. TXT "{record}"', address, domain).result)


@pytest.mark.parametrize(
    ("record", "passes", "fails"),
    [
        ("v=spf1 +all", ["192.0.2.1", "2001:db8::1"], []),
        ("v=spf1 a -all", ["192.0.2.10", "192.0.2.11"], ["192.0.2.12"]),
        ("v=spf1 a:example.org -all", [], ["192.0.2.10", "192.0.2.140"]),
        ("v=spf1 mx -all", ["192.0.2.129", "192.0.2.130"], ["192.0.2.140"]),
        ("v=spf1 mx:example.org -all", ["192.0.2.140"], ["192.0.2.129"]),
        ("v=spf1 mx mx:example.org -all", ["192.0.2.129", "192.0.2.140"], ["192.0.2.10"]),
        ("v=spf1 mx/30 mx:example.org/30 -all", ["192.0.2.131", "192.0.2.143"], ["192.0.2.132"]),
        ("v=spf1 ptr -all", ["192.0.2.10", "192.0.2.65"], ["192.0.2.140"]),
        ("v=spf1 ip4:192.0.2.128/28 -all", ["192.0.2.129"], ["192.0.2.65"]),
        ("v=spf1 ip6:2001:db8::/32 -all", ["2001:db8:1::5"], ["2001:db9::1", "192.0.2.10"]),
        ("V=SPF1 IP4:192.0.2.1 -ALL", ["192.0.2.1", "::ffff:192.0.2.1"], ["192.0.2.2"]),
    ],
)
def test_the_simple_examples_of_the_rfc(record: str, passes: list[str], fails: list[str]) -> None:
    assert [result(record, address) for address in passes] == ["pass"] * len(passes)
    assert [result(record, address) for address in fails] == ["fail"] * len(fails)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=spf1 ~all", "softfail"),
        ("v=spf1 ?all", "neutral"),
        ("v=spf1", "neutral"),
        ("v=spf1 -ip4:192.0.2.1 +all", "fail"),
        ("v=spf10 +all", "none"),
        ("v=spf1 foo=bar:baz +all", "pass"),
        ("v=spf1 redirect=other.example", "softfail"),
        ("v=spf1 include:other.example ?all", "neutral"),
        ("v=spf1 include:nothing.example -all", "permerror"),
        ("v=spf1 redirect=nothing.example", "permerror"),
        ("v=spf1 +all redirect=nothing.example", "pass"),
        ("v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all", "pass"),
        ("v=spf1 exists:%{l1r-}.lists.%{d2} -all", "fail"),
        # A fault behind what matched is a fault all the same (section 4.6).
        ("v=spf1 +all moo:x.example", "permerror"),
        ("v=spf1 ip4:192.0.2.300 +all", "permerror"),
        ("v=spf1 ip4:2001:db8::1 +all", "permerror"),
        ("v=spf1 a/33 +all", "permerror"),
        ("v=spf1 ip4:192.0.2.0/016 +all", "permerror"),
        ("v=spf1 include +all", "permerror"),
        ("v=spf1 a:%{x}.example +all", "permerror"),
        ("v=spf1 a:localhost +all", "permerror"),
        ("v=spf1 redirect=a.example redirect=b.example", "permerror"),
        ("v=spf1 all:example.com", "permerror"),
    ],
)
def test_what_a_record_says_of_one_address(record: str, expected: str) -> None:
    zone = f'{EXAMPLE}\nother.example. TXT "v=spf1 ~all"\n1.2.0.192.in-addr._spf.example.com. A 127.0.0.2'
    assert result(record, "192.0.2.1", zone) == expected


def test_strings_of_a_record_are_joined_without_a_gap() -> None:
    zone = 'example.com. TXT "v=spf1 ip4:192.0" ".2.1 -all"\nexample.com. TXT "other text"'
    assert verdict(zone, "192.0.2.1", "example.com").result == "pass"


def test_no_record_two_records_and_no_answer_are_three_things() -> None:
    one, two = 'example.com. TXT "v=spf1 -all"\n', 'example.com. TXT "v=spf1 +all"\n'
    assert verdict("", "192.0.2.1", "example.com").result == "none"
    assert verdict(one + two, "192.0.2.1", "example.com").reason == "example.com has 2 SPF records; one is allowed"
    failing = verdict(one, "192.0.2.1", "example.com", ("example.com.", "servfail"))
    assert (failing.result, "SERVFAIL" in failing.reason) == ("temperror", True)
    assert verdict("", "192.0.2.1", "localhost").result == "none"


def test_the_term_that_decides_is_that_of_the_domain_itself() -> None:
    zone = 'a.example. TXT "v=spf1 include:b.example -all"\nb.example. TXT "v=spf1 ip4:192.0.2.1"'
    found = verdict(zone, "192.0.2.1", "a.example")
    assert (found.result, found.term, found.lookups) == ("pass", "include:b.example", 1)
    assert found.record == "v=spf1 include:b.example -all"
    assert verdict(zone, "192.0.2.2", "a.example").term == "-all"


def test_ten_lookups_are_allowed_and_eleven_are_not() -> None:
    hosts = "".join(f"h{n}.example. A 198.51.100.{n}\n" for n in range(11))
    for count, expected in ((10, "fail"), (11, "permerror")):
        terms = " ".join(f"a:h{n}.example" for n in range(count))
        found = verdict(f'{hosts}example.com. TXT "v=spf1 {terms} -all"', "192.0.2.1", "example.com")
        assert (found.result, found.lookups) == (expected, count)


def test_a_loop_of_includes_ends() -> None:
    zone = 'a.example. TXT "v=spf1 include:b.example -all"\nb.example. TXT "v=spf1 include:a.example -all"'
    found = verdict(zone, "192.0.2.1", "a.example")
    assert (found.result, found.lookups) == ("permerror", 11)


def test_two_lookups_that_find_nothing_are_allowed_and_three_are_not() -> None:
    for count, expected in ((2, "fail"), (3, "permerror")):
        terms = " ".join(f"exists:n{n}.example" for n in range(count))
        assert result(f"v=spf1 {terms} -all", "192.0.2.1") == expected


def test_an_mx_of_eleven_hosts_is_an_error() -> None:
    for count, expected in ((10, "fail"), (11, "permerror")):
        zone = "".join(f"big.example. MX 10 h{n}.example.\nh{n}.example. A 198.51.100.{n}\n" for n in range(count))
        assert result("v=spf1 mx:big.example -all", "192.0.2.1", zone) == expected


# -- macros -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("macro", "expanded"),
    [
        # Section 7.4, for strong-bad@email.example.com from 192.0.2.3.
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%{h}%%%_%-", "gw.example% %20"),
        ("%{S}", "strong-bad%40email.example.com"),
    ],
)
def test_the_macros_of_the_rfc(macro: str, expanded: str) -> None:
    sender, address = ("strong-bad", "email.example.com"), ipaddress.ip_address("192.0.2.3")
    assert expand(macro, domain="email.example.com", address=address, sender=sender, helo="gw.example") == expanded


def test_an_ipv6_address_becomes_nibbles_and_a_long_name_is_cut_on_the_left() -> None:
    address = ipaddress.ip_address("2001:db8::cb01")
    name = expand("%{ir}.%{v}._spf.a.example", domain="", address=address, sender=("", ""), helo="")
    assert name == f"{'.'.join(reversed('20010db800000000000000000000cb01'))}.ip6._spf.a.example"
    long = expand("%{l}.a.example", domain="", address=address, sender=(".".join(["x" * 60] * 5), ""), helo="")
    assert long == ".".join(["x" * 60] * 4 + ["a", "example"])


@given(st.text(alphabet="abc:=/.%{}+-~? 0129diso", max_size=60))
def test_any_text_is_a_record_or_a_syntax_error(text: str) -> None:
    record = b"v=spf1 " + text.encode()
    assert is_spf(record)
    try:
        terms = parse_spf(record)
    except SpfSyntaxError:
        return
    address = ipaddress.ip_address("192.0.2.3")
    for target in itertools.chain([term.target for term in terms.mechanisms], [terms.redirect]):
        assert len(expand(target, domain="a.example", address=address, sender=("l", "o.example"), helo="h")) < 1000
