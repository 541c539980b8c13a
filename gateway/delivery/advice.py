"""What an address lacks for the next level of assurance, and what its administrator would have to do (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.delivery.nexthop import NextHop
from gateway.delivery.outlook import assurance_of, judged
from gateway.delivery.probed import DomainProbe, HostProbe, ProbeStatus, Shown
from gateway.delivery.target import TlsPolicy
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.protection import Assurance, Method

__all__ = ["Advice", "advice", "policy_for"]

_MODERN = "TLS 1.2 or 1.3 with an ECDHE key exchange and AES-GCM"

#: What OpenSSL and the judge say of a chain, by a word of it: what the recipient's administrator does about it.
_CHAINS = (
    ("no trusted roots", "ours to mend: tls.trust names no root certificates"),
    ("self-signed certificate in certificate chain", "use a certificate of a CA that everybody trusts"),
    ("self-signed", "replace the self-signed certificate by one of a CA that everybody trusts"),
    ("self signed", "replace the self-signed certificate by one of a CA that everybody trusts"),
    ("expired", "renew the certificate"),
    ("not yet valid", "correct the clock of that host, or the certificate's dates"),
    ("issuer", "send the intermediate certificates along, or use a certificate of a CA that everybody trusts"),
    (
        "verify the first",
        "send the intermediate certificates along, or use a certificate of a CA that everybody trusts",
    ),
    ("not for servers", "use a certificate for TLS servers (extended key usage serverAuth)"),
    ("bits", "make a new key, RSA 2048 or EC P-256 at least, and a certificate for it"),
    ("signed with", "replace the certificate by one that is signed with SHA-256 or better"),
)


@dataclass(frozen=True, slots=True)
class Advice:
    """The next level up, what is missing for it, and what would have to be done."""

    level: Assurance
    missing: str
    remedy: str

    def as_json(self) -> dict[str, Any]:
        """``{"level", "missing", "remedy"}``."""
        return {"level": str(self.level), "missing": self.missing, "remedy": self.remedy}


def policy_for(probe: DomainProbe, host: HostProbe) -> TlsPolicy:
    """The demands by which this host's level is told: those of method ``tls`` where mail may use the host by it."""
    for method in (Method.TLS, Method.PLAIN):
        way = probe.ways[method]
        if isinstance(way, NextHop) and host.hop in way.hops:
            return way.policy
    return TlsPolicy()


def advice(probe: DomainProbe, host: HostProbe, shown: Shown) -> Advice | None:
    """What this address lacks; None where it lacks nothing, or nothing is known but that it cannot be reached."""
    policy = policy_for(probe, host)
    level = assurance_of(shown, policy, probe.ciphers)
    if level is None or level is Assurance.AUTHENTICATED:
        return None
    above = Assurance(level + 1)
    wanted = TlsPolicy(above, host_authenticated=policy.host_authenticated, spki=policy.spki)
    failure = judged(shown, wanted, probe.ciphers)
    if failure is None:
        return None
    if above is Assurance.AUTHENTICATED:
        return Advice(above, failure.reason, _name_remedy(probe.status, probe.domain))
    return Advice(above, str(failure), _remedy(failure, host))


def _name_remedy(status: ProbeStatus, domain: str) -> str:
    if status == "route":
        return "ours to state: `final: true` on a route of this very domain, if that host is the recipients' own"
    if status == "literal":
        return "nothing: an address literal names no host that could be vouched for"
    pinned = "or pin its hosts here (delivery.pins)"
    return f"sign {domain} with DNSSEC, asked through a validating resolver of ours; {pinned}"


def _remedy(failure: Failure, host: HostProbe) -> str:
    reason = failure.reason
    if reason.startswith("pin mismatch"):
        return "ask them whether they changed the key; if they did, correct delivery.pins here"
    if failure.stage is Stage.STARTTLS:
        if failure.verdict is Verdict.DEFINITE:
            return f"offer STARTTLS, with {_MODERN}"
        if "injected" in reason:
            return "find out who answers before the handshake: it is either a broken server or someone on the way"
        return "mend TLS there: it is offered, then refused; often its certificate or key cannot be read"
    if failure.stage is Stage.HANDSHAKE and failure.verdict is not Verdict.DEFINITE:
        return f"mend TLS there: it breaks off; often nothing in common with {_MODERN}, or no certificate"
    if failure.stage is Stage.HANDSHAKE or reason.startswith("version or cipher"):
        return f"allow {_MODERN}"
    if reason.startswith("name:"):
        return f"use a certificate that names {host.hop.names[0]}"
    return next((remedy for word, remedy in _CHAINS if word in reason), "replace the certificate")
