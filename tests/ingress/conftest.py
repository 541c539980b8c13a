"""Which event loop a test runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """Where a connection changes its protocol, both event loops: each has its own way of doing so."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_ingress_proxy.py":
        factories["uvloop"] = uvloop.new_event_loop
    return factories
