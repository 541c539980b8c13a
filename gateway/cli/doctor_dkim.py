"""Whether what is published in DNS fits the keys that we sign with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from dns.rdtypes.ANY.TXT import TXT

from gateway.cli.doctor_checks import Finding, Status
from gateway.cli.doctor_network import Surroundings
from gateway.config.rooms import DkimKey
from gateway.directory import DnsError
from gateway.mail.dkim.records import KeyRecord, record_name
from gateway.mail.dkim.taglist import DkimError

__all__ = ["dkim"]

#: Questions at a time.
_AT_ONCE = 8


async def dkim(around: Surroundings) -> AsyncIterator[Finding]:
    """One finding for each key."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def look(domain: str, each: DkimKey) -> Finding:
        async with limit:
            return await _compare(around, domain, each)

    keys = [(domain, each) for domain, found in around.settings.dkim.items() for each in found]
    for finding in await asyncio.gather(*(look(domain, each) for domain, each in keys)):
        yield finding


async def _compare(around: Surroundings, domain: str, each: DkimKey) -> Finding:
    where = record_name(each.selector, domain)
    name = f"dkim {where}"
    publish = f"publish it: `gateway dkim show --domain {domain}` prints it; until then take the key out of `dkim`"
    try:
        answer = await around.resolver.query(where, "TXT")
    except DnsError as error:
        return Finding(name, Status.WARNING, f"could not tell: {error.reason}", "mend DNS first")
    records = [b"".join(record.strings) for record in answer.records if isinstance(record, TXT)]
    if not records:
        return Finding(name, Status.BAD, "there is no such TXT record: what we sign verifies nowhere", publish)
    if len(records) > 1:
        detail = f"there are {len(records)} TXT records: verifiers take any of them, or none"
        return Finding(name, Status.BAD, detail, "leave the one record of this key there; a second key gets its own")
    try:
        record = KeyRecord.parse(records[0])
        public = record.public_key(each.key.algorithm)
    except DkimError as error:
        return Finding(name, Status.BAD, f"what is published does not fit our {each.key.words} key: {error}", publish)
    if not each.key.belongs_to(public):
        return Finding(name, Status.BAD, "another key is published: what we sign fails to verify", publish)
    if record.testing:
        detail = "our key is published, with t=y: verifiers may treat what we sign as unsigned"
        return Finding(name, Status.WARNING, detail, "take t=y out of the record once mail arrives as it should")
    return Finding(name, Status.OK, f"publishes the {each.key.words} key that we sign with")
