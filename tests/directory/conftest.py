"""A DNS server for a test, and a resolver on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.clock import Clock
from gateway.config.outbound import Dns
from gateway.directory import DnsResolver
from gateway.testing import DnsServer, FakeClock

MakeResolver = Callable[..., DnsResolver]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def resolver_on(clock: FakeClock) -> MakeResolver:
    def make(
        *servers: DnsServer | str, trust_ad: bool | str = "auto", timeout: float = 2.0, on: Clock = clock
    ) -> DnsResolver:
        names = [server if isinstance(server, str) else server.resolver for server in servers]
        settings = Dns.model_validate({"resolvers": names, "trust_ad": trust_ad, "timeout": timeout})
        return DnsResolver(settings, on)

    return make
