"""What SPF says about mail from an address: RFC 7208 in full, as a verifier at the other end would evaluate it.

Asked about domains of our own, to find out beforehand what others will find; nothing that decides about mail uses it.
Bounded as section 4.6.4 prescribes: ten terms that look something up, ten hosts of an ``mx``, two look-ups that find
nothing. ``exp`` is not followed: it changes no result.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

import dns.reversename
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TXT import TXT

from gateway.directory.resolver import Answer, DnsError, Resolver
from gateway.directory.spf_record import (
    Address,
    SpfSyntaxError,
    SpfTerm,
    expand,
    is_spf,
    parse_spf,
)

__all__ = ["SpfResult", "SpfVerdict", "check_host"]

_MAX_LOOKUPS = 10
_MAX_VOID = 2
_MAX_HOSTS = 10
_LONGEST_LABEL = 63


class SpfResult(StrEnum):
    """The results of section 2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 - a result, not a password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


_BY_QUALIFIER = {"+": SpfResult.PASS, "-": SpfResult.FAIL, "~": SpfResult.SOFTFAIL, "?": SpfResult.NEUTRAL}


@dataclass(frozen=True, slots=True)
class SpfVerdict:
    """``term``: the one of the domain's own record that decided, "" where none did. ``reason``: why it came to nothing.

    ``lookups``: terms that had something looked up, of the ten that are allowed. ``record``: the domain's own, "" for
    none.
    """

    result: SpfResult
    term: str = ""
    reason: str = ""
    lookups: int = 0
    record: str = ""


class _Ends(Exception):
    """The evaluation is over, with an error of one kind or the other."""

    def __init__(self, result: SpfResult, reason: str) -> None:
        super().__init__(reason)
        self.result = result


async def check_host(
    resolver: Resolver, address: str, domain: str, *, local: str = "postmaster", sender: str = "", helo: str = ""
) -> SpfVerdict:
    """``check_host()`` of section 4 for mail from ``address`` with a sender in ``domain`` (A-labels).

    ``sender``: domain of the sender, where it is another than the one asked about; ``helo``: the name in EHLO. Never
    raises for what DNS says or does not say: that is a result.
    """
    walk = _Walk(resolver, ipaddress.ip_address(address), (local, sender or domain), helo or domain)
    try:
        result = await walk.follow(domain)
    except _Ends as end:
        return SpfVerdict(end.result, walk.term, str(end), walk.lookups, walk.record)
    term = "" if result is SpfResult.NONE else walk.term
    return SpfVerdict(result, term, "", walk.lookups, walk.record)


class _Walk:
    """One evaluation. ``term`` and ``record`` are those of the outermost record."""

    def __init__(self, resolver: Resolver, address: Address, sender: tuple[str, str], helo: str) -> None:
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        self._resolver = resolver
        self._address = mapped or address
        self._sender = sender
        self._helo = helo
        self._void = 0
        self._depth = 0
        self.lookups = 0
        self.term = ""
        self.record = ""

    async def follow(self, domain: str) -> SpfResult:
        """The result for the record of ``domain``. Raises :class:`_Ends`."""
        if not _is_name(domain):
            return SpfResult.NONE
        text = await self._text(domain)
        if text is None:
            return SpfResult.NONE
        if not self._depth:
            self.record = text.decode("ascii", "backslashreplace")
        try:
            terms = parse_spf(text)
        except SpfSyntaxError as error:
            raise _Ends(SpfResult.PERMERROR, f"{domain}: {error}") from None
        self._depth += 1
        try:
            for term in terms.mechanisms:
                self._at(term.text)
                if await self._matches(term, domain):
                    return _BY_QUALIFIER[term.qualifier]
            self._at("")
            if not terms.redirect:
                return SpfResult.NEUTRAL
            return await self._redirected(terms.redirect, domain)
        finally:
            self._depth -= 1

    def _at(self, term: str) -> None:
        if self._depth == 1:
            self.term = term

    async def _redirected(self, target: str, domain: str) -> SpfResult:
        self._at(f"redirect={target}")
        self._count(f"redirect={target}")
        there = self._expanded(target, domain)
        result = await self.follow(there)
        if result is SpfResult.NONE:
            raise _Ends(SpfResult.PERMERROR, f"{domain}: redirect={there} leads to no SPF record")
        return result

    async def _text(self, domain: str) -> bytes | None:
        answer = await self._query(domain, "TXT")
        found = [b"".join(record.strings) for record in answer.records if isinstance(record, TXT)]
        records = [text for text in found if is_spf(text)]
        if len(records) > 1:
            raise _Ends(SpfResult.PERMERROR, f"{domain} has {len(records)} SPF records; one is allowed")
        return records[0] if records else None

    async def _matches(self, term: SpfTerm, domain: str) -> bool:
        if term.name == "all":
            return True
        if term.network is not None:
            return self._address in term.network
        self._count(term.text)
        target = self._expanded(term.target, domain) if term.target else domain
        match term.name:
            case "include":
                return await self._included(target, domain)
            case "a":
                return self._within(await self._addresses(target), term)
            case "mx":
                return await self._among_mx(target, term)
            case "exists":
                return bool((await self._looked_up(target, "A")).records)
            case _:
                return await self._named(target)

    async def _included(self, target: str, domain: str) -> bool:
        result = await self.follow(target)
        if result is SpfResult.NONE:
            raise _Ends(SpfResult.PERMERROR, f"{domain}: include:{target} leads to no SPF record")
        return result is SpfResult.PASS

    async def _among_mx(self, target: str, term: SpfTerm) -> bool:
        answer = await self._looked_up(target, "MX")
        hosts = [record.exchange.to_text(omit_final_dot=True) for record in answer.records if isinstance(record, MX)]
        if len(hosts) > _MAX_HOSTS:
            raise _Ends(SpfResult.PERMERROR, f"{target} has more than {_MAX_HOSTS} MX hosts")
        for host in hosts:
            if _is_name(host) and self._within(await self._addresses(host), term):
                return True
        return False

    async def _named(self, target: str) -> bool:
        """``ptr`` (section 5.5): a failure is no match, and names beyond the tenth are passed over."""
        try:
            answer = await self._looked_up(
                dns.reversename.from_address(str(self._address)).to_text(omit_final_dot=True), "PTR"
            )
        except _Ends as end:
            if end.result is SpfResult.TEMPERROR:
                return False
            raise
        names = [
            record.target.to_text(omit_final_dot=True).lower() for record in answer.records if isinstance(record, PTR)
        ]
        wanted = target.lower()
        for name in names[:_MAX_HOSTS]:
            if name != wanted and not name.endswith(f".{wanted}"):
                continue
            try:
                found = await self._query(name, self._type)
            except _Ends:
                continue
            if str(self._address) in {record.to_text() for record in found.records}:
                return True
        return False

    @property
    def _type(self) -> str:
        return "A" if self._address.version == 4 else "AAAA"

    async def _addresses(self, host: str) -> list[Address]:
        answer = await self._looked_up(host, self._type)
        return [ipaddress.ip_address(record.to_text()) for record in answer.records]

    def _within(self, found: list[Address], term: SpfTerm) -> bool:
        prefix = term.cidr4 if self._address.version == 4 else term.cidr6
        return any(self._address in ipaddress.ip_network(f"{each}/{prefix}", strict=False) for each in found)

    def _expanded(self, target: str, domain: str) -> str:
        return expand(target, domain=domain, address=self._address, sender=self._sender, helo=self._helo)

    def _count(self, term: str) -> None:
        self.lookups += 1
        if self.lookups > _MAX_LOOKUPS:
            raise _Ends(SpfResult.PERMERROR, f"{term} is look-up number {self.lookups}; {_MAX_LOOKUPS} are allowed")

    async def _looked_up(self, name: str, rdtype: str) -> Answer:
        """A query of a term: too many that find nothing end it (section 4.6.4)."""
        answer = await self._query(name, rdtype)
        if not answer.records:
            self._void += 1
            if self._void > _MAX_VOID:
                reason = f"{name} ({rdtype}) is look-up number {self._void} that finds nothing; {_MAX_VOID} are allowed"
                raise _Ends(SpfResult.PERMERROR, reason)
        return answer

    async def _query(self, name: str, rdtype: str) -> Answer:
        try:
            return await self._resolver.query(name, rdtype)
        except DnsError as error:
            raise _Ends(SpfResult.TEMPERROR, f"{error.name} {error.rdtype}: {error.reason}") from None


def _is_name(domain: str) -> bool:
    """Whether SPF can be asked about it: two labels at least, none empty or too long (section 4.3)."""
    labels = domain.removesuffix(".").split(".")
    return len(labels) > 1 and all(0 < len(label) <= _LONGEST_LABEL for label in labels)
