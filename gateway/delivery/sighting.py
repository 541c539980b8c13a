"""What one try to open a session to an address showed; told to whoever keeps it for previews."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.mail.attempt import Failure, TlsEvidence

__all__ = ["Sighting"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """``failure`` None: the session came about as it had to. ``evidence`` None: nothing was seen of TLS."""

    host: str
    port: int
    address: str
    evidence: TlsEvidence | None
    failure: Failure | None
