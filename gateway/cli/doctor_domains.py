"""The doctor's look at what domains of our own publish: SPF, DMARC, MX.

Others decide by these records whether mail from here is ours. Keys for DKIM have checks of their own. Nothing is asked
but DNS, of the configured resolvers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass

from gateway.cli.doctor_checks import Finding, Status
from gateway.cli.doctor_names import Outgoing
from gateway.cli.doctor_network import ANYWHERE, Surroundings
from gateway.config.model import Settings
from gateway.delivery.nexthop import guard_of, route_for
from gateway.directory import DnsError, find_addresses, find_mx
from gateway.directory.dmarc import DmarcRecord, aligned, find_dmarc
from gateway.directory.spf import SpfResult, SpfVerdict, check_host
from gateway.queue.system_mail import home_of

__all__ = ["domains", "mail_domains"]

#: Domains that are looked at; a provider with more looks at them by other means.
_MOST = 50
_AT_ONCE = 8
#: What no mail comes from (RFC 5737): asked where we do not know our address, to see whether the record can be read.
_NOBODY = "192.0.2.1"
_MANY_LOOKUPS = 9
_BEHIND_NAT = "say which address mail leaves from: `gateway doctor --address ADDRESS`"


def mail_domains(settings: Settings) -> tuple[str, ...]:
    """The domains that mail from here is From: those that connectors may send for, the postmaster's, our own."""
    named = [pattern.removeprefix("*.") for each in settings.connectors for pattern in each.senders if pattern != "*"]
    own = [settings.local.domain] if settings.local.domain else []
    return tuple(dict.fromkeys([*named, settings.postmaster.domain, *own]))


async def domains(around: Surroundings, outgoing: Outgoing) -> AsyncIterator[Finding]:
    """SPF and DMARC of each domain, SPF of ``hostname``, and where mail to ourselves and to our senders goes."""
    settings = around.settings
    known = mail_domains(settings)
    looks = [_domain(around, outgoing, domain) for domain in known[:_MOST]]
    if settings.hostname not in known:
        looks.append(_greeting_name(around, outgoing))
    looks += [_way_home(around, outgoing, domain) for domain in _by_mx(settings)[:_MOST]]
    if settings.local.domain is not None:
        looks.append(_way_here(around, outgoing, settings.local.domain))
    limit = asyncio.Semaphore(_AT_ONCE)

    async def bounded(look: Coroutine[None, None, list[Finding]]) -> list[Finding]:
        async with limit:
            return await look

    tasks = [asyncio.create_task(bounded(look)) for look in looks]
    try:
        for task in tasks:
            for finding in await task:
                yield finding
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- SPF --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Spf:
    """What SPF says of each address that mail leaves from; ``passes``: of all of them, and they are known."""

    finding: Finding
    passes: bool = False


async def _spf(around: Surroundings, outgoing: Outgoing, domain: str) -> _Spf:
    asked = () if outgoing.smart_host else outgoing.addresses
    name = f"spf {domain}"
    helo = around.settings.hostname
    verdicts = await asyncio.gather(
        *(check_host(around.resolver, address, domain, helo=helo) for address in asked or (_NOBODY,))
    )
    any_one = verdicts[0]
    if any_one.result is SpfResult.NONE:
        remedy = f'publish a TXT record: {domain} "{_example(asked)}", with whatever else sends its mail'
        return _Spf(Finding(name, Status.WARNING, "has no SPF record: many hosts distrust its mail", remedy))
    error = next((each for each in verdicts if each.result is SpfResult.PERMERROR), None)
    if error is not None:
        remedy = "mend the record: receivers take an error for a reason to refuse"
        return _Spf(Finding(name, Status.BAD, error.reason, remedy))
    error = next((each for each in verdicts if each.result is SpfResult.TEMPERROR), None)
    if error is not None:
        return _Spf(Finding(name, Status.WARNING, f"could not tell: {error.reason}", "mend DNS first"))
    if not asked:
        return _Spf(_unseen(name, outgoing))
    wrong = [(address, each) for address, each in zip(asked, verdicts, strict=True) if each.result != SpfResult.PASS]
    if wrong:
        return _Spf(_refused(name, domain, outgoing, wrong))
    return _Spf(_passes(name, asked, verdicts), passes=True)


def _example(addresses: tuple[str, ...]) -> str:
    terms = " ".join(map(_term, addresses)) or "ip4:ADDRESS"
    return f"v=spf1 {terms} -all"


def _term(address: str) -> str:
    return f"ip6:{address}" if ":" in address else f"ip4:{address}"


def _unseen(name: str, outgoing: Outgoing) -> Finding:
    if outgoing.smart_host:
        detail = f"has a record; from which addresses {outgoing.smart_host} sends cannot be seen from here"
        remedy = "see that the record includes what the operator of that smart host names"
        return Finding(name, Status.NOTE, detail, remedy)
    return Finding(name, Status.NOTE, "has a record; which address mail leaves from is not known here", _BEHIND_NAT)


def _refused(name: str, domain: str, outgoing: Outgoing, wrong: list[tuple[str, SpfVerdict]]) -> Finding:
    told = "; ".join(f"{address}: {each.result}{f' by {each.term}' if each.term else ''}" for address, each in wrong)
    remedy = f"add {' '.join(_term(address) for address, _ in wrong)} to the SPF record of {domain}"
    if outgoing.assumed:
        detail = f"{told} - if mail leaves from there: this machine has no public address"
        return Finding(name, Status.WARNING, detail, f"{remedy}, or {_BEHIND_NAT}")
    hard = any(each.result is SpfResult.FAIL for _, each in wrong)
    return Finding(name, Status.BAD if hard else Status.WARNING, told, remedy)


def _passes(name: str, addresses: tuple[str, ...], verdicts: list[SpfVerdict]) -> Finding:
    told = ", ".join(f"{address} passes by {each.term}" for address, each in zip(addresses, verdicts, strict=True))
    if any(each.term.lower() in ("all", "+all") for each in verdicts):
        remedy = f'end the record with "-all" and name who may send: {_example(addresses)}'
        return Finding(name, Status.WARNING, "lets everybody in the world send (+all)", remedy)
    most = max(each.lookups for each in verdicts)
    if most >= _MANY_LOOKUPS:
        remedy = "take out what no longer sends, or name networks instead: beyond 10 the record counts as broken"
        return Finding(name, Status.NOTE, f"{told}, with {most} of 10 look-ups", remedy)
    return Finding(name, Status.OK, told)


async def _greeting_name(around: Surroundings, outgoing: Outgoing) -> list[Finding]:
    """SPF of ``hostname``: what is asked about mail with the null sender, bounces of ours (RFC 7208 section 2.4)."""
    own = around.settings.hostname
    found = (await _spf(around, outgoing, own)).finding
    if outgoing.smart_host:
        return []
    if found.status is Status.WARNING and "no SPF record" in found.detail:
        remedy = f'publish a TXT record: {own} "v=spf1 a -all"'
        return [Finding(found.name, Status.NOTE, "has no SPF record: it is what bounces of ours are judged by", remedy)]
    return [found]


# -- DMARC ------------------------------------------------------------------------------------------------------------


async def _domain(around: Surroundings, outgoing: Outgoing, domain: str) -> list[Finding]:
    try:
        exists = (await around.resolver.query(domain, "TXT")).exists
    except DnsError as error:
        return [Finding(f"spf {domain}", Status.WARNING, f"could not tell: {error.reason}", "mend DNS first")]
    if not exists:
        remedy = "correct it in `senders`, `postmaster` or `local.domain`, or publish it"
        return [
            Finding(f"spf {domain}", Status.WARNING, "there is no such domain in DNS: its mail is distrusted", remedy)
        ]
    spf = await _spf(around, outgoing, domain)
    return [spf.finding, *await _dmarc(around, outgoing, domain, spf)]


async def _dmarc(around: Surroundings, outgoing: Outgoing, domain: str, spf: _Spf) -> list[Finding]:
    name = f"dmarc {domain}"
    try:
        record = await find_dmarc(around.resolver, domain)
    except DnsError as error:
        return [Finding(name, Status.WARNING, f"could not tell: {error.reason}", "mend DNS first")]
    if isinstance(record, str):
        remedy = (
            f'publish a TXT record: _dmarc.{domain} "v=DMARC1; p=none; rua=mailto:ADDRESS"; '
            "once its reports show that all is well, p=quarantine, then p=reject"
        )
        return [Finding(name, Status.WARNING, record or "has no DMARC record: anybody can write in its name", remedy)]
    asks = f"p={record.policy}" if record.domain == domain else f"p={record.policy} (by {record.domain})"
    if record.policy == "none":
        if record.reports:
            remedy = "once its reports show that all is well, p=quarantine, then p=reject"
        else:
            remedy = "add rua=mailto:ADDRESS, so that somebody sees the reports; then p=quarantine, then p=reject"
        return [Finding(name, Status.NOTE, f"{asks}: mail in its name that is forged is taken all the same", remedy)]
    findings = [_enforced(around.settings, name, asks, domain, spf)]
    if domain == around.settings.postmaster.domain and not outgoing.smart_host:
        findings += await _letters(around, outgoing, domain, asks, record)
    return findings


def _enforced(settings: Settings, name: str, asks: str, domain: str, spf: _Spf) -> Finding:
    remedy = f"make a key with `gateway dkim generate --domain {domain}`, publish it and name it under `dkim`"
    if domain in settings.dkim:
        return Finding(name, Status.OK, f"{asks}; mail from here is signed{' and passes SPF' if spf.passes else ''}")
    if spf.passes:
        detail = f"{asks}; mail from here passes by SPF alone: what somebody forwards, or comes unsigned, fails there"
        return Finding(name, Status.NOTE, detail, remedy)
    if spf.finding.status is Status.NOTE:
        detail = f"{asks}; whether mail from here passes SPF cannot be seen, and we do not sign it"
        return Finding(name, Status.NOTE, detail, remedy)
    detail = f"{asks}; mail from here does not pass SPF, and we do not sign it: only what came signed passes"
    return Finding(name, Status.WARNING, detail, f"mend SPF; and {remedy}")


async def _letters(
    around: Surroundings, outgoing: Outgoing, domain: str, asks: str, record: DmarcRecord
) -> list[Finding]:
    """Our own letters: From the postmaster, the null sender, so that SPF goes by ``hostname``."""
    own = around.settings.hostname
    if domain in around.settings.dkim:
        return []
    fits = aligned(record, domain, own, strict=record.strict_spf)
    if fits and (not outgoing.addresses or (await _spf(around, outgoing, own)).passes):
        return []
    name = f"dmarc {around.settings.postmaster}"
    why = "SPF does not pass for it" if fits else f"it is not aligned with {domain}"
    detail = f"{asks}; letters of our own fail: they are judged by {own}, and {why}"
    remedy = f"sign mail of {domain} (`gateway dkim generate`), or publish for {own}: v=spf1 a -all"
    return [Finding(name, Status.WARNING, detail, remedy)]


# -- where mail to us goes --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Home:
    """A domain that mail of our own goes to by MX. ``senders``: bounces go there, not only letters to operators."""

    domain: str
    senders: bool


def _by_mx(settings: Settings) -> tuple[_Home, ...]:
    """Domains with no return route and no route of the administrator's."""
    homes: dict[str, bool] = {}
    for domain, senders in _homes(settings):
        homes[domain] = homes.get(domain, False) or senders
    routed = settings.delivery.routes
    return tuple(_Home(domain, senders) for domain, senders in homes.items() if route_for(routed, domain) is None)


def _homes(settings: Settings) -> Iterator[tuple[str, bool]]:
    for connector in settings.connectors:
        if connector.return_route is None:
            yield from ((pattern, True) for pattern in connector.senders if not pattern.startswith("*"))
    for address in (settings.postmaster, *settings.notify.alerts, *settings.notify.reviewers):
        if not home_of(settings, address) and address.domain != settings.local.domain:
            yield address.domain, False


async def _way_home(around: Surroundings, outgoing: Outgoing, home: _Home) -> list[Finding]:
    """Whether bounces, replies and letters to this domain arrive by its MX."""
    settings, name = around.settings, f"mx {home.domain}"
    lost = Status.BAD if home.senders else Status.WARNING
    what = "bounces and letters" if home.senders else "letters to whoever looks after the gateway"
    remedy = "set return_route on the connector of these senders, to the system that has their mailboxes"
    try:
        mx = await find_mx(around.resolver, home.domain, frozenset({settings.hostname}))
        if mx.status == "loop":
            return [Finding(name, lost, f"leads to this gateway: {what} would go in circles", remedy)]
        found = await asyncio.gather(
            *(find_addresses(around.resolver, host.name, guard_of(settings)) for host in mx.hosts[:4])
        )
    except DnsError as error:
        return [Finding(name, Status.WARNING, f"could not tell: {error.reason}", "mend DNS first")]
    addresses = [address for host in found for address in host.addresses]
    refused = [address for host in found for address in host.refused]
    told = ", ".join(host.name for host in mx.hosts[:4])
    if addresses and all(address in outgoing.addresses for address in addresses):
        return [Finding(name, lost, f"{told} is this gateway: {what} would go in circles", remedy)]
    if addresses:
        return [Finding(name, Status.OK, f"{what} go to {told}")]
    why = {"nxdomain": "there is no such domain", "null": "takes no mail, by its MX record"}.get(mx.status)
    detail = why or (f"leads to {', '.join(refused[:3])}" if refused else f"no address for {told or 'any mail host'}")
    return [Finding(name, lost, f"{detail}: {what} cannot be delivered", f"correct the domain, or {remedy}")]


async def _way_here(around: Surroundings, outgoing: Outgoing, domain: str) -> list[Finding]:
    """Whether what is sent to ``local.domain`` comes to us, straight or by way of the mailbox provider."""
    settings, name = around.settings, f"mx {domain}"
    remedy = f"publish an MX record: {domain} MX 10 {settings.hostname}"
    try:
        own = await find_addresses(around.resolver, settings.hostname, ANYWHERE)
        mx = await find_mx(around.resolver, domain, frozenset({settings.hostname}))
        if mx.status == "loop":
            return [Finding(name, Status.OK, f"leads to {settings.hostname}")]
        hosts = {host.name for host in mx.hosts}
        found = await asyncio.gather(*(find_addresses(around.resolver, host, ANYWHERE) for host in sorted(hosts)[:4]))
        for provider in _providers(settings):
            if hosts and hosts == {host.name for host in (await find_mx(around.resolver, provider)).hosts}:
                detail = f"leads to the mailbox provider of {provider}, which has to hand it on to us"
                return [Finding(name, Status.OK, detail)]
    except DnsError as error:
        return [Finding(name, Status.WARNING, f"could not tell: {error.reason}", "mend DNS first")]
    addresses = {address for host in found for address in host.addresses}
    told = ", ".join(sorted(hosts)[:4])
    if not addresses:
        detail = "takes no mail: bounces of notices, and answers, go nowhere"
        return [Finding(name, Status.BAD, detail, remedy)]
    if addresses <= {*outgoing.addresses, *own.addresses}:
        return [Finding(name, Status.OK, f"leads to {told}, which is this machine")]
    detail = f"leads to {told}, which is neither this gateway nor a mailbox provider of its senders"
    return [Finding(name, Status.WARNING, detail, f"{remedy}; or see that {told} hands it on to us")]


def _providers(settings: Settings) -> tuple[str, ...]:
    return tuple(d for d in mail_domains(settings) if d != settings.local.domain)[:_MOST]
