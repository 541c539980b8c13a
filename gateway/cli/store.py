"""``gateway store``: looking after the store."""

from __future__ import annotations

import click

from gateway.cli import CliContext, common_options

__all__ = ["store"]


@click.group(name="store", no_args_is_help=False)
def store() -> None:
    """Look after the store."""


@store.command()
@common_options
def migrate(context: CliContext) -> int:
    """Bring the store's tables to the version that this gateway needs. Back the store up first."""
    from gateway.store import bootstrap
    from gateway.store.database import open_engine
    from gateway.store.migrate import current_version, expected_version, upgrade

    settings = context.load().settings
    bootstrap.prepare_data_dir(settings.data_dir)
    with bootstrap.store_lock(settings.data_dir):
        engine = open_engine(settings.store.database, settings.data_dir, writes=True)
        before = current_version(engine)
        after = expected_version()
        if before != after:
            upgrade(engine)
        engine.dispose()
    if context.json:
        context.print_json({"before": before, "after": after})
    elif before == after:
        click.echo(f"The store is at version {after} already.")
    else:
        click.echo(f"The store went from version {before or 'none'} to {after}.")
    return 0
