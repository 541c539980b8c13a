"""What was seen of a host is remembered for previews, and no delivery takes it for what is there now."""

from __future__ import annotations

from pathlib import Path

from gateway.mail.protection import Assurance
from gateway.testing import Behaviour, Tls, poll, self_signed
from tests.scenario.world import MX, Host, Scene, World

VERIFIED = {"methods": ["tls"], "tls": "verified"}


async def test_a_certificate_that_is_swapped_is_judged_anew_whatever_was_seen_before(tmp_path: Path) -> None:
    swapped = Host(behaviour=Behaviour(tls=Tls(swap_after=1, swap_to=self_signed(MX))))
    async with World(Scene(hosts={MX: swapped}, protection=VERIFIED), tmp_path) as w:
        prospects = w.gateway.prospects
        await w.delivered(await w.send())
        (seen,) = prospects.of(MX, w.delivery_port)
        assert seen.sighting.failure is None
        assert seen.sighting.evidence is not None
        assert seen.sighting.evidence.assurance is Assurance.VERIFIED
        await poll(lambda: not w.peers[MX].connections, what="the connection to end")
        await w.bounced(await w.send())
        (seen,) = prospects.of(MX, w.delivery_port)
        assert seen.sighting.failure is not None
        assert seen.sighting.failure.reason == "chain: self-signed certificate"
        assert len(w.peers[MX].messages) == 1
