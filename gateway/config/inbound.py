"""Settings of the way in: listeners, connectors (who may hand us mail), limits."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, model_validator

from gateway.config.outbound import Route
from gateway.config.section import Section
from gateway.config.users import Users
from gateway.config.values import (
    CLOUD_NETWORKS,
    CertificateName,
    Count,
    Domains,
    Duration,
    Endpoint,
    HeaderName,
    Name,
    Names,
    NetworkNames,
    Networks,
    Secrets,
    SenderPatterns,
    Size,
)

__all__ = [
    "Accept",
    "ClientCertificates",
    "Connector",
    "ConnectorLimits",
    "ForeignFrom",
    "HeaderFactor",
    "Limits",
    "Listener",
    "ListenerTls",
    "Stage",
    "SystemMail",
    "Tenant",
]


class ListenerTls(StrEnum):
    """What a listener does about TLS."""

    NONE = "none"
    OFFERED = "offered"
    REQUIRED = "required"
    IMPLICIT = "implicit"


class ClientCertificates(StrEnum):
    """Whether a listener asks clients for a certificate."""

    IGNORE = "ignore"
    REQUEST = "request"


class Stage(StrEnum):
    """How far a connector is put into force."""

    OBSERVE = "observe"
    SOFT = "soft"
    ENFORCE = "enforce"


class SystemMail(StrEnum):
    """What happens to mail with a null sender."""

    TENANT = "tenant"
    REFUSE = "refuse"


class ForeignFrom(StrEnum):
    """What happens to mail whose From lies outside `senders`."""

    REFUSE = "refuse"
    FORWARD = "forward"


class Listener(Section):
    """An address that takes mail by SMTP."""

    address: str
    """`"host:port"`; an IPv6 address in brackets; port 0: any free port. `0.0.0.0` is all of IPv4, `[::]` all of
    IPv6."""

    tls: ListenerTls = ListenerTls.REQUIRED
    """`required`: STARTTLS before any mail; `offered`: STARTTLS if the client wants; `implicit`: TLS from the first
    byte (port 465); `none`: clear text, for loopback and trusted wires only."""

    client_certificates: ClientCertificates = ClientCertificates.IGNORE
    """`request`: ask clients for a certificate, for connectors that have `client_certificate` as a factor. It is
    never a reason to break off the handshake."""

    proxy_protocol: Networks = ()
    """Addresses of load balancers in front of this listener that speak the PROXY protocol, version 2. Their
    connections must begin with its header, and count as those of the client that it names. From everyone else no
    header is taken."""

    name: Name = ""
    """Label in logs and metrics, and what a connector's `accept.listeners` names; default: the address."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"address": value}
        if isinstance(value, Mapping) and isinstance(value.get("address"), str):
            return {"name": value["address"], **value}
        return value

    @model_validator(mode="after")
    def _address_is_an_endpoint(self) -> Self:
        _ = self.endpoint
        return self

    @property
    def endpoint(self) -> Endpoint:
        """Host and port to listen on."""
        return Endpoint.parse(self.address)

    @property
    def host(self) -> str:
        """The host part of the address, without brackets."""
        return self.endpoint.host

    @property
    def port(self) -> int:
        """The port; 0 asks the system for a free one."""
        return self.endpoint.port


def _guid(value: object) -> object:
    if value is None:
        return None
    try:
        return str(UUID(str(value)))
    except ValueError:
        raise ValueError("expected the tenant's GUID, such as 6f0e2b1c-0000-0000-0000-000000000000") from None


class Tenant(Section):
    """The Microsoft 365 tenant that the message must come from. Short form: its GUID, or one domain."""

    id: Annotated[str | None, BeforeValidator(_guid)] = None
    """Tenant id (a GUID), compared with `X-MS-Exchange-CrossTenant-Id`."""

    domains: Domains = ()
    """Accepted domains of the tenant, compared with `X-OriginatorOrg`; a bare string is one domain."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return {"id": str(UUID(value))}
            except ValueError:
                return {"domains": [value]}
        return value


class HeaderFactor(Section):
    """A header that a mail-flow rule of yours adds, with a secret value. It is always taken out of the message."""

    name: HeaderName
    """Name of the header."""

    values: Secrets = Field(min_length=1)
    """Values that are right, each `file:PATH`, `${VARIABLE}` or text; two of them while you change one for the other.
    `value:` is the same for a single one."""

    @model_validator(mode="before")
    @classmethod
    def _value_is_one_of_values(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "value" in value:
            if "values" in value:
                raise ValueError("`value` and `values` are both given: keep one of them")
            return {**{key: item for key, item in value.items() if key != "value"}, "values": [value["value"]]}
        return value


class Accept(Section):
    """What a message must show to be taken by this connector. Every factor that is given must hold."""

    networks: NetworkNames = ()
    """Client networks: CIDRs, or `microsoft365` / `google` for the shipped lists. All tenants share those, so they
    need a second factor: `tenant`, `header`, `dkim` or `client_certificate`."""

    tenant: Tenant | None = None
    """The Microsoft 365 tenant, by the headers that Exchange Online adds."""

    header: HeaderFactor | None = None
    """A secret header that your own mail-flow rule adds."""

    dkim: Domains = ()
    """A valid DKIM signature of one of these domains (Google Workspace has no tenant header)."""

    client_certificate: CertificateName | None = None
    """The DNS name in the client's certificate, which must chain to `tls.trust`; or `spki:SHA256` for a certificate
    whose public key has this digest. Only where the listener says `client_certificates: request`."""

    auth: Users = None
    """SMTP AUTH PLAIN or LOGIN, under TLS only: a file with a line `name: "HASH"` for each user, as
    `gateway auth hash NAME` prints it. Read again on a reload."""

    listeners: Names = ()
    """Only on these listeners, by name or address; default: all."""


class ConnectorLimits(Section):
    """Limits of one connector, over the whole gateway."""

    message_size: Annotated[Size, Field(ge=1)] = 150_000_000
    """Largest message; `552 5.3.4` beyond. Microsoft 365 sends up to 150 MB."""

    recipients: Annotated[Count, Field(ge=1)] = 1000
    """Most recipients of one message; `452 4.5.3` beyond, and the client sends the rest in another one."""

    connections: Annotated[Count, Field(ge=1)] = 200
    """Most connections at a time; `421 4.3.2` beyond."""

    messages_per_minute: Annotated[Count, Field(ge=1)] = 6000
    """Most messages a minute; `451 4.3.2` beyond."""


class Connector(Section):
    """Someone who may hand us mail."""

    name: Name
    """Label in logs, metrics and the trace."""

    stage: Stage = Stage.ENFORCE
    """`enforce`: what does not fit is refused for good. `soft`: refused for now (`451`) with an alert, so that
    nothing bounces while you find out. `observe`: recorded and let through as `plain` - **policy is not applied**.
    Default: `soft` where `microsoft365` or `google` is named, else `enforce`."""

    accept: Accept = Accept()
    """What a message must show to be taken by this connector."""

    system_mail: SystemMail = SystemMail.TENANT
    """Mail with a null sender (NDRs, receipts, journal): `tenant`: networks and tenant are enough, as no rule-made
    header is on it; `refuse`: not taken."""

    kinds: Annotated[
        tuple[Literal["journal"], ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = ()
    """`journal` where this connector brings journal reports: they leave by TLS, or wait for a person. From other
    connectors a journal report is ordinary mail."""

    foreign_from: ForeignFrom = ForeignFrom.REFUSE
    """Mail whose From lies outside `senders`: `refuse`, or `forward` for auto-forwards and list posts (never
    signed, still protected)."""

    senders: SenderPatterns = ()
    """Domains that envelope sender and From may have: `clinic.example`, `"*.clinic.example"`, or `"*"` for any
    (never with a cloud network). Default: the tenant's domains, else those of `accept.dkim`; where neither is given
    this is needed."""

    return_route: Route | None = None
    """Where bounces and replies to these senders go: `"host:port"` or the long form; default: by the MX of their
    domain."""

    limits: ConnectorLimits = ConnectorLimits()
    """Limits of this connector."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_from_factors(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        completed = dict(value)
        if "stage" not in completed and _names_cloud(completed.get("accept")):
            completed["stage"] = Stage.SOFT
        if "senders" not in completed and (domains := _factor_domains(completed.get("accept"))):
            completed["senders"] = domains
        return completed

    @property
    def is_cloud(self) -> bool:
        """Whether a shipped network is named, which all tenants of a cloud service share."""
        return any(network in CLOUD_NETWORKS for network in self.accept.networks if isinstance(network, str))

    @property
    def lock_factors(self) -> frozenset[str]:
        """The factors given that tie a message to its owner and not only to a service."""
        accept = self.accept
        given = {
            "tenant": accept.tenant,
            "header": accept.header,
            "dkim": accept.dkim,
            "client_certificate": accept.client_certificate,
        }
        return frozenset(name for name, factor in given.items() if factor)


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _names_cloud(accept: object) -> bool:
    networks = accept.networks if isinstance(accept, Accept) else None
    if isinstance(accept, Mapping):
        networks = accept.get("networks")
    return any(isinstance(network, str) and network in CLOUD_NETWORKS for network in _listed(networks))


def _factor_domains(accept: object) -> list[object]:
    """The domains that a tenant or DKIM factor speaks of, as written; empty where they are not well-formed."""
    if isinstance(accept, Mapping):
        try:
            accept = Accept.model_validate({key: accept[key] for key in ("tenant", "dkim") if key in accept})
        except ValueError:
            return []
    if not isinstance(accept, Accept):
        return []
    return list((accept.tenant.domains if accept.tenant else ()) or accept.dkim)


class Limits(Section):
    """Limits of the whole gateway on the way in, beside those of each connector."""

    connections: Annotated[Count, Field(ge=1)] = 2000
    """Most connections at a time, over all listeners; `421 4.3.2` beyond."""

    connections_per_network: Annotated[Count, Field(ge=1)] = 100
    """Most connections at a time from one client network (/24 for IPv4, /64 for IPv6) that no connector names."""

    command_timeout: Duration = 300.0
    """How long a client may take for a command (RFC 5321 section 4.5.3.2.7: at least 5 minutes)."""

    data_timeout: Duration = 180.0
    """How long a client may take for each block of a message."""

    header_size: Annotated[Size, Field(ge=1024)] = 262144
    """Largest header block of a message; `552 5.3.4` beyond."""

    min_data_rate: Count = 100
    """Bytes a second that a client must reach, on average, after the first 30 s of a message; below it is cut off.
    0: no such limit."""

    errors: Annotated[Count, Field(ge=1)] = 20
    """Faulty commands in one connection before it is closed."""

    session_messages: Annotated[Count, Field(ge=1)] = 1000
    """Messages in one connection before it is closed (`421`), so that load spreads over workers."""

    auth_failures_per_minute: Annotated[Count, Field(ge=1)] = 20
    """Failed SMTP AUTH a minute from one client network (/24 for IPv4, /64 for IPv6); `454 4.7.0` beyond, without
    looking at the password."""

    memory: Annotated[Size, Field(ge=1_000_000)] = 128_000_000
    """Memory that messages on their way in may hold, all together: 1.6 MB for a large one, some five times its size for
    one below 300 KB; `452 4.3.1` beyond."""

    free_space: Size = 500_000_000
    """Floor of free space under `data_dir`: below it, mail is answered `452 4.3.1` and `/readyz` is not ready."""
