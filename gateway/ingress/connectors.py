"""Who may hand us mail: which connectors a connection, an envelope and a message satisfy. Pure.

1. At MAIL the connection factors - listener, networks, client certificate, authentication - select the *candidates*.
2. Once the header block is read, the message factors - tenant, header, dkim - choose among them, in file order.
   A candidate all of whose factors hold, and whose ``senders`` take envelope and From, comes before any that has to
   be lenient: mail that fits a connector in force never leaves as ``plain`` because an observing one stands above.
3. Where none fits, a connector in stage ``observe`` may still take the message, if a lock factor holds.

What ``observe`` never relaxes: listener and networks, because without them the door stands open to everyone who can
guess a header; at least one lock factor (tenant, header, dkim, our own client certificate) where the network is a
cloud's or none is given; and a From field that everyone reads alike.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gateway.config.model import Connector, ForeignFrom, Stage, SystemMail
from gateway.config.names import matches_sender
from gateway.ingress.markers import ORIGINATOR_ORG, TENANT_ID
from gateway.mail.address import Address
from gateway.mail.headers import Field

__all__ = [
    "Arrival",
    "Candidate",
    "IpAddress",
    "MessageFacts",
    "Network",
    "Networks",
    "Refused",
    "Verdict",
    "candidates",
    "check_sender",
    "judge",
    "names_a_connector",
]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The networks that a connector names, shipped lists filled in (:mod:`gateway.ingress.networks`).
Networks = Callable[[Connector], Sequence[Network]]

#: Names in certificates that a cloud presents for all its tenants: proof of the cloud, not of the customer.
_SHARED_CERTIFICATES = ("outlook.com", "office365.com", "office.com", "microsoft.com", "google.com", "gmail.com")


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known about a connection at MAIL.

    ``listener`` is the names by which connectors may call it. ``certificate_names`` are what its client certificate
    proved: DNS names (only of a chain that ends in ``tls.trust``) and ``spki:HEX`` of its key. ``user`` has logged in,
    by a password that was right for ``hashes``; "" where nobody has.
    """

    address: IpAddress
    listener: frozenset[str]
    certificate_names: frozenset[str] = frozenset()
    user: str = ""
    hashes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A connector whose connection factors hold; ``failed`` names those that only ``observe`` forgives."""

    connector: Connector
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What judging needs of a message: all fields as they arrived, envelope sender, author, dkim.

    ``dkim`` holds the domains whose signature is valid by the rules of the factor.
    """

    fields: Sequence[Field]
    sender: Address | None
    author: Address
    dkim: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a connector does not take a message. ``temporary``: 451 instead of 550; ``alert``: people should look."""

    why: tuple[str, ...]
    temporary: bool = False
    alert: bool = False
    connector: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The connector that takes the message, or why none does.

    ``violations``: what an observing connector would refuse in force. ``used_dkim``: its dkim factor held.
    """

    connector: Connector | None
    violations: tuple[str, ...] = ()
    refused: Refused | None = None
    used_dkim: bool = False


# -- at MAIL -------------------------------------------------------------------------------------------------------


def candidates(connectors: Iterable[Connector], arrival: Arrival, networks: Networks) -> tuple[Candidate, ...]:
    """The connectors whose connection factors hold, in file order."""
    found = []
    for connector in connectors:
        if not names_a_connector(connector, arrival, networks):
            continue
        failed = _failed_connection_factors(connector, arrival)
        if not failed or connector.stage is Stage.OBSERVE:
            found.append(Candidate(connector, failed))
    return tuple(found)


def names_a_connector(connector: Connector, arrival: Arrival, networks: Networks) -> bool:
    """Whether listener and networks of this connector hold: known as soon as the connection is made."""
    accept = connector.accept
    if accept.listeners and not arrival.listener & frozenset(accept.listeners):
        return False
    if not accept.networks:
        return True
    return any(arrival.address.version == net.version and arrival.address in net for net in networks(connector))


def _failed_connection_factors(connector: Connector, arrival: Arrival) -> tuple[str, ...]:
    accept = connector.accept
    failed = []
    if accept.client_certificate is not None and accept.client_certificate not in arrival.certificate_names:
        failed.append("client_certificate")
    # Not by name alone: another connector's user may have the same one; and a reload may have changed the password.
    if accept.auth is not None and accept.auth.hashes.get(arrival.user) not in arrival.hashes:
        failed.append("auth")
    return tuple(failed)


def check_sender(
    connectors: Sequence[Connector], found: Sequence[Candidate], sender: Address | None
) -> tuple[tuple[Candidate, ...], Refused | None]:
    """The candidates that may still take a message of this envelope sender; a refusal where none is left."""
    if not found:
        soft = any(connector.stage is not Stage.ENFORCE for connector in connectors)
        return (), Refused(("no connector names this client",), temporary=soft, alert=soft)
    left, refused = [], []
    for candidate in found:
        why = _sender_fault(candidate.connector, sender)
        if why is None or candidate.connector.stage is Stage.OBSERVE:
            left.append(candidate)
        else:
            refused.append(_refused(candidate.connector, (why,)))
    return tuple(left), (None if left else _first(refused))


def _sender_fault(connector: Connector, sender: Address | None) -> str | None:
    if sender is None:
        return "null sender: system_mail is refused" if connector.system_mail is SystemMail.REFUSE else None
    return None if matches_sender(connector.senders, sender) else "envelope sender is outside senders"


# -- once the header block is read ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Factors:
    """How the factors of one candidate came out: names of those that hold, and those that fail with a reason."""

    held: frozenset[str] = frozenset()
    failed: tuple[str, ...] = ()
    rules: tuple[str, ...] = field(default=())  # senders, foreign_from, system_mail


def judge(found: Sequence[Candidate], facts: MessageFacts) -> Verdict:
    """The connector that takes the message (see the steps at the top of this module)."""
    judged = [(candidate, _factors(candidate, facts)) for candidate in found]
    for candidate, factors in judged:
        if not factors.failed and not factors.rules:
            return Verdict(candidate.connector, used_dkim="dkim" in factors.held)
    for candidate, factors in judged:
        if candidate.connector.stage is Stage.OBSERVE and _may_observe(candidate.connector, factors):
            violations = factors.failed + factors.rules
            return Verdict(candidate.connector, violations, used_dkim="dkim" in factors.held)
    refused = [_refused(candidate.connector, factors.failed + factors.rules) for candidate, factors in judged]
    return Verdict(None, refused=_first(refused))


def _may_observe(connector: Connector, factors: _Factors) -> bool:
    own_door = (bool(connector.accept.networks) or "auth" in factors.held) and not connector.is_cloud
    return own_door or bool(factors.held & _locks(connector))


def _locks(connector: Connector) -> frozenset[str]:
    """The lock factors of this connector: those that tie a message to the customer and not only to a cloud."""
    name = connector.accept.client_certificate
    if name is not None and any(name == shared or name.endswith("." + shared) for shared in _SHARED_CERTIFICATES):
        return connector.lock_factors - {"client_certificate"}
    return connector.lock_factors


def _refused(connector: Connector, why: tuple[str, ...]) -> Refused:
    temporary = connector.stage is not Stage.ENFORCE
    return Refused(why, temporary=temporary, alert=temporary, connector=connector.name)


def _first(refused: Sequence[Refused]) -> Refused:
    """One answer for all: temporary where any connector asks for it, so that nothing bounces meanwhile."""
    if not refused:
        return Refused(("no connector names this client",))
    return next((each for each in refused if each.temporary), refused[0])


def _factors(candidate: Candidate, facts: MessageFacts) -> _Factors:
    connector = candidate.connector
    accept = connector.accept
    given = {"client_certificate": accept.client_certificate, "auth": accept.auth}
    held = {name for name, factor in given.items() if factor is not None and name not in candidate.failed}
    failed = list(candidate.failed)
    tenant_fault = _tenant_fault(connector, facts.fields)
    if accept.tenant is not None and tenant_fault is None:
        held.add("tenant")
    # System mail passes no mail-flow rule and need not be signed: where networks and tenant are both asked for,
    # they are enough (interfaces: Connector semantics).
    is_system = facts.sender is None and connector.system_mail is SystemMail.TENANT
    excused = is_system and bool(accept.networks) and "tenant" in held
    if tenant_fault is not None:
        failed.append(tenant_fault)
    if accept.header is not None:
        header_fault = _header_fault(connector, facts.fields)
        if header_fault is None:
            held.add("header")
        elif not (excused and header_fault == "header: missing"):
            # Missing is what system mail looks like; a wrong or doubled secret is not excused.
            failed.append(header_fault)
    if accept.dkim:
        if facts.author.domain in facts.dkim and facts.author.domain in accept.dkim:
            held.add("dkim")
        elif not excused:
            failed.append("dkim: no valid signature of the author's domain")
    if connector.is_cloud and not held & _locks(connector):
        failed.append("no lock factor holds")
    if not (accept.networks or accept.listeners or held):
        failed.append("no factor holds")  # `check` refuses such a connector; here it is no door either
    return _Factors(frozenset(held), tuple(failed), _rule_faults(connector, facts))


def _rule_faults(connector: Connector, facts: MessageFacts) -> tuple[str, ...]:
    """What ``system_mail``, ``senders`` and ``foreign_from`` object to."""
    faults = []
    envelope = _sender_fault(connector, facts.sender)
    if envelope is not None:
        faults.append(envelope)
    forwarded = (
        connector.foreign_from is ForeignFrom.FORWARD
        and facts.sender is not None
        and matches_sender(connector.senders, facts.sender)
    )
    if not matches_sender(connector.senders, facts.author) and not forwarded:
        faults.append("From is outside senders")
    return tuple(faults)


def _values(fields: Sequence[Field], name: str) -> list[bytes]:
    return [each.value for each in fields if each.name == name]


def _tenant_fault(connector: Connector, fields: Sequence[Field]) -> str | None:
    tenant = connector.accept.tenant
    if tenant is None:
        return None
    if tenant.id is None and not tenant.domains:
        return "tenant: neither id nor domains are configured"
    wanted: list[tuple[str, tuple[str, ...]]] = []
    if tenant.id is not None:
        wanted.append((TENANT_ID, (tenant.id,)))
    if tenant.domains:
        wanted.append((ORIGINATOR_ORG, tenant.domains))
    for name, allowed in wanted:
        values = _values(fields, name)
        if len(values) != 1:
            return f"tenant: {name} is {'missing' if not values else 'there more than once'}"
        if values[0].decode("ascii", "replace").lower() not in {each.lower() for each in allowed}:
            return f"tenant: {name} is another one's"
    return None


def _header_fault(connector: Connector, fields: Sequence[Field]) -> str | None:
    factor = connector.accept.header
    if factor is None:
        return None
    values = _values(fields, factor.name.lower())
    if not values:
        return "header: missing"
    if len(values) > 1:
        return "header: there more than once"
    # Every value is compared, each in constant time: how long it takes says nothing about which one, or how much.
    matches = [hmac.compare_digest(values[0], secret.reveal().strip(b" \t")) for secret in factor.values]
    return None if any(matches) else "header: wrong value"
