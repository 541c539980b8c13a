"""What came of carrying a transaction to a site."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.delivery.transaction import TransactionResult
from gateway.mail.attempt import Failure, TlsEvidence
from gateway.mail.edits import Change
from gateway.mail.protection import Assurance

__all__ = ["Carried", "Failed", "HostFailure"]


@dataclass(frozen=True, slots=True)
class HostFailure:
    """Why one address of one host was no good."""

    host: str
    address: str
    failure: Failure
    evidence: TlsEvidence | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """A transaction took place, whatever came of it; ``before`` are the addresses that failed until it could.

    ``notes``: what the last change to the message was (``Transaction.finish``).
    """

    host: str
    address: str
    evidence: TlsEvidence | None
    attained: Assurance
    result: TransactionResult
    before: tuple[HostFailure, ...] = ()
    notes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """No session was good enough: nothing of the message was sent."""

    failures: tuple[HostFailure, ...]
