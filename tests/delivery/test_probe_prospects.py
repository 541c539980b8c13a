"""The cache that only plans: bounded, with ages, fed by real sessions, read by nothing that decides."""

from __future__ import annotations

import ast
from pathlib import Path

import gateway.delivery
from gateway.delivery.nexthop import Hop, NextHop
from gateway.delivery.prospects import Prospects
from gateway.delivery.sighting import Sighting
from gateway.delivery.sites import SiteLimits, Sites
from gateway.delivery.target import TlsPolicy
from gateway.directory.destinations import DestinationGuard
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.protection import Assurance
from gateway.testing import FakeClock
from tests.delivery.probe_world import MX, Mx, world

FAILURE = Failure(Stage.CONNECT, Verdict.TEMPORARY, "Connection refused")
#: Modules that plan and preview; what decides about mail imports none of them.
PLANNING = {
    "prospects",
    "probe",
    "probed",
    "outlook",
    "advice",
    "probe_report",
    "groups",
    "certificate_facts",
    "preview",
}


def seen(host: str, address: str = "192.0.2.1") -> Sighting:
    return Sighting(host, 25, address, None, FAILURE)


async def test_the_last_sighting_of_each_address_is_kept_with_its_age() -> None:
    clock = FakeClock()
    prospects = Prospects(clock)
    prospects.saw(seen(MX))
    await clock.advance(10)
    prospects.saw(seen(MX, "192.0.2.2"))
    await clock.advance(5)
    prospects.saw(Sighting(MX, 25, "192.0.2.2", None, None))
    await clock.advance(1)
    assert [(each.sighting.address, each.age, each.sighting.failure) for each in prospects.of(MX)] == [
        ("192.0.2.2", 1.0, None),
        ("192.0.2.1", 16.0, FAILURE),
    ]
    assert prospects.of(MX, 26) == []
    await clock.advance(8 * 86_400)
    assert prospects.of(MX) == []


def test_it_is_bounded() -> None:
    prospects = Prospects(FakeClock(), hosts=3)
    for number in range(10):
        for address in range(20):
            prospects.saw(seen(f"mx{number}.example", f"192.0.2.{address}"))
    assert len(prospects) == 3
    assert prospects.of("mx6.example") == []
    assert len(prospects.of("mx9.example")) == 6


async def test_real_sessions_feed_it_good_and_bad() -> None:
    async with world(Mx(certificate=None)) as w:
        prospects = Prospects(FakeClock())
        sites = Sites(w.resolver, lambda: w.environment, DestinationGuard, SiteLimits, on_seen=prospects.saw)
        hop = Hop(MX, w.settings.delivery.port, (MX,), address="127.0.2.1", exempt=True)
        session, _ = await sites._connect(NextHop((hop,), TlsPolicy(Assurance.NONE, starttls="try")))
        assert session is not None
        await session.quit()
        (first,) = prospects.of(MX, hop.port)
        assert first.sighting.failure is None
        session, _ = await sites._connect(NextHop((hop,), TlsPolicy(Assurance.ENCRYPTED)))
        assert session is None
        (second,) = prospects.of(MX, hop.port)
        assert second.sighting.failure is not None
        assert second.sighting.failure.reason == "STARTTLS is not offered"


def test_nothing_that_delivers_reads_what_only_plans() -> None:
    folder = Path(gateway.delivery.__file__).parent
    for path in folder.glob("*.py"):
        if path.stem in PLANNING:
            continue
        imported = {
            node.module
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module is not None
        }
        assert not {f"gateway.delivery.{name}" for name in PLANNING} & imported, path.name
