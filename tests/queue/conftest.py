"""The fixture of this room: a world, on both kinds of database."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.both_databases import database_kind, pytest_generate_tests, tmp_path
from tests.queue.queue_world import World, world

__all__ = ["database_kind", "here", "pytest_generate_tests", "tmp_path"]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncGenerator[World, None]:
    """A fresh world that checks itself at its end."""
    async with world(tmp_path) as made:
        yield made
