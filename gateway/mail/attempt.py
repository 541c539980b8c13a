"""One try at a delivery: evidence of the session, replies, and how it ended.

What ends an attempt is one of four (see :class:`Verdict`); one pure function in ``gateway.delivery.verdict``
decides which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.mail.protection import Assurance
from gateway.mail.reply import Reply

__all__ = ["Attempt", "Failure", "Stage", "TlsEvidence", "Verdict"]


class Verdict(StrEnum):
    """What an attempt at one method says about the future of a recipient.

    ``definite``: this method cannot work here, move on to the next at once.
    ``assurance``: TLS failed in a way that may pass; starts the fallback clock.
    ``temporary``: ordinary trouble; retry, the method stays.
    ``final``: a sufficient session refused the mail for good; bounce, never change the method.
    """

    DELIVERED = "delivered"
    DEFINITE = "definite"
    ASSURANCE = "assurance"
    TEMPORARY = "temporary"
    FINAL = "final"


class Stage(StrEnum):
    """Where in a delivery something happened."""

    DNS = "dns"
    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    HANDSHAKE = "handshake"
    JUDGE = "judge"  # the session stands, but what it shows is not enough
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"  # after the final dot: whether the peer took the message is unknown


@dataclass(frozen=True, slots=True)
class TlsEvidence:
    """What a session showed: kept at every level, also where nothing was required.

    ``chain`` and ``name`` are ``ok`` or the reason why not. ``spki_sha256`` is the lower-case hex digest of the
    leaf's subject public key info (RFC 7469 section 2.4). ``assurance`` is the level that was attained.
    """

    version: str
    cipher: str
    assurance: Assurance
    chain: str
    name: str
    spki_sha256: str
    subject: str = ""
    not_after: float | None = None
    #: Its plain form, kept: a session carries many messages.
    _json: dict[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """The shape of ``trace``: version, cipher, assurance, chain, name, spki_sha256 (and a few more).

        Not to be changed.
        """
        found = self._json
        if found is None:
            found = {
                "version": self.version,
                "cipher": self.cipher,
                "assurance": str(self.assurance),
                "chain": self.chain,
                "name": self.name,
                "spki_sha256": self.spki_sha256,
                "subject": self.subject,
                "not_after": self.not_after,
            }
            object.__setattr__(self, "_json", found)
        return found


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something did not work: where, what it means, in words, and the peer's reply if there was one."""

    stage: Stage
    verdict: Verdict
    reason: str
    reply: Reply | None = None

    def __str__(self) -> str:
        return self.reason if self.reply is None else f"{self.reason}: {self.reply}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one host for one recipient. ``time`` in seconds since the epoch.

    ``outcome`` is ``delivered`` or a short reason; ``unknown`` says that the connection was lost after the final
    dot, so that the message may arrive twice.
    """

    time: float
    host: str
    address: str
    tls: TlsEvidence | None
    reply: Reply | None
    outcome: str
    stage: Stage | None = None
    unknown: bool = False

    def as_json(self) -> dict[str, Any]:
        """The shape of ``trace``: time, host, address, tls, reply, outcome."""
        return {
            "time": self.time,
            "host": self.host,
            "address": self.address,
            "tls": None if self.tls is None else self.tls.as_json(),
            "reply": None if self.reply is None else self.reply.as_json(),
            "outcome": self.outcome,
            "stage": None if self.stage is None else str(self.stage),
            "unknown": self.unknown,
        }
