"""Settings of the way out: DNS, routes, pins, retries, connections, timeouts."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from gateway.config.section import Section
from gateway.config.values import (
    AssuranceLevel,
    Count,
    Domain,
    Domains,
    Duration,
    Endpoint,
    FileName,
    HostName,
    Name,
    Networks,
    Port,
    ResolverEndpoint,
    Secret,
    SpkiDigests,
    parse_domain,
)
from gateway.config.written import shown
from gateway.mail.protection import Assurance

__all__ = [
    "ClientCertificate",
    "Connections",
    "Credentials",
    "Delivery",
    "Dns",
    "Egress",
    "Local",
    "Pin",
    "Retry",
    "Route",
    "Timeouts",
]


class ClientCertificate(Section):
    """A certificate that we show to the host that we connect to."""

    certificate: FileName
    """PEM file with the certificate and its chain."""

    key: FileName
    """PEM file with the private key, without a pass phrase."""


class Credentials(Section):
    """What we log in with, by SMTP AUTH; never sent before TLS."""

    username: str = Field(min_length=1)
    """The account at the next hop."""

    password: Secret
    """Its password: text, `${VARIABLE}` or `file:PATH`."""


def _long_form(value: object, default_port: int) -> object:
    """The long form of a route that was written as ``host:port``."""
    if isinstance(value, str):
        endpoint = Endpoint.parse(value, default_port)
        if endpoint.port == 0:
            raise ValueError("port 0 cannot be connected to")
        return {"host": endpoint.host, "port": endpoint.port}
    return value


class Route(Section):
    """A next hop: a smart host, or the way back to the senders' own system. Short form: `"host:port"`."""

    host: HostName
    """Host name or IP address to connect to. It is the administrator's word: private addresses are allowed here."""

    port: Port = 25
    """TCP port."""

    tls: AssuranceLevel = Assurance.ENCRYPTED
    """What the session must show, whatever policy asks beyond it: `none`, `encrypted`, `verified`,
    `authenticated`."""

    name: HostName | None = None
    """The name that the certificate must carry; default: `host` (for an IP address: the address in the
    certificate)."""

    auth: Credentials | None = None
    """User name and password for SMTP AUTH at this host."""

    client_certificate: ClientCertificate | None = None
    """Certificate and key that we show to this host, where it asks for one."""

    final: bool = False
    """Your statement that this host is the recipients' own system. Without it, TLS to this host says nothing about
    the rest of the way, and method `tls` is not possible through it."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _long_form(value, 25)


class Pin(Section):
    """Hosts of a recipient domain that you have checked yourself; counts as `authenticated`."""

    hosts: Domains = ()
    """The MX host names that are right; a certificate for one of them must chain to a trusted root."""

    spki: SpkiDigests = ()
    """SHA-256 digests of public keys that are right, hex or base64; the chain is then not judged."""


class Retry(Section):
    """When a delivery that failed for now is tried again."""

    first: Duration = 60.0
    """Wait before the second try; it doubles from there, with jitter."""

    max: Duration = 14400.0
    """The longest wait between two tries."""

    expire: Duration = 432000.0
    """How long we try in all; then the message bounces to its sender (RFC 5321 section 4.5.4.1: at least 4-5
    days)."""

    delay_notice: Duration = 14400.0
    """After this time the sender is told, once, that the message is delayed."""


class Connections(Section):
    """Connections to one site: one set of MX hosts."""

    per_site: Annotated[Count, Field(ge=1)] = 20
    """Most connections at a time to one site; it starts at 5 and grows while all goes well."""

    idle: Duration = 2.0
    """How long an open connection waits for more mail before QUIT."""

    lifetime: Duration = 300.0
    """How long a connection is used in all before QUIT."""


class Timeouts(Section):
    """How long a peer may take, phase by phase (RFC 5321 section 4.5.3.2)."""

    connect: Duration = 30.0
    """For the TCP connection to one address."""

    greeting: Duration = 300.0
    """For the 220 greeting."""

    ehlo: Duration = 300.0
    """For the answer to EHLO."""

    starttls: Duration = 120.0
    """For the answer to STARTTLS, and for the handshake."""

    mail: Duration = 300.0
    """For the answer to MAIL FROM."""

    rcpt: Duration = 300.0
    """For the answer to each RCPT TO."""

    data: Duration = 120.0
    """For the 354 after DATA."""

    block: Duration = 180.0
    """For each block of the message to be taken."""

    dot: Duration = 600.0
    """For the answer to the final dot. Shorter values make duplicates: the peer may have taken the message
    already."""


def _route_domain(value: object) -> str:
    return "*" if value == "*" else parse_domain(value)


RouteDomain = Annotated[str, BeforeValidator(_route_domain)]
"""A recipient domain, or ``*`` for all others."""


class Delivery(Section):
    """How mail leaves."""

    port: Port = 25
    """Port of the recipients' MX hosts. Anything but 25 is for tests."""

    routes: dict[RouteDomain, Route] = Field(default={})
    """Smart hosts by recipient domain, `"*"` for all others: `"host:port"` or the long form. A domain without a
    route is delivered by its MX records."""

    pins: dict[Domain, Pin] = Field(default={})
    """Recipient domains whose hosts or keys you have checked yourself; they count as `authenticated`."""

    source_addresses: tuple[HostName, ...] = ()
    """Local addresses to connect from, where the machine has several; default: the system chooses."""

    retry: Retry = Retry()
    """When a delivery that failed for now is tried again."""

    connections: Connections = Connections()
    """Connections to one site."""

    timeouts: Timeouts = Timeouts()
    """How long a peer may take, phase by phase."""

    allow_networks: Networks = ()
    """Private and loopback addresses found by DNS are refused as destinations, unless they lie in one of these.
    Routes and `return_route` are exempt: they are your own word."""


def _trust_ad(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError(f"expected auto, true or false, found {shown(value)}")


class Dns(Section):
    """How names are looked up."""

    resolvers: tuple[ResolverEndpoint, ...] = ()
    """Resolvers as `"address:port"`; default: the system's. A validating resolver on this machine is best: DANE
    needs it."""

    trust_ad: Annotated[bool | Literal["auto"], PlainValidator(_trust_ad)] = "auto"
    """Whether "authenticated data" in an answer is believed. `auto`: only from a resolver on loopback. `true` only
    where the way to the resolver is as safe as the machine itself."""

    timeout: Duration = 10.0
    """How long one question may take in all, over all resolvers."""


class Local(Section):
    """Our own mail domain: what is addressed to it ends here and is never relayed."""

    domain: Domain | None = None
    """Domain for bounces of notices and for replies by token; default: none, only postmaster@`hostname` ends here."""

    notices: Name = "notices"
    """Local part that notices are sent from."""


class Egress(Section):
    """Look-ups over https: MTA-STS, WKD, webhooks."""

    proxy: str | None = None
    """URL of an http proxy for them."""

    allow_networks: Networks = ()
    """Private networks that such a look-up may connect to; all others are refused after the name is resolved."""
