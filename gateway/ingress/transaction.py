"""A mail transaction from MAIL to DATA: the envelope grows, the candidates are known, nothing has been received."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.config.model import Connector
from gateway.errors import Refusal
from gateway.ingress.connectors import Arrival, Candidate, Refused, check_sender
from gateway.ingress.limits import tightest
from gateway.ingress.parameters import MailParameters, RcptParameters
from gateway.ingress.refusals import Reason, refusal
from gateway.ingress.terms import Services, Terms
from gateway.mail.envelope import ReceivedTls, Recipient

__all__ = ["Client", "ConnectorRefusal", "Transaction", "begin", "not_allowed"]


class ConnectorRefusal(Refusal):
    """No connector takes this. ``alert``: it would be 550 in force, and people should look before it is."""

    def __init__(self, refused: Refused, message_id: str) -> None:
        code, enhanced = (451, "4.7.1") if refused.temporary else (550, "5.7.1")
        text = f"Not allowed through this gateway (id {message_id})"
        super().__init__(code, enhanced, text, reason=str(Reason.CONNECTOR), detail="; ".join(refused.why))
        self.alert = refused.alert
        self.connector = refused.connector


def not_allowed(refused: Refused | None, message_id: str) -> ConnectorRefusal:
    """The answer to a message that no connector takes."""
    return ConnectorRefusal(refused or Refused(("no connector takes it",)), message_id)


@dataclass(frozen=True, slots=True)
class Client:
    """The other end of a session, as far as an envelope needs to know it."""

    arrival: Arrival
    helo: str
    extended: bool
    tls: ReceivedTls | None
    session_id: str


@dataclass(slots=True)
class Transaction:
    """One message in the making. ``recipients`` holds each mailbox once."""

    id: str
    terms: Terms
    client: Client
    mail: MailParameters
    candidates: tuple[Candidate, ...]
    recipients: list[Recipient] = field(default_factory=list)
    #: The connectors that may still take it, and the tightest limit among them: that holds until it has found its own.
    connectors: tuple[Connector, ...] = field(init=False)
    size_limit: int = field(init=False)
    _keys: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.connectors = tuple([candidate.connector for candidate in self.candidates])
        self.size_limit = tightest(self.connectors, "message_size") or 0

    def add_recipient(self, wanted: RcptParameters, services: Services) -> None:
        """Take one more recipient. Raises :class:`gateway.errors.Refusal`."""
        limit = tightest(self.connectors, "recipients") or 0
        key = wanted.address.key
        if key in self._keys:
            return
        if len(self.recipients) >= limit:
            raise refusal(452, "4.5.3", "Too many recipients, send the rest in another message", Reason.RECIPIENTS)
        refused = services.intake.check_recipient(self.connectors, self.mail.sender, wanted.address)
        if refused is not None:
            raise refused
        self._keys.add(key)
        self.recipients.append(Recipient(wanted.address, wanted.notify, wanted.orcpt))


def begin(
    terms: Terms, client: Client, mail: MailParameters, services: Services, found: tuple[Candidate, ...]
) -> Transaction:
    """Open a transaction for MAIL; ``found`` are the candidates by connection factors.

    Raises :class:`gateway.errors.Refusal`.
    """
    message_id = services.intake.new_id()
    if not found and not client.arrival.user and terms.user_tables(client.arrival):
        raise refusal(530, "5.7.0", "Log-in required", Reason.AUTH_REQUIRED)
    left, refused = check_sender(terms.connectors, found, mail.sender)
    if refused is not None:
        raise not_allowed(refused, message_id)
    transaction = Transaction(message_id, terms, client, mail, left)
    if mail.size > transaction.size_limit:
        raise refusal(552, "5.3.4", f"Message size exceeds {transaction.size_limit} bytes", Reason.TOO_LARGE)
    for connector in transaction.connectors:
        services.rates.check(connector)
    return transaction
