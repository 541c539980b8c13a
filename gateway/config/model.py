"""The settings: the whole model of ``gateway.yaml``, every key documented where it is declared.

Where to look: ``values`` what one setting can be; ``inbound`` listeners, connectors, limits; ``outbound`` DNS, routes,
delivery; ``rooms`` what lies beyond the mail path. This module has the top level and re-exports the sections.

Attribute names are the YAML keys. Durations are seconds (``float``), sizes bytes (``int``).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from gateway.config.inbound import (
    Accept,
    ClientCertificates,
    Connector,
    ConnectorLimits,
    ForeignFrom,
    HeaderFactor,
    Limits,
    Listener,
    ListenerTls,
    Stage,
    SystemMail,
    Tenant,
)
from gateway.config.outbound import (
    ClientCertificate,
    Connections,
    Credentials,
    Delivery,
    Dns,
    Egress,
    Local,
    Pin,
    Retry,
    Route,
    Timeouts,
)
from gateway.config.rooms import (
    Api,
    Audit,
    Console,
    Directories,
    DkimKey,
    Ldap,
    Notify,
    Pdf,
    Pgp,
    Portal,
    Smime,
    WebTls,
)
from gateway.config.section import Section
from gateway.config.storage import Store
from gateway.config.values import (
    CLOUD_NETWORKS,
    Domain,
    Endpoint,
    FileName,
    KeySource,
    Mailbox,
    Secret,
    Surroundings,
    Trust,
)
from gateway.config.written import shown

__all__ = [
    "CLOUD_NETWORKS",
    "Accept",
    "Api",
    "Audit",
    "ClientCertificate",
    "ClientCertificates",
    "Connections",
    "Connector",
    "ConnectorLimits",
    "Console",
    "Credentials",
    "Delivery",
    "Directories",
    "DkimKey",
    "Dns",
    "Egress",
    "Endpoint",
    "ForeignFrom",
    "HeaderFactor",
    "KeySource",
    "Ldap",
    "Limits",
    "Listener",
    "ListenerTls",
    "Local",
    "Log",
    "Metrics",
    "Notify",
    "Pdf",
    "Pgp",
    "Pin",
    "Portal",
    "Retry",
    "Route",
    "Secret",
    "Section",
    "Settings",
    "Smime",
    "Stage",
    "Store",
    "Surroundings",
    "SystemMail",
    "Tenant",
    "Timeouts",
    "Tls",
    "WebTls",
]


class Tls(Section):
    """Our own certificate, and whom we trust."""

    certificate: FileName | None = None
    """PEM file with our certificate and its chain, for listeners; read again when it changes. Needed unless every
    listener says `tls: none`."""

    key: FileName | None = None
    """PEM file with its private key, without a pass phrase; or `credential:NAME` (systemd)."""

    trust: Trust = "system"
    """Roots that certificates of others are judged by: `system`, or a PEM file."""


class Metrics(Section):
    """Metrics and health for machines: `/metrics`, `/healthz`, `/readyz`."""

    listen: Endpoint | None = Endpoint("127.0.0.1", 9725)
    """`"host:port"` of the health server, or `null` for none. It has no authentication: keep it on loopback or behind
    a firewall."""


class Log(Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important events that are written."""

    format: Literal["json", "console"] = "json"
    """`json`: one object a line, for machines; `console`: for people."""

    addresses: bool = False
    """Whether full mail addresses are written. Subjects and bodies never are."""


def _workers(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256):
        return value
    raise ValueError(f"expected auto or a whole number from 1 to 256, found {shown(value)}")


Workers = Annotated[int | Literal["auto"], PlainValidator(_workers)]


class Settings(Section):
    """Everything that `gateway.yaml` says. Make one with :func:`gateway.config.load.load_settings`."""

    hostname: Domain
    """Our own name, fully qualified: EHLO, Received, DSNs. Its A/AAAA and the PTR of our address must agree."""

    postmaster: Mailbox
    """Address of the people responsible (RFC 5321 section 4.5.1): contact in DSNs; mail to postmaster@`hostname` is
    theirs."""

    data_dir: FileName = Path("/var/lib/gateway")
    """Directory of the store; on a local file system that honours fsync."""

    workers: Workers = "auto"
    """SMTP processes, which share the addresses and limits of the gateway. `auto`: as many as cores, two at most on
    SQLite, where more of them mostly wait for each other."""

    store: Store = Store()
    """Where accepted mail and its records are kept."""

    tls: Tls = Tls()
    """Our own certificate, and whom we trust."""

    listeners: tuple[Listener, ...] = ()
    """Addresses that take mail by SMTP; without one no mail comes in."""

    connectors: tuple[Connector, ...] = ()
    """Who may hand us mail; without one everyone is refused. Connection factors select candidates; message factors
    choose among them, in this order."""

    limits: Limits = Limits()
    """Limits of the whole gateway on the way in."""

    dns: Dns = Dns()
    """How names are looked up."""

    delivery: Delivery = Delivery()
    """How mail leaves."""

    local: Local = Local()
    """Our own mail domain: what is addressed to it ends here and is never relayed."""

    egress: Egress = Egress()
    """Look-ups over https."""

    policies: Annotated[
        tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = ()
    """Policy files: paths and patterns such as `policies/*.yaml`, relative to this file. Without one the defaults
    hold: every message is protected, TLS first."""

    directories: Directories = Directories()
    """Where recipients' certificates and keys are looked for."""

    smime: Smime = Smime()
    """S/MIME."""

    pgp: Pgp = Pgp()
    """OpenPGP."""

    pdf: Pdf = Pdf()
    """Protected PDF."""

    dkim: dict[Domain, tuple[DkimKey, ...]] = Field(default={})
    """Keys that mail is signed with when it leaves, by domain of its From - that very domain, none below it. Each key
    signs, so name old and new side by side to rotate. Unsigned stays what still carries a signature of that domain,
    what comes by a connector whose `senders` do not name it, and all mail of a connector in stage `observe`."""

    portal: Portal = Portal()
    """The web portal in which recipients read protected mail."""

    metrics: Metrics = Metrics()
    """Metrics and health for machines."""

    notify: Notify = Notify()
    """Mail to the people who look after the gateway."""

    log: Log = Log()
    """The log, on standard error."""

    audit: Audit = Audit()
    """The tamper-evident log."""

    api: Api = Api()
    """The REST API."""

    console: Console = Console()
    """The administrator's web face."""
