"""Probing a domain: what a delivery would meet there, seen without sending anything.

1. where mail goes, for each method that a session carries: route, literal or MX (``nexthop``, as in a delivery)
2. the addresses of each host (``candidates``, as in a delivery)
3. one session to each: connect, EHLO, STARTTLS, judge, EHLO, QUIT (``Session``, as in a delivery) - never more
4. what that means for each demand (``outlook``); in words ``advice``, as JSON ``probe_report``

A probe plans and previews: certificates are swapped and STARTTLS is stripped between a probe and a delivery, so
nothing that is found here may decide one.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.clock import Clock
from gateway.config.model import Settings
from gateway.config.outbound import Timeouts
from gateway.delivery.candidates import certificate_unreadable, find_candidates
from gateway.delivery.certificate_facts import CertificateFacts, facts_of
from gateway.delivery.contexts import ClientCertificateError
from gateway.delivery.groups import GroupWatch
from gateway.delivery.nexthop import Hop, NextHop, Unreachable, find_next_hop, guard_of, route_for
from gateway.delivery.outlook import capabilities, obstacle
from gateway.delivery.peer import peer_chain
from gateway.delivery.probed import AddressProbe, DomainProbe, HostProbe, ProbeStatus, Shown, Timing
from gateway.delivery.session import Session, SessionFailed
from gateway.delivery.target import Environment, Target, TlsPolicy
from gateway.delivery.trust import Trust
from gateway.delivery.wire import Extensions, RawReply
from gateway.delivery.witness import Witness
from gateway.directory.addresses import Family, ipv6_usable
from gateway.directory.mx import MxSet, find_mx
from gateway.directory.resolver import DnsError, DnsResolver, Resolver
from gateway.mail.address import Address
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.protection import Assurance, Method
from gateway.mail.reply import clean_text

__all__ = ["ProbeLimits", "Prober", "capabilities", "obstacle"]

#: The longest that a peer may take for each phase; deliveries are more patient. Hosts that let strangers wait for
#: their greeting do it for less than half a minute.
_PATIENCE = Timeouts(connect=15, greeting=40, ehlo=20, starttls=20)


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """Connections at a time, over all hosts (one at a time to each address); seconds for everything together."""

    connections: int = 8
    seconds: float = 60.0


class Prober:
    """Probes domains. ``trust_ad``: whether any resolver is believed that an answer is authenticated."""

    def __init__(
        self,
        settings: Settings,
        resolver: Resolver,
        environment: Environment,
        *,
        families: Sequence[Family] = ("ipv4",),
        limits: ProbeLimits | None = None,
        trust_ad: bool = True,
    ) -> None:
        self.settings = settings
        self.resolver = resolver
        self.environment = environment
        self.families = families
        self.limits = limits or ProbeLimits()
        self.trust_ad = trust_ad
        self.groups = GroupWatch()

    @classmethod
    def over(
        cls, settings: Settings, resolver: DnsResolver, clock: Clock, trust: Trust, limits: ProbeLimits | None = None
    ) -> Prober:
        """A prober that goes the ways of a delivery by these settings, with less patience."""
        given, most = settings.delivery.timeouts, _PATIENCE
        timeouts = given.model_copy(
            update={
                "connect": min(given.connect, most.connect),
                "greeting": min(given.greeting, most.greeting),
                "ehlo": min(given.ehlo, most.ehlo),
                "starttls": min(given.starttls, most.starttls),
            }
        )
        # TLS contexts of its own: they are watched, those of deliveries are not.
        environment = Environment(settings.hostname, clock, trust, timeouts=timeouts)
        families: tuple[Family, ...] = ("ipv6", "ipv4") if ipv6_usable() else ("ipv4",)
        trust_ad = any(server.trusted for server in resolver.servers)
        return cls(settings, resolver, environment, families=families, limits=limits, trust_ad=trust_ad)

    async def probe(self, destinations: Iterable[Address]) -> list[DomainProbe]:
        """What mail to each of these addresses would meet, as of now; in their order. Only their domains matter.

        Hosts that several domains share are asked once. Ends within ``limits.seconds``: what was not seen by then
        is said to be so. Raises nothing for what a peer or DNS does.
        """
        async with asyncio.TaskGroup() as group:
            run = _Run(self, group, asyncio.get_running_loop().time() + self.limits.seconds)
            tasks = [group.create_task(run.domain(destination)) for destination in destinations]
        return [task.result() for task in tasks]


@dataclass(slots=True)
class _Found:
    """Where mail of a domain goes, before any host was looked at."""

    status: ProbeStatus
    ways: dict[Method, NextHop | Unreachable]
    mx: MxSet | None = None
    alias: str = ""


_SessionKey = tuple[Hop, str, str | None, tuple[str, str] | None, bool]


class _Run:
    """One call of :meth:`Prober.probe`: what its domains share."""

    def __init__(self, prober: Prober, group: asyncio.TaskGroup, deadline: float) -> None:
        self._prober = prober
        self._group = group
        self._deadline = deadline
        self._slots = asyncio.Semaphore(prober.limits.connections)
        self._turns: dict[tuple[str, int], asyncio.Lock] = {}
        self._sessions: dict[_SessionKey, asyncio.Task[AddressProbe]] = {}

    async def domain(self, destination: Address) -> DomainProbe:
        """Steps 1 to 3 for one domain."""
        prober = self._prober
        found = await self._find(destination)
        hops: dict[Hop, NextHop] = {}
        for way in found.ways.values():
            if isinstance(way, NextHop):
                for hop in way.hops:
                    hops.setdefault(hop, way)
        preferences = {} if found.mx is None else {host.name: host.preference for host in found.mx.hosts}
        hosts = await asyncio.gather(*(self._host(hop, way, preferences.get(hop.host)) for hop, way in hops.items()))
        known = found.mx is not None and prober.trust_ad
        return DomainProbe(
            domain=destination.domain,
            time=prober.environment.clock.time(),
            status=found.status,
            ways=found.ways,
            hosts=tuple(sorted(hosts, key=lambda host: (host.preference or 0, host.hop.host))),
            dnssec=found.mx.secure if known and found.mx is not None else None,
            alias=found.alias,
            skipped=() if found.mx is None else found.mx.skipped,
            notes=tuple(self._notes(found)),
            ciphers=prober.environment.contexts.profile.ciphers,
        )

    def _notes(self, found: _Found) -> Iterable[str]:
        if found.mx is not None and not self._prober.trust_ad:
            yield "no resolver is trusted to say what DNSSEC authenticates: dns.resolvers, dns.trust_ad"
        if "ipv6" not in self._prober.families and any(isinstance(way, NextHop) for way in found.ways.values()):
            yield "this machine has no way out by IPv6: IPv6 addresses are not used"

    # -- 1: where mail goes -------------------------------------------------------------------------------------------

    async def _find(self, destination: Address) -> _Found:
        settings, resolver = self._prober.settings, self._prober.resolver
        ways: dict[Method, NextHop | Unreachable] = {}
        try:
            async with asyncio.timeout_at(self._deadline):
                for method, required in ((Method.TLS, Assurance.ENCRYPTED), (Method.PLAIN, Assurance.NONE)):
                    # The same chance for both: hosts of equal preference in one order.
                    ways[method] = await find_next_hop(
                        resolver,
                        settings,
                        destination,
                        method,
                        required,
                        chance=random.Random(0),  # noqa: S311
                    )
                if destination.is_literal:
                    return _Found("literal", ways)
                if route_for(settings.delivery.routes, destination.domain) is not None:
                    return _Found("route", ways)
                own = frozenset({settings.hostname})
                mx = await find_mx(resolver, destination.domain, own, rng=random.Random(0))  # noqa: S311
                return _Found(mx.status, ways, mx, await self._alias(destination.domain, "MX"))
        except (TimeoutError, DnsError) as error:
            reason = str(error) if isinstance(error, DnsError) else "DNS: no answer in the time that the probe has"
            lost = Unreachable(Failure(Stage.DNS, Verdict.TEMPORARY, reason), "4.4.3")
            return _Found("error", {Method.TLS: ways.get(Method.TLS, lost), Method.PLAIN: ways.get(Method.PLAIN, lost)})

    async def _alias(self, name: str, rdtype: str) -> str:
        """Where the name leads to as a CNAME; from the answer that was just given."""
        try:
            canonical = (await self._prober.resolver.query(name, rdtype)).canonical
        except DnsError:
            return ""
        return canonical if canonical not in ("", name) else ""

    # -- 2: addresses -------------------------------------------------------------------------------------------------

    async def _host(self, hop: Hop, way: NextHop, preference: int | None) -> HostProbe:
        prober = self._prober
        alias = ""
        try:
            async with asyncio.timeout_at(self._deadline):
                found = await find_candidates(hop, prober.resolver, guard_of(prober.settings), prober.families)
                if hop.address is None and found.addresses:
                    alias = await self._alias(hop.host, "A")
        except TimeoutError:
            failure = Failure(Stage.DNS, Verdict.TEMPORARY, "DNS: no answer in the time that the probe has")
            return HostProbe(hop, preference, failure=failure)
        nowhere = next((failed.failure for failed in found.failures if not failed.address), None)
        # What is refused comes with its reason in brackets: "10.0.0.1 (private)".
        refused = [
            AddressProbe(failed.address.partition(" ")[0], Shown(failed.failure), dialled=False)
            for failed in found.failures
            if failed.address
        ]
        dialled = await asyncio.gather(*(self._address(hop, address, way) for address in found.addresses))
        secure = found.secure if prober.trust_ad else None
        return HostProbe(hop, preference, (*refused, *dialled), nowhere, secure, alias)

    async def _address(self, hop: Hop, address: str, way: NextHop) -> AddressProbe:
        """The session of this address, which another domain may have asked for already."""
        key = (hop, address, way.source, way.policy.client_certificate, way.policy.implicit)
        task = self._sessions.get(key)
        if task is None:
            task = self._group.create_task(self._dial(hop, address, way))
            self._sessions[key] = task
        return await task

    # -- 3: the session -----------------------------------------------------------------------------------------------

    async def _dial(self, hop: Hop, address: str, way: NextHop) -> AddressProbe:
        turn = self._turns.setdefault((address, hop.port), asyncio.Lock())
        listener = _Listener(self._prober.groups)
        try:
            async with asyncio.timeout_at(self._deadline) as limit, turn, self._slots:
                session, shown = await self._session(hop, address, way, listener)
                limit.reschedule(None)  # all is seen; QUIT has a limit of its own
                if session is not None:
                    await session.quit()
                return AddressProbe(address, shown)
        except TimeoutError:
            # Cut short by us: what broke off after STARTTLS may be TLS that does not work, the rest may be anything.
            verdict = Verdict.ASSURANCE if listener.stage is Stage.HANDSHAKE else Verdict.TEMPORARY
            words = (
                "no end in the time that the probe has" if listener.began else "not dialled in the time of the probe"
            )
            return AddressProbe(address, listener.shown(Failure(listener.stage, verdict, words)), listener.began)

    async def _session(self, hop: Hop, address: str, way: NextHop, listener: _Listener) -> tuple[Session | None, Shown]:
        """What the session shows to one that asks for encryption and no more; other demands are judged afterwards."""
        environment = self._prober.environment
        policy = TlsPolicy(
            Assurance.ENCRYPTED, client_certificate=way.policy.client_certificate, implicit=way.policy.implicit
        )
        target = Target(hop.host, address, hop.port, hop.names, way.source)
        listener.begin(implicit=policy.implicit)
        try:
            self._prober.groups.watch(environment.contexts.get(policy.require, policy.client_certificate))
            session = await Session.open(target, policy, environment, witness=listener)
        except SessionFailed as error:
            return None, listener.shown(error.failure, error)
        except ClientCertificateError:
            return None, listener.shown(certificate_unreadable(hop.host, address).failure)
        return session, listener.shown(None, session)


@dataclass(slots=True)
class _Listener(Witness):
    """Collects what a session shows, and when."""

    groups: GroupWatch
    began: bool = False
    stage: Stage = Stage.CONNECT
    starttls: bool | None = None
    greeting: str = ""
    extensions: tuple[str, ...] = ()
    group: str = ""
    chain: tuple[CertificateFacts, ...] = ()
    marks: dict[str, float] = field(default_factory=dict)
    implicit: bool = False

    def begin(self, *, implicit: bool) -> None:
        """We dial."""
        self.began, self.implicit = True, implicit
        self._mark("begin")

    def connected(self) -> None:
        """The greeting is next, or the handshake."""
        self.stage = Stage.HANDSHAKE if self.implicit else Stage.GREETING
        self._mark("connected")

    def replied(self, stage: Stage, reply: RawReply) -> None:
        """Note what was said, and what comes next."""
        if stage is Stage.GREETING:
            self.greeting = reply.reply.text
            self.stage = Stage.EHLO
            self._mark("greeted")
        elif stage is Stage.EHLO and reply.code == 250:
            offered = Extensions.parse(reply)
            self.extensions = tuple(clean_text(f"{name} {parameters}", 200) for name, parameters in offered.offered)
            if not (self.implicit or "secured" in self.marks):
                self.starttls = "STARTTLS" in offered
                self.stage = Stage.STARTTLS
                self._mark("offered")
        elif stage is Stage.STARTTLS:
            self.stage = Stage.HANDSHAKE

    def secured(self, ssl_object: ssl.SSLObject) -> None:
        """Take the chain and the group down."""
        self.stage = Stage.EHLO
        self._mark("secured")
        self.group = self.groups.group(ssl_object)
        self.chain = facts_of(peer_chain(ssl_object))

    def shown(self, failure: Failure | None, of: Session | SessionFailed | None = None) -> Shown:
        """All of it."""
        self._mark("end")
        return Shown(
            failure=failure,
            evidence=None if of is None else of.evidence,
            starttls=self.starttls,
            greeting=self.greeting,
            extensions=self.extensions,
            group=self.group,
            chain=self.chain,
            timing=Timing(
                connect=self._between("begin", "connected"),
                greeting=self._between("connected", "greeted"),
                tls=self._between("connected" if self.implicit else "offered", "secured"),
                total=self._between("begin", "end"),
            ),
        )

    def _mark(self, name: str) -> None:
        self.marks[name] = asyncio.get_running_loop().time()

    def _between(self, start: str, end: str) -> float | None:
        if start not in self.marks or end not in self.marks:
            return None
        return round((self.marks[end] - self.marks[start]) * 1000, 1)
