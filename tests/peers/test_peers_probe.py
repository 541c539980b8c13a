"""Probing a server that we did not write: Postfix, with and without TLS."""

from __future__ import annotations

from functools import partial

import pytest

from gateway.clock import SystemClock
from gateway.config.model import Settings
from gateway.delivery.outlook import obstacle, worst_assurance
from gateway.delivery.probe import Prober
from gateway.delivery.trust import Trust
from gateway.directory import DnsResolver
from gateway.mail.address import Address
from gateway.mail.protection import Assurance, Method
from gateway.testing import CA, DnsServer, free_port, poll
from tests.peers.postfix import Listener, Postfix, missing, mx

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

ZONE = """
good.example. MX 10 mx1.good.example.
good.example. MX 20 mx2.good.example.
mx1.good.example. A 127.0.4.1
mx2.good.example. A 127.0.4.2
"""


async def test_postfix_is_seen_as_it_is_and_notices_nothing_odd() -> None:
    ca, port = CA(), free_port("127.0.4.1", "127.0.4.2")
    listeners = [
        Listener("127.0.4.1", port, ca.issue("mx1.good.example", intermediate=True)),
        Listener("127.0.4.2", port),
    ]
    with mx(listeners, ["good.example"]) as postfix:
        async with DnsServer(ZONE) as dns:
            settings = Settings.model_validate(
                {
                    "hostname": "gw.clinic.example",
                    "postmaster": "p@clinic.example",
                    "dns": {"resolvers": [dns.resolver]},
                    "delivery": {"port": port, "allow_networks": ["127.0.0.0/8"]},
                }
            )
            clock = SystemClock()
            resolver = DnsResolver(settings.dns, clock)
            prober = Prober.over(settings, resolver, clock, Trust.from_pem(ca.root_pem))
            (found,) = await prober.probe([Address.parse("postmaster@good.example")])
            await resolver.close()
        secured, bare = (host.addresses[0].shown for host in found.hosts)
        assert secured.failure is None
        assert secured.evidence is not None
        assert (secured.evidence.version, secured.evidence.assurance) == ("TLSv1.3", Assurance.VERIFIED)
        assert secured.group
        assert len(secured.chain) == 2
        assert "Postfix" in secured.greeting
        assert bare.failure is not None
        assert bare.failure.reason == "STARTTLS is not offered"
        assert worst_assurance(found) is Assurance.NONE
        assert obstacle(found, Method.TLS, Assurance.VERIFIED) is None
        for words in ("ehlo=2 starttls=1 quit=1 commands=4", "ehlo=1 quit=1 commands=2"):
            await poll(partial(_logged, postfix, words), what=words)


def _logged(postfix: Postfix, words: str) -> bool:
    return words in postfix.log
