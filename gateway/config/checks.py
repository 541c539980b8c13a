"""What holds between settings: each check looks at valid sections and names what does not go together, with its path.

A check that would speak of a section which is itself broken is silent: one mistake, one fault.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config.certificates import ChainProblem, judge_pair, judge_roots
from gateway.config.inbound import ClientCertificates, Connector, ForeignFrom, ListenerTls, Stage
from gateway.config.model import Settings
from gateway.config.names import matches_sender
from gateway.config.outbound import ClientCertificate, Route
from gateway.config.source import PathInFile
from gateway.config.storage import S3, Store
from gateway.config.values import Endpoint
from gateway.errors import Fault
from gateway.mail.address import Address
from gateway.mail.dkim.records import record_name
from gateway.mail.protection import Assurance

__all__ = ["Problem", "check_settings", "user_faults"]

# Taking one of these out of every message would damage the mail: they cannot carry a secret.
_MAIL_HEADERS = frozenset(
    {"bcc", "cc", "comments", "content-transfer-encoding", "content-type", "date", "dkim-signature", "from"}
    | {"in-reply-to", "keywords", "message-id", "mime-version", "received", "references", "reply-to", "return-path"}
    | {"sender", "subject", "to"}
)
_SHORT_SECRET = 16  # bytes
_MOST_DKIM_KEYS = 4  # old and new, RSA and Ed25519
_LONGEST_NAME = 253  # of a name in DNS, written with dots
# Seconds. Below it a pause of the garbage collector or of a disk looks like death; above it mail waits needlessly.
_SHORTEST_LEASE, _LONGEST_LEASE = 6.0, 3600.0


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not go together, at which value; a ``note`` is worth knowing but no fault."""

    path: PathInFile
    message: str
    note: bool = False


@dataclass(frozen=True, slots=True)
class _Case:
    settings: Settings
    broken: frozenset[str] = field(default=frozenset())
    now: float = 0.0

    def whole(self, *sections: str) -> bool:
        return not self.broken.intersection(sections)


def check_settings(settings: Settings, *, broken: frozenset[str], now: float) -> list[Problem]:
    """All problems between the settings.

    ``broken`` names top-level sections with faults of their own; ``now`` is in seconds, UTC.
    """
    case = _Case(settings, broken, now)
    checks = (_identity, _store, _tls, _listeners, _connectors, _delivery, _dkim, _portal, _exposure, _people)
    return [problem for check in checks for problem in check(case)]


# -- the gateway itself ---------------------------------------------------------------------------------------------


def _identity(case: _Case) -> Iterator[Problem]:
    settings = case.settings
    if case.whole("hostname") and "." not in settings.hostname:
        yield Problem(
            ("hostname",), f"expected a fully qualified name (RFC 5321 section 2.3.5), found {settings.hostname!r}"
        )
    if case.whole("data_dir") and settings.data_dir.exists() and not settings.data_dir.is_dir():
        yield Problem(("data_dir",), f"{settings.data_dir} is not a directory")


def _is_no_directory(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()
    except OSError:
        return False  # may not be seen by whoever runs the check; the daemon will say it


def _store(case: _Case) -> Iterator[Problem]:
    store = case.settings.store
    if store.password is not None and store.url.is_sqlite:
        yield Problem(("store", "password"), "a password goes with a URL of PostgreSQL; store.url is sqlite")
    elif store.password is not None and store.url.has_password:
        yield Problem(("store", "password"), "store.url has a password already: give one of the two")
    if not _SHORTEST_LEASE <= store.lease <= _LONGEST_LEASE:
        yield Problem(("store", "lease"), "expected a duration from 6s to 1h")
    verified = store.url.options.get("sslmode") in {"verify-ca", "verify-full"}
    if not verified and not all(_is_here(host) for host in store.url.hosts):
        yield Problem(
            ("store", "url"),
            "the server is not on this machine and its certificate is not verified: who sits on the way can read "
            "addresses and change the queue; add ?sslmode=verify-full&sslrootcert=PATH",
            note=True,
        )
    yield from _bodies(store)
    for index, source in enumerate(store.keys):
        if source in store.keys[:index]:
            yield Problem(("store", "keys", index), f"the key {source} is given twice")


def _bodies(store: Store) -> Iterator[Problem]:
    """Where large bodies lie."""
    s3 = store.s3
    try:
        bucket = store.bucket
    except ValueError as error:
        yield Problem(("store", "blobs"), str(error))
        return
    if bucket is None and s3 != S3():
        yield Problem(("store", "s3"), "it has no effect: store.blobs is file", note=True)
    if bucket is None and not store.url.is_sqlite:
        yield Problem(
            ("store", "blobs"),
            "large bodies stay in files under data_dir: only gateways that share it can share this database",
            note=True,
        )
    if (s3.access_key is None) is not (s3.secret_key is None):
        yield Problem(("store", "s3"), "access_key and secret_key go together")
    if s3.endpoint is None:
        return
    parts = urlsplit(s3.endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.path.strip("/"):
        yield Problem(("store", "s3", "endpoint"), "expected https://HOST or https://HOST:PORT")
    elif parts.scheme == "http" and not _is_here(parts.hostname):
        yield Problem(
            ("store", "s3", "endpoint"),
            "in clear: bodies are sealed, but who sits on the way can take them out or away; use https",
            note=True,
        )


def _is_here(host: str) -> bool:
    """Whether a host is this machine: a socket's directory, or loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith(("/", "@"))


def _tls(case: _Case) -> Iterator[Problem]:
    tls = case.settings.tls
    if tls.certificate is not None and tls.key is None:
        yield Problem(("tls",), "tls.certificate is given without tls.key")
    elif tls.key is not None and tls.certificate is None:
        yield Problem(("tls",), "tls.key is given without tls.certificate")
    elif tls.certificate is not None and tls.key is not None:
        yield from _pair(("tls",), tls.certificate, tls.key, case.now)
    if isinstance(tls.trust, Path):
        yield from _told(("tls", "trust"), judge_roots(tls.trust))


def _pair(path: PathInFile, certificate: Path, key: Path, now: float) -> Iterator[Problem]:
    for problem in judge_pair(certificate, key, now):
        yield from _told((*path, problem.about), [problem])


def _told(path: PathInFile, problems: list[ChainProblem]) -> Iterator[Problem]:
    for problem in problems:
        yield Problem(path, problem.message, note=problem.note)


# -- the way in -----------------------------------------------------------------------------------------------------


def _listeners(case: _Case) -> Iterator[Problem]:
    listeners = case.settings.listeners
    if not listeners and case.whole("listeners"):
        yield Problem((), "there is no listener: no mail can come in", note=True)
    names = Counter(listener.name for listener in listeners)
    fixed = [listener.endpoint for listener in listeners]
    for index, listener in enumerate(listeners):
        path: PathInFile = ("listeners", index)
        if listener.port != 0 and listener.endpoint in fixed[:index]:
            yield Problem((*path, "address"), f"the address {listener.address} is given to two listeners")
        elif names[listener.name] > 1 and listener.name in {other.name for other in listeners[:index]}:
            yield Problem((*path, "name"), f"the name {listener.name!r} is given to two listeners")
        if listener.tls is not ListenerTls.NONE and case.whole("tls") and case.settings.tls.certificate is None:
            message = f"the listener {listener.name} has tls: {listener.tls}, but there is no tls.certificate"
            yield Problem((*path, "tls"), message)
        if listener.tls is ListenerTls.NONE and listener.client_certificates is ClientCertificates.REQUEST:
            yield Problem((*path, "client_certificates"), "without TLS there are no client certificates to request")
        for number, network in enumerate(listener.proxy_protocol):
            if network.prefixlen == 0:
                message = "this trusts everyone to say who they are: name the proxies' own addresses"
                yield Problem((*path, "proxy_protocol", number), message)


def _connectors(case: _Case) -> Iterator[Problem]:
    connectors = case.settings.connectors
    if not connectors and case.whole("connectors"):
        yield Problem((), "there is no connector: every client is refused", note=True)
    seen: set[str] = set()
    for index, connector in enumerate(connectors):
        path: PathInFile = ("connectors", index)
        if connector.name in seen:
            yield Problem((*path, "name"), f"the name {connector.name!r} is given to two connectors")
        seen.add(connector.name)
        yield from _lock(path, connector)
        yield from _factors(path, connector)
        yield from _connector_listeners(path, connector, case)
        yield from _connector_senders(path, connector)
        if connector.stage is Stage.OBSERVE:
            message = f"the connector {connector.name!r} is in stage observe: its mail leaves without protection"
            yield Problem((*path, "stage"), message, note=True)
        if connector.return_route is not None:
            yield from _route((*path, "return_route"), connector.return_route, case)


def user_faults(settings: Settings) -> list[Fault]:
    """What is wrong in the files of users that connectors name, each file once."""
    tables = {
        connector.accept.auth.path: connector.accept.auth for connector in settings.connectors if connector.accept.auth
    }
    return [fault for table in tables.values() for fault in table.faults]


def _lock(path: PathInFile, connector: Connector) -> Iterator[Problem]:
    """Whether a stranger could send through this connector."""
    accept = connector.accept
    if connector.lock_factors:
        if connector.lock_factors == {"tenant"} and not accept.networks:
            yield Problem(
                (*path, "accept", "tenant"),
                "anyone can write the tenant headers: they prove something only together with `networks`, such as"
                " microsoft365",
            )
        return
    if connector.is_cloud:
        cloud = next(name for name in accept.networks if isinstance(name, str))
        yield Problem(
            (*path, "accept", "networks"),
            f"the networks of {cloud} are shared by all its tenants: any of them could relay through you, with your"
            " reputation (EchoSpoofing, 2024). Add one of tenant, header, dkim, client_certificate",
        )
    elif not accept.networks and accept.auth is None:
        yield Problem(
            (*path, "accept") if accept.model_fields_set else path,
            "nothing says who may use this connector: it would be an open relay. Add `accept` with networks, tenant,"
            " header, dkim, client_certificate or auth",
        )
    elif accept.auth is None and any(
        not isinstance(network, str) and network.prefixlen == 0 for network in accept.networks
    ):
        yield Problem(
            (*path, "accept", "networks"),
            "a network of all addresses lets everyone in: it would be an open relay. Add one of tenant, header, dkim,"
            " client_certificate, auth",
        )


def _factors(path: PathInFile, connector: Connector) -> Iterator[Problem]:
    accept = connector.accept
    path = (*path, "accept")
    if accept.tenant is not None and accept.tenant.id is None and not accept.tenant.domains:
        yield Problem((*path, "tenant"), "a tenant needs an id or domains")
    if accept.header is not None:
        name = accept.header.name.lower()
        if name in _MAIL_HEADERS or name.startswith("x-gateway-"):
            message = (
                f"the header {accept.header.name} has a meaning of its own, and would be taken out of every message"
            )
            yield Problem((*path, "header", "name"), message)
        for index, value in enumerate(accept.header.values):
            if len(value.reveal()) < _SHORT_SECRET:
                message = "this secret is shorter than 16 characters: it may be guessed"
                yield Problem((*path, "header", "values", index), message, note=True)


def _connector_listeners(path: PathInFile, connector: Connector, case: _Case) -> Iterator[Problem]:
    if not case.whole("listeners"):
        return
    accept, listeners = connector.accept, case.settings.listeners
    known = {name for listener in listeners for name in (listener.name, listener.address)}
    for index, name in enumerate(accept.listeners):
        if name not in known:
            yield Problem((*path, "accept", "listeners", index), f"there is no listener {name!r}")
    usable = [
        listener
        for listener in listeners
        if not accept.listeners or {listener.name, listener.address}.intersection(accept.listeners)
    ]
    if accept.client_certificate is not None and not any(
        listener.client_certificates is ClientCertificates.REQUEST for listener in usable
    ):
        yield Problem(
            (*path, "accept", "client_certificate"),
            "no listener of this connector asks for certificates, so that nobody could ever match; set"
            " client_certificates: request on one",
        )
    if accept.auth is not None and all(listener.tls is ListenerTls.NONE for listener in usable):
        yield Problem(
            (*path, "accept", "auth"),
            "no listener of this connector has TLS, and a password is never taken without it: nobody could ever match",
        )


def _connector_senders(path: PathInFile, connector: Connector) -> Iterator[Problem]:
    if not connector.senders:
        where = (*path, "senders") if "senders" in connector.model_fields_set else path
        yield Problem(
            where, 'the connector needs `senders`: the domains it may send for, such as [clinic.example], or ["*"]'
        )
    if "*" in connector.senders and connector.is_cloud:
        yield Problem(
            (*path, "senders", connector.senders.index("*")),
            'senders: "*" lets every domain through; with microsoft365 or google name your own domains',
        )
    if connector.foreign_from is ForeignFrom.FORWARD and connector.senders == ("*",):
        message = 'foreign_from: forward has no effect with senders: "*": nothing is foreign'
        yield Problem((*path, "foreign_from"), message, note=True)


# -- the way out ----------------------------------------------------------------------------------------------------


def _delivery(case: _Case) -> Iterator[Problem]:
    delivery = case.settings.delivery
    retry = delivery.retry
    path: PathInFile = ("delivery", "retry")
    if retry.first <= 0:
        yield Problem((*path, "first"), "expected more than 0s: retries without a pause would hammer the other side")
    if retry.first > retry.max:
        where = "first" if "first" in retry.model_fields_set else "max"
        yield Problem((*path, where), "the first wait is longer than the longest: retry.first is above retry.max")
    if retry.max > retry.expire:
        where = "max" if "max" in retry.model_fields_set else "expire"
        yield Problem(
            (*path, where),
            "the longest wait is longer than all tries together: retry.max is above retry.expire",
        )
    for name in type(delivery.timeouts).model_fields:
        if getattr(delivery.timeouts, name) <= 0:
            yield Problem(("delivery", "timeouts", name), "expected more than 0s")
    for domain, route in delivery.routes.items():
        yield from _route(("delivery", "routes", domain), route, case)
        if domain == "*" and route.final:
            message = "a route for all domains cannot be final: no host is the recipients' own for everyone"
            yield Problem(("delivery", "routes", domain, "final"), message)
    for domain, pin in delivery.pins.items():
        if not pin.hosts and not pin.spki:
            yield Problem(("delivery", "pins", domain), "a pin needs hosts or spki")
    if delivery.source_addresses:
        yield Problem(("delivery", "source_addresses"), "source_addresses has no effect yet", note=True)


def _route(path: PathInFile, route: Route, case: _Case) -> Iterator[Problem]:
    if _leads_nowhere(route.host):
        yield Problem((*path, "host"), f"{route.host} is not an address that can be connected to")
    elif case.whole("listeners", "hostname") and _is_ourselves(route, case.settings):
        yield Problem(
            (*path, "host"), f"{Endpoint(route.host, route.port)} is this gateway itself: mail would go in circles"
        )
    if route.auth is not None and route.tls is Assurance.NONE:
        yield Problem((*path, "auth"), "a password is never sent without TLS: set tls to encrypted or higher")
    if route.final and route.tls is Assurance.NONE:
        yield Problem((*path, "tls"), "a final route with tls: none would count clear text as protected")
    certificate: ClientCertificate | None = route.client_certificate
    if certificate is not None:
        yield from _pair((*path, "client_certificate"), certificate.certificate, certificate.key, case.now)


def _leads_nowhere(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "invalid" or host.endswith(".invalid")
    return address.is_unspecified or address.is_multicast or host == "255.255.255.255"


def _is_ourselves(route: Route, settings: Settings) -> bool:
    mine = [listener.endpoint for listener in settings.listeners if listener.port == route.port]
    if any(endpoint.host == route.host for endpoint in mine):
        return True
    everywhere = any(endpoint.host in {"0.0.0.0", "::"} for endpoint in mine)  # noqa: S104 - compared, not bound
    return everywhere and (route.host in {settings.hostname, "localhost", "::1"} or route.host.startswith("127."))


def _dkim(case: _Case) -> Iterator[Problem]:
    for domain, keys in case.settings.dkim.items():
        path: PathInFile = ("dkim", domain)
        if not keys:
            yield Problem(path, f"no key is given for {domain}: its mail is not signed", note=True)
        if len(keys) > _MOST_DKIM_KEYS:
            message = (
                f"each key makes a signature, and verifiers look at a few only: at most {_MOST_DKIM_KEYS} a domain"
            )
            yield Problem((*path, _MOST_DKIM_KEYS), message)
        seen: set[str] = set()
        for index, each in enumerate(keys):
            selector = each.selector.lower()
            if selector in seen:
                message = f"the selector {each.selector} is given to two keys: a record holds one"
                yield Problem((*path, index, "selector"), message)
            seen.add(selector)
            if len(record_name(each.selector, domain)) > _LONGEST_NAME:
                yield Problem((*path, index, "selector"), "selector and domain are too long for a name in DNS")
        if keys and case.whole("connectors", "postmaster", "local") and not _is_sent_for(domain, case.settings):
            message = f"no connector that enforces sends for {domain}: nothing will be signed with these keys"
            yield Problem(path, message, note=True)

    for index, connector in enumerate(case.settings.connectors):
        if case.settings.dkim and "*" in connector.senders and connector.stage is not Stage.OBSERVE:
            yield Problem(
                ("connectors", index, "senders"),
                f"{connector.name} may send for every domain: what it brings is signed with our keys for"
                f" {', '.join(case.settings.dkim)} if From says so, whoever wrote it; name its domains",
                note=True,
            )


def _is_sent_for(domain: str, settings: Settings) -> bool:
    """Whether mail from this domain may come: by a connector whose mail is signed, or from ourselves."""
    own = {settings.hostname, settings.postmaster.domain, settings.local.domain}
    address = Address("x", domain)
    return domain in own or any(
        connector.stage is not Stage.OBSERVE and matches_sender(connector.senders, address)
        for connector in settings.connectors
    )


# -- the portal -----------------------------------------------------------------------------------------------------


def _portal(case: _Case) -> Iterator[Problem]:
    portal = case.settings.portal
    if not case.whole("portal"):
        return
    if portal.url is None:
        if "portal" in case.settings.model_fields_set:
            yield Problem(("portal",), "portal.url is not set: there is no portal", note=True)
        return
    wrong = _wrong_in_url(portal.url)
    if wrong:
        yield Problem(("portal", "url"), wrong)
        return
    is_https = portal.origin.startswith("https:")
    if portal.tls is not None:
        yield from _pair(("portal", "tls"), portal.tls.certificate, portal.tls.key, case.now)
        if not is_https:
            yield Problem(("portal", "tls"), "portal.url is http: with a certificate it has to be https")
    elif is_https and not portal.trusted_proxies:
        yield Problem(
            ("portal", "url"),
            "nothing does TLS: give portal.tls, or name the proxy that does in portal.trusted_proxies; until then"
            " every page is refused",
            note=True,
        )
    for number, network in enumerate(portal.trusted_proxies):
        if network.prefixlen == 0:
            message = "this trusts everyone to say who they are: name the proxies' own addresses"
            yield Problem(("portal", "trusted_proxies", number), message)
    yield from _portal_address(case)
    yield from _portal_mail(case)


def _portal_mail(case: _Case) -> Iterator[Problem]:
    """What becomes of notices: whether their way back leads here, and whether receivers can tell who signed."""
    settings = case.settings
    if settings.local.domain is None:
        yield Problem(
            ("portal",),
            "local.domain is not set: a notice that comes back after it was accepted goes nowhere, and its message "
            "waits for a reader until it expires",
            note=True,
        )


def _portal_address(case: _Case) -> Iterator[Problem]:
    settings, listen = case.settings, case.settings.portal.listen
    if listen.port == 0:
        return
    if any(listener.endpoint == listen for listener in settings.listeners):
        yield Problem(("portal", "listen"), f"the address {listen} is that of a listener")
    elif settings.metrics.listen == listen:
        yield Problem(("portal", "listen"), f"the address {listen} is that of metrics.listen")


def _wrong_in_url(url: str) -> str:
    example = "such as https://secure.clinic.example"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"expected a URL {example}, found {url!r}"
    if parts.scheme not in {"https", "http"} or not host:
        return f"expected a URL {example}, found {url!r}"
    if parts.username is not None or parts.path not in {"", "/"} or parts.query or parts.fragment:
        return f"expected scheme and host alone, {example}"
    if parts.scheme == "http" and not _loopback(host):
        return "expected https: links to protected mail, and what is read there, would go in clear"
    return ""


# -- what others can reach ------------------------------------------------------------------------------------------


def _exposure(case: _Case) -> Iterator[Problem]:
    settings = case.settings
    if case.whole("metrics") and settings.metrics.listen is not None and not _loopback(settings.metrics.listen.host):
        message = f"metrics on {settings.metrics.listen} have no authentication: keep them behind a firewall"
        yield Problem(("metrics", "listen"), message, note=True)
    for index, listener in enumerate(settings.listeners):
        if listener.tls is ListenerTls.NONE and not _loopback(listener.host):
            message = f"the listener {listener.name} takes mail in clear text from the network"
            yield Problem(("listeners", index, "tls"), message, note=True)
    resolvers = settings.dns.resolvers
    if settings.dns.trust_ad is True and not all(_loopback(resolver.host) for resolver in resolvers):
        message = "DNSSEC answers are believed from a resolver beyond this machine: the way to it must be safe"
        yield Problem(("dns", "trust_ad"), message, note=True)


def _people(case: _Case) -> Iterator[Problem]:
    if case.whole("notify") and not case.settings.notify.alerts:
        message = "notify.alerts names nobody: alarms stand in the log and the metrics alone, and no mail tells of them"
        path: PathInFile = ("notify",) if "notify" in case.settings.model_fields_set else ()
        yield Problem(path, message, note=True)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
