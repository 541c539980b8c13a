"""The page of a probe for people: a block for each host, and at its end what it means for policy."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from gateway.cli.page import Page
from gateway.cli.words import ago, moment
from gateway.delivery.advice import advice, policy_for
from gateway.delivery.outlook import Outlook, assurance_of, outlook, worst_assurance
from gateway.delivery.probe_report import LEVELS, excluded
from gateway.delivery.probed import AddressProbe, DomainProbe, HostProbe, Shown
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.protection import Assurance, Method

__all__ = ["page"]

#: Names of a certificate that are shown.
_MOST_NAMES = 8

_COLOURS = {None: "red", Assurance.NONE: "red", Assurance.ENCRYPTED: "yellow"}

_STATUS = {
    "mx": "by its MX records",
    "implicit": "no MX record: the domain is its own mail host",
    "null": "takes no mail (null MX)",
    "nxdomain": "the domain does not exist",
    "loop": "its mail is directed to this gateway itself",
    "error": "DNS did not say where its mail goes",
    "route": "by a route of this gateway's configuration",
    "literal": "an address literal",
}


def page(probe: DomainProbe, notes: Iterable[str] = ()) -> None:
    """Print it; with the last of several domains ``notes``, what is to be said about all."""
    paper = Page()
    name = probe.domain
    paper.line(f"{name}: {_STATUS[probe.status]}{_signed(probe.dnssec)}", indent=2, style="bold", end=len(name))
    if probe.alias:
        paper.line(f"  an alias (CNAME) of {probe.alias}", indent=4)
    for skipped, reason in probe.skipped:
        paper.line(f"  {skipped}: passed over, {reason}", indent=4)
    for host in probe.hosts:
        _host(paper, probe, host)
    paper.line("")
    for note in notes:
        paper.line(f"note: {note}", indent=6)
    _verdict(paper, probe)


def _signed(dnssec: bool | None) -> str:
    return {None: "", True: ", signed (DNSSEC)", False: ", not signed (DNSSEC)"}[dnssec]


def _host(paper: Page, probe: DomainProbe, host: HostProbe) -> None:
    hop = host.hop
    preference = "" if host.preference is None else f"  preference {host.preference}"
    where = f"[{hop.host}]" if ":" in hop.host else hop.host
    port = "" if hop.port == 25 else f":{hop.port}"
    paper.line("")
    name = "" if hop.names == (hop.host,) else f"  as {', '.join(hop.names)}"
    told = f"  {where}{port}{name}{preference}{_signed(host.secure)}"
    paper.line(told, indent=4, style="bold", end=2 + len(where))
    if host.alias:
        paper.line(f"    an alias (CNAME) of {host.alias}: an MX may not be one (RFC 2181)", indent=6)
    left_out = excluded(probe, host)
    if left_out:
        paper.line(f"    not used for mail that must be protected: {left_out}", indent=6, style="red")
    if host.failure is not None:
        paper.line(f"    {host.failure}", indent=6, style="red")
    for address in host.addresses:
        _address(paper, probe, host, address)


def _address(paper: Page, probe: DomainProbe, host: HostProbe, address: AddressProbe) -> None:
    shown = address.shown
    level = assurance_of(shown, policy_for(probe, host), probe.ciphers)
    word = str(level) if level is not None else "not dialled" if not address.dialled else "no session"
    took = shown.timing.total
    rest = f"  {took:.0f} ms" if took is not None else ""
    where = f"    {address.address}  "
    paper.line(f"{where}{word}{rest}", style=_COLOURS.get(level, "green"), start=len(where), end=len(where + word))
    if shown.failure is not None:
        where = f"{shown.failure.stage}: " if shown.failure.stage in (Stage.GREETING, Stage.EHLO) else ""
        paper.fact("error", f"{where}{shown.failure}", style="red")
    elif shown.evidence is None:
        paper.fact("TLS", "none")
    _tls(paper, probe, shown)
    if level is not None:
        missing = advice(probe, host, shown)
        if missing is not None:
            if shown.failure is None or missing.missing != str(shown.failure):
                paper.fact("missing", f"for {missing.level}: {missing.missing}")
            paper.fact("remedy", f"for {missing.level}: {missing.remedy}")


def _tls(paper: Page, probe: DomainProbe, shown: Shown) -> None:
    evidence = shown.evidence
    if evidence is None:
        return
    group = f" {shown.group}" if shown.group else ""
    paper.fact("TLS", f"{evidence.version} {evidence.cipher}{group}")
    paper.fact("chain", f"{evidence.chain}, {_count(len(shown.chain))} sent")
    paper.fact("name", evidence.name)
    if not shown.chain:
        return
    leaf = shown.chain[0]
    if leaf.error:
        paper.fact("certificate", leaf.error)
        return
    names = list(leaf.names[:_MOST_NAMES])
    if len(leaf.names) > _MOST_NAMES:
        names.append(f"and {len(leaf.names) - _MOST_NAMES} more")
    paper.fact("certificate", f"{leaf.key}, for {', '.join(names) or 'no name'}")
    paper.fact("issuer", "itself" if leaf.own_issuer else leaf.issuer)
    if leaf.not_before is not None and leaf.not_after is not None:
        left = leaf.not_after - probe.time
        when = f"{ago(left)} left" if left > 0 else f"over for {ago(-left)}"
        paper.fact("valid", f"{moment(leaf.not_before)[:10]} to {moment(leaf.not_after)[:10]} UTC ({when})")


def _count(certificates: int) -> str:
    return "1 certificate" if certificates == 1 else f"{certificates} certificates"


# -- what it means ----------------------------------------------------------------------------------------------------


def _verdict(paper: Page, probe: DomainProbe) -> None:
    """For each ``tls:`` of a policy what its mail would meet; the last line sums it up."""
    plain = outlook(probe, Method.PLAIN, Assurance.NONE)
    worst = worst_assurance(probe)
    if worst is None:
        reason = "no host can be used" if plain.obstacle is None else str(plain.obstacle)
        paper.line(f"verdict: no mail gets through: {reason}{_then(plain.obstacle)}", indent=2, style="red", end=7)
        return
    levels = [outlook(probe, Method.TLS, level) for level in LEVELS]
    for told, group in groupby(levels, _passes):
        names = ", ".join(str(each.level) for each in group)
        paper.line(f"mail with tls: {names}: {told}", indent=2)
    paper.line(f"mail with method plain: {_passes(plain)}", indent=2)
    passing = [str(each.level) for each in levels if each.obstacle is None]
    allowed = f"mail passes with tls: {', '.join(passing)}" if passing else "no mail passes that needs tls"
    by = "a usable host has no sound TLS" if worst is Assurance.NONE else "every usable host"
    style = _COLOURS.get(worst, "green")
    paper.line(f"verdict: {worst} ({by}); {allowed}", indent=2, style=style, end=len(f"verdict: {worst}"))


def _passes(found: Outlook) -> str:
    if found.obstacle is not None:
        return f"no: {found.obstacle}{_then(found.obstacle)}"
    if found.lacking:
        return f"only by {', '.join(found.sufficient)}"
    return "yes"


def _then(failure: Failure | None) -> str:
    """What a delivery does about it."""
    if failure is None:
        return ""
    return {
        Verdict.DEFINITE: "",
        Verdict.ASSURANCE: " (tried again until fallback_after, then the next method)",
        Verdict.TEMPORARY: " (mail waits and is tried again)",
        Verdict.FINAL: " (mail bounces)",
    }.get(failure.verdict, "")
