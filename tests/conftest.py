"""What holds for the whole session: a run says at its end what it did not prove."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from gateway.testing import PostgresServer, postgres_programs
from tests.object_server import ObjectServer

NO_POSTGRES = "PostgreSQL is not installed (initdb, postgres): what is promised on it was not looked at"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole session; a test makes a database of its own on it."""
    if postgres_programs() is None:
        pytest.skip(NO_POSTGRES)
    with PostgresServer() as server:
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List why tests were skipped, a line each, so that a missing program is not taken for a pass."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in skipped
    )
    terminalreporter.section("not proven in this run", sep="-")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason}")


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """An S3-compatible server for the whole session; a test makes a bucket of its own on it."""
    with ObjectServer() as server:
        yield server
