"""What a domain asks receivers to do with mail that is not authenticated: RFC 7489.

Section 6.6.3 finds the organisation's domain by a list of public suffixes; here each parent is asked in turn instead,
never a top-level domain, and the topmost name with a record is the organisation's. For domains of our own, which do
publish there, that is the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from dns.rdtypes.ANY.TXT import TXT

from gateway.directory.resolver import Resolver

__all__ = ["DmarcPolicy", "DmarcRecord", "aligned", "find_dmarc", "parse_dmarc"]

#: Names that are asked, from the domain up; no honest name is deeper.
_MAX_STEPS = 8

DmarcPolicy = Literal["none", "quarantine", "reject"]
_POLICIES = frozenset({"none", "quarantine", "reject"})


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """A record that can be used.

    ``domain``: where it stands; ``organisation``: the topmost name with one, by which relaxed alignment goes.
    ``policy``: what it asks for the domain that was looked up. ``strict_spf``, ``strict_dkim``: that the names must be
    equal. ``reports``: whether aggregate reports go anywhere.
    """

    domain: str
    organisation: str
    policy: DmarcPolicy
    strict_spf: bool = False
    strict_dkim: bool = False
    reports: bool = False


def is_dmarc(text: bytes) -> bool:
    """Whether a TXT string is a DMARC record: the version comes first, in this case (RFC 7489 section 6.3)."""
    return re.match(rb"v[ \t]*=[ \t]*DMARC1[ \t]*(;|\Z)", text) is not None


def parse_dmarc(text: bytes, *, below: bool = False) -> tuple[DmarcPolicy, dict[str, str]] | None:
    """The policy that a record asks and its tags; ``below``: for a domain below the one it stands at.

    None where it cannot be used. A record with ``rua`` but without a sound ``p`` counts as ``none`` (section 6.6.3).
    """
    if not is_dmarc(text):
        return None
    tags: dict[str, str] = {}
    for part in text.decode("ascii", "replace").split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip().lower(), value.strip())
    for name in ("sp", "p") if below else ("p",):
        if (policy := tags.get(name, "").lower()) in _POLICIES:
            return cast("DmarcPolicy", policy), tags
    return ("none", tags) if tags.get("rua") else None


async def find_dmarc(resolver: Resolver, domain: str) -> DmarcRecord | str:
    """The record that holds for ``domain`` (A-labels), or why there is none, in words; "" where nothing is published.

    Raises :class:`gateway.directory.resolver.DnsError`.
    """
    labels = domain.split(".")
    names = [".".join(labels[n:]) for n in range(len(labels) - 1)]
    if len(names) > _MAX_STEPS:
        names = [names[0], *names[-_MAX_STEPS + 1 :]]
    fault = ""
    found: tuple[str, DmarcPolicy, dict[str, str]] | None = None
    organisation = ""
    for name in names:
        answer = await resolver.query(f"_dmarc.{name}", "TXT")
        texts = [b"".join(record.strings) for record in answer.records if isinstance(record, TXT)]
        records = [text for text in texts if is_dmarc(text)]
        if len(records) > 1:
            fault = fault or f"_dmarc.{name} has {len(records)} DMARC records: none of them counts"
            continue
        read = parse_dmarc(records[0], below=name != domain) if records else None
        if read is None:
            wrong = records or [text for text in texts if b"dmarc" in text.lower()]
            fault = fault or (f"what _dmarc.{name} publishes is no DMARC record that counts" if wrong else "")
            continue
        organisation = name
        found = found or (name, *read)
    if found is None or fault:
        return fault
    domain_of_record, policy, tags = found
    return DmarcRecord(
        domain_of_record,
        organisation,
        policy,
        strict_spf=tags.get("aspf", "").lower() == "s",
        strict_dkim=tags.get("adkim", "").lower() == "s",
        reports=bool(tags.get("rua")),
    )


def aligned(record: DmarcRecord, author: str, authenticated: str, *, strict: bool) -> bool:
    """Whether ``authenticated`` speaks for the author's domain (RFC 7489 section 3.1)."""
    if author == authenticated:
        return True
    return not strict and (authenticated == record.organisation or authenticated.endswith(f".{record.organisation}"))
