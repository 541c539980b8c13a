"""Worlds for scenarios, ended with the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.scenario.world import Scene, World

Build = Callable[..., Awaitable[World]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Scenarios run on the event loop that the daemon runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    """Start the world of ``Scene(**changes)``."""
    async with AsyncExitStack() as stack:
        number = 0

        async def start(**changes: Any) -> World:
            nonlocal number
            number += 1
            directory = tmp_path / f"world{number}"
            directory.mkdir()
            return await stack.enter_async_context(World(Scene(**changes), directory))

        yield start
