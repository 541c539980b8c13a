"""Bringing a store's tables to the version that this code expects (Alembic).

A new store is made at once. An older one is only changed when the operator says so (``gateway store migrate``), so
that there can be a backup first. A newer one is refused: this code does not know what is in it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from gateway.errors import StoreError
from gateway.store.postgres import alone

__all__ = ["current_version", "expected_version", "require_current", "require_known", "upgrade"]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def expected_version() -> str:
    """The revision that this code works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def current_version(engine: Engine) -> str | None:
    """The revision that the store is at; None for a store without tables."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: Engine, revision: str = "head") -> str:
    """Bring the store to a revision - the expected one - in one transaction; the revision it has then.

    Whatever ends it in the middle leaves the tables as they were. Raises :class:`StoreError` for a newer store.
    """
    require_known(current_version(engine))
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = _config()
    with engine.connect() as connection, connection.begin():
        alone(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return expected_version() if revision == "head" else revision


def require_current(engine: Engine) -> None:
    """Make a new store; raise :class:`StoreError` for one that needs the operator."""
    current, expected = current_version(engine), expected_version()
    if current is None:
        upgrade(engine)
    elif current != expected:
        require_known(current)
        raise StoreError(
            f"the store is at version {current}, this gateway needs {expected}: "
            "back it up (`gateway store backup DIR`), then run `gateway store migrate`"
        )


def require_known(version: str | None) -> None:
    """Raise :class:`StoreError` for the version of a newer gateway's store."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if version is not None and version not in known:
        raise StoreError(
            f"the store is at version {version}, which is newer than this gateway ({expected_version()}): "
            "install the version of the gateway that it was used with last, or restore a backup from before"
        )
