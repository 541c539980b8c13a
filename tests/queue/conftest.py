"""The fixture of this room: a world."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.queue.queue_world import World, world


@pytest.fixture
async def here(tmp_path: Path) -> AsyncGenerator[World, None]:
    """A fresh world that checks itself at its end."""
    async with world(tmp_path) as made:
        yield made
