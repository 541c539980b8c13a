"""Where mail for a domain goes, and what a session there must show - before anything is dialled.

In order: the connector's return route for mail of our own; a route of the administrator's; an address literal; the
MX hosts. TLS policy belongs to the recipient's domain and is fixed here, so that a broken policy of one domain never
touches another one that shares the same hosts.

MTA-STS and DANE join here: they will make hosts ``host_authenticated`` or add key pins (see :class:`NextHop`).
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.config.model import Settings
from gateway.config.outbound import Credentials, Pin, Route
from gateway.delivery.target import TlsPolicy
from gateway.directory.destinations import DestinationGuard
from gateway.directory.mx import MxSet, find_mx
from gateway.directory.resolver import DnsError, Resolver
from gateway.mail.address import Address
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.protection import Assurance, Method

__all__ = ["Hop", "NextHop", "SiteKey", "Unreachable", "find_next_hop", "guard_of", "route_for"]


@dataclass(frozen=True, slots=True)
class Hop:
    """One host. ``address`` is set where the administrator or the sender named an IP address.

    ``exempt``: the destination guard does not apply, because the administrator named it.
    """

    host: str
    port: int
    names: tuple[str, ...]
    address: str | None = None
    exempt: bool = False


class SiteKey:
    """Values that are compared as a whole; their hash is taken once."""

    __slots__ = ("_hash", "_values")

    def __init__(self, values: tuple[object, ...]) -> None:
        self._values = values
        self._hash = hash(values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, SiteKey) and self._values == other._values)


@dataclass(frozen=True, slots=True)
class NextHop:
    """The hosts to try in order, and the policy for the session; hashable: the key of connection reuse.

    ``excluded`` are hosts that may not be used, with their reason; they count when all others fail.
    """

    hops: tuple[Hop, ...]
    policy: TlsPolicy
    source: str | None = None
    credentials: Credentials | None = None
    excluded: tuple[tuple[str, Failure], ...] = ()
    _key: SiteKey | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def key(self) -> SiteKey:
        """What two messages must share to share a connection, or a failure: site, TLS policy, source.

        Hosts count with the names that their certificate may carry and with their exemption: a route's own words
        about a host must never be believed for mail that found the same host by MX.
        """
        key = self._key
        if key is None:
            key = SiteKey((frozenset(self.hops), self.policy, self.source, self.credentials, self.excluded))
            object.__setattr__(self, "_key", key)
        return key


@dataclass(frozen=True, slots=True)
class Unreachable:
    """There is nowhere to go with this method; ``status`` is an enhanced code for the sender."""

    failure: Failure
    status: str = ""
    host: str = ""


def route_for(routes: Mapping[str, Route], domain: str) -> tuple[Route, bool] | None:
    """The route of a domain: its own, else that of ``*.parent``, else ``*``; and whether it names just this domain."""
    if domain in routes:
        return routes[domain], True
    parent = domain
    while "." in parent:
        parent = parent.split(".", 1)[1]
        if f"*.{parent}" in routes:
            return routes[f"*.{parent}"], False
    return (routes["*"], False) if "*" in routes else None


async def find_next_hop(
    resolver: Resolver,
    settings: Settings,
    recipient: Address,
    method: Method,
    required: Assurance,
    *,
    return_route: Route | None = None,
    system: bool = False,
    chance: random.Random,
) -> NextHop | Unreachable:
    """The next hop for recipients at this one's domain, with ``plain`` or ``tls``.

    ``system``: mail of our own. Without a return route it goes by MX and not to a smart host for other people's mail,
    where ``tls`` - all that it may use - would say nothing.
    """
    domain = recipient.domain
    if return_route is not None:
        return _by_route(return_route, method, required, own=True)
    found = None if recipient.is_literal else route_for(settings.delivery.routes, domain)
    if found is not None and not (system and not found[0].final):
        route, names_one_domain = found
        if method is Method.TLS and not route.final:
            reason = "next hop is not the recipient's: the route is not marked `final`"
            return Unreachable(Failure(Stage.CONNECT, Verdict.DEFINITE, reason), host=route.host)
        return _by_route(route, method, required, own=route.final and names_one_domain)
    policy = _policy(method, required)
    if recipient.is_literal:
        address = str(recipient.literal)
        return NextHop((Hop(address, settings.delivery.port, (address,), address=address),), policy)
    try:
        mx = await find_mx(resolver, domain, frozenset({settings.hostname}), rng=chance)
    except DnsError as error:
        return Unreachable(Failure(Stage.DNS, Verdict.TEMPORARY, str(error)), "4.4.3")
    unreachable = _unreachable(mx)
    if unreachable is not None:
        return unreachable
    return _by_mx(mx, settings.delivery.pins.get(domain), settings.delivery.port, method, required)


def _policy(
    method: Method,
    required: Assurance,
    *,
    host_authenticated: bool = False,
    spki: frozenset[str] = frozenset(),
    client_certificate: tuple[str, str] | None = None,
) -> TlsPolicy:
    if method is Method.PLAIN:
        return TlsPolicy(
            require=required,
            starttls="try" if required is Assurance.NONE else "must",
            client_certificate=client_certificate,
        )
    return TlsPolicy(
        require=max(required, Assurance.ENCRYPTED),
        starttls="must",
        host_authenticated=host_authenticated,
        spki=spki,
        client_certificate=client_certificate,
    )


@lru_cache(maxsize=1024)
def _by_route(route: Route, method: Method, required: Assurance, *, own: bool) -> NextHop:
    """A route's own ``tls`` is a floor in both methods: what the administrator asked of this hop."""
    certificate = None
    if route.client_certificate is not None:
        certificate = (str(route.client_certificate.certificate), str(route.client_certificate.key))
    floor = route.tls if method is Method.PLAIN else max(required, route.tls)
    policy = _policy(method, floor, host_authenticated=own, client_certificate=certificate)
    hop = Hop(route.host, route.port, (route.name or route.host,), address=_literal(route.host), exempt=True)
    return NextHop((hop,), policy, credentials=route.auth)


def _literal(host: str) -> str | None:
    """The address, where the host of a route is one and not a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _unreachable(mx: MxSet) -> Unreachable | None:
    reasons = {
        "null": ("5.1.10", "the domain takes no mail (null MX)"),
        "nxdomain": ("5.1.2", "the domain does not exist"),
        "loop": ("5.4.6", "the domain's mail is directed to this gateway itself"),
    }
    if mx.status in reasons:
        status, reason = reasons[mx.status]
        return Unreachable(Failure(Stage.DNS, Verdict.FINAL, reason), status)
    if not mx.hosts:
        return Unreachable(Failure(Stage.DNS, Verdict.FINAL, "the domain has no usable mail host"), "5.4.4")
    return None


def _by_mx(mx: MxSet, pin: Pin | None, port: int, method: Method, required: Assurance) -> NextHop:
    pinned = pin is not None and method is Method.TLS
    usable, excluded = [], []
    for host in mx.hosts:
        if pinned and pin is not None and pin.hosts and host.name not in pin.hosts:
            reason = f"pin mismatch: {host.name} is not one of the hosts pinned for {mx.domain}"
            excluded.append((host.name, Failure(Stage.CONNECT, Verdict.DEFINITE, reason)))
        else:
            usable.append(Hop(host.name, port, (host.name,)))
    host_authenticated = mx.secure
    spki: frozenset[str] = frozenset()
    if pinned and pin is not None:
        host_authenticated = True
        spki = frozenset(pin.spki)
        required = max(required, Assurance.AUTHENTICATED)
    policy = _policy(method, required, host_authenticated=host_authenticated, spki=spki)
    return NextHop(tuple(usable), policy, excluded=tuple(excluded))


def guard_of(settings: Settings) -> DestinationGuard:
    """The destinations that DNS may not send us to, by these settings."""
    return DestinationGuard(settings.delivery.allow_networks)
