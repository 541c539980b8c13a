"""Which DMARC record holds for a domain, and what it asks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.directory import DnsResolver
from gateway.directory.dmarc import DmarcRecord, aligned, find_dmarc, parse_dmarc
from gateway.testing import DnsServer

MakeResolver = Callable[..., DnsResolver]


@pytest.mark.parametrize(
    ("record", "policy"),
    [
        (b"v=DMARC1; p=reject", "reject"),
        (b"v = DMARC1 ;p=Quarantine; pct=50", "quarantine"),
        (b"v=DMARC1; p=monitor; rua=mailto:a@example.com", "none"),
        (b"v=DMARC1; rua=mailto:a@example.com", "none"),
        (b"v=DMARC1; p=monitor", None),
        (b"v=DMARC1", None),
        (b"v=dmarc1; p=reject", None),
        (b"p=reject; v=DMARC1", None),
        (b"v=DMARC10; p=reject", None),
        (b"", None),
    ],
)
def test_what_a_record_asks(record: bytes, policy: str | None) -> None:
    read = parse_dmarc(record)
    assert (None if read is None else read[0]) == policy


@pytest.mark.parametrize(
    ("record", "policy"),
    [
        (b"v=DMARC1; p=reject; sp=none", "none"),
        (b"v=DMARC1; p=reject", "reject"),
        (b"v=DMARC1; p=reject; sp=bogus", "reject"),
    ],
)
def test_what_a_record_asks_for_a_domain_below(record: bytes, policy: str) -> None:
    read = parse_dmarc(record, below=True)
    assert read is not None
    assert read[0] == policy


async def found(zone: str, domain: str, resolver_on: MakeResolver) -> DmarcRecord | str:
    async with DnsServer(zone) as server:
        return await find_dmarc(resolver_on(server), domain)


async def test_the_domain_itself_comes_first_and_the_topmost_record_is_the_organisations(
    resolver_on: MakeResolver,
) -> None:
    zone = (
        '_dmarc.clinic.example. TXT "v=DMARC1; p=reject; aspf=s; rua=mailto:d@clinic.example"\n'
        '_dmarc.mail.clinic.example. TXT "v=DMARC1; p=none"\n'
    )
    assert await found(zone, "clinic.example", resolver_on) == DmarcRecord(
        "clinic.example", "clinic.example", "reject", strict_spf=True, reports=True
    )
    below = await found(zone, "mail.clinic.example", resolver_on)
    assert below == DmarcRecord("mail.clinic.example", "clinic.example", "none")
    inherited = await found(zone, "a.b.clinic.example", resolver_on)
    assert isinstance(inherited, DmarcRecord)
    assert (inherited.domain, inherited.policy) == ("clinic.example", "reject")


async def test_nothing_something_broken_and_two_of_them(resolver_on: MakeResolver) -> None:
    assert await found("", "clinic.example", resolver_on) == ""
    broken = await found('_dmarc.clinic.example. TXT "v=DMARC; p=reject"', "clinic.example", resolver_on)
    assert broken == "what _dmarc.clinic.example publishes is no DMARC record that counts"
    one = '_dmarc.clinic.example. TXT "v=DMARC1; p=none"\n'
    twice = await found(one + one.replace("none", "reject"), "clinic.example", resolver_on)
    assert twice == "_dmarc.clinic.example has 2 DMARC records: none of them counts"
    # A wildcard answers every question with text that is about something else.
    assert await found('*.clinic.example. TXT "verification=1"', "clinic.example", resolver_on) == ""


async def test_a_deep_name_costs_eight_questions(resolver_on: MakeResolver) -> None:
    async with DnsServer("") as server:
        await find_dmarc(resolver_on(server), "a.b.c.d.e.f.g.h.i.j.clinic.example")
        assert len(server.queries) == 8


@pytest.mark.parametrize(
    ("author", "authenticated", "strict", "expected"),
    [
        ("clinic.example", "clinic.example", True, True),
        ("clinic.example", "gw.clinic.example", False, True),
        ("mail.clinic.example", "gw.clinic.example", False, True),
        ("clinic.example", "gw.clinic.example", True, False),
        ("clinic.example", "otherclinic.example", False, False),
    ],
)
def test_alignment(author: str, authenticated: str, strict: bool, expected: bool) -> None:  # noqa: FBT001 - a column
    record = DmarcRecord("clinic.example", "clinic.example", "reject")
    assert aligned(record, author, authenticated, strict=strict) is expected
