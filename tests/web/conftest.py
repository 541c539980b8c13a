"""What the tests of the web room share."""

from __future__ import annotations

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs_as_they_come() -> None:
    """What a command line set up in this process, in a test before, filters nothing here."""
    structlog.reset_defaults()
