"""Settings beyond the mail path: key directories, S/MIME, OpenPGP, PDF, DKIM, portal, audit, API, console."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from gateway.config.organisations import Organisation, OrganisationDomain
from gateway.config.section import Section
from gateway.config.values import (
    AssuranceLevel,
    Duration,
    Endpoint,
    FileName,
    Mailbox,
    Networks,
    PrivateKey,
    Secret,
    Size,
    Trust,
)
from gateway.config.written import shown, text_of
from gateway.mail.dkim.records import is_selector
from gateway.mail.protection import Assurance

__all__ = [
    "WITHOUT_EFFECT",
    "Api",
    "Audit",
    "Console",
    "Directories",
    "DkimKey",
    "Ldap",
    "Notify",
    "Pdf",
    "Pgp",
    "Portal",
    "Smime",
    "WebTls",
]

WITHOUT_EFFECT = frozenset({"directories", "smime", "pgp", "pdf", "egress", "audit", "api", "console"})
"""Sections whose rooms come later. Ignoring them weakens nothing: what they would add is simply not possible yet."""

KeyDirectory = Literal["local", "ldap", "smimea", "wkd", "openpgpkey"]


class Ldap(Section):
    """An LDAP server that holds recipients' certificates."""

    url: str | None = None
    """`ldaps://host[:port]`; default: no LDAP."""

    base: str | None = None
    """Where the search starts, such as `dc=clinic,dc=example`."""

    bind: str | None = None
    """Distinguished name to bind as; default: anonymous."""

    password: Secret | None = None
    """Its password."""


class Directories(Section):
    """Where recipients' certificates and keys are looked for."""

    order: tuple[KeyDirectory, ...] = ("local", "ldap", "smimea", "wkd", "openpgpkey")
    """Sources in the order that they are asked; leave one out to switch it off."""

    ldap: Ldap = Ldap()
    """The LDAP server for source `ldap`."""

    keyserver: str | None = None
    """URL of a verifying key server (VKS) that is asked last; default: none."""

    changed_keys: Literal["hold", "accept"] = "hold"
    """What happens when a recipient's key is another than last time: `hold` the mail for approval, or `accept` it."""


class Smime(Section):
    """S/MIME: certificates of recipients."""

    trust: Trust = "system"
    """Roots for recipients' certificates: `system`, or a PEM file."""

    revocation: Literal["off", "soft", "hard"] = "soft"
    """`soft`: a revoked certificate is refused, an unknown state is not; `hard`: unknown is refused too; `off`: not
    asked."""

    max_size: Size = 25_000_000
    """Largest message that is encrypted; a larger one goes by the next method."""


class Pgp(Section):
    """OpenPGP."""

    max_size: Size = 25_000_000
    """Largest message that is encrypted; a larger one goes by the next method."""


class Pdf(Section):
    """Protected PDF."""

    max_size: Size = 25_000_000
    """Largest message that is rendered; a larger one goes by the next method."""

    password: Literal["portal", "sender"] = "portal"  # noqa: S105 - the way of a password, not a password
    """How the recipient learns the password: shown in the `portal` after sign-in, or a phrase that the `sender`
    tells."""


def _selector(value: object) -> str:
    text = text_of(value, "a selector such as s1")
    if not is_selector(text):
        raise ValueError(f"expected a selector such as s1 or 2026-01.gw, found {shown(text)}")
    return text


class DkimKey(Section):
    """A key that we sign mail of a domain with, when it leaves. `gateway dkim generate` makes one."""

    selector: Annotated[str, BeforeValidator(_selector)]
    """The selector: the public key is published as TXT record SELECTOR._domainkey.DOMAIN."""

    key: PrivateKey
    """The private key in PEM, `file:PATH`: RSA of 2048 to 4096 bits, or Ed25519 (beside RSA: many verifiers do not know
    it)."""


class WebTls(Section):
    """The certificate of a web server of ours; read again when a file changes."""

    certificate: FileName
    """PEM file with the certificate and its chain."""

    key: FileName
    """PEM file with the private key, without a pass phrase."""


class Portal(Section):
    """The web portal in which recipients read protected mail."""

    listen: Endpoint = Endpoint("127.0.0.1", 8080)
    """`"host:port"` of the portal's web server; it listens where `url` is set."""

    url: str | None = None
    """Public URL, such as `https://secure.clinic.example`: scheme and host alone. Links in notices are made from it
    alone. `http` only for loopback hosts. Default: no portal, and no web process."""

    tls: WebTls | None = None
    """Certificate and key of the web server; default: a proxy in front of it does TLS."""

    trusted_proxies: Networks = ()
    """Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; nobody else's are."""

    expires: Duration = 2592000.0
    """How long a message can be read."""

    organisations: dict[OrganisationDomain, Organisation] = Field(default={})
    """How recipients see the organisation, by domain of the sender; `*.` in front stands for all below it, `"*"` for
    all others."""

    code_assurance: AssuranceLevel = Assurance.ENCRYPTED
    """What the session that carries a sign-in code must reach for the code to be enough alone."""

    @property
    def origin(self) -> str:
        """Scheme and host of `url` as browsers write an origin (RFC 6454 section 6.2); "" where there is no portal."""
        if self.url is None:
            return ""
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        shown = f"[{host}]" if ":" in host else host
        default = {"http": 80, "https": 443}.get(parts.scheme)
        return f"{parts.scheme}://{shown}" + ("" if port in {None, default} else f":{port}")


class Notify(Section):
    """Mail to the people who look after the gateway: encrypted, without anybody's mail in it, once an hour a thing."""

    alerts: tuple[Mailbox, ...] = ()
    """Addresses that alarms are mailed to, with what to do, and that they are over. Alarms are also log events and
    metrics, always."""

    reviewers: tuple[Mailbox, ...] = ()
    """Addresses that are told of held mail, with the commands that release or cancel it; default: `alerts`."""


class Audit(Section):
    """The tamper-evident log."""

    retention: Duration = 189_302_400.0
    """How long events are kept; the default is six years (HIPAA 164.316)."""


class Api(Section):
    """The REST API."""

    listen: Endpoint | None = None
    """`"host:port"` of the API's web server; default: off."""


class Console(Section):
    """The administrator's web face."""

    listen: Endpoint | None = None
    """`"host:port"` of the console's web server; default: off."""
