"""What a probe means: for each method and level, and for the choice that a delivery would come to."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.judge import APPROVED_CIPHERS
from gateway.delivery.nexthop import Hop, NextHop, Unreachable, find_next_hop
from gateway.delivery.outlook import capabilities, demands, judged, obstacle, outlook, worst_assurance
from gateway.delivery.probe_report import as_json
from gateway.delivery.probed import AddressProbe, DomainProbe, HostProbe, Shown
from gateway.delivery.target import TlsPolicy
from gateway.jsontext import to_json
from gateway.mail.address import Address
from gateway.mail.attempt import Failure, Stage, TlsEvidence, Verdict
from gateway.mail.protection import Assurance, Method, Requirement
from gateway.mail.reply import Reply
from gateway.protect.choose import choose
from tests.delivery.probe_world import DOMAIN, MX, world

NONE, ENCRYPTED, VERIFIED, AUTHENTICATED = Assurance
TLS, PLAIN, PORTAL = Method.TLS, Method.PLAIN, Method.PORTAL
EVIDENCE = TlsEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", VERIFIED, "ok", "ok", "ab" * 32)
SELF_SIGNED = replace(EVIDENCE, chain="self-signed certificate", assurance=ENCRYPTED)
VERIFIES = Shown(None, EVIDENCE, starttls=True)
ENCRYPTS = Shown(None, SELF_SIGNED, starttls=True)
BARE = Shown(Failure(Stage.STARTTLS, Verdict.DEFINITE, "STARTTLS is not offered"), starttls=False)
REFUSING = Shown(Failure(Stage.STARTTLS, Verdict.ASSURANCE, "STARTTLS was refused", Reply(454, "4.7.0", "no")))
DOWN = Shown(Failure(Stage.CONNECT, Verdict.TEMPORARY, "Connection refused"))
ALL = (VERIFIES, ENCRYPTS, BARE, REFUSING, DOWN)


def probed(*hosts: Shown, mx_is_signed: bool = False) -> DomainProbe:
    """A domain with one host for each of these sessions."""
    hops = tuple(Hop(f"mx{number}.good.example", 25, (f"mx{number}.good.example",)) for number in range(len(hosts)))
    return DomainProbe(
        domain=DOMAIN,
        time=0.0,
        status="mx",
        ways={
            TLS: NextHop(hops, TlsPolicy(ENCRYPTED, host_authenticated=mx_is_signed)),
            PLAIN: NextHop(hops, TlsPolicy(NONE, starttls="try")),
        },
        hosts=tuple(
            HostProbe(hop, 10, (AddressProbe("192.0.2.1", shown),)) for hop, shown in zip(hops, hosts, strict=True)
        ),
        dnssec=mx_is_signed,
    )


def unreachable(verdict: Verdict) -> DomainProbe:
    way = Unreachable(Failure(Stage.DNS, verdict, "nowhere to go"))
    return DomainProbe(domain=DOMAIN, time=0.0, status="null", ways={TLS: way, PLAIN: way})


def require(tls: Assurance = ENCRYPTED, *methods: Method) -> Requirement:
    return Requirement(frozenset(methods or (TLS, PORTAL)), tls)


@pytest.mark.parametrize("pin", [{}, {"hosts": [MX]}, {"spki": ["0" * 64]}])
@pytest.mark.parametrize("final", [True, False])
async def test_demands_are_those_that_a_delivery_would_make(pin: dict[str, object], final: bool) -> None:  # noqa: FBT001
    routes = {"far.example": {"host": "127.0.0.9", "tls": "verified", "final": final}}
    async with world(delivery={"pins": {DOMAIN: pin} if pin else {}, "routes": routes}) as w:
        for domain in (DOMAIN, "far.example"):
            probe = await w.probe(domain)
            for method, required in [(PLAIN, NONE), *((TLS, level) for level in Assurance)]:
                hop = await find_next_hop(
                    w.resolver, w.settings, probe_address(domain), method, required, chance=random.Random(0)
                )
                found = demands(probe, method, required)
                assert found == (None if isinstance(hop, Unreachable) else hop.policy)


def probe_address(domain: str) -> Address:
    return Address.parse(f"pat@{domain}")


@pytest.mark.parametrize(
    ("hosts", "tls", "method", "passed_over"),
    [
        ((VERIFIES,), VERIFIED, TLS, {}),
        ((ENCRYPTS, VERIFIES), VERIFIED, TLS, {}),
        ((DOWN, VERIFIES), VERIFIED, TLS, {}),
        ((ENCRYPTS,), ENCRYPTED, TLS, {}),
        ((ENCRYPTS,), VERIFIED, None, {TLS: ("chain: self-signed certificate", True)}),
        ((BARE,), ENCRYPTED, None, {TLS: ("STARTTLS is not offered", True)}),
        (
            (REFUSING,),
            ENCRYPTED,
            None,
            {TLS: ("STARTTLS was refused: 454 4.7.0 no (if it lasts for fallback_after)", False)},
        ),
        ((BARE, DOWN), ENCRYPTED, None, {TLS: ("STARTTLS is not offered; Connection refused (if it lasts", False)}),
        ((DOWN,), ENCRYPTED, TLS, {}),  # a delivery waits for it, and takes no other method
    ],
)
def test_the_choice_that_a_delivery_would_come_to(
    hosts: tuple[Shown, ...], tls: Assurance, method: Method | None, passed_over: dict[Method, tuple[str, bool]]
) -> None:
    requirement = require(tls)
    decision = choose(requirement, capabilities(requirement, probed(*hosts)))
    assert decision.method is method
    told = {passed.method: passed for passed in decision.passed_over}
    for each, (reason, definite) in passed_over.items():
        assert told[each].reason.startswith(reason)
        assert told[each].definite is definite


def test_clear_text_is_possible_only_where_policy_allows_it() -> None:
    probe = probed(BARE)
    allowed = require(ENCRYPTED, TLS, PLAIN)
    assert choose(allowed, capabilities(allowed, probe)).method is PLAIN
    assert PLAIN not in capabilities(require(), probe) or not capabilities(require(), probe)[PLAIN].possible


@pytest.mark.parametrize("verdict", [Verdict.FINAL, Verdict.TEMPORARY])
def test_where_mail_bounces_or_waits_no_method_is_passed_over(verdict: Verdict) -> None:
    probe, requirement = unreachable(verdict), require()
    assert TLS not in capabilities(requirement, probe)
    failed = obstacle(probe, TLS, ENCRYPTED)
    assert failed is not None
    assert failed.failure.verdict is verdict
    assert worst_assurance(probe) is None


@given(st.lists(st.sampled_from(ALL), min_size=1, max_size=8), st.booleans())
def test_what_passes_a_higher_demand_passes_every_lower_one(hosts: list[Shown], signed: bool) -> None:  # noqa: FBT001
    probe = probed(*hosts, mx_is_signed=signed)
    passes = [obstacle(probe, TLS, level) is None for level in (ENCRYPTED, VERIFIED, AUTHENTICATED)]
    assert passes == sorted(passes, reverse=True)
    if passes[0]:
        assert obstacle(probe, PLAIN, NONE) is None
    worst = worst_assurance(probe)
    if worst is not None and len(hosts) <= 6:
        # The host that is reached may be any: by all of them the worst level is had.
        assert worst is NONE or obstacle(probe, TLS, worst) is None
        assert not outlook(probe, TLS, worst).lacking or worst is NONE
    assert (worst is None) is all(shown is DOWN for shown in hosts)
    to_json(as_json(probe))


@given(
    st.sampled_from(ALL),
    st.sampled_from([ENCRYPTED, VERIFIED, AUTHENTICATED]),
    st.booleans(),
    st.frozensets(st.sampled_from(["ab" * 32, "cd" * 32])),
)
def test_a_wrong_key_or_a_failed_session_never_meets_a_demand(
    shown: Shown,
    level: Assurance,
    authenticated: bool,  # noqa: FBT001
    pins: frozenset[str],
) -> None:
    failure = judged(shown, TlsPolicy(level, host_authenticated=authenticated, spki=pins), APPROVED_CIPHERS)
    if shown.evidence is None or (pins and shown.evidence.spki_sha256 not in pins):
        assert failure is not None
    if failure is None and level is AUTHENTICATED:
        assert authenticated or pins
