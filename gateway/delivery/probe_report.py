"""The JSON of a probe: a contract, to which fields may be added."""

from __future__ import annotations

from typing import Any

from gateway.delivery.advice import advice, policy_for
from gateway.delivery.nexthop import NextHop
from gateway.delivery.outlook import Outlook, assurance_of, outlook, worst_assurance
from gateway.delivery.probed import UNSEEN, AddressProbe, DomainProbe, HostProbe, Shown
from gateway.mail.attempt import Failure
from gateway.mail.protection import Assurance, Method

__all__ = ["LEVELS", "as_json", "excluded"]

#: The levels that a policy's ``tls:`` can ask for.
LEVELS = (Assurance.ENCRYPTED, Assurance.VERIFIED, Assurance.AUTHENTICATED)


def as_json(probe: DomainProbe) -> dict[str, Any]:
    """All that was found; times in seconds since the epoch, durations in milliseconds."""
    worst = worst_assurance(probe)
    plain = outlook(probe, Method.PLAIN, Assurance.NONE)
    return {
        "domain": probe.domain,
        "time": probe.time,
        "mx_status": probe.status,
        "dnssec": probe.dnssec,
        "mta_sts": UNSEEN,
        "alias": probe.alias or None,
        "hosts": [_host(probe, host) for host in probe.hosts],
        "skipped": [{"host": host, "reason": reason} for host, reason in probe.skipped],
        "assurance": None if worst is None else str(worst),
        "error": None if plain.obstacle is None else str(plain.obstacle),
        "tls": [_outlook(outlook(probe, Method.TLS, level)) for level in LEVELS],
        "plain": _outlook(plain),
        "notes": list(probe.notes),
    }


def excluded(probe: DomainProbe, host: HostProbe) -> str:
    """Why mail by method ``tls`` may not use this host; "" where it may."""
    way = probe.ways[Method.TLS]
    if not isinstance(way, NextHop):
        return ""
    return next((failure.reason for name, failure in way.excluded if name == host.hop.host), "")


def _outlook(found: Outlook) -> dict[str, Any]:
    failure = found.obstacle
    return {
        "tls": str(found.level),
        "passes": failure is None,
        "sufficient": list(found.sufficient),
        "lacking": list(found.lacking),
        "reason": None if failure is None else str(failure),
        "verdict": None if failure is None else str(failure.verdict),
    }


def _host(probe: DomainProbe, host: HostProbe) -> dict[str, Any]:
    return {
        "host": host.hop.host,
        "port": host.hop.port,
        "preference": host.preference,
        "dnssec": host.secure,
        "dane": UNSEEN,
        "alias": host.alias or None,
        "excluded": excluded(probe, host) or None,
        "error": None if host.failure is None else str(host.failure),
        "addresses": [_address(probe, host, address) for address in host.addresses],
    }


def _address(probe: DomainProbe, host: HostProbe, address: AddressProbe) -> dict[str, Any]:
    shown, evidence = address.shown, address.shown.evidence
    level = assurance_of(shown, policy_for(probe, host), probe.ciphers)
    missing = advice(probe, host, shown)
    return {
        "address": address.address,
        "usable": shown.answers,
        "starttls": shown.starttls,
        "version": None if evidence is None else evidence.version,
        "cipher": None if evidence is None else evidence.cipher,
        "group": shown.group or None,
        "certificate": _certificate(shown),
        "assurance": None if level is None else str(level),
        **_failure(shown.failure),
        "next": None if missing is None else missing.as_json(),
        "greeting": shown.greeting or None,
        "extensions": list(shown.extensions),
        "milliseconds": shown.timing.as_json(),
    }


def _failure(failure: Failure | None) -> dict[str, Any]:
    if failure is None:
        return {"error": None, "stage": None, "verdict": None, "reply": None}
    return {
        "error": str(failure),
        "stage": str(failure.stage),
        "verdict": str(failure.verdict),
        "reply": None if failure.reply is None else failure.reply.as_json(),
    }


def _certificate(shown: Shown) -> dict[str, Any] | None:
    """The leaf, what was found about it, and the others that came with it."""
    evidence = shown.evidence
    if evidence is None or not shown.chain:
        return None
    leaf, *others = [certificate.as_json() for certificate in shown.chain]
    return {
        **leaf,
        "spki_sha256": evidence.spki_sha256,
        "chain": evidence.chain,
        "name": evidence.name,
        "sent_with": others,
    }
