"""What a session attained under a policy, and in words why it is not enough (pure)."""

from __future__ import annotations

from gateway.delivery.judge import ChainVerdict, assurance
from gateway.delivery.target import TlsPolicy
from gateway.mail.attempt import TlsEvidence
from gateway.mail.protection import Assurance

__all__ = ["attained", "shortfall"]


def attained(evidence: TlsEvidence, policy: TlsPolicy, ciphers: frozenset[str]) -> Assurance:
    """The level that a session with this evidence has under ``policy``, which may not be the one it was opened with.

    The same judgement as the session's own: what was kept of the chain's verdict is all that it asks for.
    """
    return assurance(
        evidence.version,
        evidence.cipher,
        ChainVerdict(evidence.chain, evidence.name, evidence.spki_sha256),
        host_authenticated=policy.host_authenticated,
        spki_pins=policy.spki,
        ciphers=ciphers,
    )


def shortfall(evidence: TlsEvidence, policy: TlsPolicy) -> str:
    """Why a session below ``policy.require`` is not enough."""
    if policy.spki and evidence.spki_sha256 not in policy.spki:
        return "pin mismatch: the peer's key is not one of those pinned"
    if evidence.assurance < Assurance.ENCRYPTED:
        return f"version or cipher below the level: {evidence.version} {evidence.cipher}"
    if evidence.chain != "ok":
        return f"chain: {evidence.chain}"
    if evidence.name != "ok":
        return f"name: {evidence.name}"
    return "the host's name could have been chosen by someone on the way: it is not authenticated"
