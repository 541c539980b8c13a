"""The terms that a session is served on: one configuration, ready to be asked, and the services around it.

A reload makes new terms; sessions look for them at each MAIL, so that a transaction sees one configuration only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.config.model import Connector, Limits, Settings
from gateway.config.users import UserTable
from gateway.ingress.certificates import Contexts, ServerCertificate
from gateway.ingress.client_certificate import Trust
from gateway.ingress.connectors import Arrival, Networks, names_a_connector
from gateway.ingress.limits import Rates
from gateway.ingress.markers import Markers
from gateway.ingress.memory import MemoryBudget
from gateway.ingress.passwords import Failures, Passwords
from gateway.ingress.seams import IngressMetrics, Intake, LookupTxt

__all__ = ["Services", "Terms"]


@dataclass(frozen=True, slots=True)
class Services:
    """What stays the same over reloads. ``loop_key`` is what loop marks are made and read with."""

    intake: Intake
    clock: Clock
    metrics: IngressMetrics
    rates: Rates
    memory: MemoryBudget
    failures: Failures
    passwords: Passwords
    lookup_txt: LookupTxt
    loop_key: bytes
    log: FilteringBoundLogger


@dataclass(frozen=True, slots=True)
class Terms:
    """What one configuration says to sessions. ``trust`` and ``certificate`` are None where no listener needs them."""

    hostname: str
    connectors: tuple[Connector, ...]
    limits: Limits
    networks: Networks
    markers: Markers
    trust: Trust | None
    certificate: ServerCertificate | None

    @classmethod
    def of(
        cls, settings: Settings, networks: Networks, trust: Trust | None, certificate: ServerCertificate | None
    ) -> Terms:
        """The terms that these settings make."""
        return cls(
            settings.hostname,
            settings.connectors,
            settings.limits,
            networks,
            Markers.of(settings.connectors),
            trust,
            certificate,
        )

    @property
    def contexts(self) -> Contexts | None:
        """The TLS contexts of the certificate in use now."""
        return None if self.certificate is None else self.certificate.contexts

    def connectors_for(self, arrival: Arrival) -> tuple[Connector, ...]:
        """The connectors whose listener and networks hold: all that is known before MAIL."""
        return tuple(each for each in self.connectors if names_a_connector(each, arrival, self.networks))

    def user_tables(self, arrival: Arrival) -> tuple[UserTable, ...]:
        """Each table of users that a connector for this client asks for a log-in by."""
        tables = [each.accept.auth for each in self.connectors_for(arrival) if each.accept.auth is not None]
        return tuple({table.path: table for table in tables}.values())

    def largest_message(self, connectors: Sequence[Connector]) -> int:
        """What EHLO tells a client of these connectors: no message that this admits is refused for its size alone."""
        sizes: Mapping[str, int] = {each.name: each.limits.message_size for each in connectors or self.connectors}
        return min(sizes.values(), default=Connector.model_fields["limits"].default.message_size)
