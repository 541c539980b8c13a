"""What the fake DNS knows: records read from master-file text, and the answer that follows from them.

RFC 1035 section 5 (text form), RFC 1034 section 4.3.2 (answering), RFC 4592 (wildcards), RFC 6604
(result codes of chains).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rrset
import dns.tokenizer
import dns.ttl
from dns.rcode import Rcode
from dns.rdatatype import RdataType

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Lookup", "Records", "read_zone_text"]

#: A resolver gives up on longer CNAME chains; BIND and unbound follow between 8 and 16.
_MAX_CHAIN = 16

_IN = dns.rdataclass.IN


@dataclass(frozen=True, slots=True)
class Lookup:
    """An answer before any flag changed it.

    ``owners`` are the names that it depends on: the one asked for and every CNAME target after it.
    """

    rcode: Rcode
    answer: list[dns.rrset.RRset]
    authority: list[dns.rrset.RRset]
    owners: tuple[dns.name.Name, ...]


@dataclass(slots=True)
class Records:
    """All records of a fake DNS, of as many zones as the texts hold."""

    _sets: dict[dns.name.Name, dict[RdataType, dns.rrset.RRset]] = field(default_factory=dict)

    def add(self, text: str, default_ttl: int) -> None:
        """Read more records; they join those of the same name and type. Raises ``ValueError`` with the line number."""
        for name, ttl, rdata in read_zone_text(text, default_ttl):
            kinds = self._sets.setdefault(name, {})
            if rdata.rdtype not in kinds:
                kinds[rdata.rdtype] = dns.rrset.RRset(name, _IN, rdata.rdtype)
            kinds[rdata.rdtype].add(rdata, ttl)

    def remove(self, name: dns.name.Name, rdtype: RdataType | None) -> None:
        """Forget the records of ``name``: of one type, or all."""
        if rdtype is None:
            self._sets.pop(name, None)
        elif name in self._sets:
            self._sets[name].pop(rdtype, None)
            if not self._sets[name]:
                del self._sets[name]

    def lookup(self, name: dns.name.Name, rdtype: RdataType) -> Lookup:
        """What a resolver over these records answers; CNAMEs are followed, endless chains give SERVFAIL."""
        answer: list[dns.rrset.RRset] = []
        owners = [name]
        for _ in range(_MAX_CHAIN):
            kinds = self._node(owners[-1])
            if kinds is None:
                return Lookup(Rcode.NXDOMAIN, answer, [self._soa(owners[-1])], tuple(owners))
            if rdtype == RdataType.ANY and kinds:
                return Lookup(Rcode.NOERROR, [*answer, *kinds.values()], [], tuple(owners))
            if rdtype in kinds:
                return Lookup(Rcode.NOERROR, [*answer, kinds[rdtype]], [], tuple(owners))
            if RdataType.CNAME not in kinds:
                return Lookup(Rcode.NOERROR, answer, [self._soa(owners[-1])], tuple(owners))
            alias = kinds[RdataType.CNAME]
            answer.append(alias)
            owners.append(alias[0].target)
        return Lookup(Rcode.SERVFAIL, [], [], tuple(owners))

    def _node(self, name: dns.name.Name) -> dict[RdataType, dns.rrset.RRset] | None:
        """The record sets at ``name``, {} where only names below it exist, None where nothing does."""
        if name in self._sets:
            return self._sets[name]
        if any(other.is_subdomain(name) for other in self._sets):
            return {}
        encloser = name
        while encloser != dns.name.root:
            encloser = encloser.parent()
            wildcard = self._sets.get(dns.name.Name((b"*", *encloser.labels)))
            if wildcard is not None:
                return {kind: _renamed(records, name) for kind, records in wildcard.items()}
            if any(other.is_subdomain(encloser) for other in self._sets):
                return None  # RFC 4592: only the closest encloser's wildcard counts
        return None

    def _soa(self, name: dns.name.Name) -> dns.rrset.RRset:
        """The SOA above ``name``; where the text has none, one that a zone at the last label would have."""
        zone = name
        while zone != dns.name.root:
            found = self._sets.get(zone, {}).get(RdataType.SOA)
            if found is not None:
                return found
            zone = zone.parent()
        top = dns.name.Name(name.labels[-2:])
        return dns.rrset.from_text(top, 300, _IN, RdataType.SOA, "ns.invalid. hostmaster.invalid. 1 3600 600 86400 300")


def _renamed(records: dns.rrset.RRset, name: dns.name.Name) -> dns.rrset.RRset:
    copy = dns.rrset.RRset(name, _IN, records.rdtype)
    for rdata in records:
        copy.add(rdata, records.ttl)
    return copy


def read_zone_text(text: str, default_ttl: int) -> Iterator[tuple[dns.name.Name, int, dns.rdata.Rdata]]:
    """The records of master-file ``text`` as (owner, TTL, data).

    ``$ORIGIN`` and ``$TTL`` work; before the first ``$ORIGIN`` names count from the root, so that a forgotten final dot
    does no harm. Zones need no SOA, and several may follow each other. Raises ``ValueError`` with the line number.
    """
    tokens = dns.tokenizer.Tokenizer(text, "zone")
    origin, ttl, owner = dns.name.root, default_ttl, None
    place = _place(tokens)
    try:
        while True:
            token = tokens.get(want_leading=True)
            place = _place(tokens)  # errors inside a record are found when its line is over
            if token.is_eof():
                return
            if token.is_eol():
                continue
            if token.value == "$ORIGIN":
                origin = tokens.get_name(origin)
                tokens.get_eol()
            elif token.value == "$TTL":
                ttl = dns.ttl.from_text(tokens.get_string())
                tokens.get_eol()
            else:
                if not token.is_whitespace():
                    owner = tokens.as_name(token, origin)
                elif _line_is_empty(tokens):
                    continue
                if owner is None:
                    raise ValueError(f"{place}: the first record has no owner name")
                yield _record(tokens, owner, origin, ttl)
    except dns.exception.DNSException as error:
        raise ValueError(f"{place}: {error}") from None


def _place(tokens: dns.tokenizer.Tokenizer) -> str:
    return ":".join(map(str, tokens.where()))


def _line_is_empty(tokens: dns.tokenizer.Tokenizer) -> bool:
    token = tokens.get()
    if token.is_eol_or_eof():
        return True
    tokens.unget(token)
    return False


def _record(
    tokens: dns.tokenizer.Tokenizer, owner: dns.name.Name, origin: dns.name.Name, ttl: int
) -> tuple[dns.name.Name, int, dns.rdata.Rdata]:
    """The rest of a record: TTL and class are optional and come in either order, then type and data."""
    while True:
        word = tokens.get_string()
        if word[:1].isdigit():
            ttl = dns.ttl.from_text(word)
        elif word.upper() != "IN":
            break
    rdata = dns.rdata.from_text(_IN, dns.rdatatype.from_text(word), tokens, origin, relativize=False)
    return owner, ttl, rdata
